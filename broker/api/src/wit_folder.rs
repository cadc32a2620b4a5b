//! A WIT folder on disk: `*.wit` in it, `deps/NAME.wit` and `deps/NAME/*.wit` below it, and nothing else.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::v1::WitFile;

/// Bytes of one file; the broker's limit for the folder is 2 MiB.
const MAX_FILE: u64 = 1 << 20;
/// Files; the broker has the same limit.
const MAX_FILES: usize = 256;

/// Why a folder cannot be registered.
#[derive(Debug, thiserror::Error)]
pub enum WitFolderError {
    /// A file or folder cannot be read.
    #[error("cannot read `{}`: {cause}", .path.display())]
    Unreadable {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// There is no WIT in it.
    #[error("`{}` holds no *.wit file", .0.display())]
    Empty(PathBuf),
    /// There is too much to be WIT.
    #[error("`{}` holds more than {MAX_FILES} WIT files", .0.display())]
    TooMany(PathBuf),
    /// A file is too large to be WIT.
    #[error("`{}` of {size} bytes is larger than {MAX_FILE}", .path.display())]
    TooLarge {
        /// Which one.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
}

/// Reads every WIT file of a folder, in the order of their paths, which are relative to the folder.
///
/// # Errors
/// When something cannot be read, or when the broker would not take it.
pub fn read_wit_folder(folder: &Path) -> Result<Vec<WitFile>, WitFolderError> {
    let mut paths = wit_files(folder)?;
    if paths.is_empty() {
        return Err(WitFolderError::Empty(folder.to_owned()));
    }
    let deps = folder.join("deps");
    if deps.is_dir() {
        paths.extend(wit_files(&deps)?);
        for package in entries(&deps)?.into_iter().filter(|path| path.is_dir()) {
            paths.extend(wit_files(&package)?);
        }
    }
    if paths.len() > MAX_FILES {
        return Err(WitFolderError::TooMany(folder.to_owned()));
    }
    paths.iter().map(|path| read_file(folder, path)).collect()
}

fn wit_files(folder: &Path) -> Result<Vec<PathBuf>, WitFolderError> {
    let is_wit = |path: &PathBuf| path.is_file() && path.extension().is_some_and(|extension| extension == "wit");
    Ok(entries(folder)?.into_iter().filter(is_wit).collect())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, WitFolderError> {
    let entries = fs::read_dir(folder).map_err(unreadable(folder))?;
    let paths: io::Result<Vec<_>> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths.map_err(unreadable(folder))?;
    paths.sort();
    Ok(paths)
}

fn read_file(folder: &Path, path: &Path) -> Result<WitFile, WitFolderError> {
    let size = fs::metadata(path).map_err(unreadable(path))?.len();
    if size > MAX_FILE {
        return Err(WitFolderError::TooLarge { path: path.to_owned(), size });
    }
    let text = fs::read_to_string(path).map_err(unreadable(path))?;
    let path = path.strip_prefix(folder).unwrap_or(path);
    Ok(WitFile { path: path.to_string_lossy().into_owned(), text })
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> WitFolderError {
    move |cause| WitFolderError::Unreadable { path: path.to_owned(), cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_with_its_dependencies_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("deps/clocks/more")).unwrap();
        for name in ["b.wit", "a.wit", "README.md", "deps/random.wit", "deps/clocks/c.wit", "deps/clocks/more/x.wit"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        let paths: Vec<_> = read_wit_folder(folder.path()).unwrap().into_iter().map(|file| file.path).collect();
        assert_eq!(paths, ["a.wit", "b.wit", "deps/random.wit", "deps/clocks/c.wit"]);
    }

    #[test]
    fn what_the_broker_would_not_take_is_a_mistake() {
        let folder = tempfile::tempdir().unwrap();
        let read = || read_wit_folder(folder.path());
        assert!(matches!(read(), Err(WitFolderError::Empty(_))));
        let missing = read_wit_folder(&folder.path().join("missing"));
        assert!(matches!(missing, Err(WitFolderError::Unreadable { .. })));
        fs::File::create(folder.path().join("a.wit")).unwrap().set_len(MAX_FILE + 1).unwrap();
        assert!(matches!(read(), Err(WitFolderError::TooLarge { size, .. }) if size == MAX_FILE + 1));
        fs::write(folder.path().join("a.wit"), "").unwrap();
        assert_eq!(read().unwrap().len(), 1);
        for number in 0..MAX_FILES {
            fs::write(folder.path().join(format!("{number}.wit")), "").unwrap();
        }
        assert!(matches!(read(), Err(WitFolderError::TooMany(_))));
    }
}
