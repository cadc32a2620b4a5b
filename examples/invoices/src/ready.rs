//! The ready file: how whoever started the service learns its address.

use std::{fs, io, net::SocketAddr, path::Path};

/// Writes `{"address":..,"pid":..}` to `path` in one step: a reader sees no file or the whole of it.
///
/// # Errors
/// What the file system says.
pub fn write(path: &Path, address: SocketAddr, pid: u32) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut unfinished = name.to_owned();
    unfinished.push(format!(".{pid}"));
    let unfinished = path.with_file_name(unfinished);
    let text = serde_json::json!({ "address": address.to_string(), "pid": pid }).to_string();
    fs::write(&unfinished, text + "\n")?;
    fs::rename(&unfinished, path)
}

#[cfg(test)]
mod tests {
    use super::write;

    #[test]
    fn the_file_says_address_and_pid_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ready.json");
        write(&path, "127.0.0.1:8080".parse().unwrap(), 7).unwrap();
        let written: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(written, serde_json::json!({ "address": "127.0.0.1:8080", "pid": 7 }));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
