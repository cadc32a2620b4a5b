//! One caller's connection: its streams become calls; it ends at the certificate's expiry, when trust is withdrawn, or when the sidecar
//! stops.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use portcullis_client::node::NodeState;
use portcullis_identity::{PeerVerifier, TrustBundles, TrustSource};
use portcullis_transport::CloseReason;
use portcullis_transport::quic::Connection;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::clock;
use crate::gate::{Caller, Gate};

/// The longest a connection sleeps towards its expiry before it looks at the wall clock again.
const LOOK: Duration = Duration::from_secs(30);

/// What every connection shares.
#[derive(Clone, Debug)]
pub(crate) struct Connections {
    pub(crate) gate: Arc<Gate>,
    pub(crate) verifier: Arc<PeerVerifier>,
    pub(crate) trust: TrustSource,
    pub(crate) state: watch::Receiver<Arc<NodeState>>,
    /// Cancelled when no call is left, or must not be waited for.
    pub(crate) end: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Connections {
    /// The bundles in force; to be taken before a handshake, so that no change between it and [`Connections::serve`] is missed.
    pub(crate) fn trusted(&self) -> Arc<TrustBundles> {
        self.trust.load_full()
    }

    /// Serves a connection to its end. `trusted` is what its handshake was judged by.
    pub(crate) async fn serve(mut self, connection: Connection, trusted: Arc<TrustBundles>) {
        let caller = Arc::new(Caller::new(connection.peer().id(), &self.gate.quota));
        // No span: it would be entered at every turn of a busy connection, for two lines.
        let (peer, address) = (caller.id(), connection.remote_address());
        info!(peer, %address, "connected");
        let why = self.streams(&connection, &caller, trusted).await;
        info!(peer, %address, why, "disconnected");
    }

    /// Spawns a task per stream until something ends the connection, and says what. What may end it is set up once, not per stream.
    async fn streams(&mut self, connection: &Connection, caller: &Arc<Caller>, trusted: Arc<TrustBundles>) -> String {
        let Self { gate, verifier, trust, state, end, tasks } = self;
        let mut withdrawn = pin!(withdrawn(connection, Trust { verifier, source: trust, seen: trusted }, state));
        let mut expired = pin!(expired(connection));
        let mut ended = pin!(end.cancelled());
        loop {
            tokio::select! {
                biased;
                () = &mut ended => {
                    connection.close(CloseReason::Draining);
                    return CloseReason::Draining.name().to_owned();
                }
                why = &mut withdrawn => {
                    connection.close(CloseReason::TrustWithdrawn);
                    return why;
                }
                () = &mut expired => {
                    connection.close(CloseReason::CertificateExpired);
                    return CloseReason::CertificateExpired.name().to_owned();
                }
                stream = connection.accept() => match stream {
                    Ok((send, recv)) => {
                        let (gate, caller) = (Arc::clone(gate), Arc::clone(caller));
                        tasks.spawn(async move { gate.serve(&caller, send, recv).await });
                    }
                    Err(lost) => return lost.to_string(),
                },
            }
        }
    }
}

/// What a peer is believed by.
struct Trust<'a> {
    verifier: &'a PeerVerifier,
    source: &'a TrustSource,
    /// The bundles that the peer was last judged by.
    seen: Arc<TrustBundles>,
}

/// Judges the peer again whenever the bundles change, until it is not believed any more; says why.
async fn withdrawn(
    connection: &Connection,
    mut trust: Trust<'_>,
    state: &mut watch::Receiver<Arc<NodeState>>,
) -> String {
    loop {
        let now = trust.source.load_full();
        if !Arc::ptr_eq(&trust.seen, &now) {
            if let Err(refused) = connection.recheck(trust.verifier, clock::now()) {
                return refused.reason().to_string();
            }
            trust.seen = now;
        }
        if state.changed().await.is_err() {
            // The node has stopped, and with it the sidecar.
            return std::future::pending().await;
        }
    }
}

/// Waits until the peer's certificate expires, by the wall clock.
async fn expired(connection: &Connection) {
    loop {
        let left = connection.expires_at().duration_since(clock::now()).unwrap_or_default();
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LOOK)).await;
    }
}
