//! Reads a WIT folder from disk, at the rim: the files in it, and those of its dependencies under `deps/`.

use std::io;
use std::path::Path;

use portcullis_value::WitSource;

/// More than this is not a WIT folder.
const MAX_FILES: usize = 1024;
/// Of one file, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The sources of a folder, paths relative to it.
///
/// # Errors
/// When something cannot be read, or is too much to be WIT.
pub(crate) fn read(folder: &Path) -> io::Result<Vec<WitSource>> {
    let mut sources = Vec::new();
    files(folder, "", &mut sources)?;
    let deps = folder.join("deps");
    if deps.is_dir() {
        files(&deps, "deps/", &mut sources)?;
        let mut packages: Vec<_> = std::fs::read_dir(&deps)?.collect::<io::Result<_>>()?;
        packages.sort_by_key(std::fs::DirEntry::file_name);
        for package in packages.iter().filter(|package| package.path().is_dir()) {
            let prefix = format!("deps/{}/", package.file_name().to_string_lossy());
            files(&package.path(), &prefix, &mut sources)?;
        }
    }
    Ok(sources)
}

fn files(folder: &Path, prefix: &str, sources: &mut Vec<WitSource>) -> io::Result<()> {
    let mut entries: Vec<_> = std::fs::read_dir(folder)?.collect::<io::Result<_>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "wit") || !path.is_file() {
            continue;
        }
        if sources.len() == MAX_FILES || std::fs::metadata(&path)?.len() > MAX_FILE_BYTES {
            let message = format!("`{}` is too much for a WIT folder", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let text = std::fs::read_to_string(&path)?;
        sources.push(WitSource { path: format!("{prefix}{}", entry.file_name().to_string_lossy()), text });
    }
    Ok(())
}
