//! Which nodes a step would leave behind.
//!
//! A node whose certificate is valid is one of us even while it holds no stream: it may be about to connect anew, as every node is for a moment
//! after a renewal and after a revocation. Were it forgotten, it would come back to a broker whose certificate it cannot verify.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use portcullis_identity::{BACKDATED, NodeName, Peer, SigningPath};

use super::StepError;
use crate::broker::Broker;
use crate::clock;
use crate::presence::{Connection, Departed};
use crate::registry::{AuthorityId, AuthorityRecord, Node, Registry, Standing, Version};

/// How long an activation waits for nodes that have not applied the bundle yet.
const NODE_PATIENCE: Duration = Duration::from_secs(5);
/// How often it looks.
const NODE_LOOK: Duration = Duration::from_millis(50);

impl Broker {
    /// Waits until every node has said that it applied the version in which the authority was published.
    pub(super) async fn await_nodes(&self, record: &AuthorityRecord) -> Result<(), StepError> {
        let deadline = tokio::time::sleep(NODE_PATIENCE);
        tokio::pin!(deadline);
        loop {
            let nodes = self.behind(record.published);
            if nodes.is_empty() {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(NODE_LOOK) => {}
                () = &mut deadline => return Err(StepError::Behind { id: record.id.clone(), nodes }),
            }
        }
    }

    /// The nodes that have not said that they applied `version`, as people read them.
    pub(super) fn behind(&self, version: Version) -> Vec<String> {
        let late = |applied: Option<Version>| applied.is_none_or(|applied| applied < version);
        self.laggards(|connection| late(connection.applied), |departed| late(departed.applied))
    }

    /// The nodes whose own certificate the authority signed.
    pub(super) fn holders(&self, id: &AuthorityId) -> Vec<String> {
        let record = self.ledger.read(|registry| registry.authorities().find(|record| record.id == *id).cloned());
        let Some(key) = record.map(|record| record.material.public_key_sha256()) else { return Vec::new() };
        let trust = self.trust.source().load_full();
        let held =
            |peer: &Peer| SigningPath::of_peer(peer, &trust, clock::now()).is_ok_and(|path| path.goes_through(&[key]));
        self.laggards(
            |connection| connection.peer.as_deref().is_some_and(held),
            |departed| departed.peer.as_deref().is_none_or(held),
        )
    }

    /// The connected nodes of which one is true, and those away with a valid certificate of which the other is; of those who were never here
    /// since the broker started nothing is known, and the worst assumed.
    fn laggards(&self, connected: impl Fn(&Connection) -> bool, departed: impl Fn(&Departed) -> bool) -> Vec<String> {
        let (now, ttl) = (clock::now(), self.ttls.node.duration());
        let away = |present: &BTreeSet<NodeName>| -> Vec<NodeName> {
            self.ledger.read(|registry: &Registry| {
                let valid = registry.nodes().filter(|node| is_expected(node, ttl, now));
                valid.filter(|node| !present.contains(&node.name)).map(|node| node.name.clone()).collect()
            })
        };
        let connections = self.presence.connections();
        let live = || connections.iter().filter(|connection| !connection.kill.is_cancelled());
        let present: BTreeSet<_> = live().map(|connection| connection.node.clone()).collect();
        let late: BTreeSet<_> = live().filter(|&connection| connected(connection)).map(|late| &late.node).collect();
        let last: BTreeMap<_, _> = self.presence.departed();
        let unknown = Departed::default();
        let away = away(&present);
        let missing = away.iter().filter(|&node| departed(last.get(node).unwrap_or(&unknown)));
        late.into_iter().map(NodeName::to_string).chain(missing.map(|node| format!("{node} (away)"))).collect()
    }
}

/// Whether the newest certificate that `node` showed is valid still.
fn is_expected(node: &Node, ttl: Duration, now: SystemTime) -> bool {
    let life = ttl.saturating_add(BACKDATED);
    node.standing == Standing::Good && node.newest.checked_add(life).is_some_and(|not_after| not_after > now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::JoinedBy;

    #[test]
    fn a_node_is_expected_while_its_newest_certificate_lasts_and_it_may_come() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let ttl = Duration::from_secs(60);
        let node = Node::joined("n".parse().unwrap(), [1; 32], JoinedBy::Token, now);
        let later = |seconds| now + Duration::from_secs(seconds);
        assert!(is_expected(&node, ttl, later(59)) && !is_expected(&node, ttl, later(60)));
        let renewed = node.sighted(later(20), later(30));
        assert!(is_expected(&renewed, ttl, later(89)) && !is_expected(&renewed, ttl, later(90)));
        for standing in [Standing::Quarantined, Standing::Barred] {
            assert!(!is_expected(&Node { standing, ..node.clone() }, ttl, later(1)));
        }
    }
}
