//! Nodes and the join tokens by which they become ones (D4).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use portcullis_identity::NodeName;

use super::Plan;
use crate::registry::Registry;
use crate::registry::bounds::{self, at_most};
use crate::registry::command::{Change, NewToken, Redemption, Rejoining, Sighting};
use crate::registry::node::{Node, REJOIN_GRACE, Spent, Standing};
use crate::registry::refusal::{Refusal, RejoinRefusal, TokenRefusal};
use crate::registry::token::{self, Token};

/// Below this nobody can carry the token to the node.
const MIN_TOKEN_LIFETIME: Duration = Duration::from_secs(10);
/// A week: enough for a machine that is being shipped.
const MAX_TOKEN_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long an expired token is remembered, so that a late node reads `expired` and not `unknown`.
const TOKEN_MEMORY: Duration = Duration::from_secs(24 * 3600);

impl Registry {
    pub(super) fn plan_token(&self, new: NewToken, now: SystemTime) -> Result<Plan, Refusal> {
        let NewToken { node, lifetime, secret_sha256 } = new;
        if !(MIN_TOKEN_LIFETIME..=MAX_TOKEN_LIFETIME).contains(&lifetime) {
            return Err(Refusal::TokenLifetime(lifetime.as_secs()));
        }
        let forgotten = |token: &&Arc<Token>| token.expires_at.checked_add(TOKEN_MEMORY).is_none_or(|end| end <= now);
        let mut changes: Vec<_> =
            self.tokens.values().filter(forgotten).map(|token| Change::TokenRemoved(token.index)).collect();
        let kept = self.tokens.len().saturating_sub(changes.len());
        at_most("join tokens", kept.saturating_add(1), bounds::TOKENS)?;
        let expires_at = now.checked_add(lifetime).ok_or(Refusal::TokenLifetime(lifetime.as_secs()))?;
        changes.push(Change::Token(Arc::new(Token::new(&secret_sha256, node, expires_at))));
        Ok(Plan { changes, ..Plan::default() })
    }

    /// The compare of the compare-and-swap; the swap is that commands are planned and applied one after the other.
    pub(super) fn plan_redemption(&self, redemption: &Redemption, now: SystemTime) -> Result<Plan, Refusal> {
        let Redemption { node, secret_sha256, key_sha256 } = redemption;
        let token = self
            .tokens
            .get(&token::index(secret_sha256))
            .filter(|token| token.is_proved_by(secret_sha256))
            .ok_or(TokenRefusal::Unknown)?;
        if token.node != *node {
            return Err(TokenRefusal::OtherNode.into());
        }
        match token.redeemed_by {
            Some(key) if key != *key_sha256 => Err(TokenRefusal::Spent.into()),
            _ if token.expires_at <= now => Err(TokenRefusal::Expired.into()),
            // The reply was lost: the same key may ask again.
            Some(_) => Ok(Plan::default()),
            None => {
                let redeemed = Token { redeemed_by: Some(*key_sha256), ..Token::clone(token) };
                let node = Node::joined(node.clone(), *key_sha256, now);
                let changes = vec![Change::Token(Arc::new(redeemed)), Change::Node(Arc::new(node))];
                Ok(Plan { changes, ..Plan::default() })
            }
        }
    }

    /// A certificate that is newer than all that were seen makes the older ones unfit for rejoining.
    pub(super) fn plan_sighting(&self, sighting: &Sighting, now: SystemTime) -> Result<Plan, Refusal> {
        let Sighting { node, not_before } = sighting;
        let node = self.nodes.get(node).ok_or_else(|| Refusal::NoNode(node.clone()))?;
        let sighted = node.sighted(*not_before, now);
        let changes = if sighted == **node { Vec::new() } else { vec![Change::Node(Arc::new(sighted))] };
        Ok(Plan { changes, ..Plan::default() })
    }

    /// Whether an expired certificate lets its node back in; the caller verified chain and proof.
    ///
    /// Each certificate does so once. The same one with the same new key is a lost reply, asked for again. The same one with *another* new
    /// key has two holders: a key was copied, or a machine was cloned, and the node is quarantined, whoever came first. That is a change and
    /// not a refusal, so that it is kept. A certificate older than one the node proved since is refused and quarantines nobody, or else
    /// whoever finds an old backup could take a healthy node down.
    pub(super) fn plan_rejoining(&self, rejoining: Rejoining, now: SystemTime) -> Result<Plan, Refusal> {
        let Rejoining { node, serial, not_before, not_after, key_sha256 } = rejoining;
        let node = self.nodes.get(&node).ok_or(RejoinRefusal::NotRegistered)?;
        match node.standing {
            Standing::Good => {}
            Standing::Quarantined => return Err(RejoinRefusal::Quarantined.into()),
        }
        let changed = |node: Node| Plan { changes: vec![Change::Node(Arc::new(node))], ..Plan::default() };
        let spent = node.spent.iter().find(|spent| spent.serial == serial);
        if spent.is_some_and(|spent| spent.key_sha256 != key_sha256) {
            return Ok(changed(Node { standing: Standing::Quarantined, ..Node::clone(node) }));
        }
        if not_before < node.since || not_before < node.newest {
            return Err(RejoinRefusal::Superseded.into());
        }
        let until = not_after.checked_add(REJOIN_GRACE).filter(|until| *until > now).ok_or(RejoinRefusal::TooLate)?;
        if spent.is_some() {
            return Ok(Plan::default());
        }
        Ok(changed(node.rejoined(Spent { serial, key_sha256, until }, now)))
    }

    /// The node's tokens go with it, spent ones too: the key that redeemed one must not come back with it.
    pub(super) fn plan_node_removal(&self, name: &NodeName) -> Result<Plan, Refusal> {
        if !self.nodes.contains_key(name) {
            return Err(Refusal::NoNode(name.clone()));
        }
        let mut changes = self.withdrawn_addresses(name, |_| false);
        let tokens = self.tokens.values().filter(|token| token.node == *name);
        changes.extend(tokens.map(|token| Change::TokenRemoved(token.index)));
        changes.push(Change::NodeRemoved(name.clone()));
        Ok(Plan { changes, ..Plan::default() })
    }
}
