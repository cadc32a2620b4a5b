//! A registry that came from a backup: what it must not do again, and whom it must not forget.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use portcullis_identity::{NodeName, Revocation, Revoked};

use super::{Plan, revocation};
use crate::registry::Registry;
use crate::registry::command::{Change, TrustChange};
use crate::registry::node::{JoinedBy, Node, Standing};
use crate::registry::token::Token;

/// What is known to have happened since the backup was made.
#[derive(Debug, Default)]
pub struct Aftermath {
    /// What became of nodes.
    pub nodes: BTreeMap<NodeName, Fate>,
    /// What was revoked, and when.
    pub revocations: Vec<(Revoked, SystemTime)>,
}

/// What became of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It joined.
    Joined {
        /// When.
        at: SystemTime,
        /// By which way.
        by: JoinedBy,
        /// SHA-256 of the key it joined with; zeroes where it got no certificate.
        key_sha256: [u8; 32],
    },
    /// It rejoined with an expired certificate, which changes nothing about who it is.
    Rejoined,
    /// It was shut out, and its name kept.
    ShutOut(Standing),
    /// It was removed.
    Removed,
}

impl Registry {
    /// What makes a registry out of a backup fit to be served as `incarnation`.
    ///
    /// Who joined since is a node, who was shut out since is not, what was revoked since is revoked. No join token of the backup may be redeemed:
    /// some were since, and nobody knows which. The bundle gets a number above any that was ever given.
    #[must_use]
    pub fn plan_restoration(&self, aftermath: &Aftermath, incarnation: u64, now: SystemTime) -> Plan {
        let unredeemed = |token: &&Arc<Token>| token.redeemed_by.is_none();
        let mut changes: Vec<_> =
            self.tokens.values().filter(unredeemed).map(|token| Change::TokenRemoved(token.index)).collect();
        changes.extend(aftermath.nodes.iter().filter_map(|(name, fate)| self.fated(name, *fate)));
        changes.extend(aftermath.revocations.iter().filter_map(|(revoked, at)| self.revoked_again(revoked, *at, now)));
        let sequence = self.bundle.sequence.max(incarnation << 32).saturating_add(1);
        changes.push(Change::Trust(TrustChange::BundleSequence(sequence)));
        Plan { changes, ..Plan::default() }
    }

    fn fated(&self, name: &NodeName, fate: Fate) -> Option<Change> {
        let known = self.nodes.get(name);
        match (fate, known) {
            (Fate::Joined { at, by, key_sha256 }, _) => {
                Some(Change::Node(Arc::new(Node::joined(name.clone(), key_sha256, by, at))))
            }
            (Fate::ShutOut(standing), Some(node)) => {
                Some(Change::Node(Arc::new(Node { standing, ..Node::clone(node) })))
            }
            // Its certificate would let it in again.
            (Fate::ShutOut(standing @ Standing::Barred), None) => {
                let node = Node::joined(name.clone(), [0; 32], JoinedBy::Certificate, SystemTime::UNIX_EPOCH);
                Some(Change::Node(Arc::new(Node { standing, ..node })))
            }
            (Fate::Removed, Some(_)) => Some(Change::NodeRemoved(name.clone())),
            (Fate::Rejoined, _) | (Fate::ShutOut(_) | Fate::Removed, None) => None,
        }
    }

    fn revoked_again(&self, revoked: &Revoked, at: SystemTime, now: SystemTime) -> Option<Change> {
        let until = at.checked_add(revocation::memory(revoked)).filter(|until| *until > now)?;
        let known = self.revocations.get(revoked).is_some_and(|known| known.issued_until >= at);
        let revocation = Revocation { revoked: revoked.clone(), issued_until: at, until };
        (!known).then(|| Change::Trust(TrustChange::Revocation(Arc::new(revocation))))
    }
}
