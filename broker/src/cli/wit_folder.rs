//! A WIT folder on disk: `*.wit` in it, `deps/NAME.wit` and `deps/NAME/*.wit` below it, and nothing else.

use std::fs;
use std::path::{Path, PathBuf};

use portcullis_api::v1::WitFile;

use super::failure::Failure;

/// Bytes of one file; the broker's limit for the folder is 2 MiB.
const MAX_FILE: u64 = 1 << 20;
/// Files; the broker has the same limit.
const MAX_FILES: usize = 256;

/// Reads every WIT file of `folder`, in the order of their paths.
pub(crate) fn read(folder: &Path) -> Result<Vec<WitFile>, Failure> {
    let mut paths = wit_files(folder)?;
    if paths.is_empty() {
        return Err(Failure::misused(format!("`{}` holds no *.wit file", folder.display())));
    }
    let deps = folder.join("deps");
    if deps.is_dir() {
        paths.extend(wit_files(&deps)?);
        for package in entries(&deps)?.into_iter().filter(|path| path.is_dir()) {
            paths.extend(wit_files(&package)?);
        }
    }
    if paths.len() > MAX_FILES {
        return Err(Failure::misused(format!("`{}` holds more than {MAX_FILES} WIT files", folder.display())));
    }
    paths.iter().map(|path| read_file(folder, path)).collect()
}

fn wit_files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let is_wit = |path: &PathBuf| path.is_file() && path.extension().is_some_and(|extension| extension == "wit");
    Ok(entries(folder)?.into_iter().filter(is_wit).collect())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let unreadable = |error: std::io::Error| Failure::broken(format!("cannot read `{}`: {error}", folder.display()));
    let entries = fs::read_dir(folder).map_err(unreadable)?;
    let mut paths =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    paths.sort();
    Ok(paths)
}

fn read_file(folder: &Path, path: &Path) -> Result<WitFile, Failure> {
    let unreadable = |error: std::io::Error| Failure::broken(format!("cannot read `{}`: {error}", path.display()));
    let size = fs::metadata(path).map_err(unreadable)?.len();
    if size > MAX_FILE {
        return Err(Failure::misused(format!("`{}` of {size} bytes is larger than {MAX_FILE}", path.display())));
    }
    let text = fs::read_to_string(path).map_err(unreadable)?;
    let path = path.strip_prefix(folder).unwrap_or(path);
    Ok(WitFile { path: path.to_string_lossy().into_owned(), text })
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
        let paths: Vec<_> = read(folder.path()).unwrap().into_iter().map(|file| file.path).collect();
        assert_eq!(paths, ["a.wit", "b.wit", "deps/random.wit", "deps/clocks/c.wit"]);
    }

    #[test]
    fn a_folder_without_wit_is_a_mistake() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(folder.path()).is_err());
        assert!(read(&folder.path().join("missing")).is_err());
    }
}
