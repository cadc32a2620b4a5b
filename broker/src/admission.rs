//! Who may ask for anything at all: asked anew with every request, because a connection outlives what it was admitted for.

use std::sync::Arc;

use portcullis_identity::{NodeName, Peer, node_name};
use tonic::{Code, Status};

use crate::broker::Broker;
use crate::listener::Remote;
use crate::registry::Standing;

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
        self.admit_peer(peer).inspect_err(|refused| {
            tracing::warn!(peer = %peer.id(), address = %remote.address, %refused, "a peer was refused");
        })
    }

    fn admit_peer(&self, peer: &Arc<Peer>) -> Result<NodeName, NotAdmitted> {
        let ours = peer.id().is_member_of(self.authority.bundle().trust_domain());
        let name = node_name(peer.id()).filter(|_| ours).ok_or(NotAdmitted::NotANode)?;
        self.ledger.read(|registry| {
            let node = registry.node(&name).ok_or(NotAdmitted::NotRegistered)?;
            match node.standing {
                Standing::Quarantined => Err(NotAdmitted::Quarantined),
                Standing::Good if node.is_superseded(peer.leaf()) => Err(NotAdmitted::Superseded),
                Standing::Good => Ok(()),
            }
        })?;
        Ok(name)
    }
}
