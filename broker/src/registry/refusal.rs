//! Why the registry does not do what it is asked, by who must act.

use portcullis_identity::{IdTemplate, NodeName, SpiffeId, Target, TrustDomain, UnfitValue};
use portcullis_policy::{InvalidSchema, Problem};
use portcullis_value::InvalidWit;

use super::authority::AuthorityId;
use super::foreign::BundleRefusal;
use super::record::EntryId;
use super::selector::InvalidSelector;

/// Nothing changed, for this reason.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The WIT cannot be parsed.
    #[error("the WIT is not usable: {0}")]
    Wit(#[from] InvalidWit),
    /// The WIT has no such interface.
    #[error("the WIT exports no interface `{wanted}`; it exports {exported}")]
    UnknownInterface {
        /// What was asked for.
        wanted: String,
        /// What there is.
        exported: String,
    },
    /// The WIT exports nothing.
    #[error("the WIT exports no interface: a virtual component serves at least one")]
    NoInterface,
    /// The components together have no schema.
    #[error("the component cannot be registered: {0}")]
    Schema(#[from] InvalidSchema),
    /// The SPIFFE ID is not one of this trust domain's workloads.
    #[error(
        "`{0}` is not in this broker's trust domain: only its own IDs can be issued; of a foreign component say where it is reached (--address)"
    )]
    ForeignId(SpiffeId),
    /// Addresses of a component that a node of this trust domain serves.
    #[error(
        "`{0}` is served by a node of this trust domain, which announces its addresses itself: give addresses of foreign components only"
    )]
    Announced(SpiffeId),
    /// The SPIFFE ID has no path.
    #[error("`{0}` has no path: it is the trust domain itself, not a workload")]
    NoPath(SpiffeId),
    /// The SPIFFE ID belongs to the control plane (D1).
    #[error("`{0}` is reserved: IDs under `/portcullis/` belong to the broker and its nodes")]
    ReservedId(SpiffeId),
    /// A different component of that name exists.
    #[error("virtual component `{0}` is registered already, differently: use --replace to alter it")]
    ComponentExists(Target),
    /// A different entry for the same node, ID, digest and selectors exists.
    #[error(
        "entry `{id}` has the same node, SPIFFE ID, digest and selectors, but differs otherwise: use `entry update {id}`"
    )]
    EntryExists {
        /// The present entry.
        id: EntryId,
    },
    /// An entry federates with its own trust domain.
    #[error("`{0}` is this broker's own trust domain: its bundle is always seen; federate with foreign ones only")]
    OwnTrustDomain(TrustDomain),
    /// There is no such component.
    #[error("virtual component `{0}` is not registered")]
    NoComponent(Target),
    /// There is no such entry.
    #[error("there is no entry `{0}`")]
    NoEntry(EntryId),
    /// Templates are not altered: what they made says otherwise already.
    #[error("`{0}` is a template, and templates do not change: create another and remove this one")]
    IsTemplate(EntryId),
    /// Templates come one by one.
    #[error("`{0}` is a template: create it by itself, not among entries")]
    TemplateAmongEntries(IdTemplate),
    /// A template of another trust domain.
    #[error("`{0}` is not in this broker's trust domain: only its own IDs can be issued")]
    ForeignTemplate(IdTemplate),
    /// What was attested does not fit into a template.
    #[error(transparent)]
    Unfit(#[from] UnfitValue),
    /// What was attested is no selector.
    #[error(transparent)]
    Selector(#[from] InvalidSelector),
    /// There is no such node.
    #[error("node `{0}` is not registered")]
    NoNode(NodeName),
    /// There is no such policy file.
    #[error("there is no policy file `{0}`")]
    NoPolicyFile(String),
    /// The name is not that of a policy file.
    #[error(
        "`{0}` is not a name for a policy file: use 1 to 128 letters, digits, `.`, `_` and `-`, not beginning with a dot"
    )]
    PolicyFileName(String),
    /// Two files of one request have the same name.
    #[error("policy file `{0}` is given twice")]
    PolicyFileTwice(String),
    /// A file of that name holds the other kind of policies.
    #[error("`{0}` is the name of a file with the other kind of policies: take another, or remove that first")]
    OtherKind(String),
    /// The policies have mistakes.
    #[error("the policies have {} problem(s): {}", .0.len(), listed(.0))]
    Policies(Vec<Problem>),
    /// The change would make a policy in force invalid.
    #[error("policies in force would become invalid: {}", listed(.0))]
    Breaks(Vec<Problem>),
    /// The trust domain is this broker's.
    #[error("`{0}` is this broker's own trust domain: its authorities are the broker's, and nobody else's")]
    OwnDomain(TrustDomain),
    /// The trust domain is known already.
    #[error("trust domain `{0}` is registered already: remove it first")]
    DomainExists(TrustDomain),
    /// There is no such trust domain.
    #[error("there is no trust domain `{0}`")]
    NoDomain(TrustDomain),
    /// Neither a bundle nor a way to one.
    #[error("trust domain `{0}` needs a bundle endpoint or a bundle")]
    NoBundle(TrustDomain),
    /// The endpoint proves itself by an identity that cannot be verified.
    #[error(
        "the endpoint is `{0}`, and no bundle of its trust domain is held to verify that: give a first one with --bundle"
    )]
    NoSeed(SpiffeId),
    /// A bundle is not believed.
    #[error(transparent)]
    Bundle(#[from] BundleRefusal),
    /// The grant is in place already, or never was.
    #[error("`{spiffe_id}` is not granted on `{target}`")]
    NotGranted {
        /// The callee.
        target: Target,
        /// The caller.
        spiffe_id: SpiffeId,
    },
    /// A node announced a component it does not serve.
    #[error("node `{node}` has no entry for `{target}`")]
    NotServed {
        /// Who announced.
        node: NodeName,
        /// What.
        target: Target,
    },
    /// More than the registry holds.
    #[error("too many {what}: the limit is {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// Larger than the registry holds.
    #[error("{what} of {bytes} bytes is larger than {limit}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A token's life is too short or too long.
    #[error("a join token lives 10 seconds to 7 days, not {0} seconds")]
    TokenLifetime(u64),
    /// A join token was not accepted.
    #[error(transparent)]
    Token(#[from] TokenRefusal),
    /// An authority does not go that way.
    #[error(transparent)]
    Authority(#[from] AuthorityRefusal),
    /// An expired certificate does not let its node back in.
    #[error(transparent)]
    Rejoin(#[from] RejoinRefusal),
    /// A certificate of an accepted authority does not make a node.
    #[error(transparent)]
    Join(#[from] JoinRefusal),
}

/// Why a certificate of an accepted authority does not make a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinRefusal {
    /// The name is that of a node with a token.
    #[error("a node of this name joined with a token: remove that one first")]
    OtherWay,
    /// Two holders used one certificate of the node.
    #[error("the node is quarantined: an operator must remove it first")]
    Quarantined,
    /// An operator removed it.
    #[error("the node was removed: an operator must remove it once more before it may join again")]
    Barred,
}

/// Why an authority does not take a step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityRefusal {
    /// There is none of that id.
    #[error("there is no authority `{0}`: `ca show` lists them")]
    Unknown(AuthorityId),
    /// It is there already.
    #[error("authority `{0}` is in the bundle already")]
    Exists(AuthorityId),
    /// One at a time.
    #[error("authority `{id}` is prepared already ({kind}): activate or revoke it first")]
    Waiting {
        /// The one that waits.
        id: AuthorityId,
        /// What it signs.
        kind: &'static str,
    },
    /// Only a prepared one becomes active.
    #[error("authority `{id}` is {stage} or tainted: only a good prepared one can be activated")]
    NotPrepared {
        /// Which.
        id: AuthorityId,
        /// How far it has come.
        stage: &'static str,
    },
    /// Its time is over.
    #[error("authority `{0}` is expired")]
    Expired(AuthorityId),
    /// It signs.
    #[error("authority `{0}` is active: prepare and activate another one first")]
    Active(AuthorityId),
    /// Those who hold what it signed have not been told to replace it.
    #[error("authority `{0}` is not tainted: taint it first, and revoke it when what it signed is replaced")]
    NotTainted(AuthorityId),
}

/// Why an expired certificate does not let its node back in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RejoinRefusal {
    /// It was removed, or never joined.
    #[error("the node is not registered: it needs a new join token")]
    NotRegistered,
    /// Two holders used one certificate.
    #[error("the node is quarantined, because two holders used one certificate of it: it needs a new join token")]
    Quarantined,
    /// The node proved a newer one since, or joined anew.
    #[error("this is not the node's last certificate: it needs a new join token")]
    Superseded,
    /// It expired too long ago.
    #[error("the certificate expired more than 30 days ago: the node needs a new join token")]
    TooLate,
}

/// Why a join token was not accepted. Only who holds a token's secret learns more than `Unknown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// No token has this secret.
    #[error("unknown join token: it was not made by this broker, or its time is long over")]
    Unknown,
    /// The token names another node.
    #[error("the join token was made for another node")]
    OtherNode,
    /// Its time is over.
    #[error("the join token expired: ask for a new one")]
    Expired,
    /// Another key redeemed it.
    #[error(
        "the join token is spent: it was redeemed with another key; if that was not this node, somebody else holds the token"
    )]
    Spent,
}

fn listed(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A store whose records do not fit together.
#[derive(Debug, thiserror::Error)]
pub enum Unrestorable {
    /// The components have no schema.
    #[error("the stored components do not fit together: {0}")]
    Schema(#[from] InvalidSchema),
    /// A stored policy is not accepted any more.
    #[error("the stored policies are not valid: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Policies(Vec<Problem>),
}
