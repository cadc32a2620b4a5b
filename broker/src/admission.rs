//! Who may ask for anything at all: asked anew with every request, because a connection outlives what it was admitted for.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use portcullis_identity::{NodeName, Peer, SpiffeId, node_name};
use tonic::{Code, Status};

use crate::broker::Broker;
use crate::clock;
use crate::listener::Remote;
use crate::registry::{Registry, Standing};
use crate::throttle::{Admission, Rate, Throttle};

/// What the log says of one refused peer: who was removed and does not know it comes again and again.
const COMPLAINTS: Rate = Rate { burst: 2, every: Duration::from_secs(60) };
/// Peers whose complaints are counted at one time; they have certificates of ours.
const COMPLAINED_OF: usize = 1024;

/// Counts what the log said of refused peers.
#[derive(Debug)]
pub(crate) struct Complaints(Mutex<Throttle<SpiffeId>>);

impl Default for Complaints {
    fn default() -> Self {
        Self(Mutex::new(Throttle::new(COMPLAINTS, COMPLAINED_OF)))
    }
}

impl Complaints {
    fn admit(&self, id: SpiffeId) -> Admission {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).admit(id, clock::now())
    }
}

/// Why a peer gets no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAdmitted {
    #[error("this needs a node's certificate: join first")]
    Anonymous,
    #[error("only nodes may ask this")]
    NotANode,
    #[error("the node is not registered: it needs a new join token")]
    NotRegistered,
    #[error("the node is quarantined, because two holders used one certificate of it: it needs a new join token")]
    Quarantined,
    #[error("the certificate is from before the node joined anew")]
    Superseded,
}

impl NotAdmitted {
    /// The gRPC code that says so.
    pub(crate) const fn code(self) -> Code {
        match self {
            Self::Anonymous => Code::Unauthenticated,
            Self::NotANode | Self::NotRegistered | Self::Quarantined | Self::Superseded => Code::PermissionDenied,
        }
    }
}

impl From<NotAdmitted> for Status {
    fn from(refused: NotAdmitted) -> Self {
        Self::new(refused.code(), refused.to_string())
    }
}

impl Broker {
    /// The node at the other end, by its certificate; it must still be one.
    pub(crate) fn admit(&self, remote: &Remote) -> Result<NodeName, NotAdmitted> {
        let peer = remote.peer.as_ref().ok_or(NotAdmitted::Anonymous)?;
        self.ledger.read(|registry| admit_peer(registry, peer)).inspect_err(|refused| {
            let (id, address) = (peer.id(), remote.address);
            match self.complaints.admit(id.clone()) {
                Admission::Admitted => tracing::warn!(peer = %id, %address, %refused, "a peer was refused"),
                Admission::Throttled => tracing::debug!(peer = %id, %address, %refused, "a peer was refused"),
            }
        })
    }
}

/// The node that `peer` is by its certificate; it must still be one.
pub(crate) fn admit_peer(registry: &Registry, peer: &Peer) -> Result<NodeName, NotAdmitted> {
    let ours = peer.id().is_member_of(registry.trust_domain());
    let name = node_name(peer.id()).filter(|_| ours).ok_or(NotAdmitted::NotANode)?;
    let node = registry.node(&name).ok_or(NotAdmitted::NotRegistered)?;
    match node.standing {
        Standing::Quarantined => Err(NotAdmitted::Quarantined),
        Standing::Barred => Err(NotAdmitted::NotRegistered),
        Standing::Good if node.is_superseded(peer.leaf()) => Err(NotAdmitted::Superseded),
        Standing::Good => Ok(name),
    }
}
