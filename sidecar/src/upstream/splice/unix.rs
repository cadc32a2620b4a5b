//! Unix sockets connect at once or not at all: there is nothing for a reactor to wait for.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::{slow, unavailable};
use crate::gate::Refused;

/// The first wait for a place in the service's queue; doubles up to [`PAUSE_CEILING`].
const PAUSE_FLOOR: Duration = Duration::from_millis(1);
/// The longest wait between two attempts.
const PAUSE_CEILING: Duration = Duration::from_millis(50);

/// A connection to the service, not blocking. Where its queue is full, tries again for `timeout`.
pub(super) async fn connected(path: &Path, timeout: Duration) -> Result<UnixStream, Refused> {
    let name = || path.display().to_string();
    let (mut waited, mut pause) = (Duration::ZERO, PAUSE_FLOOR);
    loop {
        match connection(path) {
            Ok(socket) => return Ok(socket),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(unavailable(&name(), &error)),
            Err(_) if waited >= timeout => return Err(slow(&name())),
            Err(_) => {}
        }
        let wait = pause.min(timeout - waited);
        tokio::time::sleep(wait).await;
        waited += wait;
        pause = (pause * 2).min(PAUSE_CEILING);
    }
}

fn connection(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use portcullis_transport::Refusal;
    use rustix::net::{bind, listen};

    use super::*;

    /// A service whose queue holds one connection, and another that fills it.
    fn full(path: &Path) -> (UnixListener, UnixStream) {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
        listen(&socket, 0).unwrap();
        (UnixListener::from(socket), connection(path).unwrap())
    }

    #[tokio::test]
    async fn a_full_queue_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let (service, _first) = full(&path);
        let accepting = async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            service.accept().unwrap()
        };
        let (connected, _accepted) = tokio::join!(connected(&path, Duration::from_secs(2)), accepting);
        assert!(connected.is_ok(), "{connected:?}");
    }

    #[tokio::test]
    async fn a_queue_that_stays_full_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let (_service, _first) = full(&path);
        let began = tokio::time::Instant::now();
        let patience = Duration::from_millis(60);
        let refused = connected(&path, patience).await.unwrap_err();
        assert_eq!(refused.refusal, Refusal::UpstreamUnavailable);
        assert!(began.elapsed() >= patience, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_service_that_is_not_there_is_told_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("s");
        let refused = connected(&missing, Duration::from_secs(2)).await.unwrap_err();
        assert_eq!(refused.refusal, Refusal::UpstreamUnavailable);
        assert!(refused.detail.unwrap().contains("No such file"));
        let long = Path::new("/").join("x".repeat(200));
        assert!(connected(&long, Duration::from_secs(2)).await.is_err());
    }
}
