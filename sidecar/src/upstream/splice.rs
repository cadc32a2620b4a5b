//! Splice: the bytes of a call pass untouched between the caller's QUIC stream and a framed wRPC server on TCP or a Unix socket.
//!
//! Half-close passes both ways; a caller that gives up closes the upstream connection; an upstream that breaks, or ends inside a frame,
//! resets the caller's stream, so that a cut answer never looks like a whole one. Frames are followed but not changed: a length beyond its
//! limit does not reach the service, whose own decoder may believe it.

mod expected;
mod patience;
mod unix;

use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use portcullis_policy::Permit;
use portcullis_transport::quic::{RecvStream, SendStream, StreamFailed, next_chunk};
use portcullis_transport::{
    FrameError, FrameLimits, FrameScanner, Header, Refusal, RootFrames, encode_root_frame_head,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

pub(crate) use expected::Expected;
pub(crate) use patience::{Patience, Progress};

use crate::config::{SpliceAddress, SpliceSection, StreamEncoding};
use crate::gate::Refused;

/// Room for the beginning of an answer: most are no longer.
const FIRST_READ: usize = 1024;
/// Room for one read of a longer answer.
const READ: usize = 16 * 1024;
/// The service's answer is bounded by the caller, who asked for it: only its form is checked here.
const ANSWER: FrameLimits = FrameLimits { frame: u32::MAX, path: 16, total: u64::MAX, frames: u64::MAX };

/// A framed wRPC server.
#[derive(Debug)]
pub(crate) struct Splice {
    address: SpliceAddress,
    connect_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) streams: Option<StreamEncoding>,
}

/// A connection to the service, for one permitted call.
#[derive(Debug)]
pub(crate) enum Connection {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// The caller's two halves and what was read of them already.
#[derive(Debug)]
pub(crate) struct Spliced<'a> {
    pub(crate) send: &'a mut SendStream,
    pub(crate) recv: &'a mut RecvStream,
    /// The header's bytes, replayed as they came.
    pub(crate) header: Bytes,
    /// What came behind the header.
    pub(crate) rest: Bytes,
    /// What the caller's frames may amount to.
    pub(crate) limits: FrameLimits,
    /// Told of every byte that passes.
    pub(crate) progress: &'a Progress,
}

/// How a spliced call ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Both directions ended cleanly; this many bytes of answer.
    Answered(u64),
    /// The caller gave the call up.
    GivenUp,
}

impl Splice {
    pub(crate) fn new(section: &SpliceSection) -> Self {
        let SpliceSection { address, connect_timeout, idle_timeout, streams } = section.clone();
        Self { address, connect_timeout, idle_timeout, streams }
    }

    /// Carries one permitted call.
    pub(crate) async fn call(&self, permit: Permit, call: Spliced<'_>) -> Result<Ended, Refused> {
        // A permit is spent by the call it was made for.
        drop(permit);
        match &self.address {
            SpliceAddress::Unix(path) => {
                let socket = unix::connected(path, self.connect_timeout).await?;
                let mut params = Params::new(&call)?;
                // Before the reactor knows the socket: it would only say that there is room, and that a turn later.
                params.begin(&socket);
                let name = || path.display().to_string();
                let mut stream = UnixStream::from_std(socket).map_err(|error| unavailable(&name(), &error))?;
                let (read, write) = stream.split();
                carry(call, params, read, write).await
            }
            SpliceAddress::Tcp(peer) => {
                let mut stream = self.tcp(peer).await?;
                let params = Params::new(&call)?;
                let (read, write) = stream.split();
                carry(call, params, read, write).await
            }
        }
    }

    /// Carries one permitted call of plain values whose parameters are whole, and returns the payload of its results as soon as they are:
    /// `None` where the service closed without a word.
    pub(crate) async fn exchange(
        &self,
        permit: Permit,
        header: &Header,
        params: Bytes,
        expected: Expected<'_>,
    ) -> Result<Option<Bytes>, Refused> {
        drop(permit);
        let mut head = BytesMut::with_capacity(FIRST_READ);
        header.encode_into(&mut head);
        encode_root_frame_head(params.len(), &mut head);
        let mut request = head.freeze().chain(params);
        match &self.address {
            SpliceAddress::Unix(path) => {
                let socket = unix::connected(path, self.connect_timeout).await?;
                // As in `call`: a turn of the reactor is saved.
                write_now(&mut request, &socket);
                if request.has_remaining() {
                    let name = || path.display().to_string();
                    let stream = UnixStream::from_std(socket).map_err(|error| unavailable(&name(), &error))?;
                    return exchange(stream, request, expected).await;
                }
                answer(unix::Answering::after(socket).map_err(|error| broken(&error))?, expected).await
            }
            SpliceAddress::Tcp(peer) => exchange(self.tcp(peer).await?, request, expected).await,
        }
    }

    /// Connects for one permitted call.
    pub(crate) async fn connect(&self, permit: Permit) -> Result<Connection, Refused> {
        drop(permit);
        match &self.address {
            SpliceAddress::Unix(path) => {
                let socket = unix::connected(path, self.connect_timeout).await?;
                let name = || path.display().to_string();
                UnixStream::from_std(socket).map(Connection::Unix).map_err(|error| unavailable(&name(), &error))
            }
            SpliceAddress::Tcp(peer) => self.tcp(peer).await.map(Connection::Tcp),
        }
    }

    async fn tcp(&self, peer: &str) -> Result<TcpStream, Refused> {
        let connecting = tokio::time::timeout(self.connect_timeout, TcpStream::connect(peer)).await;
        let stream = connecting.map_err(|_| slow(peer))?.and_then(|stream| stream.set_nodelay(true).map(|()| stream));
        stream.map_err(|error| unavailable(peer, &error))
    }
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    mut request: bytes::buf::Chain<Bytes, Bytes>,
    expected: Expected<'_>,
) -> Result<Option<Bytes>, Refused> {
    stream.write_all_buf(&mut request).await.map_err(|error| broken(&error))?;
    stream.shutdown().await.map_err(|error| broken(&error))?;
    answer(stream, expected).await
}

async fn answer(mut stream: impl AsyncRead + Unpin, mut expected: Expected<'_>) -> Result<Option<Bytes>, Refused> {
    let mut frames = RootFrames::new(expected.frames);
    let mut buffer = BytesMut::with_capacity(FIRST_READ);
    while stream.read_buf(&mut buffer).await.map_err(|error| broken(&error))? > 0 {
        let full = buffer.len() == buffer.capacity();
        frames.push(buffer.split().freeze()).map_err(|error| nonsense(&error))?;
        if expected.is_whole(&frames) {
            break;
        }
        buffer.reserve(if full { READ } else { FIRST_READ / 2 });
    }
    let any = frames.frames() > 0;
    let payload = frames.finish().map_err(|error| nonsense(&error))?;
    Ok(any.then_some(payload))
}

fn unavailable(name: &str, error: &io::Error) -> Refused {
    Refused::new(Refusal::UpstreamUnavailable, "the service cannot be reached").detailed(format!("`{name}`: {error}"))
}

fn slow(name: &str) -> Refused {
    let reason = "the service does not accept the connection in time";
    Refused::new(Refusal::UpstreamUnavailable, reason).detailed(name)
}

/// What the caller says: the header, what came with it, and then what comes.
struct Params {
    first: bytes::buf::Chain<Bytes, Bytes>,
    frames: FrameScanner,
}

impl Params {
    fn new(call: &Spliced<'_>) -> Result<Self, Refused> {
        let mut frames = FrameScanner::new(call.limits);
        follow(&mut frames, &call.rest).map_err(|error| refused(&error))?;
        Ok(Self { first: call.header.clone().chain(call.rest.clone()), frames })
    }

    fn begin(&mut self, socket: &std::os::unix::net::UnixStream) {
        write_now(&mut self.first, socket);
    }
}

/// Writes what there is, as far as it goes at once.
fn write_now(bytes: &mut bytes::buf::Chain<Bytes, Bytes>, mut socket: &std::os::unix::net::UnixStream) {
    let mut slices = [io::IoSlice::new(&[]); 2];
    let count = bytes.chunks_vectored(&mut slices);
    // What does not go now goes later, and what goes wrong shows again then.
    if let Ok(written) = io::Write::write_vectored(&mut socket, slices.get(..count).unwrap_or_default()) {
        bytes.advance(written);
    }
}

fn follow(frames: &mut FrameScanner, bytes: &[u8]) -> Result<(), FrameError> {
    frames.follow(bytes).map_err(|(_, error)| error)
}

fn refused(error: &FrameError) -> Refused {
    Refused::new(error.refusal(), error.to_string())
}

async fn carry(
    call: Spliced<'_>,
    params: Params,
    read: impl AsyncRead + Unpin,
    write: impl AsyncWrite + Unpin,
) -> Result<Ended, Refused> {
    let Spliced { send, recv, progress, .. } = call;
    let mut stopped = pin!(send.stopped());
    let mut up = pin!(upload(params, recv, write, progress));
    let mut down = pin!(download(read, send, progress));
    let mut uploading = true;
    loop {
        tokio::select! {
            biased;
            answered = &mut down => return answered.map(Ended::Answered),
            sent = &mut up, if uploading => match sent {
                Ok(()) => uploading = false,
                Err(Cut::Caller) => return Ok(Ended::GivenUp),
                // The service may answer without reading everything: what it has to say comes down.
                Err(Cut::Service) => uploading = false,
                Err(Cut::Frame(error)) => return Err(refused(&error)),
            },
            _ = &mut stopped => return Ok(Ended::GivenUp),
        }
    }
}

/// How an upload was cut.
enum Cut {
    Caller,
    Service,
    Frame(FrameError),
}

async fn upload(
    mut params: Params,
    recv: &mut RecvStream,
    mut write: impl AsyncWrite + Unpin,
    progress: &Progress,
) -> Result<(), Cut> {
    if params.first.has_remaining() {
        write.write_all_buf(&mut params.first).await.map_err(|_| Cut::Service)?;
    }
    while let Some(chunk) = next_chunk(recv).await.map_err(|_: StreamFailed| Cut::Caller)? {
        follow(&mut params.frames, &chunk).map_err(Cut::Frame)?;
        progress.made();
        write.write_all(&chunk).await.map_err(|_| Cut::Service)?;
        progress.made();
    }
    write.shutdown().await.map_err(|_| Cut::Service)
}

async fn download(
    mut read: impl AsyncRead + Unpin,
    send: &mut SendStream,
    progress: &Progress,
) -> Result<u64, Refused> {
    let mut frames = FrameScanner::new(ANSWER);
    let mut buffer = BytesMut::with_capacity(FIRST_READ);
    let mut total: u64 = 0;
    loop {
        let got = read.read_buf(&mut buffer).await.map_err(|error| broken(&error))?;
        if got == 0 {
            return if frames.at_boundary() {
                Ok(total)
            } else {
                let reason = "the service broke off inside its answer";
                Err(Refused::new(Refusal::UpstreamProtocol, reason))
            };
        }
        progress.made();
        total = total.saturating_add(u64::try_from(got).unwrap_or(u64::MAX));
        let full = buffer.len() == buffer.capacity();
        let chunk = buffer.split().freeze();
        follow(&mut frames, &chunk).map_err(|error| nonsense(&error))?;
        if send.write_chunk(chunk).await.is_err() {
            // The caller is gone; who watches for that ends the call.
            std::future::pending::<()>().await;
        }
        progress.made();
        buffer.reserve(if full { READ } else { FIRST_READ / 2 });
    }
}

fn broken(error: &io::Error) -> Refused {
    Refused::new(Refusal::UpstreamProtocol, "the service broke the connection").detailed(error.to_string())
}

fn nonsense(error: &FrameError) -> Refused {
    Refused::new(Refusal::UpstreamProtocol, "the service's answer is not wRPC").detailed(error.to_string())
}
