//! Where the log lies: a folder of files that are named after their first record.

use std::io;
use std::path::{Path, PathBuf};

/// Digits of a file's name, so that names sort as numbers do.
const DIGITS: usize = 20;
const SUFFIX: &str = ".jsonl";

/// One file of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The number of its first record.
    pub first: u64,
    /// Where it is.
    pub path: PathBuf,
}

/// The folder cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the audit log in `{}`: {cause}", folder.display())]
pub struct FolderError {
    /// The folder.
    pub folder: PathBuf,
    /// Why.
    pub cause: io::Error,
}

impl Segment {
    pub(super) fn named(folder: &Path, first: u64) -> Self {
        Self { first, path: folder.join(format!("{first:0DIGITS$}{SUFFIX}")) }
    }
}

/// The files of the log in `folder`, the oldest first. Other files there are not looked at.
///
/// # Errors
/// When the folder cannot be read.
pub fn segments(folder: &Path) -> Result<Vec<Segment>, FolderError> {
    let failed = |cause| FolderError { folder: folder.to_owned(), cause };
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)).filter(|digits| digits.len() == DIGITS);
        if let Some(first) = digits.and_then(|digits| digits.parse().ok()) {
            segments.push(Segment::named(folder, first));
        }
    }
    segments.sort_by_key(|segment| segment.first);
    Ok(segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_in_the_order_of_their_records() {
        let folder = tempfile::tempdir().unwrap();
        for first in [1_000, 1, 99] {
            std::fs::write(Segment::named(folder.path(), first).path, "").unwrap();
        }
        std::fs::write(folder.path().join("notes.txt"), "").unwrap();
        std::fs::write(folder.path().join("1.jsonl"), "").unwrap();
        let firsts: Vec<_> = segments(folder.path()).unwrap().into_iter().map(|segment| segment.first).collect();
        assert_eq!(firsts, [1, 99, 1_000]);
    }
}
