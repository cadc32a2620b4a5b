//! Splice: the bytes of a call pass untouched between the caller's QUIC stream and a framed wRPC server on TCP or a Unix socket.
//!
//! Half-close passes both ways; a caller that gives up closes the upstream connection; an upstream that breaks resets the caller's
//! stream, so that a cut answer never looks like a whole one.

use std::future::Future;
use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use portcullis_policy::Permit;
use portcullis_transport::Refusal;
use portcullis_transport::quic::{RecvStream, SendStream, StreamFailed, next_chunk};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::config::{SpliceAddress, SpliceSection};
use crate::gate::Refused;

/// Room for one read from the upstream: small answers need one, large ones few.
const READ: usize = 16 * 1024;

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
        let SpliceSection {
            address,
            connect_timeout,
            idle_timeout,
        } = section.clone();
        Self {
            address,
            connect_timeout,
            idle_timeout,
        }
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
    mut read: impl AsyncRead + Unpin,
    mut write: impl AsyncWrite + Unpin,
    silence: Duration,
) -> Result<Ended, Refused> {
    let Spliced {
        send,
        recv,
        header,
        rest,
    } = call;
    let stopped = send.stopped();
    let mut first = BytesMut::with_capacity(header.len() + rest.len());
    first.extend_from_slice(&header);
    first.extend_from_slice(&rest);
    let up = upload(recv, &mut write, first.freeze(), silence);
    let down = download(&mut read, send, silence);
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
}

async fn upload(
    recv: &mut RecvStream,
    write: &mut (impl AsyncWrite + Unpin),
    first: Bytes,
    silence: Duration,
) -> Result<(), Cut> {
    let mut next = Some(first);
    while let Some(chunk) = next {
        let written = tokio::time::timeout(silence, write.write_all(&chunk))
            .await
            .map_err(|_| Cut::Silent)?;
        written.map_err(|_| Cut::Service)?;
        // Not timed: a caller may keep its half open while it reads a long answer. The download's silence bounds the call.
        next = next_chunk(recv).await.map_err(|_: StreamFailed| Cut::Caller)?;
    }
    write.shutdown().await.map_err(|_| Cut::Service)
}

async fn download(
    read: &mut (impl AsyncRead + Unpin),
    send: &mut SendStream,
    silence: Duration,
) -> Result<u64, Refused> {
    let mut buffer = BytesMut::new();
    let mut total: u64 = 0;
    loop {
        buffer.reserve(READ);
        let got = tokio::time::timeout(silence, read.read_buf(&mut buffer))
            .await
            .map_err(|_| silent(silence))?;
        let got = got.map_err(|error| {
            Refused::new(Refusal::UpstreamProtocol, "the service broke the connection").detailed(error.to_string())
        })?;
        if got == 0 {
            return Ok(total);
        }
        total = total.saturating_add(u64::try_from(got).unwrap_or(u64::MAX));
        let chunk = buffer.split().freeze();
        let sent = tokio::time::timeout(silence, send.write_chunk(chunk))
            .await
            .map_err(|_| silent(silence))?;
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
