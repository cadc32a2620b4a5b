use std::path::Path;

use serde_json::Value;

/// Every event of the audit log in a broker's data folder.
pub fn audit_events(data: &Path) -> Vec<Value> {
    let mut files: Vec<_> = std::fs::read_dir(data.join("audit"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    files.sort();
    let texts: String = files.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    texts.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["event"].clone()).collect()
}
