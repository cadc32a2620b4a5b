//! Admissions: what a wasmCloud host may start and serve. The host asks before it does so; a schema of its own says what policies see.
//!
//! | Cedar | what it is |
//! |---|---|
//! | `Host::"NKEY"` | the host that asks: `lattice`, `spiffe_id?`; in its `Lattice`, and in `Workload::"spiffe://.."` where it proved that; its labels are tags |
//! | `Component::"LATTICE/ID"`, `Provider::"LATTICE/ID"` | what it would start: `lattice`, `id`, `image`, `claims?`; in its `Lattice`; its annotations are tags |
//! | `Action::"startComponent"` | with `context.max_instances` |
//! | `Action::"startProvider"` | |
//! | `Action::"performInvocation"` | a component's function is called: `context.interface`, `context.function` |
//!
//! `image` has `reference` as given, `kind` (`oci`, `file`, `builtin`), and of a registry's image `registry`, `repository`, `tag?` and
//! `digest?`: the last only where the reference pins it, so that a rule that needs one denies otherwise. Hosts ask about a provider by
//! its reference without the scheme: `/srv/a.par`, `http-client`. Labels, annotations, ids and
//! claims are the host's word.

mod image;

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use cedar_policy::{
    ActionConstraint, Authorizer, Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Policy,
    PolicySet as CedarSet, Request, ResourceConstraint, RestrictedExpression, Schema,
};

use crate::engine::{InvalidEngine, Trial, divide};
use crate::outcome::{self, References};
use crate::set::{ADVICE, AdmissionSet};
use crate::verdict::{EvaluationError, PolicyRef, Verdict};

pub use image::{ImageReference, ImageSource, InvalidImage};

/// What policies may say, in Cedar's own language.
pub const ADMISSION_SCHEMA: &str = include_str!("admission/admission.cedarschema");

/// What a host asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// Who asks.
    pub host: AskingHost,
    /// What it would do.
    pub action: AdmissionAction,
    /// With what.
    pub artifact: Artifact,
}

/// The host that asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskingHost {
    /// Its public key, by its own word.
    pub public_key: String,
    /// Its lattice.
    pub lattice: String,
    /// Its SPIFFE ID, where it proved that.
    pub spiffe_id: Option<String>,
    /// Its labels, by its own word.
    pub labels: BTreeMap<String, String>,
}

/// What a host would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdmissionAction {
    /// Start a component.
    StartComponent {
        /// How many of it may run at one time.
        max_instances: u32,
    },
    /// Start a provider.
    StartProvider,
    /// Let a component serve a call.
    PerformInvocation {
        /// The interface.
        interface: String,
        /// The function.
        function: String,
    },
}

/// A component or a provider, by the host's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Its id.
    pub id: String,
    /// Where it comes from.
    pub image: ImageReference,
    /// What who starts it wrote on it.
    pub annotations: BTreeMap<String, String>,
    /// What is embedded in it.
    pub claims: Option<ArtifactClaims>,
}

/// The token that is embedded in a component or provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactClaims {
    /// The key of what it is embedded in.
    pub public_key: String,
    /// The key that signed.
    pub issuer: String,
    /// Whether it was expired when the host asked.
    pub expired: bool,
}

/// The policies of admissions, ready to decide. Without any, everything is denied.
#[derive(Debug, Default)]
pub struct Admissions {
    start_component: Rules,
    start_provider: Rules,
    perform_invocation: Rules,
    references: References,
    policies: Vec<Policy>,
}

#[derive(Debug, Default)]
struct Rules {
    in_force: CedarSet,
    on_trial: Vec<Trial>,
}

/// The entity types of the schema.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Lattice,
    Workload,
    Host,
    Component,
    Provider,
    Action,
}

impl AdmissionAction {
    /// The action's name, on the wire and in policies.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::StartComponent { .. } => START_COMPONENT,
            Self::StartProvider => START_PROVIDER,
            Self::PerformInvocation { .. } => PERFORM_INVOCATION,
        }
    }
}

const START_COMPONENT: &str = "startComponent";
const START_PROVIDER: &str = "startProvider";
const PERFORM_INVOCATION: &str = "performInvocation";

impl Admissions {
    /// The policies of all `sets` together.
    ///
    /// # Errors
    /// Where two policies have one id.
    pub fn new<'s>(sets: impl IntoIterator<Item = &'s AdmissionSet>) -> Result<Self, InvalidEngine> {
        let policies: Vec<Policy> = sets.into_iter().flat_map(AdmissionSet::policies).cloned().collect();
        let named = policies.iter().map(|policy| {
            let reference = PolicyRef::new(policy.id().as_ref(), policy.annotation(ADVICE));
            (policy.id().clone(), reference)
        });
        let references: References = named.collect();
        let rules = |action: &str| Rules::new(&policies, &references, &Kind::Action.uid(action));
        Ok(Self {
            start_component: rules(START_COMPONENT)?,
            start_provider: rules(START_PROVIDER)?,
            perform_invocation: rules(PERFORM_INVOCATION)?,
            references,
            policies,
        })
    }

    /// Decides. It always answers.
    #[must_use]
    pub fn decide(&self, admission: &Admission) -> Verdict {
        let rules = match admission.action {
            AdmissionAction::StartComponent { .. } => &self.start_component,
            AdmissionAction::StartProvider => &self.start_provider,
            AdmissionAction::PerformInvocation { .. } => &self.perform_invocation,
        };
        match question(admission) {
            Ok((request, entities)) => {
                let authorizer = Authorizer::new();
                let ask = |policies: &CedarSet| authorizer.is_authorized(&request, policies, &entities);
                let trials = rules.on_trial.iter();
                let tried = trials.filter_map(|trial| outcome::tried(trial, &ask(&trial.alone), &self.references));
                outcome::verdict(&ask(&rules.in_force), &self.references, tried.collect())
            }
            Err(message) => Verdict::denied(Vec::new(), vec![EvaluationError::of_call(message)], Vec::new()),
        }
    }

    /// Whether some policy could say something of `lattice`.
    #[must_use]
    pub fn concern(&self, lattice: &str) -> bool {
        let whole = Kind::Lattice.uid(lattice);
        let within = |uid: &EntityUid| {
            *uid == whole || uid.id().unescaped().split_once('/').is_some_and(|(of, _)| of == lattice)
        };
        self.policies.iter().any(|policy| match policy.resource_constraint() {
            ResourceConstraint::Any | ResourceConstraint::Is(_) => true,
            ResourceConstraint::Eq(uid) | ResourceConstraint::In(uid) | ResourceConstraint::IsIn(_, uid) => {
                within(&uid)
            }
        })
    }

    /// How many policies there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.policies.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }
}

impl Rules {
    fn new(policies: &[Policy], references: &References, action: &EntityUid) -> Result<Self, InvalidEngine> {
        let applies = |policy: &&Policy| match policy.action_constraint() {
            ActionConstraint::Any => true,
            ActionConstraint::Eq(uid) => uid == *action,
            ActionConstraint::In(uids) => uids.contains(action),
        };
        let applying = policies.iter().filter(applies);
        let applying = applying.filter_map(|policy| references.get(policy.id()).map(|reference| (policy, reference)));
        let (in_force, on_trial) = divide(applying)?;
        Ok(Self { in_force, on_trial })
    }
}

impl Kind {
    pub(crate) const ALL: [Self; 6] =
        [Self::Lattice, Self::Workload, Self::Host, Self::Component, Self::Provider, Self::Action];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lattice => "Lattice",
            Self::Workload => "Workload",
            Self::Host => "Host",
            Self::Component => "Component",
            Self::Provider => "Provider",
            Self::Action => "Action",
        }
    }

    /// The kind of an entity, or nothing for a type that the schema does not know.
    pub(crate) fn of(uid: &EntityUid) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| uid.type_name().to_string() == kind.name())
    }

    #[expect(clippy::expect_used, reason = "each name is a literal above and a Cedar identifier")]
    fn uid(self, id: &str) -> EntityUid {
        static NAMES: LazyLock<HashMap<&str, EntityTypeName>> = LazyLock::new(|| {
            let parse = |kind: Kind| (kind.name(), kind.name().parse().expect("an identifier is an entity type name"));
            Kind::ALL.map(parse).into_iter().collect()
        });
        let name = NAMES.get(self.name()).expect("every kind is there");
        EntityUid::from_type_name_and_id(name.clone(), EntityId::new(id))
    }
}

/// The schema, parsed once.
#[expect(clippy::expect_used, reason = "the schema is a constant, and every test parses it")]
pub(crate) fn schema() -> &'static Schema {
    static SCHEMA: LazyLock<Schema> =
        LazyLock::new(|| Schema::from_cedarschema_str(ADMISSION_SCHEMA).expect("the schema is valid").0);
    &SCHEMA
}

fn question(admission: &Admission) -> Result<(Request, Entities), String> {
    let told = |error: &dyn std::fmt::Display| error.to_string();
    let Admission { host, action, artifact } = admission;
    let lattice = Kind::Lattice.uid(&host.lattice);
    let principal = Kind::Host.uid(&host.public_key);
    let resource = match action {
        AdmissionAction::StartComponent { .. } | AdmissionAction::PerformInvocation { .. } => Kind::Component,
        AdmissionAction::StartProvider => Kind::Provider,
    };
    let resource = resource.uid(&format!("{}/{}", host.lattice, artifact.id));
    let entities = [host_entity(host, &principal, &lattice), artifact_entity(artifact, host, &resource, &lattice)];
    let entities = entities.into_iter().collect::<Result<Vec<_>, _>>()?;
    let entities = Entities::from_entities(entities, None).map_err(|error| told(&error))?;
    let context: Vec<(&str, RestrictedExpression)> = match action {
        AdmissionAction::StartComponent { max_instances } => {
            vec![("max_instances", RestrictedExpression::new_long(i64::from(*max_instances)))]
        }
        AdmissionAction::StartProvider => Vec::new(),
        AdmissionAction::PerformInvocation { interface, function } => {
            vec![("interface", string(interface)), ("function", string(function))]
        }
    };
    let context = context.into_iter().map(|(name, value)| (name.to_owned(), value));
    let context = Context::from_pairs(context).map_err(|error| told(&error))?;
    let action = Kind::Action.uid(action.name());
    // The schema once more: whatever is put together here must be what the policies were checked against.
    let request = Request::new(principal, action, resource, context, Some(schema())).map_err(|error| told(&error))?;
    Ok((request, entities))
}

fn host_entity(host: &AskingHost, uid: &EntityUid, lattice: &EntityUid) -> Result<Entity, String> {
    let mut attributes = vec![("lattice".to_owned(), string(&host.lattice))];
    let mut parents = vec![lattice.clone()];
    if let Some(id) = &host.spiffe_id {
        attributes.push(("spiffe_id".to_owned(), string(id)));
        parents.push(Kind::Workload.uid(id));
    }
    Entity::new_with_tags(uid.clone(), attributes, parents, tags(&host.labels)).map_err(|error| error.to_string())
}

fn artifact_entity(
    artifact: &Artifact,
    host: &AskingHost,
    uid: &EntityUid,
    lattice: &EntityUid,
) -> Result<Entity, String> {
    let mut attributes = vec![
        ("lattice".to_owned(), string(&host.lattice)),
        ("id".to_owned(), string(&artifact.id)),
        ("image".to_owned(), image_record(&artifact.image)),
    ];
    if let Some(ArtifactClaims { public_key, issuer, expired }) = &artifact.claims {
        let expired = RestrictedExpression::new_bool(*expired);
        attributes.push((
            "claims".to_owned(),
            record([("public_key", string(public_key)), ("issuer", string(issuer)), ("expired", expired)]),
        ));
    }
    Entity::new_with_tags(uid.clone(), attributes, [lattice.clone()], tags(&artifact.annotations))
        .map_err(|error| error.to_string())
}

fn image_record(image: &ImageReference) -> RestrictedExpression {
    let mut fields = vec![("reference", string(image.as_str()))];
    match image.source() {
        ImageSource::Oci { registry, repository, tag, digest } => {
            fields.extend([
                ("kind", string("oci")),
                ("registry", string(registry)),
                ("repository", string(repository)),
            ]);
            fields.extend(tag.as_deref().map(|tag| ("tag", string(tag))));
            fields.extend(digest.as_deref().map(|digest| ("digest", string(digest))));
        }
        ImageSource::File => fields.push(("kind", string("file"))),
        ImageSource::Builtin => fields.push(("kind", string("builtin"))),
    }
    record(fields)
}

/// The names are literals, so that none is there twice; were one, the record would be empty and every policy that reads it deny.
fn record<'n>(fields: impl IntoIterator<Item = (&'n str, RestrictedExpression)>) -> RestrictedExpression {
    let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value));
    RestrictedExpression::new_record(fields).unwrap_or_else(|_| RestrictedExpression::new_set([]))
}

fn tags(texts: &BTreeMap<String, String>) -> impl Iterator<Item = (String, RestrictedExpression)> {
    texts.iter().map(|(name, value)| (name.clone(), string(value)))
}

fn string(text: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(text.to_owned())
}
