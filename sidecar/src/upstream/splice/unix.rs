//! Unix sockets connect at once or not at all: there is nothing for a reactor to wait for.

use std::io::{self, Read as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, Interest, ReadBuf};

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

/// A connection to which everything was said.
#[derive(Debug)]
pub(super) struct Answering(AsyncFd<UnixStream>);

impl Answering {
    /// Ends our half of `socket`. Only then the reactor learns of it, and waits for its answer alone: it would wake for room to write, and for
    /// our own end, without anything to do.
    ///
    /// # Errors
    /// When the service is gone, or the reactor takes no more.
    pub(super) fn after(socket: UnixStream) -> io::Result<Self> {
        match socket.shutdown(Shutdown::Write) {
            // It has answered and gone.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
            ended => ended?,
        }
        #[expect(deprecated, reason = "the other constructor is unsafe for types that might change their descriptor")]
        let handle = AsyncFd::with_interest(socket, Interest::READABLE)?;
        Ok(Self(handle))
    }
}

impl AsyncRead for Answering {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(context))?;
            let room = buffer.initialize_unfilled();
            let length = room.len();
            match ready.try_io(|socket| socket.get_ref().read(room)) {
                Ok(Ok(read)) => {
                    // There was room for more, so that there is nothing more now; the end stays known.
                    if 0 < read && read < length {
                        ready.clear_ready();
                    }
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
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
    async fn an_answer_is_read_as_it_comes_to_its_end() {
        use std::io::Write as _;

        use tokio::io::AsyncReadExt as _;

        let (mut ours, mut service) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        ours.write_all(b"question").unwrap();
        let mut answering = Answering::after(ours).unwrap();
        let serving = tokio::task::spawn_blocking(move || {
            // To the end: the service hears that there is no more.
            let mut question = String::new();
            service.read_to_string(&mut question).unwrap();
            for part in 0..200_u8 {
                service.write_all(&[part; 1024]).unwrap();
                std::thread::yield_now();
            }
            question
        });
        let mut answer = Vec::new();
        let mut buffer = [0; 700];
        loop {
            match answering.read(&mut buffer).await.unwrap() {
                0 => break,
                read => answer.extend_from_slice(&buffer[..read]),
            }
        }
        assert_eq!(serving.await.unwrap(), "question");
        assert_eq!(answer, (0..200_u8).flat_map(|part| [part; 1024]).collect::<Vec<_>>());
        let (ours, service) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        drop(service);
        assert_eq!(Answering::after(ours).unwrap().read(&mut buffer).await.unwrap(), 0);
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
