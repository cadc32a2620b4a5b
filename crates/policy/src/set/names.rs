//! Names that mean nothing: functions, interfaces, components and lattices that are not registered.

use std::collections::HashSet;

use cedar_policy::EntityUid;

use super::Findings;
use super::draft::Draft;
use crate::schema::Names;
use crate::similar::{either, listed, similar};
use crate::vocabulary::EntityKind;

/// How many functions a hint names.
const NAMED: usize = 8;

/// A name nobody knows, and what to do about it.
type Unknown = (String, Option<String>);

/// Looks up every entity that the policies name, and returns the positions of the drafts that name one in vain.
pub(super) fn check(drafts: &[Draft<'_>], names: &Names, findings: &mut Findings) -> HashSet<usize> {
    let mut misnamed = HashSet::new();
    for (position, draft) in drafts.iter().enumerate() {
        let mut literals = draft.policy.entity_literals();
        literals.sort();
        literals.dedup();
        for literal in literals {
            if let Some((message, hint)) = unknown(&literal, names) {
                let quoted = format!("\"{}\"", literal.id().escaped());
                draft.mistake(findings, draft.offset_of(&quoted), message, hint);
                misnamed.insert(position);
            }
        }
    }
    misnamed
}

fn unknown(literal: &EntityUid, names: &Names) -> Option<Unknown> {
    let id = literal.id().unescaped();
    match EntityKind::of(literal)? {
        EntityKind::Action => unknown_action(id, names),
        EntityKind::VirtualComponent => (!names.components.contains(id)).then(|| {
            let known = names.components.iter().map(String::as_str);
            (format!("no virtual component `{id}` is registered"), meant(id, known))
        }),
        EntityKind::Lattice => (!names.lattices.contains(id)).then(|| {
            let known = names.lattices.iter().map(String::as_str);
            (format!("no virtual component is registered in a lattice `{id}`"), meant(id, known))
        }),
        EntityKind::Workload => (!is_spiffe_id(id)).then(|| {
            (format!("`{id}` is not a SPIFFE ID"), Some("a workload is named `spiffe://TRUST-DOMAIN/PATH`".to_owned()))
        }),
        EntityKind::HostedComponent | EntityKind::TrustDomain => None,
    }
}

fn unknown_action(id: &str, names: &Names) -> Option<Unknown> {
    if names.actions.contains_key(id) || names.groups.contains(id) {
        return None;
    }
    let Some((interface, function)) = id.split_once('#') else {
        return Some((format!("no interface `{id}` is registered"), interface_meant(id, names)));
    };
    match names.interfaces.get(interface) {
        Some(functions) => {
            let near = meant(function, functions.iter().map(String::as_str));
            let hint = near.or_else(|| (!functions.is_empty()).then(|| format!("it has {}", listed(functions, NAMED))));
            Some((format!("interface `{interface}` has no function `{function}`"), hint))
        }
        None => Some((format!("no interface `{interface}` is registered"), interface_meant(interface, names))),
    }
}

/// An interface without its version stands for all of its versions, so those come first.
fn interface_meant(name: &str, names: &Names) -> Option<String> {
    let unversioned = name.split_once('@').map_or(name, |(unversioned, _)| unversioned);
    let versions: Vec<_> = names
        .interfaces
        .keys()
        .map(String::as_str)
        .filter(|known| known.split_once('@').is_some_and(|(known, _)| known == unversioned))
        .collect();
    if versions.is_empty() {
        meant(name, names.interfaces.keys().map(String::as_str).chain(names.groups.iter().map(String::as_str)))
    } else {
        Some(format!("registered is {}", either(&versions)))
    }
}

fn meant<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut near = similar(name, known);
    near.dedup();
    (!near.is_empty()).then(|| format!("did you mean {}?", either(&near)))
}

/// A look at the shape only, for typing mistakes: what is no ID at all can match nobody.
pub(super) fn is_spiffe_id(id: &str) -> bool {
    let Some((trust_domain, path)) = id.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    let segment = |segment: &str| {
        !segment.is_empty()
            && segment != "."
            && segment != ".."
            && segment.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
    };
    !trust_domain.is_empty()
        && trust_domain.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.' | '_'))
        && path.split('/').all(segment)
}
