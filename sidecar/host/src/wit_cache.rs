//! The WIT of callees on disk, so that a component starts while the broker is away.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use portcullis_identity::Target;
use portcullis_value::WitSource;
use serde::{Deserialize, Serialize};

/// One file of a WIT folder as it is kept.
#[derive(Serialize, Deserialize)]
struct File {
    path: String,
    text: String,
}

/// A folder with one file for each callee.
#[derive(Debug)]
pub(crate) struct WitCache {
    folder: PathBuf,
}

impl WitCache {
    /// In the state folder of the node.
    pub(crate) fn new(state: &Path) -> Self {
        Self { folder: state.join("wit") }
    }

    /// What was last kept of a callee; nothing where that cannot be read.
    pub(crate) fn load(&self, target: &Target) -> Option<Vec<WitSource>> {
        let files: Vec<File> = serde_json::from_slice(&fs::read(self.path(target)).ok()?).ok()?;
        Some(files.into_iter().map(|File { path, text }| WitSource { path, text }).collect())
    }

    /// Keeps the WIT of a callee, in one step.
    pub(crate) fn store(&self, target: &Target, sources: &[WitSource]) -> io::Result<()> {
        let file = |WitSource { path, text }: &WitSource| File { path: path.clone(), text: text.clone() };
        let files: Vec<File> = sources.iter().map(file).collect();
        let path = self.path(target);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let fresh = path.with_extension("new");
        fs::write(&fresh, serde_json::to_vec(&files)?)?;
        fs::rename(fresh, path)
    }

    /// Lattices and ids are path-safe by their types.
    fn path(&self, target: &Target) -> PathBuf {
        self.folder.join(target.lattice.as_str()).join(format!("{}.json", target.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let cache = WitCache::new(folder.path());
        let (one, two) = ("demo/one".parse().unwrap(), "demo/two".parse().unwrap());
        let sources = vec![WitSource { path: "a.wit".to_owned(), text: "package a:b;".to_owned() }];
        assert_eq!(cache.load(&one), None);
        cache.store(&one, &sources).unwrap();
        assert_eq!((cache.load(&one), cache.load(&two)), (Some(sources), None));
    }
}
