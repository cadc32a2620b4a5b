//! The Unix socket of the operator service: made for its owner alone, and open only to the users it is for.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis_api::LegalAuthority;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections that wait for gRPC to take them.
const QUEUE: usize = 16;
/// The wait after an error of the listener itself, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Something that is not a socket is in its place.
    #[error("`{}` exists and is not a socket: remove it or choose another path", .0.display())]
    Occupied(PathBuf),
    /// Somebody answers there.
    #[error("the operator socket `{}` is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The file system refuses.
    #[error("cannot make the operator socket `{}`: {cause}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What it said.
        cause: io::Error,
    },
}

/// Who may speak to the operator service, by user id. Root always may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AllowedUsers(BTreeSet<u32>);

impl AllowedUsers {
    /// These users, and root.
    #[must_use]
    pub(crate) fn new(users: impl IntoIterator<Item = u32>) -> Self {
        let mut users: BTreeSet<_> = users.into_iter().collect();
        users.insert(0);
        Self(users)
    }

    /// The user this process runs as, `others`, and root.
    #[must_use]
    pub(crate) fn own_and(others: impl IntoIterator<Item = u32>) -> Self {
        Self::new(others.into_iter().chain([rustix::process::geteuid().as_raw()]))
    }

    fn contains(&self, user: u32) -> bool {
        self.0.contains(&user)
    }
}

/// Makes the socket at `path`, mode 0600; the one a killed broker left is replaced.
///
/// # Errors
/// When something else is in its place or somebody answers there, or the path cannot be used (a Unix socket's path has at most 107 bytes).
pub(crate) fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    let failed = |cause| SocketError::Io { path: path.to_owned(), cause };
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(SocketError::Occupied(path.to_owned())),
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            return Err(SocketError::InUse(path.to_owned()));
        }
        Ok(_) => std::fs::remove_file(path).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    // Between the two calls the folder (0700) and the check of the peer's user id keep others out.
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Accepts connections of `allowed` users until `stop`.
#[must_use]
pub(crate) fn incoming(
    listener: UnixListener,
    allowed: AllowedUsers,
    tracker: &TaskTracker,
    stop: CancellationToken,
) -> ReceiverStream<io::Result<LegalAuthority<UnixStream>>> {
    let (accepted, stream) = mpsc::channel(QUEUE);
    tracker.spawn(async move {
        tokio::select! {
            () = accept(&listener, &allowed, &accepted) => {}
            () = stop.cancelled() => {}
        }
    });
    ReceiverStream::new(stream)
}

async fn accept(
    listener: &UnixListener,
    allowed: &AllowedUsers,
    accepted: &mpsc::Sender<io::Result<LegalAuthority<UnixStream>>>,
) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept an operator's connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        match stream.peer_cred() {
            Ok(peer) if allowed.contains(peer.uid()) => {
                if accepted.send(Ok(LegalAuthority::new(stream))).await.is_err() {
                    return;
                }
            }
            Ok(peer) => tracing::warn!(uid = peer.uid(), pid = peer.pid(), "a user who is no operator was refused"),
            Err(error) => tracing::warn!(%error, "an operator's connection has no credentials"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_own_user_are_operators_and_nobody_else() {
        let allowed = AllowedUsers::own_and([4711]);
        assert!(allowed.contains(0));
        assert!(allowed.contains(4711));
        assert!(allowed.contains(rustix::process::geteuid().as_raw()));
        assert!(!AllowedUsers::new([4711]).contains(4712));
    }

    #[tokio::test]
    async fn the_socket_is_for_its_owner_and_replaces_a_dead_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("operator.sock");
        drop(bind(&path).unwrap());
        let _again = bind(&path).unwrap();
        assert!(matches!(bind(&path), Err(SocketError::InUse(_))));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_file_in_the_sockets_place_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("operator.sock");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path), Err(SocketError::Occupied(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_user_who_is_no_operator_is_not_served() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("operator.sock");
        let listener = bind(&path).unwrap();
        let tracker = TaskTracker::new();
        let nobody = AllowedUsers(BTreeSet::new());
        let _incoming = incoming(listener, nobody, &tracker, CancellationToken::new());
        let stream = UnixStream::connect(&path).await.unwrap();
        stream.readable().await.unwrap();
        assert_eq!(stream.try_read(&mut [0; 1]).unwrap(), 0, "closed without a byte");
    }
}
