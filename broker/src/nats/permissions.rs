//! What a NATS user may publish and subscribe to.
//!
//! Everything is refused that is not listed. A server takes an empty list for no limit at all; [`Permissions::claims`] never writes one.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Subjects that one user is allowed. A subscription may be bound to a queue group, written `SUBJECT QUEUE`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permissions {
    publish: BTreeSet<String>,
    subscribe: BTreeSet<String>,
}

/// How two sets of permissions differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// Not at all.
    None,
    /// The later one allows more, and nothing less.
    Wider,
    /// The later one lacks something.
    Lost,
}

impl Permissions {
    /// Allows publishing to `subject`.
    pub fn publish(&mut self, subject: impl Into<String>) {
        self.publish.insert(subject.into());
    }

    /// Allows subscribing to `subject`.
    pub fn subscribe(&mut self, subject: impl Into<String>) {
        self.subscribe.insert(subject.into());
    }

    /// Allows subscribing to `subject` within the queue group `queue`, and in no other way.
    pub fn subscribe_in(&mut self, subject: &str, queue: &str) {
        self.subscribe.insert(format!("{subject} {queue}"));
    }

    /// Allows both.
    pub fn inbox(&mut self, prefix: &str) {
        self.publish(format!("{prefix}.>"));
        self.subscribe(format!("{prefix}.>"));
    }

    /// Allows what `other` does, too.
    pub fn extend(&mut self, other: Self) {
        self.publish.extend(other.publish);
        self.subscribe.extend(other.subscribe);
    }

    /// What may be published to.
    pub fn published(&self) -> impl Iterator<Item = &str> {
        self.publish.iter().map(String::as_str)
    }

    /// What may be subscribed to.
    pub fn subscribed(&self) -> impl Iterator<Item = &str> {
        self.subscribe.iter().map(String::as_str)
    }

    /// How `later` differs from these.
    #[must_use]
    pub fn difference(&self, later: &Self) -> Difference {
        if self == later {
            Difference::None
        } else if self.publish.is_subset(&later.publish) && self.subscribe.is_subset(&later.subscribe) {
            Difference::Wider
        } else {
            Difference::Lost
        }
    }

    /// As a user's token says it.
    #[must_use]
    pub fn claims(&self) -> PermissionClaims {
        PermissionClaims { publish: Rules::of(&self.publish), subscribe: Rules::of(&self.subscribe) }
    }
}

/// `pub` and `sub` in a user's token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermissionClaims {
    /// What may be published to.
    #[serde(rename = "pub")]
    pub publish: Rules,
    /// What may be subscribed to.
    #[serde(rename = "sub")]
    pub subscribe: Rules,
}

impl PermissionClaims {
    /// Nothing at all.
    #[must_use]
    pub fn nothing() -> Self {
        Permissions::default().claims()
    }
}

/// Subjects allowed and denied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    allow: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    deny: Vec<String>,
}

impl Rules {
    /// Whether just this pattern is allowed.
    pub(super) fn allows(&self, pattern: &str) -> bool {
        self.allow.iter().any(|allowed| allowed == pattern)
    }

    fn of(allowed: &BTreeSet<String>) -> Self {
        if allowed.is_empty() {
            return Self { allow: Vec::new(), deny: vec![">".to_owned()] };
        }
        Self { allow: allowed.iter().cloned().collect(), deny: Vec::new() }
    }
}

/// Whether a subject lies within a pattern of NATS: for tests of what the lists mean.
#[cfg(test)]
pub(super) fn matches(pattern: &str, subject: &str) -> bool {
    let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
    loop {
        match (pattern.next(), subject.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(_)) => {}
            (Some(token), Some(other)) if token == other => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_allowed_is_everything_denied() {
        let claims = serde_json::to_value(PermissionClaims::nothing()).unwrap();
        assert_eq!(claims, serde_json::json!({"pub": {"deny": [">"]}, "sub": {"deny": [">"]}}));
        let mut one = Permissions::default();
        one.publish("a");
        let claims = serde_json::to_value(one.claims()).unwrap();
        assert_eq!(claims, serde_json::json!({"pub": {"allow": ["a"]}, "sub": {"deny": [">"]}}));
    }

    #[test]
    fn a_right_that_is_gone_is_noticed() {
        let mut before = Permissions::default();
        before.publish("a");
        let mut after = before.clone();
        assert_eq!(before.difference(&after), Difference::None);
        after.subscribe("b");
        assert_eq!(before.difference(&after), Difference::Wider);
        assert_eq!(after.difference(&before), Difference::Lost);
    }
}
