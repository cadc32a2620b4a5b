//! Between the registry's records and what lies on disk, under which key.

mod authority;
mod template;

use std::str::FromStr;
use std::sync::Arc;

use portcullis_identity::{SpiffeId, TrustDomain, parse_spiffe_id, parse_trust_domain};
use portcullis_policy::PolicyFile;
use portcullis_value::WitSource;
use prost::Message;

use super::{Row, record};
use crate::clock::{from_unix_seconds, unix_seconds};
use crate::registry::{
    AdmissionDocument, Change, Component, Digest, Endpoint, Entry, ForeignDomain, HeldBundle, JoinedBy, Node, Profile,
    Spent, Standing, Terms, Token, TokenIndex, TrustChange, Upstream,
};
use crate::ttl::JwtTtl;

/// A record read from the table.
pub(super) enum Stored {
    Record(Change),
    Policies(PolicyFile),
}

/// Why a record cannot be read, without its key.
pub(super) type Problem = String;

/// What a change does to the table.
pub(super) fn write(change: &Change) -> Row {
    match change {
        Change::Component(component) => put(format!("component/{}", component.target), &component_record(component)),
        Change::ComponentRemoved(target) => remove(format!("component/{target}")),
        Change::Entry(entry) => put(format!("entry/{}", entry.id), &entry_record(entry)),
        Change::EntryRemoved(id) => remove(format!("entry/{id}")),
        Change::Template(template) => put(format!("template/{}", template.id), &template::record(template)),
        Change::TemplateRemoved(id) => remove(format!("template/{id}")),
        Change::Node(node) => put(format!("node/{}", node.name), &node_record(node)),
        Change::NodeRemoved(name) => remove(format!("node/{name}")),
        Change::Token(token) => put(token_key(&token.index), &token_record(token)),
        Change::TokenRemoved(index) => remove(token_key(index)),
        Change::Policies(document) => {
            let record = record::Policies { name: document.name.clone(), text: document.text.clone() };
            put(format!("policies/{}", document.name), &record)
        }
        Change::PoliciesRemoved(name) => remove(format!("policies/{name}")),
        Change::Admissions(document) => {
            let record = record::Policies { name: document.name.clone(), text: document.text.clone() };
            put(format!("admissions/{}", document.name), &record)
        }
        Change::AdmissionsRemoved(name) => remove(format!("admissions/{name}")),
        Change::Grant(target, id) => {
            let record = record::Grant { target: target.to_string(), spiffe_id: id.to_string() };
            put(format!("grant/{target}/{id}"), &record)
        }
        Change::GrantRemoved(target, id) => remove(format!("grant/{target}/{id}")),
        Change::Domain(domain) => put(format!("domain/{}", domain.name), &domain_record(domain)),
        Change::DomainRemoved(name) => remove(format!("domain/{name}")),
        Change::Addresses(target, node, addresses) if addresses.is_empty() => {
            remove(format!("addresses/{target}/{node}"))
        }
        Change::Addresses(target, node, addresses) => {
            let record = record::Addresses {
                target: target.to_string(),
                node: node.to_string(),
                addresses: addresses.iter().map(ToString::to_string).collect(),
            };
            put(format!("addresses/{target}/{node}"), &record)
        }
        Change::Trust(change) => authority::write(change),
    }
}

/// Reads the record under `key`. Components come with their WIT parsed anew.
pub(super) fn read(key: &str, value: &[u8], trust_domain: &TrustDomain) -> Result<Stored, Problem> {
    let (kind, _) = key.split_once('/').unwrap_or((key, ""));
    let change = match kind {
        "component" => Change::Component(Arc::new(component(message(value)?)?)),
        "entry" => Change::Entry(Arc::new(entry(message(value)?)?)),
        "template" => Change::Template(Arc::new(template::read(message(value)?)?)),
        "node" => Change::Node(Arc::new(node(message(value)?)?)),
        "token" => Change::Token(Arc::new(token(message(value)?)?)),
        "policies" => {
            let record::Policies { name, text } = message(value)?;
            return Ok(Stored::Policies(PolicyFile { name, text }));
        }
        "admissions" => Change::Admissions(Arc::new(admissions(message(value)?)?)),
        "grant" => {
            let record::Grant { target, spiffe_id: id } = message(value)?;
            Change::Grant(parse(&target)?, spiffe_id(&id)?)
        }
        "addresses" => {
            let record::Addresses { target, node, addresses } = message(value)?;
            let addresses = addresses.iter().map(|address| parse(address)).collect::<Result<_, _>>()?;
            Change::Addresses(parse(&target)?, parse(&node)?, addresses)
        }
        "authority" => {
            Change::Trust(TrustChange::Authority(Arc::new(authority::authority(message(value)?, trust_domain)?)))
        }
        "bundle" => {
            let record::Bundle { sequence } = message(value)?;
            Change::Trust(TrustChange::BundleSequence(sequence))
        }
        "revocation" => Change::Trust(TrustChange::Revocation(Arc::new(authority::revocation(message(value)?)?))),
        "domain" => Change::Domain(Arc::new(domain(message(value)?)?)),
        unknown => return Err(format!("`{unknown}` is not a kind of record this version knows")),
    };
    Ok(Stored::Record(change))
}

fn put(key: String, record: &impl Message) -> Row {
    Row { key, value: Some(record.encode_to_vec()) }
}

fn remove(key: String) -> Row {
    Row { key, value: None }
}

fn message<M: Message + Default>(value: &[u8]) -> Result<M, Problem> {
    M::decode(value).map_err(|error| error.to_string())
}

fn parse<T: FromStr<Err: ToString>>(text: &str) -> Result<T, Problem> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

fn convert<T, U: TryFrom<T, Error: ToString>>(value: T) -> Result<U, Problem> {
    value.try_into().map_err(|error: U::Error| error.to_string())
}

fn spiffe_id(text: &str) -> Result<SpiffeId, Problem> {
    parse_spiffe_id(text).map_err(|error| error.to_string())
}

fn hash(bytes: &[u8]) -> Result<[u8; 32], Problem> {
    bytes.try_into().map_err(|_| format!("a hash of {} bytes", bytes.len()))
}

fn token_key(index: &TokenIndex) -> String {
    let hex: String = index.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("token/{hex}")
}

fn component_record(component: &Component) -> record::Component {
    let upstream = match component.upstream {
        Upstream::Typed => record::Upstream::Typed,
        Upstream::Splice => record::Upstream::Splice,
    };
    let wit = |source: &WitSource| record::WitFile { path: source.path.clone(), text: source.text.clone() };
    record::Component {
        target: component.target.to_string(),
        spiffe_id: component.spiffe_id.to_string(),
        upstream: upstream.into(),
        wit: component.wit.iter().map(wit).collect(),
        interfaces: component.interface_names().map(str::to_owned).collect(),
        addresses: component.addresses.iter().map(ToString::to_string).collect(),
    }
}

fn component(record: record::Component) -> Result<Component, Problem> {
    let upstream = match record.upstream() {
        record::Upstream::Typed => Upstream::Typed,
        record::Upstream::Splice => Upstream::Splice,
        record::Upstream::Unspecified => return Err("its upstream is missing".to_owned()),
    };
    let record::Component { target, spiffe_id: id, upstream: _, wit, interfaces, addresses } = record;
    let addresses = addresses.iter().map(|address| parse(address)).collect::<Result<_, _>>()?;
    let wit = wit.into_iter().map(|record::WitFile { path, text }| WitSource { path, text }).collect();
    let component = Component::read(parse(&target)?, spiffe_id(&id)?, upstream, wit, &interfaces);
    component.map(|component| component.at(addresses)).map_err(|error| error.to_string())
}

fn admissions(record: record::Policies) -> Result<AdmissionDocument, Problem> {
    let record::Policies { name, text } = record;
    AdmissionDocument::parse(&PolicyFile { name, text })
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

fn entry_record(entry: &Entry) -> record::Entry {
    let (digest, danger_any_digest) = match &entry.digest {
        Digest::NotApplicable => (String::new(), false),
        Digest::Exactly(digest) => (digest.as_str().to_owned(), false),
        Digest::DangerAny => (String::new(), true),
    };
    record::Entry {
        id: entry.id.to_string(),
        spiffe_id: entry.spiffe_id.to_string(),
        node: entry.node.to_string(),
        digest,
        danger_any_digest,
        ttl_seconds: entry.terms.ttl.seconds(),
        lattice: entry.lattice.as_ref().map(ToString::to_string).unwrap_or_default(),
        selectors: entry.terms.selectors.iter().map(ToString::to_string).collect(),
        jwt_ttl_seconds: entry.terms.jwt_ttl.seconds(),
        hint: entry.terms.hint.to_string(),
        dns_names: entry.terms.dns_names.iter().map(ToString::to_string).collect(),
        federates_with: entry.terms.federates_with.iter().map(ToString::to_string).collect(),
        admin: entry.terms.admin,
        created_at: unix_seconds(entry.created_at),
        template: entry.template.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

fn entry(record: record::Entry) -> Result<Entry, Problem> {
    let record::Entry {
        id,
        spiffe_id: subject,
        node,
        digest,
        danger_any_digest,
        ttl_seconds,
        lattice,
        selectors,
        jwt_ttl_seconds,
        hint,
        dns_names,
        federates_with,
        admin,
        created_at,
        template,
    } = record;
    let digest = match (digest.as_str(), danger_any_digest) {
        ("", false) => Digest::NotApplicable,
        ("", true) => Digest::DangerAny,
        (digest, false) => Digest::Exactly(parse(digest)?),
        (_, true) => return Err("it has a digest and accepts any".to_owned()),
    };
    let terms = Terms {
        selectors: convert(selectors)?,
        ttl: convert(u64::from(ttl_seconds))?,
        jwt_ttl: if jwt_ttl_seconds == 0 { JwtTtl::DEFAULT } else { convert(u64::from(jwt_ttl_seconds))? },
        hint: parse(&hint)?,
        dns_names: convert(dns_names)?,
        federates_with: convert(federates_with)?,
        admin,
    };
    Ok(Entry {
        id: parse(&id)?,
        spiffe_id: spiffe_id(&subject)?,
        node: parse(&node)?,
        digest,
        lattice: if lattice.is_empty() { None } else { Some(parse(&lattice)?) },
        terms,
        created_at: from_unix_seconds(created_at),
        template: if template.is_empty() { None } else { Some(parse(&template)?) },
    })
}

fn domain_record(domain: &ForeignDomain) -> record::Domain {
    let (url, endpoint_id) = match &domain.endpoint {
        None => (String::new(), String::new()),
        Some(Endpoint { url, profile: Profile::HttpsWeb }) => (url.to_string(), String::new()),
        Some(Endpoint { url, profile: Profile::HttpsSpiffe(id) }) => (url.to_string(), id.to_string()),
    };
    let bundle = domain.bundle.as_ref();
    record::Domain {
        name: domain.name.to_string(),
        url,
        endpoint_id,
        bundle: bundle.map(|bundle| bundle.json.to_vec()).unwrap_or_default(),
        received_at: bundle.map(|bundle| unix_seconds(bundle.received_at)).unwrap_or_default(),
    }
}

fn domain(record: record::Domain) -> Result<ForeignDomain, Problem> {
    let record::Domain { name, url, endpoint_id, bundle, received_at } = record;
    let name = parse_trust_domain(&name).map_err(|error| error.to_string())?;
    let profile = || match endpoint_id.as_str() {
        "" => Ok(Profile::HttpsWeb),
        id => spiffe_id(id).map(Profile::HttpsSpiffe),
    };
    let endpoint = match url.as_str() {
        "" => None,
        url => Some(Endpoint { url: parse(url)?, profile: profile()? }),
    };
    let held = |json: &[u8]| HeldBundle::read(json, &name, from_unix_seconds(received_at));
    let bundle = if bundle.is_empty() { None } else { Some(held(&bundle).map_err(|error| error.to_string())?.0) };
    Ok(ForeignDomain { bundle: bundle.map(Arc::new), endpoint, name })
}

fn node_record(node: &Node) -> record::Node {
    record::Node {
        name: node.name.to_string(),
        joined_at: unix_seconds(node.joined_at),
        key_sha256: node.key_sha256.to_vec(),
        standing: match node.standing {
            Standing::Good => 0,
            Standing::Quarantined => 1,
            Standing::Barred => 2,
        },
        since: unix_seconds(node.since),
        newest: unix_seconds(node.newest),
        spent: node.spent.iter().map(spent_record).collect(),
        by_certificate: match node.joined_by {
            JoinedBy::Token => false,
            JoinedBy::Certificate => true,
        },
    }
}

fn spent_record(spent: &Spent) -> record::Spent {
    let Spent { serial, key_sha256, until } = spent;
    record::Spent { serial: serial.clone(), key_sha256: key_sha256.to_vec(), until: unix_seconds(*until) }
}

fn spent(record: record::Spent) -> Result<Spent, Problem> {
    let record::Spent { serial, key_sha256, until } = record;
    Ok(Spent { serial, key_sha256: hash(&key_sha256)?, until: from_unix_seconds(until) })
}

fn node(record: record::Node) -> Result<Node, Problem> {
    let record::Node { name, joined_at, key_sha256, standing, since, newest, spent: used, by_certificate } = record;
    Ok(Node {
        name: parse(&name)?,
        joined_at: from_unix_seconds(joined_at),
        key_sha256: hash(&key_sha256)?,
        joined_by: if by_certificate { JoinedBy::Certificate } else { JoinedBy::Token },
        standing: match standing {
            0 => Standing::Good,
            1 => Standing::Quarantined,
            2 => Standing::Barred,
            other => return Err(format!("standing {other} is unknown")),
        },
        since: from_unix_seconds(since),
        newest: from_unix_seconds(newest),
        spent: used.into_iter().map(spent).collect::<Result<_, _>>()?,
    })
}

fn token_record(token: &Token) -> record::Token {
    record::Token {
        index: token.index.to_vec(),
        tag: token.tag.clone(),
        node: token.node.to_string(),
        expires_at: unix_seconds(token.expires_at),
        redeemed_by: token.redeemed_by.map(|key| key.to_vec()).unwrap_or_default(),
    }
}

fn token(record: record::Token) -> Result<Token, Problem> {
    let record::Token { index, tag, node, expires_at, redeemed_by } = record;
    Ok(Token {
        index: index.as_slice().try_into().map_err(|_| "its index is not 8 bytes".to_owned())?,
        tag,
        node: parse(&node)?,
        expires_at: from_unix_seconds(expires_at),
        redeemed_by: if redeemed_by.is_empty() { None } else { Some(hash(&redeemed_by)?) },
    })
}
