//! The folder of a set, replaced as a whole.
//!
//! ```text
//! FOLDER/svid.pem        link to ..current/svid.pem     (and so for key and bundle)
//! FOLDER/..current       link to ..set-N                this link alone is replaced, by one rename
//! FOLDER/..set-N/        the three files
//! FOLDER/..told          link to the set that the service was last told of
//! ```
//! The set before stays until the next one, for a reader that stands between two `open`s.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown, symlink,
};
use std::path::{Path, PathBuf};

use super::pem::FileSet;
use super::{FilesConfig, Owner};

const CURRENT: &str = "..current";
const NEXT: &str = "..next";
const TOLD: &str = "..told";
const SET: &str = "..set-";

/// Why the files were not replaced; those of before are whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum FolderError {
    /// The file system refuses.
    #[error("cannot {action} `{}`: {cause}", path.display())]
    Io { action: &'static str, path: PathBuf, cause: io::Error },
    /// Somebody else can write there.
    #[error("the folder `{}` must belong to this program's user and be writable by nobody else (the files go to their owner)", .0.display())]
    Open(PathBuf),
    /// A file that is not ours has the name.
    #[error("`{}` is not a link of this program: move it away or choose another name", .0.display())]
    Occupied(PathBuf),
}

/// One folder of files.
pub(super) struct Folder<'c> {
    config: &'c FilesConfig,
}

impl<'c> Folder<'c> {
    pub(super) fn new(config: &'c FilesConfig) -> Self {
        Self { config }
    }

    /// Puts a set into force; `false` where it already was, to the byte.
    pub(super) fn replace(&self, set: &FileSet) -> Result<bool, FolderError> {
        let folder = &self.config.folder;
        DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(failed("create", folder))?;
        let found = fs::metadata(folder).map_err(failed("look at", folder))?;
        // Whoever can write here could have the key written elsewhere, with our rights. So the folders stay ours; the files are given away.
        let ours = [0, rustix::process::geteuid().as_raw()].contains(&found.uid());
        if !ours || found.permissions().mode() & 0o022 != 0 {
            return Err(FolderError::Open(folder.clone()));
        }
        for name in self.names() {
            let path = folder.join(name);
            if path.symlink_metadata().is_ok_and(|found| !found.is_symlink()) {
                return Err(FolderError::Occupied(path));
            }
        }
        let current = current(folder);
        if current.as_ref().is_some_and(|current| self.holds(current, set)) {
            self.link()?;
            return Ok(false);
        }
        let number = current.as_deref().and_then(number_of).unwrap_or_default().wrapping_add(1);
        let fresh = folder.join(format!("{SET}{number}"));
        self.write(&fresh, set)?;
        self.point(&folder.join(CURRENT), Path::new(&format!("{SET}{number}")))?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("write", folder))?;
        self.link()?;
        remove_others(folder, &[Some(number), current.as_deref().and_then(number_of)]);
        Ok(true)
    }

    fn names(&self) -> [&str; 3] {
        let names = &self.config.names;
        [&names.certificate, &names.key, &names.bundle]
    }

    fn files<'s>(&self, set: &'s FileSet) -> [(&str, &'s str); 3] {
        let [certificate, key, bundle] = self.names();
        [(certificate, &set.certificate), (key, &set.key), (bundle, &set.bundle)]
    }

    /// Whether a set's folder holds exactly these files, with the right mode.
    fn holds(&self, current: &Path, set: &FileSet) -> bool {
        self.files(set).into_iter().all(|(name, text)| {
            let path = current.join(name);
            let Ok(found) = fs::symlink_metadata(&path) else { return false };
            // The owner may have made it larger than memory.
            let as_long = usize::try_from(found.len()).is_ok_and(|length| length == text.len());
            let as_open = found.is_file() && found.permissions().mode() & 0o7777 == self.config.mode;
            as_long && as_open && fs::read(&path).is_ok_and(|found| found == text.as_bytes())
        })
    }

    /// Writes a whole set into a new folder and waits for the disk.
    fn write(&self, fresh: &Path, set: &FileSet) -> Result<(), FolderError> {
        // What an attempt that failed left behind.
        absent(fs::remove_dir_all(fresh)).map_err(failed("remove", fresh))?;
        DirBuilder::new().mode(0o700).create(fresh).map_err(failed("create", fresh))?;
        for (name, text) in self.files(set) {
            let path = fresh.join(name);
            let write = || -> io::Result<()> {
                let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
                file.write_all(text.as_bytes())?;
                file.set_permissions(Permissions::from_mode(self.config.mode))?;
                if let Some(Owner { uid, gid }) = self.config.owner {
                    fchown(&file, Some(uid), Some(gid))?;
                }
                file.sync_all()
            };
            write().map_err(failed("write", &path))?;
        }
        // Who may read the files must reach them.
        let private = self.config.owner.is_none() && self.config.mode & 0o077 == 0;
        let mode = if private { 0o700 } else { 0o711 };
        fs::set_permissions(fresh, Permissions::from_mode(mode)).map_err(failed("open", fresh))?;
        File::open(fresh).and_then(|fresh| fresh.sync_all()).map_err(failed("write", fresh))
    }

    /// Whether the service was told of the set in force, by this run or an earlier one.
    pub(super) fn is_told(&self) -> bool {
        let link = |name| fs::read_link(self.config.folder.join(name)).ok();
        link(CURRENT).is_some_and(|current| link(TOLD) == Some(current))
    }

    /// Remembers, beyond this run, that the service was told of the set in force.
    pub(super) fn remember_told(&self) -> Result<(), FolderError> {
        let (current, told) = (self.config.folder.join(CURRENT), self.config.folder.join(TOLD));
        let set = fs::read_link(&current).map_err(failed("read", &current))?;
        self.point(&told, &set)
    }

    /// The names that services know, as links through `..current`.
    fn link(&self) -> Result<(), FolderError> {
        for name in self.names() {
            let (path, target) = (self.config.folder.join(name), Path::new(CURRENT).join(name));
            if fs::read_link(&path).is_ok_and(|found| found == target) {
                continue;
            }
            self.point(&path, &target)?;
        }
        Ok(())
    }

    /// Makes or replaces a link, in one step.
    fn point(&self, link: &Path, target: &Path) -> Result<(), FolderError> {
        let next = self.config.folder.join(NEXT);
        absent(fs::remove_file(&next)).map_err(failed("remove", &next))?;
        symlink(target, &next).map_err(failed("link", link))?;
        fs::rename(&next, link).map_err(failed("replace", link))
    }
}

/// The folder of the set in force.
fn current(folder: &Path) -> Option<PathBuf> {
    fs::read_link(folder.join(CURRENT)).ok().map(|set| folder.join(set))
}

fn number_of(set: &Path) -> Option<u64> {
    set.file_name()?.to_str()?.strip_prefix(SET)?.parse().ok()
}

/// Removes older sets; what cannot be removed now is removed with a later set.
fn remove_others(folder: &Path, keep: &[Option<u64>]) {
    let Ok(found) = fs::read_dir(folder) else { return };
    for path in found.filter_map(Result::ok).map(|entry| entry.path()) {
        let number = number_of(&path);
        if number.is_some() && !keep.contains(&number) {
            let _ = fs::remove_dir_all(path);
        }
    }
}

/// What is not there need not be removed.
fn absent(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |cause| FolderError::Io { action, path, cause }
}
