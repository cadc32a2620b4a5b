//! Between the registry's types and the messages of the contract. What comes in is parsed whole; what cannot be parsed says why.

pub(crate) mod template;

use std::str::FromStr;

use portcullis_api::v1;
use portcullis_identity::{
    IdTemplate, JwtAuthority, Lattice, NodeName, Revocation, Revoked, SpiffeId, Target, TrustDomain, parse_spiffe_id,
    parse_trust_domain,
};
use portcullis_policy::{PolicyFile, Problem};
use portcullis_value::WitSource;

use crate::clock;
use crate::registry::{
    Amendment, Digest, Entry, HeldBundle, Holder, NewEntry, NodeView, OwnBundle, PeerRecord, Present, Registration,
    Served, Terms, Upstream, Version, ViewChange,
};
use crate::ttl::{JwtTtl, Ttl};

/// Nodes are pushed every change; whoever copies the bundle elsewhere, and foreign trust domains, should look this often (Trust Domain and
/// Bundle §4.1.2). By time, a new authority is published before it signs anything, by several times this: a third of an authority's life,
/// which is an hour at least.
pub(crate) const REFRESH_HINT_SECONDS: u32 = 300;

/// A message says something that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct InvalidMessage(String);

impl InvalidMessage {
    /// For a reason that is not that of a type.
    pub(crate) fn new(problem: impl Into<String>) -> Self {
        Self(problem.into())
    }
}

impl From<Version> for v1::Version {
    fn from(Version { incarnation, epoch }: Version) -> Self {
        Self { incarnation, epoch }
    }
}

impl From<v1::Version> for Version {
    fn from(v1::Version { incarnation, epoch }: v1::Version) -> Self {
        Self { incarnation, epoch }
    }
}

/// Parses `text`; the error is the type's own.
pub(crate) fn parse<T: FromStr<Err: ToString>>(text: &str) -> Result<T, InvalidMessage> {
    text.parse().map_err(|error: T::Err| InvalidMessage(error.to_string()))
}

/// As [`parse`]; an empty text is none.
pub(crate) fn parse_optional<T: FromStr<Err: ToString>>(text: &str) -> Result<Option<T>, InvalidMessage> {
    if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

/// Parses a SPIFFE ID as it must be written.
pub(crate) fn spiffe_id(text: &str) -> Result<SpiffeId, InvalidMessage> {
    parse_spiffe_id(text).map_err(|error| InvalidMessage(error.to_string()))
}

/// Parses the name of a trust domain as it must be written.
pub(crate) fn trust_domain(text: &str) -> Result<TrustDomain, InvalidMessage> {
    parse_trust_domain(text).map_err(|error| InvalidMessage(error.to_string()))
}

/// Parses `LATTICE/ID`.
pub(crate) fn target(message: Option<v1::Target>) -> Result<Target, InvalidMessage> {
    let v1::Target { lattice, id } = message.ok_or_else(|| InvalidMessage::new("the component's name is missing"))?;
    Ok(Target { lattice: parse(&lattice)?, id: parse(&id)? })
}

/// The message of a target.
pub(crate) fn target_message(target: &Target) -> v1::Target {
    v1::Target { lattice: target.lattice.to_string(), id: target.id.to_string() }
}

/// Converts `value`; the error is the type's own.
pub(crate) fn convert<T, U: TryFrom<T, Error: ToString>>(value: T) -> Result<U, InvalidMessage> {
    value.try_into().map_err(|error: U::Error| InvalidMessage(error.to_string()))
}

/// 0 means `default`.
pub(crate) fn ttl<T: TryFrom<u64, Error: ToString>>(seconds: u32, default: T) -> Result<T, InvalidMessage> {
    if seconds == 0 { Ok(default) } else { convert(u64::from(seconds)) }
}

/// Parses a registration.
pub(crate) fn registration(
    message: v1::RegisterComponentRequest,
    default_ttl: Ttl,
) -> Result<Registration, InvalidMessage> {
    let upstream = match message.upstream() {
        v1::Upstream::Typed => Upstream::Typed,
        v1::Upstream::Splice => Upstream::Splice,
        v1::Upstream::Unspecified => return Err(InvalidMessage::new("say whether the upstream is typed or spliced")),
    };
    let v1::RegisterComponentRequest {
        target: name,
        wit,
        interfaces,
        spiffe_id: id,
        upstream: _,
        node,
        x509_ttl_seconds,
        replace,
        addresses,
    } = message;
    Ok(Registration {
        target: target(name)?,
        wit: wit.into_iter().map(|v1::WitFile { path, text }| WitSource { path, text }).collect(),
        interfaces,
        spiffe_id: if id.is_empty() { None } else { Some(spiffe_id(&id)?) },
        upstream,
        addresses: addresses.iter().map(|address| parse(address)).collect::<Result<_, _>>()?,
        node: parse_optional::<NodeName>(&node)?,
        ttl: ttl(x509_ttl_seconds, default_ttl)?,
        present: if replace { Present::Replace } else { Present::Refuse },
    })
}

/// Parses an entry to make.
pub(crate) fn new_entry(message: v1::CreateEntryRequest, default_ttl: Ttl) -> Result<NewEntry, InvalidMessage> {
    let v1::CreateEntryRequest {
        node,
        component,
        spiffe_id: id,
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
    } = message;
    let terms = Terms {
        selectors: convert(selectors)?,
        ttl: ttl(x509_ttl_seconds, default_ttl)?,
        jwt_ttl: ttl(jwt_ttl_seconds, JwtTtl::DEFAULT)?,
        hint: parse(&hint)?,
        dns_names: convert(dns_names)?,
        federates_with: convert(federates_with)?,
        admin,
    };
    let digest = match (component_digest.as_str(), danger_any_digest) {
        ("", false) => Digest::NotApplicable,
        ("", true) => Digest::DangerAny,
        (digest, false) => Digest::Exactly(parse(digest)?),
        (_, true) => return Err(InvalidMessage::new("a digest and danger-any-digest exclude each other")),
    };
    let lattice: Option<Lattice> = parse_optional(&lattice)?;
    let holder = match (component, id.as_str()) {
        (Some(_), "") if lattice.is_some() => {
            return Err(InvalidMessage::new("the lattice of a component is in its name"));
        }
        (Some(_), "") if digest == Digest::NotApplicable => {
            return Err(InvalidMessage::new("a wasm component needs its digest, or danger-any-digest for development"));
        }
        (Some(component), "") => Holder::Component { target: target(Some(component))?, digest },
        (None, id) if IdTemplate::is_meant(id) => {
            if digest != Digest::NotApplicable {
                return Err(InvalidMessage::new("a template is for workloads that are attested, not for components"));
            }
            Holder::Template { pattern: parse(id)?, lattice }
        }
        (None, id) if !id.is_empty() => Holder::Workload { spiffe_id: spiffe_id(id)?, lattice, digest },
        (Some(_) | None, _) => return Err(InvalidMessage::new("name either a component or a SPIFFE ID")),
    };
    Ok(NewEntry { node: parse(&node)?, holder, terms })
}

/// Parses what is to be different about an entry.
pub(crate) fn amendment(message: v1::UpdateEntryRequest, default_ttl: Ttl) -> Result<Amendment, InvalidMessage> {
    let v1::UpdateEntryRequest {
        id,
        x509_ttl_seconds,
        jwt_ttl_seconds,
        hint,
        selectors,
        dns_names,
        federates_with,
        admin,
    } = message;
    Ok(Amendment {
        id: parse(&id)?,
        selectors: selectors.map(|v1::Texts { values }| convert(values)).transpose()?,
        ttl: x509_ttl_seconds.map(|seconds| ttl(seconds, default_ttl)).transpose()?,
        jwt_ttl: jwt_ttl_seconds.map(|seconds| ttl(seconds, JwtTtl::DEFAULT)).transpose()?,
        hint: hint.map(|hint| parse(&hint)).transpose()?,
        dns_names: dns_names.map(|v1::Texts { values }| convert(values)).transpose()?,
        federates_with: federates_with.map(|v1::Texts { values }| convert(values)).transpose()?,
        admin,
    })
}

/// Parses policy files; their text is for the policy crate.
pub(crate) fn policy_files(message: v1::PutPoliciesRequest) -> Vec<PolicyFile> {
    message.files.into_iter().map(|v1::PolicyFile { name, text }| PolicyFile { name, text }).collect()
}

/// The message of a problem.
pub(crate) fn problem_message(problem: Problem) -> v1::PolicyProblem {
    let Problem { file, line, column, policy, message, hint } = problem;
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    v1::PolicyProblem {
        file,
        line: number(line),
        column: number(column),
        policy: policy.unwrap_or_default(),
        message,
        hint: hint.unwrap_or_default(),
    }
}

/// The message of a bundle.
pub(crate) fn bundle_message(bundle: &OwnBundle) -> v1::Bundle {
    v1::Bundle {
        trust_domain: bundle.trust_domain().to_string(),
        x509_authorities: bundle.x509.certificates().map(|der| der.to_vec()).collect(),
        jwt_authorities: bundle.jwt.iter().map(jwt_authority_message).collect(),
        sequence: bundle.sequence,
        refresh_hint_seconds: REFRESH_HINT_SECONDS,
        tainted: bundle.tainted.iter().map(|key| key.to_vec()).collect(),
    }
}

/// The message of a revocation.
pub(crate) fn revocation_message(revocation: &Revocation) -> v1::Revocation {
    let what = match &revocation.revoked {
        Revoked::Certificate(serial) => v1::revocation::What::Serial(serial.as_bytes().to_vec()),
        Revoked::Identity(id) => v1::revocation::What::SpiffeId(id.to_string()),
    };
    v1::Revocation {
        what: Some(what),
        issued_until: clock::unix_seconds(revocation.issued_until),
        until: clock::unix_seconds(revocation.until),
    }
}

/// The message of a foreign trust domain's bundle.
fn foreign_bundle_message(bundle: &HeldBundle) -> v1::Bundle {
    let document = &bundle.document;
    v1::Bundle {
        trust_domain: document.trust_domain().to_string(),
        x509_authorities: document.x509().certificates().map(|der| der.to_vec()).collect(),
        jwt_authorities: document.jwt().authorities().iter().map(jwt_authority_message).collect(),
        sequence: document.sequence().unwrap_or_default(),
        refresh_hint_seconds: document.refresh_hint_seconds().unwrap_or_default(),
        tainted: Vec::new(),
    }
}

fn jwt_authority_message(authority: &JwtAuthority) -> v1::JwtAuthority {
    v1::JwtAuthority {
        kid: authority.kid().as_str().to_owned(),
        public_key: authority.spki_der(),
        not_after: authority.not_after().map(clock::unix_seconds).unwrap_or_default(),
        algorithm: authority.algorithm().as_str().to_owned(),
    }
}

/// The message of an entry.
pub(crate) fn entry_message(entry: &Entry) -> v1::Entry {
    let (component_digest, danger_any_digest) = match &entry.digest {
        Digest::NotApplicable => (String::new(), false),
        Digest::Exactly(digest) => (digest.as_str().to_owned(), false),
        Digest::DangerAny => (String::new(), true),
    };
    v1::Entry {
        id: entry.id.to_string(),
        spiffe_id: entry.spiffe_id.to_string(),
        node: entry.node.to_string(),
        component_digest,
        danger_any_digest,
        x509_ttl_seconds: entry.terms.ttl.seconds(),
        lattice: entry.lattice.as_ref().map(ToString::to_string).unwrap_or_default(),
        selectors: entry.terms.selectors.iter().map(ToString::to_string).collect(),
        jwt_ttl_seconds: entry.terms.jwt_ttl.seconds(),
        hint: entry.terms.hint.to_string(),
        dns_names: entry.terms.dns_names.iter().map(ToString::to_string).collect(),
        federates_with: entry.terms.federates_with.iter().map(ToString::to_string).collect(),
        admin: entry.terms.admin,
        created_at: clock::unix_seconds(entry.created_at),
        template: entry.template.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

/// The message of a component as other nodes see it.
pub(crate) fn record_message(record: &PeerRecord) -> v1::PeerRecord {
    v1::PeerRecord {
        target: Some(target_message(&record.target)),
        spiffe_id: record.spiffe_id.to_string(),
        interfaces: record.interfaces.clone(),
        addresses: record.addresses.iter().map(ToString::to_string).collect(),
    }
}

/// The message of an upstream.
pub(crate) const fn upstream_message(upstream: Upstream) -> v1::Upstream {
    match upstream {
        Upstream::Typed => v1::Upstream::Typed,
        Upstream::Splice => v1::Upstream::Splice,
    }
}

/// The messages of a WIT folder.
pub(crate) fn wit_messages(wit: &[WitSource]) -> Vec<v1::WitFile> {
    wit.iter().map(|WitSource { path, text }| v1::WitFile { path: path.clone(), text: text.clone() }).collect()
}

/// The message of a component as its sidecar sees it.
pub(crate) fn served_message(served: &Served) -> v1::ServedComponent {
    let policy =
        |policy: &portcullis_policy::PolicyText| v1::Policy { id: policy.id.clone(), text: policy.text.clone() };
    v1::ServedComponent {
        record: Some(record_message(&served.record)),
        upstream: upstream_message(served.component.upstream).into(),
        wit: wit_messages(&served.component.wit),
        policies: served.policies.iter().map(policy).collect(),
        grants: served.grants.iter().map(ToString::to_string).collect(),
    }
}

/// Everything a node may see.
pub(crate) fn state_message(view: &NodeView, now_seconds: u64) -> v1::State {
    v1::State {
        version: Some(view.version.into()),
        // The own one first: of two bundles for one trust domain, the first counts.
        bundles: std::iter::once(bundle_message(&view.bundle))
            .chain(view.bundles.values().map(|bundle| foreign_bundle_message(bundle)))
            .collect(),
        entries: view.entries.values().map(|entry| entry_message(entry)).collect(),
        templates: view.templates.values().map(|template| template::message(template)).collect(),
        components: view.components.values().map(|record| record_message(record)).collect(),
        served: view.served.values().map(|served| served_message(served)).collect(),
        now_seconds,
        revocations: view.revocations.values().map(|revocation| revocation_message(revocation)).collect(),
        callers: Vec::new(),
    }
}

/// Whose names those are that a node met.
pub(crate) fn callers_message(version: Version, callers: &[(Target, Option<SpiffeId>)]) -> v1::Callers {
    let caller = |(name, holder): &(Target, Option<SpiffeId>)| v1::Caller {
        name: Some(target_message(name)),
        spiffe_id: holder.as_ref().map(ToString::to_string).unwrap_or_default(),
    };
    v1::Callers { version: Some(version.into()), callers: callers.iter().map(caller).collect() }
}

/// What a node has to alter.
pub(crate) fn change_message(change: &ViewChange) -> v1::Change {
    v1::Change {
        version: Some(change.version.into()),
        bundles: change
            .bundle
            .iter()
            .map(|bundle| bundle_message(bundle))
            .chain(change.bundles.iter().map(|bundle| foreign_bundle_message(bundle)))
            .collect(),
        entries: change.entries.iter().map(|entry| entry_message(entry)).collect(),
        entries_removed: change.entries_removed.iter().map(ToString::to_string).collect(),
        templates: change.templates.iter().map(|template| template::message(template)).collect(),
        templates_removed: change.templates_removed.iter().map(ToString::to_string).collect(),
        components: change.components.iter().map(|record| record_message(record)).collect(),
        components_removed: change.components_removed.iter().map(target_message).collect(),
        served: change.served.iter().map(|served| served_message(served)).collect(),
        served_removed: change.served_removed.iter().map(target_message).collect(),
        revocations: change.revocations.iter().map(|revocation| revocation_message(revocation)).collect(),
        bundles_removed: change.bundles_removed.iter().map(ToString::to_string).collect(),
    }
}
