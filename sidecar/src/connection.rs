//! One caller's connection: its streams become calls; it ends at the certificate's expiry, when trust is withdrawn, or when the sidecar
//! stops.

use std::sync::Arc;
use std::time::Duration;

use portcullis_client::node::NodeState;
use portcullis_identity::{PeerVerifier, TrustBundles, TrustSource};
use portcullis_transport::CloseReason;
use portcullis_transport::quic::Connection;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, info, info_span};

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
        let span = info_span!("connection", peer = caller.id(), address = %connection.remote_address());
        let serving = async {
            info!("connected");
            let why = self.streams(&connection, &caller, trusted).await;
            info!(why, "disconnected");
        };
        serving.instrument(span).await;
    }

    async fn streams(
        &mut self,
        connection: &Connection,
        caller: &Arc<Caller>,
        mut trusted: Arc<TrustBundles>,
    ) -> String {
        loop {
            let now_trusted = self.trusted();
            if !Arc::ptr_eq(&trusted, &now_trusted) {
                if let Err(refused) = connection.recheck(&self.verifier, clock::now()) {
                    connection.close(CloseReason::TrustWithdrawn);
                    return refused.reason().to_string();
                }
                trusted = now_trusted;
            }
            let left = connection.expires_at().duration_since(clock::now()).unwrap_or_default();
            if left.is_zero() {
                connection.close(CloseReason::CertificateExpired);
                return CloseReason::CertificateExpired.name().to_owned();
            }
            tokio::select! {
                stream = connection.accept() => match stream {
                    Ok((send, recv)) => {
                        let (gate, caller) = (Arc::clone(&self.gate), Arc::clone(caller));
                        self.tasks.spawn(async move { gate.serve(&caller, send, recv).await });
                    }
                    Err(lost) => return lost.to_string(),
                },
                changed = self.state.changed() => {
                    if changed.is_err() {
                        // The node has stopped, and with it the sidecar.
                        self.end.cancelled().await;
                    }
                }
                () = tokio::time::sleep(left.min(LOOK)) => {}
                () = self.end.cancelled() => {
                    connection.close(CloseReason::Draining);
                    return CloseReason::Draining.name().to_owned();
                }
            }
        }
    }
}
