//! The TLS listener of the node service: who is at the other end, and a way to end it.
//!
//! Handshakes run beside the accept loop, so that a slow peer delays nobody. gRPC sees a byte stream with a [`Remote`]; it does not know
//! how the peer proved itself.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use portcullis_identity::{ChannelBinding, Peer, PeerVerifier, Usage};
use rustls::pki_types::UnixTime;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::server::Connected;

use crate::{clock, throttle};

/// A peer that needs longer is not coming.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections, those in the handshake included.
const MAX_CONNECTIONS: usize = 8192;
/// Handshakes at one time: each costs a signature, a verification and some memory.
const MAX_HANDSHAKES: usize = 256;
/// Handshakes at one time from one source, so that one cannot hold them all.
const MAX_HANDSHAKES_PER_SOURCE: usize = 64;
/// Connections of peers without certificate, so that they never take the place of nodes.
const MAX_STRANGERS: usize = 1024;
/// Of these, from one source.
const MAX_STRANGERS_PER_SOURCE: usize = 128;
/// A peer without certificate comes to join, which takes a moment.
const ANONYMOUS_LIFETIME: Duration = Duration::from_secs(30);
/// The wait after an error of the listener itself, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections that finished their handshake and wait for gRPC to take them.
const QUEUE: usize = 64;

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    /// From where.
    pub address: SocketAddr,
    /// Who it proved to be; `None` for a peer without certificate.
    pub peer: Option<Arc<Peer>>,
    /// What only the two ends of this connection know: a proof over it is good here and nowhere else.
    pub channel: ChannelBinding,
    /// Ends the connection at once.
    pub kill: CancellationToken,
}

/// A connection after its handshake. It ends when it is killed and when the peer's certificate does.
pub(crate) struct PeerStream {
    io: TlsStream<TcpStream>,
    remote: Remote,
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
    _places: (OwnedSemaphorePermit, Option<Place>),
}

impl std::fmt::Debug for PeerStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerStream").field("remote", &self.remote).finish_non_exhaustive()
    }
}

/// By what peers are judged: at the handshake, and again whenever trust changes.
pub(crate) struct Judgement {
    pub(crate) tls: rustls::ServerConfig,
    /// The verifier in `tls`.
    pub(crate) verifier: Arc<PeerVerifier>,
    /// Tells that the verifier may say something else now.
    pub(crate) changes: watch::Receiver<u64>,
}

#[derive(Clone)]
struct Recheck {
    verifier: Arc<PeerVerifier>,
    changes: watch::Receiver<u64>,
}

/// Accepts connections until `stop`, and hands on those whose handshake succeeds.
#[must_use]
pub(crate) fn incoming(
    listener: TcpListener,
    judgement: Judgement,
    tracker: &TaskTracker,
    stop: CancellationToken,
) -> ReceiverStream<io::Result<PeerStream>> {
    let (accepted, stream) = mpsc::channel(QUEUE);
    let gate = Gate {
        acceptor: TlsAcceptor::from(Arc::new(judgement.tls)),
        recheck: Recheck { verifier: judgement.verifier, changes: judgement.changes },
        connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        handshakes: Places::new(MAX_HANDSHAKES, MAX_HANDSHAKES_PER_SOURCE),
        strangers: Places::new(MAX_STRANGERS, MAX_STRANGERS_PER_SOURCE),
        tracker: tracker.clone(),
        accepted,
    };
    tracker.spawn(async move {
        tokio::select! {
            () = gate.accept(&listener) => {}
            () = stop.cancelled() => {}
        }
    });
    ReceiverStream::new(stream)
}

struct Gate {
    acceptor: TlsAcceptor,
    recheck: Recheck,
    connections: Arc<Semaphore>,
    handshakes: Places,
    strangers: Places,
    tracker: TaskTracker,
    accepted: mpsc::Sender<io::Result<PeerStream>>,
}

impl Gate {
    async fn accept(&self, listener: &TcpListener) {
        loop {
            // Closed by nobody: an error cannot happen, and would end the loop.
            let Ok(place) = Arc::clone(&self.connections).acquire_owned().await else {
                return;
            };
            let (tcp, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(handshake) = self.handshakes.take(throttle::source(address.ip())) else {
                tracing::warn!(%address, "too many handshakes at one time");
                continue;
            };
            let (acceptor, accepted) = (self.acceptor.clone(), self.accepted.clone());
            let (strangers, mut recheck) = (self.strangers.clone(), self.recheck.clone());
            self.tracker.spawn(async move {
                // A change from here on may have come after the handshake's judgement.
                recheck.changes.mark_unchanged();
                let shaking = shake_hands(&acceptor, tcp, address, (place, strangers, recheck));
                let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, shaking).await;
                drop(handshake);
                match shaken {
                    // gRPC is gone where nobody receives.
                    Ok(Ok(stream)) => drop(accepted.send(Ok(stream)).await),
                    Ok(Err(error)) => tracing::warn!(%address, %error, "handshake refused"),
                    Err(_) => tracing::warn!(%address, "handshake timed out"),
                }
            });
        }
    }
}

async fn shake_hands(
    acceptor: &TlsAcceptor,
    tcp: TcpStream,
    address: SocketAddr,
    (place, strangers, recheck): (OwnedSemaphorePermit, Places, Recheck),
) -> io::Result<PeerStream> {
    tcp.set_nodelay(true)?;
    let io = acceptor.accept(tcp).await?;
    let chain = io.get_ref().1.peer_certificates();
    let peer = chain.map(Peer::from_chain).transpose().map_err(io::Error::other)?.map(Arc::new);
    let channel = ChannelBinding::of(io.get_ref().1).map_err(io::Error::other)?;
    let stranger =
        if peer.is_some() { None } else { Some(strangers.take(throttle::source(address.ip())).ok_or_else(crowded)?) };
    let not_after = peer.as_ref().map_or_else(
        || clock::now().checked_add(ANONYMOUS_LIFETIME).unwrap_or(SystemTime::UNIX_EPOCH),
        |peer| peer.not_after(),
    );
    let kill = CancellationToken::new();
    let end = Box::pin(end(kill.clone(), not_after, withdrawn(peer.clone(), recheck)));
    Ok(PeerStream { io, remote: Remote { address, peer, channel, kill }, end, _places: (place, stranger) })
}

async fn end(kill: CancellationToken, not_after: SystemTime, withdrawn: impl Future<Output = ()>) {
    tokio::select! {
        () = kill.cancelled() => {}
        () = clock::reached(not_after) => {}
        () = withdrawn => {}
    }
}

/// Returns once the peer would not be accepted any more: its authority left the bundle, or it was revoked.
async fn withdrawn(peer: Option<Arc<Peer>>, mut recheck: Recheck) {
    let Some(peer) = peer else { return std::future::pending().await };
    while recheck.changes.changed().await.is_ok() {
        let since_1970 = Duration::from_secs(clock::unix_seconds(clock::now()));
        let now = UnixTime::since_unix_epoch(since_1970);
        if let Err(refused) = recheck.verifier.verify_again(&peer, now, Usage::ClientAuth) {
            tracing::warn!(peer = %peer.id(), reason = %refused.reason(), "a peer is trusted no longer");
            return;
        }
    }
    // The broker stops, and ends its connections by itself.
    std::future::pending().await
}

fn crowded() -> io::Error {
    io::Error::other("too many peers without certificate")
}

/// A number of places, of which one source has only some. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
    limit: usize,
    limit_per_source: usize,
}

/// A place, taken until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    source: IpAddr,
}

impl Places {
    pub(crate) fn new(limit: usize, limit_per_source: usize) -> Self {
        Self { taken: Arc::default(), limit, limit_per_source }
    }

    pub(crate) fn take(&self, source: IpAddr) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_source = taken.get(&source).copied().unwrap_or_default();
        if of_source >= self.limit_per_source || taken.values().sum::<usize>() >= self.limit {
            return None;
        }
        taken.insert(source, of_source.saturating_add(1));
        Some(Place { places: self.clone(), source })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                taken.remove(&self.source);
            }
        }
    }
}

impl Connected for PeerStream {
    type ConnectInfo = Remote;

    fn connect_info(&self) -> Remote {
        self.remote.clone()
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // gRPC cannot close one connection; a read that fails does it within milliseconds.
        if self.end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the connection's time is over")));
        }
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_cannot_take_every_place() {
        let places = Places::new(3, 2);
        let (here, there): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let (first, _second) = (places.take(here).unwrap(), places.take(here).unwrap());
        assert!(places.take(here).is_none());
        let _third = places.take(there).unwrap();
        assert!(places.take(there).is_none(), "there are no more");
        drop(first);
        places.take(here).unwrap();
    }
}
