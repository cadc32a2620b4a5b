//! The registry: what is registered, who may ask for which identity, which policies are in force.
//!
//! It is a value. [`Registry::plan`] says what a [`Command`] would change, or why it is refused; [`Registry::apply`] makes the change. Between
//! the two the change is stored durably, by somebody else. The registry reads no clock, no file and no socket, and knows nothing of the
//! wire.

mod address;
mod apply;
mod authority;
mod bounds;
mod caller;
mod command;
mod explanation;
mod foreign;
mod held;
mod node;
mod plan;
mod record;
mod refusal;
mod selector;
mod surface;
mod template;
mod terms;
mod token;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portcullis_identity::{ComponentId, Lattice, NodeName, Revocation, Revoked, SpiffeId, Target, TrustDomain};
use portcullis_policy::{Admissions, PolicyFile, Schema};

pub use self::address::{Address, InvalidAddress};
pub use self::authority::{
    AuthorityId, AuthorityKind, AuthorityRecord, InvalidAuthorityId, Material, NewAuthority, OwnBundle, Roster, Stage,
    Taint,
};
pub use self::caller::Prospects;
pub use self::command::{
    Amendment, Announcement, AuthorityStep, CertificateJoin, Change, Command, GrantChange, GrantDirection, Holder,
    NewEntry, NewToken, Present, Redemption, Registration, Rejoining, Revoke, Sighting, TrustChange,
};
pub use self::explanation::{Explanation, Question, Unexplained};
pub use self::foreign::{
    BundleRefusal, Endpoint, EndpointUrl, ForeignDomain, HeldBundle, InvalidUrl, NewDomain, Notice, Profile, Receipt,
};
pub use self::node::{JoinedBy, Node, REJOIN_GRACE, Spent, Standing};
pub use self::plan::{Aftermath, Fate, Plan, PolicyCheck};
pub use self::record::{
    AdmissionDocument, Component, ComponentDigest, Digest, Entry, EntryId, InvalidDigest, InvalidEntryId, PeerRecord,
    PolicyDocument, Served, Upstream, Version,
};
pub use self::refusal::{AuthorityRefusal, JoinRefusal, Refusal, RejoinRefusal, TokenRefusal, Unrestorable};
pub use self::selector::{InvalidSelector, Selector, Selectors};
pub use self::template::{Filling, Template};
pub use self::terms::{FederatedDomains, Hint, InvalidFederation, InvalidHint, Terms};
pub use self::token::{Token, TokenIndex};
pub use self::view::{NodeView, ViewChange};

use self::held::Held;

/// Everything the broker knows, in memory.
#[derive(Debug)]
pub struct Registry {
    trust_domain: TrustDomain,
    version: Version,
    components: BTreeMap<Lattice, BTreeMap<ComponentId, Held>>,
    /// Which components a SPIFFE ID serves.
    serving: BTreeMap<SpiffeId, BTreeSet<Target>>,
    entries: BTreeMap<EntryId, Arc<Entry>>,
    entries_of: BTreeMap<NodeName, BTreeSet<EntryId>>,
    entries_for: BTreeMap<SpiffeId, BTreeSet<EntryId>>,
    templates: BTreeMap<EntryId, Arc<Template>>,
    nodes: BTreeMap<NodeName, Arc<Node>>,
    tokens: BTreeMap<TokenIndex, Arc<Token>>,
    policies: BTreeMap<String, Arc<PolicyDocument>>,
    admission_files: BTreeMap<String, Arc<AdmissionDocument>>,
    /// What those files say together.
    admissions: Arc<Admissions>,
    domains: BTreeMap<TrustDomain, Arc<ForeignDomain>>,
    schema: Arc<Schema>,
    authorities: BTreeMap<AuthorityId, Arc<AuthorityRecord>>,
    /// What the authorities make together.
    bundle: Arc<OwnBundle>,
    revocations: Revoking,
    marks: Marks,
}

/// Revocations in force, by what they revoke.
pub type Revoking = Arc<BTreeMap<Revoked, Arc<Revocation>>>;

/// The epochs at which something last changed that the nodes of a lattice, or one node, can see.
#[derive(Debug, Default)]
struct Marks {
    lattices: BTreeMap<Lattice, u64>,
    nodes: BTreeMap<NodeName, u64>,
    domains: BTreeMap<TrustDomain, u64>,
    /// Of the names under which identities call over NATS.
    names: BTreeMap<Lattice, u64>,
    /// For every node: the bundle, the revocations.
    all: u64,
    /// That some SPIFFE ID serves a component since.
    serving: u64,
}

impl Registry {
    /// A registry without any record.
    ///
    /// # Errors
    /// When the policy engine refuses the schema of nothing, which it does not.
    pub fn empty(trust_domain: TrustDomain) -> Result<Self, Unrestorable> {
        Ok(Self {
            bundle: Arc::new(OwnBundle::empty(trust_domain.clone())),
            authorities: BTreeMap::new(),
            revocations: Revoking::default(),
            trust_domain,
            version: Version::FIRST,
            components: BTreeMap::new(),
            serving: BTreeMap::new(),
            entries: BTreeMap::new(),
            entries_of: BTreeMap::new(),
            entries_for: BTreeMap::new(),
            templates: BTreeMap::new(),
            nodes: BTreeMap::new(),
            tokens: BTreeMap::new(),
            policies: BTreeMap::new(),
            admission_files: BTreeMap::new(),
            admissions: Arc::default(),
            domains: BTreeMap::new(),
            schema: Arc::new(Schema::new(&[])?),
            marks: Marks::default(),
        })
    }

    /// The registry that `records` and `policies` were, when it had `version`.
    ///
    /// # Errors
    /// When the policies do not fit the components.
    pub fn restore(
        trust_domain: TrustDomain,
        version: Version,
        mut records: Vec<Change>,
        policies: &[PolicyFile],
    ) -> Result<Self, Unrestorable> {
        let mut registry = Self::empty(trust_domain)?;
        let surfaces: Vec<_> =
            records
                .iter()
                .filter_map(|record| {
                    if let Change::Component(component) = record { Some(component.surface.clone()) } else { None }
                })
                .collect();
        let schema = Schema::new(&surfaces)?;
        let mut problems = Vec::new();
        for file in policies {
            match PolicyDocument::parse(file, &schema) {
                Ok(document) => records.push(Change::Policies(Arc::new(document))),
                Err(of_file) => problems.extend(of_file),
            }
        }
        if !problems.is_empty() {
            return Err(Unrestorable::Policies(problems));
        }
        registry.apply(&records, version, Some(Arc::new(schema)));
        Ok(registry)
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The version of the latest change.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// A virtual component.
    #[must_use]
    pub fn component(&self, target: &Target) -> Option<&Arc<Component>> {
        self.held(target).map(|held| &held.component)
    }

    /// A virtual component as other nodes see it.
    #[must_use]
    pub fn peer_record(&self, target: &Target) -> Option<&Arc<PeerRecord>> {
        self.held(target).map(|held| &held.record)
    }

    /// A virtual component as its sidecar sees it.
    #[must_use]
    pub fn served(&self, target: &Target) -> Option<&Arc<Served>> {
        self.held(target).map(|held| &held.served)
    }

    /// Every virtual component, by lattice and id.
    pub fn all_served(&self) -> impl Iterator<Item = &Arc<Served>> {
        self.components.values().flat_map(BTreeMap::values).map(|held| &held.served)
    }

    /// An entry.
    #[must_use]
    pub fn entry(&self, id: &EntryId) -> Option<&Arc<Entry>> {
        self.entries.get(id)
    }

    /// Every entry.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &Arc<Entry>> {
        self.entries.values()
    }

    /// The entries whose parent is `node`.
    pub fn entries_of(&self, node: &NodeName) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries_of.get(node).into_iter().flatten().filter_map(|id| self.entries.get(id))
    }

    /// The entries for `id`.
    pub fn entries_for(&self, id: &SpiffeId) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries_for.get(id).into_iter().flatten().filter_map(|id| self.entries.get(id))
    }

    /// A node that joined.
    #[must_use]
    pub fn node(&self, name: &NodeName) -> Option<&Arc<Node>> {
        self.nodes.get(name)
    }

    /// Every node that joined.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// Every policy file in force.
    pub fn policies(&self) -> impl ExactSizeIterator<Item = &Arc<PolicyDocument>> {
        self.policies.values()
    }

    /// Every file in force of policies that say what hosts may start.
    pub fn admission_files(&self) -> impl ExactSizeIterator<Item = &Arc<AdmissionDocument>> {
        self.admission_files.values()
    }

    /// What these files say together; another value whenever they change, and the same as long as they do not.
    #[must_use]
    pub fn admissions(&self) -> &Arc<Admissions> {
        &self.admissions
    }

    /// How many virtual components there are.
    #[must_use]
    pub fn component_count(&self) -> usize {
        self.components.values().map(BTreeMap::len).sum()
    }

    /// How many policies are in force.
    #[must_use]
    pub fn policy_count(&self) -> usize {
        let calls: usize = self.policies.values().map(|document| document.set.len()).sum();
        calls.saturating_add(self.admissions.len())
    }

    fn held(&self, target: &Target) -> Option<&Held> {
        self.components.get(&target.lattice)?.get(&target.id)
    }

    fn held_mut(&mut self, target: &Target) -> Option<&mut Held> {
        self.components.get_mut(&target.lattice)?.get_mut(&target.id)
    }
}

#[cfg(test)]
mod tests;
