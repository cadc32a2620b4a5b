//! What an operator sees of a running sidecar.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use portcullis_admin::Observed;
use portcullis_client::node::{AuditHead, Connectivity, Identity, Node};
use portcullis_identity::Target;
use portcullis_transport::quic::Listener;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::gate::Gate;
use crate::lattice::{Lattice, LatticeStatus};
use crate::local::{Local, LocalStatus};
use crate::meters::Meters;

/// One reading.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// `LATTICE/ID`.
    pub component: String,
    /// Whether calls are served.
    pub ready: bool,
    /// Why not, where they are not.
    pub not_ready: Option<String>,
    /// Whether it is on its way down.
    pub draining: bool,
    /// Its SPIFFE ID.
    pub spiffe_id: String,
    /// End of the SVID in force, seconds since 1970.
    pub svid_not_after: u64,
    /// The node's SPIFFE ID.
    pub node_id: String,
    /// End of the node's own SVID, seconds since 1970.
    pub node_not_after: u64,
    /// `host:port`.
    pub broker: String,
    /// Whether the broker is heard.
    pub broker_connected: bool,
    /// Why not, where it is not.
    pub broker_error: Option<String>,
    /// `incarnation.epoch` of what the broker told last; what is in force is never older.
    pub version: String,
    /// Seconds since the broker last confirmed it.
    pub state_age_seconds: u64,
    /// Where callers are served.
    pub quic: SocketAddr,
    /// How it stands on its lattice, where it is called over NATS.
    #[serde(default)]
    pub nats: Option<LatticeStatus>,
    /// Connections of callers.
    pub connections: usize,
    /// Calls under way.
    pub calls_underway: usize,
    /// Calls refused, by reason; zeroes left out.
    pub refused: Vec<(String, u64)>,
    /// The keys of the on-disk cache lie there unencrypted.
    pub unsealed: bool,
    /// Identities for the machine, where there are any.
    #[serde(default)]
    pub local: Option<LocalStatus>,
    /// How long the broker's audit log was when it last said so: `portcullis-broker audit verify --against` reads it here.
    #[serde(default)]
    pub audit: Option<AuditHead>,
    /// This software's version.
    pub software: String,
}

/// Where a reading comes from.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) target: Target,
    pub(crate) quic: SocketAddr,
    pub(crate) node: Node,
    pub(crate) identity: Arc<Identity>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) connections: Arc<Listener>,
    pub(crate) local: Local,
    pub(crate) lattice: Option<Arc<Lattice>>,
}

impl Observed for Source {
    fn not_ready(&self) -> Option<String> {
        (!self.is_ready()).then(|| self.gate.not_ready().to_string())
    }

    fn metrics(&self) -> String {
        self.gauges()
    }

    fn status(&self) -> Result<String, String> {
        serde_json::to_string(&self.reading()).map_err(|error| error.to_string())
    }
}

impl Source {
    fn reading(&self) -> Status {
        let served = self.gate.served();
        let connectivity = self.node.connectivity().borrow().clone();
        let svid = self.identity.svid();
        let seconds = |at: std::time::SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let refused = self.meters.refusals().into_iter().filter(|(_, count)| *count > 0);
        Status {
            component: self.target.to_string(),
            ready: self.is_ready(),
            not_ready: served.is_none().then(|| self.gate.not_ready().to_string()),
            draining: self.gate.is_draining(),
            spiffe_id: svid.id().to_string(),
            svid_not_after: seconds(svid.not_after()),
            node_id: self.node.id().to_string(),
            node_not_after: seconds(self.node.svid().not_after()),
            broker: self.node.broker().to_owned(),
            broker_connected: connectivity == Connectivity::Connected,
            broker_error: match connectivity {
                Connectivity::Connected => None,
                Connectivity::Disconnected(why) => Some(why),
            },
            version: self.node.state().borrow().version.to_string(),
            state_age_seconds: self.node.state_age().as_secs(),
            quic: self.quic,
            nats: self.lattice.as_ref().map(|lattice| lattice.status()),
            connections: self.connections.connections(),
            calls_underway: self.gate.quota.calls(),
            refused: refused.map(|(name, count)| (name.to_owned(), count)).collect(),
            unsealed: !self.node.is_sealed(),
            local: self.local.status(),
            audit: self.node.audit_head(),
            software: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    fn is_ready(&self) -> bool {
        !self.gate.is_draining() && self.gate.served().is_some()
    }

    /// The text of `/metrics`, gauges read now.
    fn gauges(&self) -> String {
        let meters = &self.meters;
        let gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        meters.calls_underway.set(gauge(self.gate.quota.calls()));
        meters.connections.set(gauge(self.connections.connections()));
        meters.ready.set(i64::from(self.is_ready()));
        let connected = *self.node.connectivity().borrow() == Connectivity::Connected;
        meters.broker_connected.set(i64::from(connected));
        let epoch = self.node.state().borrow().version.epoch;
        meters.epoch.set(i64::try_from(epoch).unwrap_or(i64::MAX));
        let left = self.identity.svid().not_after().duration_since(clock::now()).unwrap_or_default();
        meters.svid_expires_in.set(left.as_secs_f64());
        meters.state_age.set(self.node.state_age().as_secs_f64());
        meters.text()
    }
}
