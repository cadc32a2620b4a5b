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
    below(
        trust_domain,
        &["component", target.lattice.as_str(), target.id.as_str()],
    )
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
