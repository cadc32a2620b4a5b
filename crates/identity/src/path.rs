//! The paths that Portcullis gives meaning to, below `spiffe://TD`.
//!
//! | path | whose |
//! |---|---|
//! | `/portcullis/broker` | the control plane; a node accepts the control API from no other |
//! | `/portcullis/node/NAME` | a node: one sidecar or one host process |
//! | `/virtual/LATTICE/ID` | a virtual component, unless its entry says otherwise |
//! | `/component/LATTICE/ID` | a wasm component, unless its entry says otherwise |
//!
//! Paths are compared segment by segment, never by prefix of the text: `/portcullisx` is not reserved.

use spiffe::{SpiffeId, TrustDomain};

use crate::{NodeName, Target};

const RESERVED: &str = "portcullis";

/// The broker's ID: `spiffe://TD/portcullis/broker`.
#[must_use]
pub fn broker_id(trust_domain: &TrustDomain) -> SpiffeId {
    below(trust_domain, &[RESERVED, "broker"])
}

/// A node's ID: `spiffe://TD/portcullis/node/NAME`.
#[must_use]
pub fn node_id(trust_domain: &TrustDomain, name: &NodeName) -> SpiffeId {
    below(trust_domain, &[RESERVED, "node", name.as_str()])
}

/// The default ID of a virtual component: `spiffe://TD/virtual/LATTICE/ID`.
#[must_use]
pub fn virtual_component_id(trust_domain: &TrustDomain, target: &Target) -> SpiffeId {
    below(trust_domain, &["virtual", target.lattice.as_str(), target.id.as_str()])
}

/// The default ID of a wasm component: `spiffe://TD/component/LATTICE/ID`.
#[must_use]
pub fn component_id(trust_domain: &TrustDomain, target: &Target) -> SpiffeId {
    below(trust_domain, &["component", target.lattice.as_str(), target.id.as_str()])
}

/// `LATTICE/ID` of a default ID, `/component/LATTICE/ID` or `/virtual/LATTICE/ID`: the name under which its holder may call over NATS, where
/// nobody else has that name. The caller compares the trust domain.
#[must_use]
pub fn lattice_name(id: &SpiffeId) -> Option<Target> {
    let mut segments = segments(id);
    match (segments.next(), segments.next(), segments.next(), segments.next()) {
        (Some("component" | "virtual"), Some(lattice), Some(id), None) => {
            Some(Target { lattice: lattice.parse().ok()?, id: id.parse().ok()? })
        }
        _ => None,
    }
}

/// Whether the ID lies in the subtree that no registration entry may grant: its first segment is exactly `portcullis`.
#[must_use]
pub fn is_reserved(id: &SpiffeId) -> bool {
    segments(id).next() == Some(RESERVED)
}

/// The name of the node whose ID this is; `None` for every other ID. The caller compares the trust domain.
#[must_use]
pub fn node_name(id: &SpiffeId) -> Option<NodeName> {
    let mut segments = segments(id);
    match (segments.next(), segments.next(), segments.next(), segments.next()) {
        (Some(RESERVED), Some("node"), Some(name), None) => name.parse().ok(),
        _ => None,
    }
}

fn segments(id: &SpiffeId) -> impl Iterator<Item = &str> {
    id.path().split('/').skip(1)
}

#[expect(
    clippy::expect_used,
    reason = "names are path-safe and short by their types; a trust domain has at most 255 bytes"
)]
fn below(trust_domain: &TrustDomain, segments: &[&str]) -> SpiffeId {
    SpiffeId::from_segments(trust_domain.clone(), segments).expect("path-safe segments")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{parse_spiffe_id, test_ca::td};

    fn id(path: &str) -> SpiffeId {
        parse_spiffe_id(&format!("spiffe://example.org{path}")).unwrap()
    }

    #[test]
    fn every_kind_has_its_path() {
        let (td, target) = (td("example.org"), "prod/billing".parse().unwrap());
        assert_eq!(broker_id(&td), id("/portcullis/broker"));
        assert_eq!(node_id(&td, &"edge-1".parse().unwrap()), id("/portcullis/node/edge-1"));
        assert_eq!(virtual_component_id(&td, &target), id("/virtual/prod/billing"));
        assert_eq!(component_id(&td, &target), id("/component/prod/billing"));
    }

    #[test]
    fn a_name_on_a_lattice_is_that_of_the_default_paths() {
        let name = |path: &str| lattice_name(&id(path)).map(|name| name.to_string());
        assert_eq!(name("/component/demo/alice").as_deref(), Some("demo/alice"));
        assert_eq!(name("/virtual/demo/shop").as_deref(), Some("demo/shop"));
        for none in ["/web", "/component/demo", "/component/demo/a/b", "/other/demo/a", "/component/demo/host"] {
            assert_eq!(name(none), None, "{none}");
        }
    }

    #[test]
    fn the_longest_names_fit() {
        let longest = "a".repeat(64);
        let id = virtual_component_id(&td(&"a".repeat(255)), &format!("{longest}/{longest}").parse().unwrap());
        assert_eq!(parse_spiffe_id(&id.to_string()).unwrap(), id);
    }

    #[test]
    fn the_reserved_subtree_is_a_segment_and_not_a_prefix() {
        for path in ["/portcullis", "/portcullis/broker", "/portcullis/node/x", "/portcullis/anything"] {
            assert!(is_reserved(&id(path)), "{path} is free");
        }
        for path in ["", "/portcullisx", "/portcullis-node/x", "/Portcullis/broker", "/x/portcullis", "/port/cullis"] {
            assert!(!is_reserved(&id(path)), "{path} is reserved");
        }
    }

    #[test]
    fn a_node_is_named_by_exactly_its_path() {
        assert_eq!(node_name(&id("/portcullis/node/edge-1")), Some("edge-1".parse().unwrap()));
        for path in [
            "",
            "/portcullis/node",
            "/portcullis/node/a.b",
            "/portcullis/node/a/b",
            "/portcullis/broker",
            "/portcullis/nodes/a",
            "/portcullisx/node/a",
            "/x/portcullis/node/a",
        ] {
            assert_eq!(node_name(&id(path)), None, "{path}");
        }
    }
}
