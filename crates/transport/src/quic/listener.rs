mod door;

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use portcullis_identity::{ClientAuth, InvalidLeaf, PeerVerifier, SpiffeId, SvidSlot, Usage, server_config};
use quinn::{
    EndpointConfig, ServerConfig, TokioRuntime,
    crypto::rustls::{NoInitialCipherSuite, QuicServerConfig},
};
use tokio::sync::OwnedSemaphorePermit;

use super::{Connection, ConnectionLost, QuicLimits, admission::Address, classify, connection::peer_of};
use crate::refusal::CloseReason;

pub(super) use self::door::Places;
use self::door::{Door, UnderWay, Verdict};

/// Attempts to connect that wait for [`Listener::accept`]; QUIC leaves further ones without an answer, and their
/// clients ask again. Each holds one datagram and whatever else the client sends meanwhile.
const WAITING: usize = 512;

/// What all waiting attempts may have sent beyond their first datagram, in bytes; a ClientHello takes two at
/// most.
const WAITING_BYTES: u64 = 1 << 20;

/// A QUIC listener on one UDP address, with one SVID (which may be replaced while it runs).
///
/// Its owner calls [`accept`](Self::accept) in a loop and spawns [`Incoming::handshake`] for each.
#[derive(Debug)]
pub struct Listener {
    endpoint: quinn::Endpoint,
    deadline: Duration,
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
            let socket = UdpSocket::bind(address)?;
            quinn::Endpoint::new(EndpointConfig::default(), Some(config), socket, Arc::new(TokioRuntime))
        };
        let endpoint = bind().map_err(|source| BindError::Address { address, source })?;
        let door = Arc::new(Door::new(limits));
        Ok(Self { endpoint, deadline: limits.handshake_timeout, door })
    }

    /// The address it listens on, with the port that was chosen.
    ///
    /// # Errors
    ///
    /// What the system says, which it has no reason to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// The next client that may shake hands; `None` once the listener is closed. Cancel safe.
    ///
    /// Clients over a limit are turned away in here, and every client after [`drain`](Self::drain): keep calling it
    /// until the end. It waits while [`QuicLimits::handshakes`] are under way.
    pub async fn accept(&self) -> Option<Incoming> {
        loop {
            let handshake = tokio::select! {
                biased;
                () = self.door.shut.cancelled() => None,
                handshake = Arc::clone(&self.door.handshakes).acquire_owned() => handshake.ok(),
            };
            let attempt = self.endpoint.accept().await?;
            let Some(handshake) = handshake.filter(|_| !self.door.shut.is_cancelled()) else {
                attempt.refuse();
                continue;
            };
            let address = if attempt.remote_address_validated() { Address::Proved } else { Address::Claimed };
            match self.door.judge(attempt.remote_address().ip(), address, now()) {
                Verdict::Enter { connection, source } => {
                    let under_way = UnderWay::new(Arc::clone(&self.door), source, handshake);
                    return Some(Incoming { attempt, under_way, connection, deadline: self.deadline });
                }
                // It cannot fail where the address is only claimed; an attempt that is dropped is refused.
                Verdict::Prove => drop(attempt.retry()),
                Verdict::Defer => attempt.ignore(),
                Verdict::Refuse => attempt.refuse(),
            }
        }
    }

    /// Takes no further connections: clients are refused at once, so that they look elsewhere. Connections stay as
    /// they are.
    pub fn drain(&self) {
        self.door.shut.cancel();
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
        self.door.connections()
    }

    /// What became of the attempts to connect.
    pub fn attempts(&self) -> Attempts {
        self.door.attempts()
    }
}

/// A client that may shake hands. Dropped, it is refused.
#[derive(Debug)]
pub struct Incoming {
    attempt: quinn::Incoming,
    under_way: UnderWay,
    connection: OwnedSemaphorePermit,
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
    /// The verifier's observer is called within the tracing span that is current here: a span with the remote address
    /// lets it log who came from where, and why not.
    ///
    /// # Errors
    ///
    /// [`HandshakeRefused`]
    pub async fn handshake(self) -> Result<Connection, HandshakeRefused> {
        let Self { attempt, under_way, connection, deadline } = self;
        let connecting = attempt.accept().map_err(|error| classify(&error))?;
        let quinn = tokio::time::timeout(deadline, connecting)
            .await
            .map_err(|_| HandshakeRefused::Timeout(deadline))?
            .map_err(|error| classify(&error))?;
        let peer = peer_of(&quinn)?;
        let Some(places) = under_way.over(peer.id(), connection) else {
            let reason = CloseReason::TooManyConnections;
            quinn.close(reason.code().into(), reason.name().as_bytes());
            return Err(HandshakeRefused::TooManyConnections(peer.id().clone()));
        };
        Ok(Connection::new(quinn, peer, Usage::ClientAuth, Some(places)))
    }
}

#[expect(clippy::disallowed_methods, reason = "the edge: admission itself is told the time")]
fn now() -> Instant {
    Instant::now()
}
