use std::{
    collections::HashMap,
    future::Future,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use portcullis_identity::{ClientAuth, InvalidLeaf, PeerVerifier, SpiffeId, SvidSlot, Usage, server_config};
use quinn::{
    EndpointConfig, ServerConfig, TokioRuntime,
    crypto::rustls::{NoInitialCipherSuite, QuicServerConfig},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{
    Connection, ConnectionLost, QuicLimits,
    admission::{Address, Admission, Crowd, Source, Sources},
    classify,
    connection::peer_of,
    socket,
};
use crate::refusal::CloseReason;

/// Attempts to connect that wait for [`Listener::accept`]; beyond it QUIC refuses by itself. Each holds one datagram
/// and whatever else the client sends meanwhile.
const WAITING: usize = 512;

/// What all waiting attempts may have sent beyond their first datagram, in bytes; a ClientHello needs no second one.
const WAITING_BYTES: u64 = 1 << 20;

/// A QUIC listener on one UDP address, with one SVID (which may be replaced while it runs).
///
/// Its owner calls [`accept`](Self::accept) in a loop and spawns [`Incoming::handshake`] for each.
#[derive(Debug)]
pub struct Listener {
    endpoint: quinn::Endpoint,
    config: ServerConfig,
    limits: QuicLimits,
    door: Arc<Door>,
}

/// A listener could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The UDP address cannot be bound.
    #[error("cannot bind UDP address `{address}`")]
    Address {
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// TLS refuses the configuration.
    #[error("cannot configure TLS")]
    Tls(#[from] rustls::Error),
    /// The TLS stack lacks the cipher suite that QUIC begins with.
    #[error("cannot configure TLS for QUIC")]
    Quic(#[from] NoInitialCipherSuite),
}

/// How many attempts to connect met which fate before their handshake, since the listener was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    /// Given to the listener's owner to shake hands with.
    pub admitted: u64,
    /// Asked to prove their address first; most come back and are counted again.
    pub asked_for_proof: u64,
    /// Left without an answer because their address has enough handshakes under way; they ask again by themselves.
    pub deferred: u64,
    /// Refused: no place is left, or their address comes too often.
    pub refused: u64,
}

impl Listener {
    /// Binds `address` (port 0: any free port) and presents the slot's SVID to clients that `verifier` accepts.
    /// Call it within a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`BindError`]
    pub fn bind(
        address: SocketAddr,
        verifier: Arc<PeerVerifier>,
        slot: Arc<SvidSlot>,
        limits: QuicLimits,
    ) -> Result<Self, BindError> {
        let tls = server_config(verifier, slot, ClientAuth::Required)?;
        let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
        config
            .transport_config(limits.listener_transport())
            .max_incoming(WAITING)
            .incoming_buffer_size(WAITING_BYTES / 16)
            .incoming_buffer_size_total(WAITING_BYTES);
        let bind = || {
            let socket = socket::bind(address)?;
            let config = Some(config.clone());
            quinn::Endpoint::new(EndpointConfig::default(), config, socket, Arc::new(TokioRuntime))
        };
        let endpoint = bind().map_err(|source| BindError::Address { address, source })?;
        let door = Arc::new(Door::new(&limits));
        Ok(Self {
            endpoint,
            config,
            limits,
            door,
        })
    }

    /// The address it listens on, with the port that was chosen.
    ///
    /// # Errors
    ///
    /// What the system says, which it has no reason to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// The next client that may shake hands; `None` once the listener drains or is closed. Cancel safe.
    ///
    /// Clients over a limit are turned away in here. It waits while [`QuicLimits::handshakes`] are under way.
    pub async fn accept(&self) -> Option<Incoming> {
        loop {
            let handshake = tokio::select! {
                biased;
                () = self.door.shut.cancelled() => return None,
                handshake = Arc::clone(&self.door.handshakes).acquire_owned() => handshake.ok()?,
            };
            let attempt = tokio::select! {
                biased;
                () = self.door.shut.cancelled() => return None,
                attempt = self.endpoint.accept() => attempt?,
            };
            let Some((attempt, connection, source)) = self.admit(attempt) else {
                continue;
            };
            let door = Arc::clone(&self.door);
            let under_way = UnderWay {
                door: Arc::clone(&door),
                source,
                _permit: handshake,
            };
            let deadline = self.limits.handshake_timeout;
            return Some(Incoming {
                attempt,
                under_way,
                connection,
                door,
                deadline,
            });
        }
    }

    /// Takes no further connections: [`accept`](Self::accept) returns `None` and clients are refused at once, so
    /// that they look elsewhere. Connections stay as they are.
    pub fn drain(&self) {
        self.door.shut.cancel();
        let mut config = self.config.clone();
        config.max_incoming(0);
        self.endpoint.set_server_config(Some(config));
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(waiting)) = pin!(self.endpoint.accept()).poll(&mut cx) {
            waiting.refuse();
        }
    }

    /// Takes no further connections and closes those there are. [`wait_idle`](Self::wait_idle) then waits until the
    /// peers were told.
    pub fn close(&self, reason: CloseReason) {
        self.drain();
        self.endpoint.close(reason.code().into(), reason.name().as_bytes());
    }

    /// Waits until no connection is left.
    pub async fn wait_idle(&self) {
        self.endpoint.wait_idle().await;
    }

    /// How many connections there are, those in a handshake included.
    pub fn connections(&self) -> usize {
        self.limits
            .connections
            .saturating_sub(self.door.connections.available_permits())
    }

    /// What became of the attempts to connect.
    pub fn attempts(&self) -> Attempts {
        self.door.attempts.snapshot()
    }

    /// Judges an attempt before its handshake, and carries out the judgement unless it may enter.
    fn admit(&self, attempt: quinn::Incoming) -> Option<(quinn::Incoming, OwnedSemaphorePermit, Source)> {
        let counts = &self.door.attempts;
        let Ok(place) = Arc::clone(&self.door.connections).try_acquire_owned() else {
            counts.refused.fetch_add(1, Relaxed);
            attempt.refuse();
            return None;
        };
        let address = if attempt.remote_address_validated() {
            Address::Proved
        } else {
            Address::Claimed
        };
        let crowd = self.door.crowd(&self.limits);
        let ip = attempt.remote_address().ip();
        match lock(&self.door.sources).admit(ip, address, crowd, now()) {
            Admission::Enter(source) => {
                counts.admitted.fetch_add(1, Relaxed);
                return Some((attempt, place, source));
            }
            Admission::Prove => {
                counts.asked_for_proof.fetch_add(1, Relaxed);
                // Cannot fail where the address is only claimed; an attempt that is dropped is refused.
                drop(attempt.retry());
            }
            Admission::Defer => {
                counts.deferred.fetch_add(1, Relaxed);
                attempt.ignore();
            }
            Admission::Refuse => {
                counts.refused.fetch_add(1, Relaxed);
                attempt.refuse();
            }
        }
        None
    }
}

/// A client that may shake hands. Dropped, it is refused.
#[derive(Debug)]
pub struct Incoming {
    attempt: quinn::Incoming,
    under_way: UnderWay,
    connection: OwnedSemaphorePermit,
    door: Arc<Door>,
    deadline: Duration,
}

/// A handshake that gave no connection.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeRefused {
    /// The client took too long.
    #[error("handshake took longer than {0:?}")]
    Timeout(Duration),
    /// One of the ends refused. A certificate that we refuse is [`ConnectionLost::Handshake`]; what was wrong with
    /// it only the verifier's observer hears, because the text would reach the peer.
    #[error(transparent)]
    Failed(#[from] ConnectionLost),
    /// The client presented no SVID.
    #[error("client presented no svid")]
    NoPeer(#[from] InvalidLeaf),
    /// The client proved its ID, but this ID holds too many connections.
    #[error("`{0}` holds too many connections")]
    TooManyConnections(SpiffeId),
}

impl Incoming {
    /// Where the client claims to be, or is when it has proved its address.
    pub fn remote_address(&self) -> SocketAddr {
        self.attempt.remote_address()
    }

    /// Shakes hands, within [`QuicLimits::handshake_timeout`]. The client's certificate has been accepted by the
    /// listener's verifier when this returns.
    ///
    /// # Errors
    ///
    /// [`HandshakeRefused`]
    pub async fn handshake(self) -> Result<Connection, HandshakeRefused> {
        let Self {
            attempt,
            under_way,
            connection,
            door,
            deadline,
        } = self;
        let connecting = attempt.accept().map_err(|error| classify(&error))?;
        let quinn = tokio::time::timeout(deadline, connecting)
            .await
            .map_err(|_| HandshakeRefused::Timeout(deadline))?
            .map_err(|error| classify(&error))?;
        drop(under_way);
        let peer = peer_of(&quinn)?;
        let Some(seat) = Seat::take(door, peer.id()) else {
            let reason = CloseReason::TooManyConnections;
            quinn.close(reason.code().into(), reason.name().as_bytes());
            return Err(HandshakeRefused::TooManyConnections(peer.id().clone()));
        };
        Ok(Connection::new(
            quinn,
            peer,
            Usage::ClientAuth,
            Some(Places {
                _connection: connection,
                _seat: seat,
            }),
        ))
    }
}

/// What a connection takes of its listener's limits, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Places {
    _connection: OwnedSemaphorePermit,
    _seat: Seat,
}

/// One of the connections that a SPIFFE ID may hold.
#[derive(Debug)]
struct Seat {
    door: Arc<Door>,
    id: SpiffeId,
}

impl Seat {
    fn take(door: Arc<Door>, id: &SpiffeId) -> Option<Self> {
        let mut seats = lock(&door.seats);
        let taken = seats.entry(id.clone()).or_insert(0);
        if *taken >= door.seats_per_peer {
            return None;
        }
        *taken += 1;
        drop(seats);
        Some(Self { door, id: id.clone() })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = lock(&self.door.seats);
        if let Some(taken) = seats.get_mut(&self.id) {
            *taken = taken.saturating_sub(1);
            if *taken == 0 {
                seats.remove(&self.id);
            }
        }
    }
}

/// A handshake that counts as under way until this is dropped.
#[derive(Debug)]
struct UnderWay {
    door: Arc<Door>,
    source: Source,
    _permit: OwnedSemaphorePermit,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        lock(&self.door.sources).leave(self.source);
    }
}

/// What a listener, its handshakes and its connections count together.
#[derive(Debug)]
struct Door {
    connections: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    sources: Mutex<Sources>,
    seats: Mutex<HashMap<SpiffeId, usize>>,
    seats_per_peer: usize,
    attempts: AttemptCounters,
    shut: CancellationToken,
}

impl Door {
    fn new(limits: &QuicLimits) -> Self {
        Self {
            connections: Arc::new(Semaphore::new(limits.connections)),
            handshakes: Arc::new(Semaphore::new(limits.handshakes)),
            // Half of the handshakes is open to claimed addresses, so that each proved one must do with a quarter.
            sources: Mutex::new(Sources::new(
                limits.handshakes_per_second,
                limits.handshakes.div_ceil(4),
            )),
            seats: Mutex::default(),
            seats_per_peer: limits.connections_per_peer,
            attempts: AttemptCounters::default(),
            shut: CancellationToken::new(),
        }
    }

    fn crowd(&self, limits: &QuicLimits) -> Crowd {
        let dense = |places: &Semaphore, limit: usize| places.available_permits() < limit.div_ceil(2);
        if dense(&self.handshakes, limits.handshakes) || dense(&self.connections, limits.connections) {
            Crowd::Dense
        } else {
            Crowd::Sparse
        }
    }
}

#[derive(Debug, Default)]
struct AttemptCounters {
    admitted: AtomicU64,
    asked_for_proof: AtomicU64,
    deferred: AtomicU64,
    refused: AtomicU64,
}

impl AttemptCounters {
    fn snapshot(&self) -> Attempts {
        Attempts {
            admitted: self.admitted.load(Relaxed),
            asked_for_proof: self.asked_for_proof.load(Relaxed),
            deferred: self.deferred.load(Relaxed),
            refused: self.refused.load(Relaxed),
        }
    }
}

/// None of these locks is held across code that can panic halfway through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(clippy::disallowed_methods, reason = "the edge: admission itself is told the time")]
fn now() -> Instant {
    Instant::now()
}
