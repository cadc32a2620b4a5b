use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use portcullis_identity::{InvalidLeaf, Peer, PeerRefused, PeerVerifier, Usage};
use quinn::{RecvStream, SendStream};
use rustls::pki_types::{CertificateDer, UnixTime};

use super::{ConnectionLost, classify, listener::Places};
use crate::refusal::CloseReason;

/// A connection whose peer proved its SPIFFE ID. Clones are the same connection.
///
/// The proof is as old as the handshake: its owner closes the connection at [`expires_at`](Self::expires_at), and
/// calls [`recheck`](Self::recheck) whenever the trust bundles change.
#[derive(Clone, Debug)]
pub struct Connection {
    quinn: quinn::Connection,
    proved: Arc<Proved>,
}

#[derive(Debug)]
struct Proved {
    peer: Peer,
    /// What the peer's certificate was used for.
    usage: Usage,
    /// What the connection takes of a listener's limits, given back with the last clone.
    _places: Option<Places>,
}

impl Connection {
    pub(super) fn new(quinn: quinn::Connection, peer: Peer, usage: Usage, places: Option<Places>) -> Self {
        Self { quinn, proved: Arc::new(Proved { peer, usage, _places: places }) }
    }

    /// The other end.
    pub fn peer(&self) -> &Peer {
        &self.proved.peer
    }

    /// When the peer's certificate expires and the connection has to be closed.
    pub fn expires_at(&self) -> SystemTime {
        self.proved.peer.not_after()
    }

    /// Where the peer sends from at the moment.
    pub fn remote_address(&self) -> SocketAddr {
        self.quinn.remote_address()
    }

    /// Verifies the chain that the peer presented once more, against the bundles of this moment.
    ///
    /// # Errors
    ///
    /// [`PeerRefused`]: the connection must be closed with [`CloseReason::TrustWithdrawn`].
    pub fn recheck(&self, verifier: &PeerVerifier, now: SystemTime) -> Result<(), PeerRefused> {
        let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO));
        verifier.verify_again(&self.proved.peer, now, self.proved.usage)
    }

    /// The next call the peer makes. Cancel safe. Only a listener's connections are called on.
    ///
    /// # Errors
    ///
    /// [`ConnectionLost`] when the connection has ended.
    pub async fn accept(&self) -> Result<(SendStream, RecvStream), ConnectionLost> {
        self.quinn.accept_bi().await.map_err(|error| classify(&error))
    }

    /// A stream for a call to the peer; waits while the peer has as many calls open as it allows. Only a dialer's
    /// connections may call. The peer learns of the stream with its first byte.
    ///
    /// # Errors
    ///
    /// [`ConnectionLost`] when the connection has ended; [`ConnectionLost::RefusedUs`] here, or at the first read,
    /// is how a dialer learns that its certificate was not accepted.
    pub async fn open(&self) -> Result<(SendStream, RecvStream), ConnectionLost> {
        self.quinn.open_bi().await.map_err(|error| classify(&error))
    }

    /// Ends the connection and every call on it at once, and tells the peer why.
    pub fn close(&self, reason: CloseReason) {
        self.quinn.close(reason.code().into(), reason.name().as_bytes());
    }

    /// Waits until the connection has ended, and says why.
    pub async fn closed(&self) -> ConnectionLost {
        classify(&self.quinn.closed().await)
    }

    /// Why the connection has ended, if it has.
    pub fn lost(&self) -> Option<ConnectionLost> {
        self.quinn.close_reason().map(|error| classify(&error))
    }

    /// The connection as quinn sees it, for statistics. What is done through it escapes the rules of this crate.
    pub const fn quinn(&self) -> &quinn::Connection {
        &self.quinn
    }
}

/// Who is at the other end of a connection whose handshake is complete.
pub(super) fn peer_of(quinn: &quinn::Connection) -> Result<Peer, InvalidLeaf> {
    let chain = quinn.peer_identity().and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok());
    Peer::from_chain(chain.as_deref().map_or(&[], Vec::as_slice))
}
