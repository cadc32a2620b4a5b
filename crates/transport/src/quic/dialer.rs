use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use portcullis_identity::{
    InvalidLeaf, PeerRefused, PeerRule, PeerVerifier, RefusalReason, SpiffeId, SvidSlot, TrustSource, Usage,
    client_config,
};
use quinn::{
    ClientConfig, EndpointConfig, NoneTokenStore, TokioRuntime, TransportConfig,
    crypto::rustls::{NoInitialCipherSuite, QuicClientConfig},
};

use super::{Connection, ConnectionLost, QuicLimits, classify, connection::peer_of, lost::alert_words};
use crate::refusal::CloseReason;

/// The name that the API asks for. It goes nowhere: SNI is off, and servers prove a SPIFFE ID, not a name.
const SERVER_NAME: &str = "peer.invalid";

/// Makes connections, all from one UDP socket per address family, bound when it is first needed.
///
/// Every handshake presents what the slot holds at that moment and is verified against the bundles of that moment.
#[derive(Debug)]
pub struct Dialer {
    trust: TrustSource,
    slot: Arc<SvidSlot>,
    deadline: Duration,
    transport: Arc<TransportConfig>,
    v4: Mutex<Option<quinn::Endpoint>>,
    v6: Mutex<Option<quinn::Endpoint>>,
}

/// A connection could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The system knows no way to the address.
    #[error("no route to `{address}`")]
    Unreachable {
        /// Where to.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// Nobody answered in time: nothing listens there, a firewall drops UDP, or the peer is overloaded.
    #[error("no answer from `{address}` within {deadline:?}")]
    Timeout {
        /// Where to.
        address: SocketAddr,
        /// How long was waited.
        deadline: Duration,
    },
    /// Whoever answered is not whom we expect, or cannot prove it.
    #[error("peer at `{address}` is not accepted")]
    WrongPeer {
        /// Where to.
        address: SocketAddr,
        /// What is wrong with it.
        source: Box<RefusalReason>,
    },
    /// The peer did not accept us. Most often this shows only when the connection is first used: see
    /// [`ConnectionLost::RefusedUs`].
    #[error("`{address}` refused us: {}", alert_words(*.alert))]
    RefusedUs {
        /// Where to.
        address: SocketAddr,
        /// The TLS alert (RFC 8446 §6).
        alert: u8,
    },
    /// The peer takes no more connections for now: try again later, or another address.
    #[error("`{0}` takes no more connections for now")]
    Busy(SocketAddr),
    /// The handshake failed otherwise.
    #[error("connection to `{address}` failed")]
    Failed {
        /// Where to.
        address: SocketAddr,
        /// How it ended.
        source: ConnectionLost,
    },
    /// Our end cannot make connections at all.
    #[error("cannot open a udp socket")]
    Io(#[from] io::Error),
    /// TLS refuses our configuration.
    #[error("cannot configure TLS")]
    Tls(#[from] rustls::Error),
    /// The TLS stack lacks the cipher suite that QUIC begins with.
    #[error("cannot configure TLS for QUIC")]
    Quic(#[from] NoInitialCipherSuite),
}

impl Dialer {
    /// A dialer that presents the slot's SVID. Nothing is bound yet, so nothing can fail.
    #[must_use]
    pub fn new(trust: TrustSource, slot: Arc<SvidSlot>, limits: QuicLimits) -> Self {
        let deadline = limits.handshake_timeout;
        let transport = limits.dialer_transport();
        Self { trust, slot, deadline, transport, v4: Mutex::default(), v6: Mutex::default() }
    }

    /// Connects to `address`, where exactly `expected` has to answer, within [`QuicLimits::handshake_timeout`]. Call
    /// it within a tokio runtime.
    ///
    /// Success does **not** prove that the peer accepts us: in TLS 1.3 the server judges our certificate after our
    /// handshake is complete. A peer that does not shows as [`ConnectionLost::RefusedUs`] at the first use.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]
    pub async fn connect(&self, address: SocketAddr, expected: &SpiffeId) -> Result<Connection, ConnectError> {
        // What looks like IPv6 and is IPv4 goes out by the IPv4 socket.
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        probe_route(address)?;
        let refused = Arc::new(OnceLock::new());
        let config = self.config(expected, Arc::clone(&refused))?;
        let connecting = self
            .endpoint(address)?
            .connect_with(config, address, SERVER_NAME)
            .map_err(|error| self.not_begun(address, &error))?;
        let quinn = tokio::time::timeout(self.deadline, connecting)
            .await
            .map_err(|_| ConnectError::Timeout { address, deadline: self.deadline })?
            .map_err(|error| match refused.get() {
                Some(reason) => ConnectError::WrongPeer { address, source: Box::new(reason.clone()) },
                None => self.lost(address, classify(&error)),
            })?;
        let peer = peer_of(&quinn).map_err(|error| wrong_leaf(address, error))?;
        Ok(Connection::new(quinn, peer, Usage::ServerAuth, None))
    }

    /// Closes every connection made so far. [`wait_idle`](Self::wait_idle) then waits until the peers were told.
    pub fn close(&self, reason: CloseReason) {
        for endpoint in self.endpoints() {
            endpoint.close(reason.code().into(), reason.name().as_bytes());
        }
    }

    /// Waits until no connection is left.
    pub async fn wait_idle(&self) {
        for endpoint in self.endpoints() {
            endpoint.wait_idle().await;
        }
    }

    /// One configuration per attempt, so that what the verifier says can be told apart from other attempts'. It costs
    /// a thousandth of the handshake.
    fn config(&self, expected: &SpiffeId, refused: Arc<OnceLock<RefusalReason>>) -> Result<ClientConfig, ConnectError> {
        let observe = move |error: &PeerRefused| drop(refused.set(error.reason().clone()));
        let rule = PeerRule::Exactly(expected.clone());
        let verifier = PeerVerifier::observed(Arc::clone(&self.trust), rule, observe);
        let tls = client_config(verifier, Arc::clone(&self.slot))?;
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        config.transport_config(Arc::clone(&self.transport)).token_store(Arc::new(NoneTokenStore));
        Ok(config)
    }

    fn endpoint(&self, address: SocketAddr) -> io::Result<quinn::Endpoint> {
        let mut slot = self.family(address).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(endpoint) = &*slot {
            return Ok(endpoint.clone());
        }
        let socket = UdpSocket::bind(any_address_like(address))?;
        let endpoint = quinn::Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))?;
        Ok(slot.insert(endpoint).clone())
    }

    fn endpoints(&self) -> impl Iterator<Item = quinn::Endpoint> {
        [&self.v4, &self.v6]
            .map(|slot| slot.lock().unwrap_or_else(PoisonError::into_inner).clone())
            .into_iter()
            .flatten()
    }

    const fn family(&self, address: SocketAddr) -> &Mutex<Option<quinn::Endpoint>> {
        match address {
            SocketAddr::V4(_) => &self.v4,
            SocketAddr::V6(_) => &self.v6,
        }
    }

    fn not_begun(&self, address: SocketAddr, error: &quinn::ConnectError) -> ConnectError {
        match error {
            quinn::ConnectError::InvalidRemoteAddress(_) => {
                ConnectError::Unreachable { address, source: io::ErrorKind::InvalidInput.into() }
            }
            quinn::ConnectError::EndpointStopping => {
                // The socket failed or was closed: the next attempt binds another.
                self.family(address).lock().unwrap_or_else(PoisonError::into_inner).take();
                ConnectError::Failed { address, source: ConnectionLost::ClosedHere }
            }
            quinn::ConnectError::CidsExhausted
            | quinn::ConnectError::InvalidServerName(_)
            | quinn::ConnectError::NoDefaultClientConfig
            | quinn::ConnectError::UnsupportedVersion => {
                ConnectError::Failed { address, source: ConnectionLost::Protocol(error.to_string()) }
            }
        }
    }

    fn lost(&self, address: SocketAddr, lost: ConnectionLost) -> ConnectError {
        match lost {
            ConnectionLost::RefusedUs { alert } => ConnectError::RefusedUs { address, alert },
            ConnectionLost::Busy => ConnectError::Busy(address),
            ConnectionLost::TimedOut => ConnectError::Timeout { address, deadline: self.deadline },
            source @ (ConnectionLost::Closed(_)
            | ConnectionLost::ClosedWith { .. }
            | ConnectionLost::Reset
            | ConnectionLost::ClosedHere
            | ConnectionLost::Handshake { .. }
            | ConnectionLost::Protocol(_)) => ConnectError::Failed { address, source },
        }
    }
}

fn wrong_leaf(address: SocketAddr, error: InvalidLeaf) -> ConnectError {
    ConnectError::WrongPeer { address, source: Box::new(RefusalReason::Leaf(error)) }
}

/// Asks the system for a route, without sending anything: QUIC itself would only fall silent.
fn probe_route(address: SocketAddr) -> Result<(), ConnectError> {
    let probe = UdpSocket::bind(any_address_like(address))?;
    probe.connect(address).map_err(|source| ConnectError::Unreachable { address, source })
}

fn any_address_like(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}
