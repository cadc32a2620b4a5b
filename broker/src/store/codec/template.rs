//! Templates on disk: laid out as the entries that they make.

use super::{Problem, convert, parse};
use crate::clock::{from_unix_seconds, unix_seconds};
use crate::registry::{Template, Terms};
use crate::store::record;

pub(super) fn record(template: &Template) -> record::Entry {
    let Template { id, pattern, node, lattice, terms, created_at } = template;
    record::Entry {
        id: id.to_string(),
        spiffe_id: pattern.to_string(),
        node: node.to_string(),
        ttl_seconds: terms.ttl.seconds(),
        lattice: lattice.as_ref().map(ToString::to_string).unwrap_or_default(),
        selectors: terms.selectors.iter().map(ToString::to_string).collect(),
        jwt_ttl_seconds: terms.jwt_ttl.seconds(),
        hint: terms.hint.to_string(),
        dns_names: terms.dns_names.iter().map(ToString::to_string).collect(),
        federates_with: terms.federates_with.iter().map(ToString::to_string).collect(),
        admin: terms.admin,
        created_at: unix_seconds(*created_at),
        ..record::Entry::default()
    }
}

pub(super) fn read(record: record::Entry) -> Result<Template, Problem> {
    let record::Entry {
        id,
        spiffe_id,
        node,
        digest: _,
        danger_any_digest: _,
        ttl_seconds,
        lattice,
        selectors,
        jwt_ttl_seconds,
        hint,
        dns_names,
        federates_with,
        admin,
        created_at,
        template: _,
    } = record;
    let terms = Terms {
        selectors: convert(selectors)?,
        ttl: convert(u64::from(ttl_seconds))?,
        jwt_ttl: convert(u64::from(jwt_ttl_seconds))?,
        hint: parse(&hint)?,
        dns_names: convert(dns_names)?,
        federates_with: convert(federates_with)?,
        admin,
    };
    Ok(Template {
        id: parse(&id)?,
        pattern: parse(&spiffe_id)?,
        node: parse(&node)?,
        lattice: if lattice.is_empty() { None } else { Some(parse(&lattice)?) },
        terms,
        created_at: from_unix_seconds(created_at),
    })
}
