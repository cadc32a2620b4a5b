//! Splice: the bytes of a call pass untouched between the caller's QUIC stream and a framed wRPC server on TCP or a Unix socket.
//!
//! Half-close passes both ways; a caller that gives up closes the upstream connection; an upstream that breaks, or ends inside a frame,
//! resets the caller's stream, so that a cut answer never looks like a whole one. Frames are followed but not changed: a length beyond its
//! limit does not reach the service, whose own decoder may believe it.

use std::future::Future;
use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use portcullis_policy::Permit;
use portcullis_transport::quic::{RecvStream, SendStream};
use portcullis_transport::{FrameError, FrameLimits, LimitedReader, Refusal};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::config::{SpliceAddress, SpliceSection};
use crate::gate::Refused;

/// Room for one read from either side: small messages need one, large ones few.
const READ: usize = 16 * 1024;
/// The service's answer is bounded by the caller, who asked for it: only its form is checked here.
const ANSWER: FrameLimits = FrameLimits { frame: u32::MAX, path: 16, total: u64::MAX, frames: u64::MAX };

/// A framed wRPC server.
#[derive(Debug)]
pub(crate) struct Splice {
    address: SpliceAddress,
    connect_timeout: Duration,
    pub(crate) idle_timeout: Duration,
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
        let SpliceSection { address, connect_timeout, idle_timeout } = section.clone();
        Self { address, connect_timeout, idle_timeout }
    }

    /// Carries one permitted call. `silence` bounds how long neither direction may move.
    pub(crate) async fn call(&self, permit: Permit, call: Spliced<'_>, silence: Duration) -> Result<Ended, Refused> {
        // A permit is spent by the call it was made for.
        drop(permit);
        match &self.address {
            SpliceAddress::Unix(path) => {
                let stream = self.connected(UnixStream::connect(path), || path_name(path)).await?;
                let (read, write) = stream.into_split();
                carry(call, read, write, silence).await
            }
            SpliceAddress::Tcp(peer) => {
                let stream = self.connected(TcpStream::connect(peer), || peer.clone()).await?;
                stream.set_nodelay(true).map_err(|error| unavailable(peer, &error))?;
                let (read, write) = stream.into_split();
                carry(call, read, write, silence).await
            }
        }
    }

    async fn connected<S>(
        &self,
        connecting: impl Future<Output = io::Result<S>>,
        name: impl Fn() -> String,
    ) -> Result<S, Refused> {
        match tokio::time::timeout(self.connect_timeout, connecting).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(unavailable(&name(), &error)),
            Err(_) => {
                let reason = "the service does not accept the connection in time";
                Err(Refused::new(Refusal::UpstreamUnavailable, reason).detailed(name()))
            }
        }
    }
}

fn path_name(path: &Path) -> String {
    path.display().to_string()
}

fn unavailable(name: &str, error: &io::Error) -> Refused {
    Refused::new(Refusal::UpstreamUnavailable, "the service cannot be reached").detailed(format!("`{name}`: {error}"))
}

async fn carry(
    call: Spliced<'_>,
    read: impl AsyncRead + Unpin,
    mut write: impl AsyncWrite + Unpin,
    silence: Duration,
) -> Result<Ended, Refused> {
    let Spliced { send, recv, header, rest, limits } = call;
    let stopped = send.stopped();
    let params = LimitedReader::frames(rest.as_ref().chain(recv), limits);
    let up = upload(&header, rest.len(), params, &mut write, silence);
    let down = download(LimitedReader::frames(read, ANSWER), send, silence);
    tokio::pin!(up, down, stopped);
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
                Err(Cut::Silent) => return Err(silent(silence)),
                Err(Cut::Frame(error)) => return Err(Refused::new(error.refusal(), error.to_string())),
            },
            _ = &mut stopped => return Ok(Ended::GivenUp),
        }
    }
}

/// How an upload was cut.
enum Cut {
    Caller,
    Service,
    Silent,
    Frame(FrameError),
}

/// `ready` bytes of `params` are there already: they go with the header, in one write.
async fn upload(
    header: &[u8],
    ready: usize,
    mut params: LimitedReader<impl AsyncRead + Unpin>,
    write: &mut (impl AsyncWrite + Unpin),
    silence: Duration,
) -> Result<(), Cut> {
    let mut buffer = BytesMut::with_capacity(header.len() + ready);
    buffer.extend_from_slice(header);
    let mut more = ready == 0 || params.read_buf(&mut buffer).await.map_err(|error| cut(&error))? > 0;
    loop {
        let written = tokio::time::timeout(silence, write.write_all_buf(&mut buffer)).await.map_err(|_| Cut::Silent)?;
        written.map_err(|_| Cut::Service)?;
        if !more {
            return write.shutdown().await.map_err(|_| Cut::Service);
        }
        buffer.reserve(READ);
        // Not timed: a caller may keep its half open while it reads a long answer. The download's silence bounds the call.
        more = params.read_buf(&mut buffer).await.map_err(|error| cut(&error))? > 0;
    }
}

fn cut(error: &io::Error) -> Cut {
    match frame_error(error) {
        Some(error) => Cut::Frame(error),
        None => Cut::Caller,
    }
}

fn frame_error(error: &io::Error) -> Option<FrameError> {
    error.get_ref()?.downcast_ref::<FrameError>().copied()
}

async fn download(
    mut answer: LimitedReader<impl AsyncRead + Unpin>,
    send: &mut SendStream,
    silence: Duration,
) -> Result<u64, Refused> {
    let mut buffer = BytesMut::new();
    let mut total: u64 = 0;
    loop {
        buffer.reserve(READ);
        let got = tokio::time::timeout(silence, answer.read_buf(&mut buffer)).await.map_err(|_| silent(silence))?;
        let got = got.map_err(|error| {
            let reason = match frame_error(&error) {
                Some(_) => "the service's answer is not wRPC",
                None => "the service broke the connection",
            };
            Refused::new(Refusal::UpstreamProtocol, reason).detailed(error.to_string())
        })?;
        if got == 0 {
            if answer.at_boundary() {
                return Ok(total);
            }
            let reason = "the service broke off inside its answer";
            return Err(Refused::new(Refusal::UpstreamProtocol, reason));
        }
        total = total.saturating_add(u64::try_from(got).unwrap_or(u64::MAX));
        let chunk = buffer.split().freeze();
        let sent = tokio::time::timeout(silence, send.write_chunk(chunk)).await.map_err(|_| silent(silence))?;
        if sent.is_err() {
            // The caller is gone; who watches for that ends the call.
            std::future::pending::<()>().await;
        }
    }
}

fn silent(silence: Duration) -> Refused {
    let reason = format!("the service was silent for {} ms", silence.as_millis());
    Refused::new(Refusal::DeadlineExceeded, reason)
}
