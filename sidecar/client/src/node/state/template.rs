//! Templates, as the node sees them that fills them in.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_api::v1;
use portcullis_identity::IdTemplate;
use tracing::warn;

/// Makes an entry for each workload whose attributes fill in its SPIFFE ID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The broker's name for it.
    pub id: String,
    /// What the IDs look like.
    pub pattern: IdTemplate,
    /// What must be attested beside what is filled in.
    pub selectors: BTreeSet<String>,
}

impl Template {
    pub(super) fn to_message(&self) -> v1::Template {
        v1::Template {
            id: self.id.clone(),
            pattern: self.pattern.to_string(),
            selectors: self.selectors.iter().cloned().collect(),
        }
    }
}

/// One that this version cannot read, of a later broker, makes no entries; everything else is in force all the same.
pub(super) fn note(templates: &mut BTreeMap<String, Template>, messages: Vec<v1::Template>) {
    for v1::Template { id, pattern, selectors } in messages {
        match pattern.parse() {
            Ok(pattern) => {
                let template = Template { id: id.clone(), pattern, selectors: selectors.into_iter().collect() };
                templates.insert(id, template);
            }
            Err(error) => warn!(template = id, %error, "a template cannot be used"),
        }
    }
}
