//! What the registry can be asked to do. The operator and the nodes speak in these once their messages are parsed.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use portcullis_identity::{
    IdTemplate, Lattice, NodeName, Revocation, Revoked, SerialNumber, SpiffeId, Target, TrustDomain,
};
use portcullis_policy::PolicyFile;
use portcullis_value::WitSource;

use super::address::Address;
use super::authority::{AuthorityId, AuthorityRecord, NewAuthority};
use super::foreign::{ForeignDomain, NewDomain, Receipt};
use super::node::Node;
use super::record::{AdmissionDocument, Component, Digest, Entry, EntryId, PolicyDocument, Upstream};
use super::selector::Selectors;
use super::template::{Filling, Template};
use super::terms::{FederatedDomains, Hint, Terms};
use super::token::{Token, TokenIndex};
use crate::dns_name::DnsNames;
use crate::ttl::{JwtTtl, Ttl};

/// A change that somebody asks for.
#[derive(Debug)]
pub enum Command {
    /// Registers or alters a virtual component.
    RegisterComponent(Box<Registration>),
    /// Removes one, with its grants, addresses and entries.
    RemoveComponent(Target),
    /// Lets a node ask for an SVID.
    CreateEntry(Box<NewEntry>),
    /// Lets nodes ask for many: all of them or none.
    CreateEntries(Vec<NewEntry>),
    /// Alters the terms of one.
    AmendEntry(Box<Amendment>),
    /// Takes that back; with a template go the entries that it made.
    RemoveEntry(EntryId),
    /// Makes the entry that a template has for an attested workload.
    Fill(Filling),
    /// Keeps the hash of a join token.
    CreateToken(NewToken),
    /// A node redeems one.
    Redeem(Redemption),
    /// A node proved a certificate of an accepted authority.
    JoinByCertificate(CertificateJoin),
    /// A node showed a certificate.
    Sight(Sighting),
    /// A node whose certificate expired proved it.
    Rejoin(Box<Rejoining>),
    /// A node is no longer one.
    RemoveNode(NodeName),
    /// Puts policy files in force: all of them or none.
    PutPolicies(Vec<PolicyFile>),
    /// The same for policies that say what hosts may start.
    PutAdmissions(Vec<PolicyFile>),
    /// Takes a policy file of either kind out of force.
    RemovePolicies(String),
    /// Grants a caller on a component, or takes the grant back.
    ChangeGrant(GrantChange),
    /// A node says where it serves a component.
    Announce(Announcement),
    /// An authority goes one step further.
    Authority(AuthorityStep),
    /// SVIDs are refused from now on.
    Revoke(Revoke),
    /// Trusts a foreign trust domain.
    AddDomain(NewDomain),
    /// Takes that back.
    RemoveDomain(TrustDomain),
    /// A foreign trust domain's bundle came.
    Receive(Receipt),
}

impl Command {
    /// What it is, in two words.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::RegisterComponent(_) => "register component",
            Self::RemoveComponent(_) => "remove component",
            Self::CreateEntry(_) => "create entry",
            Self::CreateEntries(_) => "create entries",
            Self::AmendEntry(_) => "amend entry",
            Self::RemoveEntry(_) => "remove entry",
            Self::Fill(_) => "fill template",
            Self::CreateToken(_) => "create token",
            Self::Redeem(_) => "redeem token",
            Self::Sight(_) => "sight node",
            Self::Rejoin(_) => "rejoin node",
            Self::JoinByCertificate(_) => "join by certificate",
            Self::RemoveNode(_) => "remove node",
            Self::PutPolicies(_) => "put policies",
            Self::PutAdmissions(_) => "put admission policies",
            Self::RemovePolicies(_) => "remove policies",
            Self::ChangeGrant(_) => "change grant",
            Self::Announce(_) => "announce",
            Self::Authority(step) => step.name(),
            Self::Revoke(_) => "revoke svids",
            Self::AddDomain(_) => "add trust domain",
            Self::RemoveDomain(_) => "remove trust domain",
            Self::Receive(_) => "receive bundle",
        }
    }
}

/// A step in the life of an authority. What it does to keys on disk is done by who asks for it, in an order that a crash cannot break.
#[derive(Debug)]
pub enum AuthorityStep {
    /// Its key is on disk: it comes into the bundle.
    Publish(Box<NewAuthority>),
    /// It signs from now on.
    Activate(AuthorityId),
    /// What it signed is to be replaced at once.
    Taint(AuthorityId),
    /// Its key is gone: it leaves the bundle.
    Revoke(AuthorityId),
    /// What is expired is forgotten.
    Prune,
}

impl AuthorityStep {
    const fn name(&self) -> &'static str {
        match self {
            Self::Publish(_) => "publish authority",
            Self::Activate(_) => "activate authority",
            Self::Taint(_) => "taint authority",
            Self::Revoke(_) => "revoke authority",
            Self::Prune => "prune authorities",
        }
    }
}

/// What to revoke.
#[derive(Debug, Clone)]
pub enum Revoke {
    /// One certificate.
    Certificate(SerialNumber),
    /// Everything that was issued for an entry so far, and for others with its SPIFFE ID. The entry stays.
    Entry(EntryId),
    /// A node: it is removed, and everything that was issued to it and for its entries is refused.
    Node(NodeName),
}

/// A virtual component to register.
#[derive(Debug, Clone)]
pub struct Registration {
    /// Its name.
    pub target: Target,
    /// Its WIT folder.
    pub wit: Vec<WitSource>,
    /// Which of the WIT's interfaces; empty: every exported one.
    pub interfaces: Vec<String>,
    /// Who serves it; `None`: `/virtual/LATTICE/ID`.
    pub spiffe_id: Option<SpiffeId>,
    /// How values pass.
    pub upstream: Upstream,
    /// Where it is reached, if it is of another trust domain.
    pub addresses: Vec<Address>,
    /// The node that serves it, for which an entry is made.
    pub node: Option<NodeName>,
    /// Lifetime of the SVIDs of that entry.
    pub ttl: Ttl,
    /// Whether a component of that name may be altered.
    pub present: Present,
}

/// What to do where something of that name exists and differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Present {
    /// Refuse.
    Refuse,
    /// Alter it.
    Replace,
}

/// An entry to make.
#[derive(Debug, Clone)]
pub struct NewEntry {
    /// The parent.
    pub node: NodeName,
    /// Whose it is.
    pub holder: Holder,
    /// Everything else.
    pub terms: Terms,
}

/// What is to be different about an entry; `None` stays. Node, SPIFFE ID and digest never change: that would be another entry.
#[derive(Debug, Clone)]
pub struct Amendment {
    /// Which one.
    pub id: EntryId,
    /// What must be attested.
    pub selectors: Option<Selectors>,
    /// Lifetime of X.509-SVIDs.
    pub ttl: Option<Ttl>,
    /// Lifetime of JWT-SVIDs.
    pub jwt_ttl: Option<JwtTtl>,
    /// What the workload is told about it.
    pub hint: Option<Hint>,
    /// Further names in X.509-SVIDs.
    pub dns_names: Option<DnsNames>,
    /// Foreign bundles that the holder sees.
    pub federates_with: Option<FederatedDomains>,
    /// Whether the holder may administer.
    pub admin: Option<bool>,
}

/// Who will hold an entry's SVID.
#[derive(Debug, Clone)]
pub enum Holder {
    /// A wasm component, under `/component/LATTICE/ID`; `Digest::NotApplicable` is not accepted.
    Component {
        /// Its name.
        target: Target,
        /// Which file.
        digest: Digest,
    },
    /// Workloads whose attributes are filled into a SPIFFE ID.
    Template {
        /// What the IDs look like.
        pattern: IdTemplate,
        /// The lattice they may look into.
        lattice: Option<Lattice>,
    },
    /// Anything with an explicit SPIFFE ID.
    Workload {
        /// The ID.
        spiffe_id: SpiffeId,
        /// The lattice it may look into.
        lattice: Option<Lattice>,
        /// Which file, where it is a wasm component after all.
        digest: Digest,
    },
}

/// A join token to keep.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Whom it names.
    pub node: NodeName,
    /// How long it lives.
    pub lifetime: Duration,
    /// The hash of its secret.
    pub secret_sha256: [u8; 32],
}

/// A join token coming back.
#[derive(Debug, Clone)]
pub struct Redemption {
    /// Who says to be it.
    pub node: NodeName,
    /// The hash of what it showed.
    pub secret_sha256: [u8; 32],
    /// SHA-256 of the SubjectPublicKeyInfo in its request.
    pub key_sha256: [u8; 32],
}

/// A node that joins by a certificate, whose chain and key were verified.
#[derive(Debug, Clone)]
pub struct CertificateJoin {
    /// Whom the certificate names.
    pub node: NodeName,
    /// SHA-256 of the SubjectPublicKeyInfo that is to be certified.
    pub key_sha256: [u8; 32],
}

/// A node that proved to hold a certificate.
#[derive(Debug, Clone)]
pub struct Sighting {
    /// Who.
    pub node: NodeName,
    /// Since when the certificate is valid.
    pub not_before: SystemTime,
}

/// A node that comes back with an expired certificate, whose chain and key were verified.
#[derive(Debug, Clone)]
pub struct Rejoining {
    /// Whom the certificate names.
    pub node: NodeName,
    /// The certificate's serial number.
    pub serial: Vec<u8>,
    /// Since when it was valid.
    pub not_before: SystemTime,
    /// Until when.
    pub not_after: SystemTime,
    /// SHA-256 of the SubjectPublicKeyInfo that is to be certified next.
    pub key_sha256: [u8; 32],
}

/// A grant given or taken back.
#[derive(Debug, Clone)]
pub struct GrantChange {
    /// The callee.
    pub target: Target,
    /// The caller.
    pub spiffe_id: SpiffeId,
    /// Which of the two.
    pub direction: GrantDirection,
}

/// Whether a grant is given or taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantDirection {
    /// From now on it is there.
    Give,
    /// From now on it is not.
    TakeBack,
}

/// Where a node serves a component.
#[derive(Debug, Clone)]
pub struct Announcement {
    /// Who says so.
    pub node: NodeName,
    /// What it serves.
    pub target: Target,
    /// Where; empty: no longer.
    pub addresses: Vec<Address>,
}

/// One record of the registry put or removed: what a commit consists of, in memory and on disk.
#[derive(Debug, Clone)]
pub enum Change {
    /// A component, new or altered.
    Component(Arc<Component>),
    /// It is gone; its grants and addresses have changes of their own.
    ComponentRemoved(Target),
    /// An entry.
    Entry(Arc<Entry>),
    /// It is gone.
    EntryRemoved(EntryId),
    /// A template.
    Template(Arc<Template>),
    /// It is gone.
    TemplateRemoved(EntryId),
    /// A node.
    Node(Arc<Node>),
    /// It is gone.
    NodeRemoved(NodeName),
    /// A join token, new or redeemed.
    Token(Arc<Token>),
    /// It is gone.
    TokenRemoved(TokenIndex),
    /// A policy file.
    Policies(Arc<PolicyDocument>),
    /// It is gone.
    PoliciesRemoved(String),
    /// A file of policies that say what hosts may start.
    Admissions(Arc<AdmissionDocument>),
    /// It is gone.
    AdmissionsRemoved(String),
    /// A grant.
    Grant(Target, SpiffeId),
    /// It is gone.
    GrantRemoved(Target, SpiffeId),
    /// Where a node serves a component; empty: nowhere.
    Addresses(Target, NodeName, Vec<Address>),
    /// Who is trusted, and who not any more.
    Trust(TrustChange),
    /// A foreign trust domain, new or with another bundle.
    Domain(Arc<ForeignDomain>),
    /// It is trusted no more.
    DomainRemoved(TrustDomain),
}

/// A record of an authority or a revocation put or removed.
#[derive(Debug, Clone)]
pub enum TrustChange {
    /// An authority, new or altered.
    Authority(Arc<AuthorityRecord>),
    /// It is gone.
    AuthorityRemoved(AuthorityId),
    /// The number of the bundle that the authorities make now.
    BundleSequence(u64),
    /// A revocation, new or extended.
    Revocation(Arc<Revocation>),
    /// It is over.
    RevocationRemoved(Revoked),
}
