//! What both services work with.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use portcullis_identity::{NodeName, RequestedKey, SpiffeId, SvidSlot, node_id};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Complaints;
use crate::audit::{AuditLog, Event, hex};
use crate::authority::{Authority, IssueError, Issued};
use crate::beacon::Beacon;
use crate::clock;
use crate::federation::Refresher;
use crate::ledger::Ledger;
use crate::nats::{Callout, Counts};
use crate::presence::Presence;
use crate::registry::EntryId;
use crate::signing::Signing;
use crate::succession::Succession;
use crate::throttle::{self, Admission, Rate, Throttle};
use crate::trust::Trust;
use crate::ttl::Ttl;
use crate::x509pop::Attestor;

/// Attempts to join from one source: a whole rack may come up at once, a guesser gets no further with more.
const JOINS: Rate = Rate { burst: 128, every: Duration::from_millis(100) };
/// Sources whose attempts are counted at one time.
const JOIN_SOURCES: usize = 16_384;

/// The running broker.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) ledger: Ledger,
    pub(crate) authority: Authority,
    pub(crate) succession: Succession,
    pub(crate) trust: Arc<Trust>,
    /// The public roots, PEM, for tools that verify chains.
    pub(crate) roots_file: PathBuf,
    /// What the broker presents to nodes.
    pub(crate) own: Arc<SvidSlot>,
    pub(crate) audit: AuditLog,
    /// How far the audit log has grown, for nodes.
    pub(crate) beacon: Beacon,
    pub(crate) presence: Presence,
    pub(crate) refresher: Refresher,
    pub(crate) ttls: Ttls,
    /// `host:port` that join tokens carry.
    pub(crate) advertised: String,
    pub(crate) control_address: SocketAddr,
    pub(crate) tracker: TaskTracker,
    /// Cancelled when the broker is to end its streams.
    pub(crate) stop: CancellationToken,
    pub(crate) joins: Joins,
    pub(crate) complaints: Complaints,
    pub(crate) signing: Signing,
    /// Who answers the lattice's servers, if there are any.
    pub(crate) callout: OnceLock<Weak<Callout>>,
    /// What hosts of the lattice asked.
    pub(crate) admissions: Arc<Counts>,
    /// Where nodes may join by certificate.
    pub(crate) attestor: Option<Attestor>,
}

/// How long SVIDs live.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ttls {
    /// Of nodes, and of the broker itself.
    pub(crate) node: Ttl,
    /// Of entries that say nothing else.
    pub(crate) entry: Ttl,
}

/// Counts attempts to join by source.
#[derive(Debug)]
pub(crate) struct Joins(Mutex<Throttle<IpAddr>>);

impl Default for Joins {
    fn default() -> Self {
        Self(Mutex::new(Throttle::new(JOINS, JOIN_SOURCES)))
    }
}

impl Joins {
    /// Whether somebody at `address` may try now.
    pub(crate) fn admit(&self, address: SocketAddr) -> Admission {
        let mut throttle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        throttle.admit(throttle::source(address.ip()), clock::now())
    }
}

impl Broker {
    /// What the audit log says of a node's own identity.
    pub(crate) fn node_issued(&self, name: &NodeName, key: &RequestedKey, issued: &Issued) -> Event {
        let id = node_id(self.authority.trust_domain(), name);
        x509_issued(name, None, &id, key, issued)
    }

    /// Issues the node's own identity.
    pub(crate) fn issue_node(&self, name: &NodeName, key: &RequestedKey) -> Result<Issued, IssueError> {
        let id = node_id(self.authority.trust_domain(), name);
        self.authority.issue(key, &id, self.ttls.node, clock::now())
    }
}

/// What the audit log says of an X.509-SVID that is about to be handed out.
pub(crate) fn x509_issued(
    node: &NodeName,
    entry: Option<&EntryId>,
    id: &SpiffeId,
    key: &RequestedKey,
    issued: &Issued,
) -> Event {
    Event::X509Issued {
        node: node.to_string(),
        entry: entry.map(ToString::to_string),
        spiffe_id: id.to_string(),
        serial: hex(&issued.serial),
        not_after: clock::unix_seconds(issued.not_after),
        key_sha256: hex(&key.sha256()),
    }
}
