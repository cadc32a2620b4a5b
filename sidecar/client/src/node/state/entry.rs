//! Registration entries, as the node that is their parent sees them.

use std::collections::BTreeSet;
use std::time::Duration;

use portcullis_api::v1;
use portcullis_identity::{Lattice, SpiffeId, TrustDomain, parse_trust_domain};

use super::{InvalidState, parse_id};

/// Which file may run under an entry that names a wasm component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ComponentDigest {
    /// The entry is not for a wasm component.
    NotAComponent,
    /// Only the file with this digest, `sha256:HEX`.
    Exactly(String),
    /// Any file: for development (`danger-any-digest`).
    DangerAny,
}

/// What this node may ask SVIDs for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The broker's name for it.
    pub id: String,
    /// The identity it earns.
    pub spiffe_id: SpiffeId,
    /// Which wasm file it is bound to.
    pub digest: ComponentDigest,
    /// The lattice whose virtual components the holder sees.
    pub lattice: Option<Lattice>,
    /// What must be attested of the holder, all of it; empty: the node itself holds the identity.
    pub selectors: BTreeSet<String>,
    /// Lifetime of its X.509-SVIDs.
    pub x509_ttl: Duration,
    /// Lifetime of its JWT-SVIDs.
    pub jwt_ttl: Duration,
    /// Tells a workload with several identities which one this is; may be empty.
    pub hint: String,
    /// Further names in its X.509-SVIDs.
    pub dns_names: Vec<String>,
    /// Foreign trust domains whose bundles the holder sees.
    pub federates_with: BTreeSet<TrustDomain>,
    /// Whether the holder may administer the trust domain.
    pub admin: bool,
    /// Seconds since 1970; 0: not known.
    pub created_at: u64,
}

impl Entry {
    /// An entry that says nothing but whose it is.
    #[must_use]
    pub fn new(id: String, spiffe_id: SpiffeId, digest: ComponentDigest) -> Self {
        Self {
            id,
            spiffe_id,
            digest,
            lattice: None,
            selectors: BTreeSet::new(),
            x509_ttl: Duration::from_secs(3600),
            jwt_ttl: Duration::from_secs(300),
            hint: String::new(),
            dns_names: Vec::new(),
            federates_with: BTreeSet::new(),
            admin: false,
            created_at: 0,
        }
    }

    pub(super) fn from_message(message: v1::Entry) -> Result<Self, InvalidState> {
        let v1::Entry {
            id,
            spiffe_id,
            node: _,
            component_digest,
            danger_any_digest,
            x509_ttl_seconds,
            lattice,
            selectors,
            jwt_ttl_seconds,
            hint,
            dns_names,
            federates_with,
            admin,
            created_at,
            template: _,
        } = message;
        let digest = match (component_digest.is_empty(), danger_any_digest) {
            (false, _) => ComponentDigest::Exactly(component_digest),
            (true, true) => ComponentDigest::DangerAny,
            (true, false) => ComponentDigest::NotAComponent,
        };
        let field = |field: &'static str, cause: String| InvalidState::Field { field, cause };
        let lattice = if lattice.is_empty() {
            None
        } else {
            Some(
                lattice
                    .parse()
                    .map_err(|error: portcullis_identity::InvalidName| field("entry.lattice", error.to_string()))?,
            )
        };
        let federates_with = federates_with
            .iter()
            .map(|name| parse_trust_domain(name))
            .collect::<Result<_, _>>()
            .map_err(|error| field("entry.federates_with", error.to_string()))?;
        Ok(Self {
            id,
            spiffe_id: parse_id("entry.spiffe_id", &spiffe_id)?,
            digest,
            lattice,
            selectors: selectors.into_iter().collect(),
            x509_ttl: Duration::from_secs(x509_ttl_seconds.into()),
            jwt_ttl: Duration::from_secs(jwt_ttl_seconds.into()),
            hint,
            dns_names,
            federates_with,
            admin,
            created_at,
        })
    }

    pub(super) fn to_message(&self) -> v1::Entry {
        let (component_digest, danger_any_digest) = match &self.digest {
            ComponentDigest::NotAComponent => (String::new(), false),
            ComponentDigest::Exactly(digest) => (digest.clone(), false),
            ComponentDigest::DangerAny => (String::new(), true),
        };
        let seconds = |ttl: Duration| u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX);
        v1::Entry {
            id: self.id.clone(),
            spiffe_id: self.spiffe_id.to_string(),
            node: String::new(),
            component_digest,
            danger_any_digest,
            x509_ttl_seconds: seconds(self.x509_ttl),
            lattice: self.lattice.as_ref().map(ToString::to_string).unwrap_or_default(),
            selectors: self.selectors.iter().cloned().collect(),
            jwt_ttl_seconds: seconds(self.jwt_ttl),
            hint: self.hint.clone(),
            dns_names: self.dns_names.clone(),
            federates_with: self.federates_with.iter().map(ToString::to_string).collect(),
            admin: self.admin,
            created_at: self.created_at,
            template: String::new(),
        }
    }

    /// Whether a component file with this digest (`sha256:HEX`) may use the entry.
    #[must_use]
    pub fn admits(&self, digest: &str) -> bool {
        match &self.digest {
            ComponentDigest::NotAComponent => false,
            ComponentDigest::Exactly(bound) => bound == digest,
            ComponentDigest::DangerAny => true,
        }
    }

    /// Whether an X.509-SVID of one is as good as one of the other: nothing differs that stands in a certificate.
    pub(crate) fn certifies_as(&self, other: &Self) -> bool {
        self.spiffe_id == other.spiffe_id && self.x509_ttl == other.x509_ttl && self.dns_names == other.dns_names
    }
}
