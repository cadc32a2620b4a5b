//! Templates: entries that come to be when a workload is attested whose attributes fill in a SPIFFE ID.

use std::sync::Arc;
use std::time::SystemTime;

use portcullis_identity::{IdTemplate, Lattice, NodeName};

use super::Registry;
use super::record::{Entry, EntryId};
use super::terms::Terms;

/// What makes entries: each is an entry like any other from then on, pushed, audited, revoked and removed as such.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Its name.
    pub id: EntryId,
    /// What the IDs look like.
    pub pattern: IdTemplate,
    /// The node that fills it in.
    pub node: NodeName,
    /// The lattice whose virtual components the holders see.
    pub lattice: Option<Lattice>,
    /// The terms of the entries; to the selectors each adds what it was filled in with.
    pub terms: Terms,
    /// When it was made.
    pub created_at: SystemTime,
}

impl Template {
    /// Whether both say the same, whatever they are called and whenever they were made.
    #[must_use]
    pub fn says_as(&self, other: &Self) -> bool {
        let Self { id: _, pattern, node, lattice, terms, created_at: _ } = self;
        *pattern == other.pattern && *node == other.node && *lattice == other.lattice && *terms == other.terms
    }
}

/// A node attested a workload that a template is for.
#[derive(Debug, Clone)]
pub struct Filling {
    /// Who says so.
    pub node: NodeName,
    /// Which template.
    pub template: EntryId,
    /// What was attested, in the order of the template's variables.
    pub values: Vec<String>,
}

impl Registry {
    /// A template.
    #[must_use]
    pub fn template(&self, id: &EntryId) -> Option<&Arc<Template>> {
        self.templates.get(id)
    }

    /// Every template.
    pub fn templates(&self) -> impl ExactSizeIterator<Item = &Arc<Template>> {
        self.templates.values()
    }

    /// Those that `node` fills in.
    pub fn templates_of(&self, node: &NodeName) -> impl Iterator<Item = &Arc<Template>> {
        self.templates.values().filter(move |template| template.node == *node)
    }

    /// The entries that a template has made and that are there still.
    pub fn made_from(&self, template: &Template) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries_of(&template.node).filter(move |entry| entry.template.as_ref() == Some(&template.id))
    }
}
