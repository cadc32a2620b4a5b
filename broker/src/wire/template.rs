//! Templates as messages.

use portcullis_api::v1;

use super::{InvalidMessage, parse};
use crate::clock;
use crate::registry::{Filling, Template};

/// As the node sees it that fills it in.
pub(crate) fn message(template: &Template) -> v1::Template {
    v1::Template {
        id: template.id.to_string(),
        pattern: template.pattern.to_string(),
        selectors: template.terms.selectors.iter().map(ToString::to_string).collect(),
    }
}

/// As operators see it: an entry whose SPIFFE ID has variables.
pub(crate) fn entry_message(template: &Template) -> v1::Entry {
    let Template { id, pattern, node, lattice, terms, created_at } = template;
    v1::Entry {
        id: id.to_string(),
        spiffe_id: pattern.to_string(),
        node: node.to_string(),
        x509_ttl_seconds: terms.ttl.seconds(),
        lattice: lattice.as_ref().map(ToString::to_string).unwrap_or_default(),
        selectors: terms.selectors.iter().map(ToString::to_string).collect(),
        jwt_ttl_seconds: terms.jwt_ttl.seconds(),
        hint: terms.hint.to_string(),
        dns_names: terms.dns_names.iter().map(ToString::to_string).collect(),
        federates_with: terms.federates_with.iter().map(ToString::to_string).collect(),
        admin: terms.admin,
        created_at: clock::unix_seconds(*created_at),
        ..v1::Entry::default()
    }
}

/// What `node` asks for.
pub(crate) fn filling(
    node: portcullis_identity::NodeName,
    message: v1::FillRequest,
) -> Result<Filling, InvalidMessage> {
    let v1::FillRequest { template, values } = message;
    Ok(Filling { node, template: parse(&template)?, values })
}
