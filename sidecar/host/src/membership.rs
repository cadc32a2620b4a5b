//! Which registration entry a component runs under. Pure: the node's state in, an entry or the reason for none out.

use portcullis_client::node::{ComponentDigest, Entry, NodeState};
use portcullis_identity::{Lattice, SpiffeId, Target, TrustDomain, component_id, node_name};

/// Who a component is to be.
#[derive(Clone, Debug)]
pub(crate) struct Claim<'a> {
    /// The broker's trust domain.
    pub(crate) trust_domain: &'a TrustDomain,
    /// The node whose entries count.
    pub(crate) node: &'a SpiffeId,
    /// `LATTICE/ID`, where it was said.
    pub(crate) target: Option<&'a Target>,
    /// Of the component's file.
    pub(crate) digest: &'a str,
}

/// Why a component has no identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoEntry {
    /// The broker has told of no entry that would do.
    #[error(
        "node `{node}` has no entry for {wanted} (hint: portcullis-broker entry create --node {node} --component {component} --digest {digest})"
    )]
    Missing {
        /// The node's name.
        node: String,
        /// What the component would be.
        wanted: String,
        /// `LATTICE/ID`, as far as it is known.
        component: String,
        /// Of the component's file.
        digest: String,
    },
    /// The entry is for another file.
    #[error("the entry for `{id}` is bound to the file {bound}, and this one is {digest}")]
    OtherFile {
        /// The identity that was asked for.
        id: String,
        /// The file that may have it.
        bound: String,
        /// The file there is.
        digest: String,
    },
    /// More than one entry admits the file.
    #[error("the component could be {} (hint: choose with --lattice and --id)", .0.join(", "))]
    Ambiguous(Vec<String>),
}

impl NoEntry {
    /// Whether waiting for the broker could help.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Missing { .. } | Self::OtherFile { .. } => true,
            Self::Ambiguous(_) => false,
        }
    }
}

/// The entry of a component: that of `LATTICE/ID` where it was said, else the only one that admits the file.
pub(crate) fn entry(state: &NodeState, claim: &Claim<'_>) -> Result<Entry, NoEntry> {
    match claim.target {
        Some(target) => entry_of(state, claim, &component_id(claim.trust_domain, target)),
        None => only_entry(state, claim),
    }
}

fn entry_of(state: &NodeState, claim: &Claim<'_>, id: &SpiffeId) -> Result<Entry, NoEntry> {
    let mut entries = state.entries.values().filter(|entry| entry.spiffe_id == *id).peekable();
    let bound = entries.peek().map(|entry| match &entry.digest {
        ComponentDigest::Exactly(bound) => bound.clone(),
        ComponentDigest::NotAComponent | ComponentDigest::DangerAny => "of no component".to_owned(),
    });
    match (entries.find(|entry| entry.admits(claim.digest)), bound) {
        (Some(entry), _) => Ok(entry.clone()),
        (None, Some(bound)) => Err(NoEntry::OtherFile { id: id.to_string(), bound, digest: claim.digest.to_owned() }),
        (None, None) => Err(missing(claim, format!("`{id}`"))),
    }
}

/// An entry bound to this very file goes before those for any.
fn only_entry(state: &NodeState, claim: &Claim<'_>) -> Result<Entry, NoEntry> {
    let admitting: Vec<&Entry> = state.entries.values().filter(|entry| entry.admits(claim.digest)).collect();
    let bound: Vec<&Entry> =
        admitting.iter().copied().filter(|entry| entry.digest != ComponentDigest::DangerAny).collect();
    let candidates = if bound.is_empty() { admitting } else { bound };
    match candidates.as_slice() {
        [entry] => Ok((*entry).clone()),
        [] => Err(missing(claim, format!("the file {}", claim.digest))),
        [_, _, ..] => {
            Err(NoEntry::Ambiguous(candidates.iter().map(|entry| format!("`{}`", entry.spiffe_id)).collect()))
        }
    }
}

fn missing(claim: &Claim<'_>, wanted: String) -> NoEntry {
    NoEntry::Missing {
        node: node_name(claim.node).map_or_else(|| "NAME".to_owned(), |name| name.to_string()),
        wanted,
        component: claim.target.map_or_else(|| "LATTICE/ID".to_owned(), ToString::to_string),
        digest: claim.digest.to_owned(),
    }
}

/// The lattice that a component belongs to: that of its target, else that in an identity of the default form. With neither it sees every
/// lattice of its node.
pub(crate) fn lattice(claim: &Claim<'_>, entry: &Entry) -> Option<Lattice> {
    if let Some(target) = claim.target {
        return Some(target.lattice.clone());
    }
    let ["", "component", lattice, _] = *entry.spiffe_id.path().split('/').collect::<Vec<_>>().as_slice() else {
        return None;
    };
    lattice.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use portcullis_identity::{node_id, parse_spiffe_id, parse_trust_domain};

    const DIGEST: &str = "sha256:aa";

    fn state(entries: &[(&str, ComponentDigest)]) -> NodeState {
        let entry = |(path, digest): &(&str, ComponentDigest)| Entry {
            id: (*path).to_owned(),
            spiffe_id: parse_spiffe_id(&format!("spiffe://example.org{path}")).unwrap(),
            digest: digest.clone(),
            lattice: None,
            selectors: BTreeSet::new(),
            x509_ttl: Duration::from_secs(60),
            jwt_ttl: Duration::from_secs(60),
            hint: String::new(),
            dns_names: Vec::new(),
            federates_with: BTreeSet::new(),
            admin: false,
            created_at: 0,
        };
        let entries = entries.iter().map(entry).map(|entry| (entry.id.clone(), entry)).collect();
        NodeState { entries, ..NodeState::default() }
    }

    fn chosen(state: &NodeState, target: Option<&str>) -> Result<(String, Option<String>), NoEntry> {
        let trust_domain = parse_trust_domain("example.org").unwrap();
        let node = node_id(&trust_domain, &"n1".parse().unwrap());
        let target = target.map(|target| target.parse().unwrap());
        let claim = Claim { trust_domain: &trust_domain, node: &node, target: target.as_ref(), digest: DIGEST };
        let entry = entry(state, &claim)?;
        Ok((entry.id.clone(), lattice(&claim, &entry).map(|lattice| lattice.to_string())))
    }

    fn exactly(digest: &str) -> ComponentDigest {
        ComponentDigest::Exactly(digest.to_owned())
    }

    #[test]
    fn a_named_component_gets_its_own_entry() {
        let state =
            state(&[("/component/demo/shop", exactly(DIGEST)), ("/component/demo/other", ComponentDigest::DangerAny)]);
        let found = chosen(&state, Some("demo/shop")).unwrap();
        assert_eq!(found, ("/component/demo/shop".to_owned(), Some("demo".to_owned())));
        assert_eq!(chosen(&state, Some("demo/other")).unwrap().0, "/component/demo/other");
    }

    #[test]
    fn an_entry_for_another_file_or_for_no_component_does_not_do() {
        let state = state(&[
            ("/component/demo/shop", exactly("sha256:bb")),
            ("/component/demo/service", ComponentDigest::NotAComponent),
        ]);
        for target in ["demo/shop", "demo/service"] {
            assert!(matches!(chosen(&state, Some(target)), Err(NoEntry::OtherFile { .. })), "{target}");
        }
        let error = chosen(&state, Some("demo/lost")).unwrap_err();
        assert!(error.may_pass());
        assert_eq!(
            error.to_string(),
            "node `n1` has no entry for `spiffe://example.org/component/demo/lost` (hint: portcullis-broker entry \
             create --node n1 --component demo/lost --digest sha256:aa)"
        );
        assert!(matches!(chosen(&state, None), Err(NoEntry::Missing { .. })));
    }

    #[test]
    fn without_a_name_the_entry_bound_to_the_file_is_meant() {
        let state = state(&[
            ("/component/demo/any", ComponentDigest::DangerAny),
            ("/shop", exactly(DIGEST)),
            ("/component/demo/other", exactly("sha256:bb")),
        ]);
        assert_eq!(chosen(&state, None), Ok(("/shop".to_owned(), None)));
    }

    #[test]
    fn two_entries_for_the_file_are_an_error_that_lists_them() {
        let state =
            state(&[("/component/a/x", ComponentDigest::DangerAny), ("/component/b/x", ComponentDigest::DangerAny)]);
        let error = chosen(&state, None).unwrap_err();
        assert!(!error.may_pass());
        let text = error.to_string();
        assert!(text.contains("/component/a/x") && text.contains("/component/b/x"), "{text}");
    }
}
