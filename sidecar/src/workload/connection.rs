//! A workload's connection: its process pinned at `accept`, and ended when the process ends.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use portcullis_api::LegalAuthority;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use super::attest::Caller;
use super::quota::{Permit, Quota};
use crate::clock;

/// Connections that wait for gRPC to take them.
const QUEUE: usize = 16;
/// How long a stopping server waits for its clients to go.
const GOODBYE: Duration = Duration::from_millis(500);
/// The wait after an error of the listener itself, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end, for the requests of a connection.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    pub(super) caller: Arc<Caller>,
    /// Cancelled once the process has ended.
    pub(super) ended: CancellationToken,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: LegalAuthority<UnixStream>,
    workload: Workload,
    /// Ends reading, also where another process still holds the connection.
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _watch: DropGuard,
    _permit: Permit,
}

/// Accepts connections of `uids` (empty: everybody) until `stop`.
pub(super) fn incoming(
    listener: UnixListener,
    uids: Vec<u32>,
    quota: Arc<Quota>,
    tasks: &TaskTracker,
    stop: CancellationToken,
) -> ReceiverStream<io::Result<Connection>> {
    let (accepted, stream) = mpsc::channel(QUEUE);
    let (watchers, stopping) = (tasks.clone(), stop.clone());
    tasks.spawn(stop.run_until_cancelled_owned(async move {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "cannot accept a workload's connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if let Some(connection) = admit(stream, &uids, &quota, &watchers, &stopping)
                && accepted.send(Ok(connection)).await.is_err()
            {
                return;
            }
        }
    }));
    ReceiverStream::new(stream)
}

/// Pins the process; a connection that cannot be had is closed, and the log says why.
fn admit(
    stream: UnixStream,
    uids: &[u32],
    quota: &Arc<Quota>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Option<Connection> {
    let caller = Caller::of(&stream).inspect_err(|error| debug!(%error, "a workload's connection is closed")).ok()?;
    let (uid, pid) = (caller.uid(), caller.pid());
    if !uids.is_empty() && !uids.contains(&uid) {
        warn!(uid, pid, "a user who may not use the workload API was refused");
        return None;
    }
    let refused = |error: &dyn std::fmt::Display| warn!(uid, pid, %error, "a workload's connection is closed");
    let permit = quota.connection(uid, clock::instant()).inspect_err(|error| refused(error)).ok()?;
    let end = caller.end().inspect_err(|error| refused(error)).ok()?;
    let (ended, cut, closed) = (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
    let (told, cutting, dropped, stopping) = (ended.clone(), cut.clone(), closed.clone(), stop.clone());
    tasks.spawn(async move {
        tokio::select! {
            () = end => told.cancel(),
            () = dropped.cancelled() => return,
            // The server says goodbye; who does not listen is not waited for.
            () = stopping.cancelled() => tokio::time::sleep(GOODBYE).await,
        }
        cutting.cancel();
    });
    Some(Connection {
        stream: LegalAuthority::new(stream),
        cut: Box::pin(cut.cancelled_owned()),
        workload: Workload { caller: Arc::new(caller), ended },
        _watch: closed.drop_guard(),
        _permit: permit,
    })
}

impl Connected for Connection {
    type ConnectInfo = Workload;

    fn connect_info(&self) -> Workload {
        self.workload.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.cut.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the connection is cut")));
        }
        Pin::new(&mut this.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
