//! The socket file.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Something that is not a socket is in its place.
    #[error("`{}` exists and is not a socket: remove it or choose another path", .0.display())]
    Occupied(PathBuf),
    /// Somebody answers there.
    #[error("the socket `{}` is in use by another process", .0.display())]
    InUse(PathBuf),
    /// Others could put a socket of theirs in its place.
    #[error("the folder `{}` can be written by every user: give the socket a folder of its own", .0.display())]
    OpenFolder(PathBuf),
    /// The file system refuses.
    #[error("cannot make the socket `{}`: {cause}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What it said.
        cause: io::Error,
    },
}

/// Makes the socket, and its folder where that is missing; the one a killed process left is replaced.
pub(super) fn bind(path: &Path, mode: u32) -> Result<UnixListener, SocketError> {
    let failed = |cause| SocketError::Io { path: path.to_owned(), cause };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(failed)?;
    // Who may write there could answer in our name: clients trust the path alone.
    if std::fs::metadata(folder).map_err(failed)?.permissions().mode() & 0o002 != 0 {
        return Err(SocketError::OpenFolder(folder.to_owned()));
    }
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(SocketError::Occupied(path.to_owned())),
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            return Err(SocketError::InUse(path.to_owned()));
        }
        Ok(_) => std::fs::remove_file(path).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_gets_its_mode_and_replaces_a_dead_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/api.sock");
        drop(bind(&path, 0o777).unwrap());
        let _again = bind(&path, 0o770).unwrap();
        assert!(matches!(bind(&path, 0o777), Err(SocketError::InUse(_))));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o770);
    }

    #[tokio::test]
    async fn a_file_in_its_place_is_kept_and_an_open_folder_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path, 0o777), Err(SocketError::Occupied(_))));
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o1777)).unwrap();
        assert!(matches!(bind(&path, 0o777), Err(SocketError::OpenFolder(_))));
    }
}
