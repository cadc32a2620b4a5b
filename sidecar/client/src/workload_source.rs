//! An identity that a SPIFFE Workload API of this machine gives, and the bundles that come with it.
//!
//! Which identity is to be had is said by the broker's registration, and nothing else that the socket offers is taken. The node itself stays
//! what it is to the broker: a workload's SVID says who serves, not which node it is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_identity::{Bundle, PrivateKey, SpiffeId, Svid};
use rustls::pki_types::CertificateDer;
use spiffe::x509_source::{X509SourceState, X509SourceUpdates};
use spiffe::{X509Context, X509Source, X509SourceBuilder};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::clock;
use crate::node::{Identity, Node};

/// The first wait after the socket was lost.
const RETRY_FLOOR: Duration = Duration::from_millis(200);
/// The longest.
const RETRY_CEILING: Duration = Duration::from_secs(5);
/// How often the log says that the first identity is still waited for.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// Where a Workload API is served: a Unix socket of this machine. Its name alone vouches for who gives identities there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadSocket(PathBuf);

/// Not the address of such a socket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not unix:PATH: a Unix socket, without authority, query and fragment")]
pub struct InvalidSocket(String);

impl FromStr for WorkloadSocket {
    type Err = InvalidSocket;

    /// `unix:PATH`, and `unix:///PATH` with the empty authority that clients write (SPIFFE Workload Endpoint §4).
    fn from_str(text: &str) -> Result<Self, InvalidSocket> {
        let path = text.strip_prefix("unix:").and_then(|rest| match rest.strip_prefix("//") {
            Some(path) => path.starts_with('/').then_some(path),
            None => Some(rest),
        });
        let path = path.filter(|path| !path.is_empty() && !path.contains(['?', '#']));
        Ok(Self(path.ok_or_else(|| InvalidSocket(text.to_owned()))?.into()))
    }
}

impl fmt::Display for WorkloadSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix:{}", self.0.display())
    }
}

impl WorkloadSocket {
    /// The same; a relative path is one below `folder`.
    #[must_use]
    pub fn below(self, folder: &Path) -> Self {
        Self(folder.join(self.0))
    }
}

/// Why a Workload API gives no identity and never will.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It cannot be spoken with.
    #[error("the workload API `{socket}`: {cause}")]
    Unusable {
        /// Which.
        socket: String,
        /// Why.
        cause: String,
    },
    /// It was told to stop before there was one.
    #[error("stopped before the workload API gave an identity")]
    Stopped,
}

/// An identity from a Workload API, kept as the socket says.
#[derive(Clone, Debug)]
pub struct WorkloadSource {
    identity: Arc<Identity>,
}

/// What the socket gave at one moment.
struct Given {
    svid: Arc<Svid>,
    bundles: Vec<Bundle>,
}

impl WorkloadSource {
    /// Takes the identity `expected` from `socket` as soon as it is there, and follows it until `stop`.
    ///
    /// # Errors
    /// When there can be no Workload API at the socket.
    pub async fn start(
        socket: &WorkloadSocket,
        expected: SpiffeId,
        node: &Node,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, SourceError> {
        let stopping = stop.clone();
        let first = stopping.run_until_cancelled(first(socket, &expected)).await;
        let (source, updates, Given { svid, bundles }) = first.ok_or(SourceError::Stopped)??;
        let taken =
            Self { identity: Identity::new(String::new(), String::new(), svid, node.trust_in(bundles.clone())) };
        info!(%socket, id = %expected, "the identity comes from a workload API");
        let following = taken.clone().follow((source, updates), expected, node.clone(), bundles);
        tasks.spawn(stop.run_until_cancelled_owned(following));
        Ok(taken)
    }

    /// The identity. It trusts whom the Workload API tells to trust, without what the broker revoked.
    #[must_use]
    pub fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.identity)
    }

    async fn follow(
        self,
        (source, mut updates): (X509Source, X509SourceUpdates),
        expected: SpiffeId,
        node: Node,
        mut bundles: Vec<Bundle>,
    ) {
        let mut states = node.state();
        let mut told = bundles.clone();
        // What changed while the first answer was read.
        states.mark_changed();
        loop {
            tokio::select! {
                changed = updates.changed() => {
                    if changed.is_err() {
                        error!("the workload API is not followed any more");
                        self.identity.set_lost(Some("the workload API is not followed any more".to_owned()));
                        return;
                    }
                    match given(&source.state(), &expected) {
                        Ok(given) => {
                            bundles = given.bundles;
                            self.take(given.svid);
                        }
                        Err(why) => {
                            error!(why, id = %expected, "the identity from the workload API is lost");
                            self.identity.set_lost(Some(why));
                        }
                    }
                }
                // Revocations come from the broker.
                changed = states.changed() => if changed.is_err() { return },
            }
            let trust = node.trust_in(bundles.clone());
            // A new value makes every connection look at its peer again.
            if told != bundles || self.identity.trust().load().revocations() != trust.revocations() {
                told.clone_from(&bundles);
                self.identity.see(trust);
            }
        }
    }

    fn take(&self, svid: Arc<Svid>) {
        if self.identity.svid().chain() != svid.chain() {
            let left = svid.not_after().duration_since(clock::now()).unwrap_or_default();
            info!(id = %svid.id(), valid_seconds = left.as_secs(), "the workload API renewed an svid");
            self.identity.replace(svid);
        }
        if self.identity.lost().is_some() {
            info!(id = %self.identity.id(), "the identity from the workload API is back");
            self.identity.set_lost(None);
        }
    }
}

/// Waits for the identity, and says what it waits for.
async fn first(
    socket: &WorkloadSocket,
    expected: &SpiffeId,
) -> Result<(X509Source, X509SourceUpdates, Given), SourceError> {
    let unusable = |cause: String| SourceError::Unusable { socket: socket.to_string(), cause };
    let source = loop {
        let building =
            X509SourceBuilder::new().endpoint(socket.to_string()).reconnect_backoff(RETRY_FLOOR, RETRY_CEILING).build();
        match tokio::time::timeout(SAY_AGAIN, building).await {
            Ok(Ok(source)) => break source,
            Ok(Err(error)) => return Err(unusable(error.to_string())),
            Err(_) => warn!(%socket, id = %expected, "waiting for the workload API to issue an identity"),
        }
    };
    let mut updates = source.updated();
    loop {
        let why = match given(&source.state(), expected) {
            Ok(given) => return Ok((source, updates, given)),
            Err(why) => why,
        };
        warn!(%socket, why, "waiting for the workload API");
        updates.changed().await.map_err(|error| unusable(error.to_string()))?;
    }
}

/// The identity `expected` and the bundles, or why the socket does not give it now.
fn given(state: &X509SourceState, expected: &SpiffeId) -> Result<Given, String> {
    let context = state.context().map_err(|error| error.to_string())?;
    let svid = svid(&context, expected)?;
    let mut bundles = Vec::new();
    for (trust_domain, bundle) in context.bundle_set().iter() {
        let authorities = bundle.authorities().iter().map(|der| CertificateDer::from(der.as_bytes().to_vec()));
        match Bundle::new(trust_domain.clone(), authorities) {
            Ok(bundle) => bundles.push(bundle),
            Err(error) if trust_domain == expected.trust_domain() => return Err(error.to_string()),
            // Nobody of that domain is trusted, and nobody else is the worse for it.
            Err(error) => warn!(%error, "the workload API tells a bundle that cannot be used"),
        }
    }
    let own = bundles.iter().find(|bundle| bundle.trust_domain() == expected.trust_domain());
    if own.is_none_or(|own| own.authorities().is_empty()) {
        return Err(format!("it tells no authority of `{}`", expected.trust_domain()));
    }
    Ok(Given { svid, bundles })
}

fn svid(context: &X509Context, expected: &SpiffeId) -> Result<Arc<Svid>, String> {
    let offered = context.svids();
    let Some(found) = offered.iter().find(|svid| svid.spiffe_id() == expected) else {
        let ids: Vec<_> = offered.iter().take(8).map(|svid| format!("`{}`", svid.spiffe_id())).collect();
        let ids = ids.join(", ");
        return Err(if offered.iter().any(|svid| svid.spiffe_id().trust_domain() == expected.trust_domain()) {
            format!("it issues {ids}; registered with the broker is `{expected}`")
        } else {
            format!("it issues {ids}, of another trust domain than `{expected}`, which is registered with the broker")
        });
    };
    let chain = found.cert_chain().iter().map(|der| CertificateDer::from(der.as_bytes().to_vec())).collect();
    let key = PrivateKey::from_pkcs8(found.private_key().as_bytes()).map_err(|error| error.to_string())?;
    let svid = Svid::new(chain, key).map_err(|error| error.to_string())?;
    // What the certificate says counts, not what the message around it says.
    if svid.id() == expected { Ok(Arc::new(svid)) } else { Err(format!("an svid is for `{}`", svid.id())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_unix_socket_without_authority_query_and_fragment_is_an_address() {
        for (text, path) in
            [("unix:///run/a.sock", "/run/a.sock"), ("unix:/run/a.sock", "/run/a.sock"), ("unix:a", "a")]
        {
            assert_eq!(text.parse::<WorkloadSocket>().unwrap().0, PathBuf::from(path));
        }
        let wrong =
            ["", "unix:", "unix://", "unix://host/a.sock", "unix:/a?b", "unix:/a#b", "tcp://127.0.0.1:80", "/a.sock"];
        for text in wrong {
            assert!(text.parse::<WorkloadSocket>().is_err(), "{text}");
        }
    }
}
