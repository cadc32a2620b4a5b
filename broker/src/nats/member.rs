//! Who is what in the lattice, and what it may do there: from the registry, the policies and the settings, at one moment.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use portcullis_identity::{ComponentId, Lattice, NodeName, SpiffeId, Target, is_reserved, node_name};

use super::permissions::Permissions;
use super::subjects::{self, Calling, Hosted, Part, Serving};
use crate::config::{KeyClass, KeyHolder, Nats};
use crate::registry::{Entry, Prospects, Registry, Served, Standing, Version};

/// What a member of the lattice is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// An unmodified host.
    Host,
    /// An identity that serves or calls.
    Member,
    /// A node, calling for its entries.
    Node,
    /// `wash`.
    Operator,
    /// wadm.
    Wadm,
    /// A stock provider.
    Provider,
}

impl Class {
    /// The class as people read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Member => "member",
            Self::Node => "node",
            Self::Operator => "operator",
            Self::Wadm => "wadm",
            Self::Provider => "provider",
        }
    }
}

/// What an identity is and may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// What it is.
    pub class: Class,
    /// What it may do.
    pub permissions: Permissions,
}

/// Why an identity is no member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoMember {
    /// It is of another trust domain.
    #[error("it is of another trust domain")]
    Foreign,
    /// It is reserved, and no node's.
    #[error("its identity is reserved")]
    Reserved,
    /// No entry names it, or not any more.
    #[error("no entry names it")]
    NotRegistered,
    /// The node was removed or never joined.
    #[error("the node is not registered")]
    NoNode,
    /// The node is quarantined.
    #[error("the node is quarantined")]
    Quarantined,
    /// Every node that may have its identity is quarantined or shut out.
    #[error("its node is quarantined or shut out")]
    NodeCutOff,
    /// A host whose entry says no lattice.
    #[error("its entry names no lattice, so it is a host of none")]
    NoLattice,
    /// A host whose entries say several.
    #[error("its entries name several lattices, and a host belongs to one")]
    SeveralLattices,
    /// It may neither serve nor call.
    #[error("it serves no virtual component and has no name to call by")]
    NoPart,
}

/// Finds out who is what. It remembers what the policies of each virtual component say of whom, as long as they are the same.
#[derive(Debug, Default)]
pub struct Members {
    known: HashMap<Target, Known>,
    /// The names in each lattice, as of one version of the registry.
    names: (Option<Version>, HashMap<Lattice, Names>),
}

/// Every name in a lattice, and whose it is.
type Names = Arc<BTreeMap<ComponentId, SpiffeId>>;

#[derive(Debug)]
struct Known {
    of: Weak<Served>,
    prospects: Prospects,
    answers: HashMap<SpiffeId, bool>,
}

impl Members {
    /// What `id` is now.
    ///
    /// # Errors
    /// [`NoMember`] says why it is nothing.
    pub fn of_identity(&mut self, registry: &Registry, settings: &Nats, id: &SpiffeId) -> Result<Membership, NoMember> {
        if !id.is_member_of(registry.trust_domain()) {
            return Err(NoMember::Foreign);
        }
        if is_reserved(id) {
            let node = node_name(id).ok_or(NoMember::Reserved)?;
            return self.of_node(registry, settings, &node);
        }
        judge_nodes(registry, id)?;
        if settings.hosts.iter().any(|pattern| pattern.matches(id)) {
            let permissions = subjects::host(&lattice_of(registry, id)?, id);
            return Ok(Membership { class: Class::Host, permissions });
        }
        let part = self.part(registry, settings, id);
        if part == Part::default() {
            return Err(NoMember::NoPart);
        }
        Ok(Membership { class: Class::Member, permissions: subjects::member(&part) })
    }

    fn of_node(&mut self, registry: &Registry, settings: &Nats, name: &NodeName) -> Result<Membership, NoMember> {
        match registry.node(name).ok_or(NoMember::NoNode)?.standing {
            Standing::Good => {}
            Standing::Quarantined => return Err(NoMember::Quarantined),
            Standing::Barred => return Err(NoMember::NoNode),
        }
        let mut ids: Vec<_> = registry.entries_of(name).map(|entry| entry.spiffe_id.clone()).collect();
        ids.sort_by_key(ToString::to_string);
        ids.dedup();
        let parts: Vec<_> = ids.iter().map(|id| self.part(registry, settings, id)).collect();
        Ok(Membership { class: Class::Node, permissions: subjects::node(&parts) })
    }

    fn part(&mut self, registry: &Registry, settings: &Nats, id: &SpiffeId) -> Part {
        let serving = registry.served_by(id).map(|served| {
            let target = served.record.target.clone();
            let names = self.names_in(registry, &target.lattice);
            let callers = names.iter().filter(|(_, caller)| self.could_call(served, caller));
            Serving { callers: callers.map(|(name, _)| name.clone()).collect(), target }
        });
        let serving = serving.collect();
        let called = settings.component_callers.iter().any(|pattern| pattern.matches(id));
        let hosted = if called { Hosted::Callable } else { Hosted::OutOfReach };
        let calling = registry.names_of(id).into_iter().map(|Target { lattice, id: name }| {
            let reach = registry.served_in(&lattice).filter(|served| self.could_call(served, id));
            let reach = reach.map(|served| served.record.target.id.clone()).collect();
            Calling { lattice, name, reach, hosted }
        });
        let calling = calling.collect();
        Part { serving, calling }
    }

    fn names_in(&mut self, registry: &Registry, lattice: &Lattice) -> Names {
        let (version, names) = &mut self.names;
        if *version != Some(registry.version()) {
            *version = Some(registry.version());
            names.clear();
        }
        Arc::clone(names.entry(lattice.clone()).or_insert_with(|| Arc::new(registry.callers_in(lattice))))
    }

    fn could_call(&mut self, served: &Arc<Served>, caller: &SpiffeId) -> bool {
        let same = |known: &Known| std::ptr::eq(known.of.as_ptr(), Arc::as_ptr(served));
        let target = &served.record.target;
        if !self.known.get(target).is_some_and(same) {
            let known = Known { of: Arc::downgrade(served), prospects: Prospects::of(served), answers: HashMap::new() };
            self.known.insert(target.clone(), known);
        }
        let Some(known) = self.known.get_mut(target) else { return false };
        if let Some(answer) = known.answers.get(caller) {
            return *answer;
        }
        let answer = known.prospects.could_allow(caller);
        known.answers.insert(caller.clone(), answer);
        answer
    }

    /// Forgets what was said of virtual components that are gone.
    pub fn forget_gone(&mut self) {
        self.known.retain(|_, known| known.of.strong_count() > 0);
    }
}

/// What the holder of a key is.
#[must_use]
pub fn of_key(holder: &KeyHolder) -> Membership {
    let KeyHolder { lattice, class, .. } = holder;
    let (class, permissions) = match class {
        KeyClass::Operator => (Class::Operator, subjects::operator(lattice)),
        KeyClass::Wadm => (Class::Wadm, subjects::wadm(lattice)),
        KeyClass::Provider(id) => (Class::Provider, subjects::provider(lattice, id)),
    };
    Membership { class, permissions }
}

/// The lattices that hosts belong to.
pub fn hosts_lattices(registry: &Registry, settings: &Nats) -> std::collections::BTreeSet<Lattice> {
    let is_host = |id: &SpiffeId| settings.hosts.iter().any(|pattern| pattern.matches(id));
    let hosts = registry.entries().filter(|entry| is_host(&entry.spiffe_id));
    hosts.filter_map(|entry| entry.lattice.clone()).collect()
}

/// The hosts by where they ask: their lattice, and the token that stands for them there.
pub fn hosts_by_token(registry: &Registry, settings: &Nats) -> HashMap<(Lattice, String), SpiffeId> {
    let is_host = |id: &&SpiffeId| settings.hosts.iter().any(|pattern| pattern.matches(id));
    let ids = registry.entries().map(|entry| &entry.spiffe_id).filter(is_host);
    let host = |id: &SpiffeId| Some(((lattice_of(registry, id).ok()?, subjects::host_token(id)), id.clone()));
    ids.filter_map(host).collect()
}

/// Whether `id` is a host of `lattice` now.
pub fn is_host_of(registry: &Registry, settings: &Nats, id: &SpiffeId, lattice: &Lattice) -> bool {
    lattice_of_host(registry, settings, id).as_ref() == Some(lattice)
}

/// The lattice of a host; `None` for everybody else.
pub fn lattice_of_host(registry: &Registry, settings: &Nats, id: &SpiffeId) -> Option<Lattice> {
    settings.hosts.iter().any(|pattern| pattern.matches(id)).then(|| lattice_of(registry, id).ok()).flatten()
}

/// An identity is as good as the best of the nodes that may have it. One that has not joined is not known to be bad: SVIDs can be minted.
fn judge_nodes(registry: &Registry, id: &SpiffeId) -> Result<(), NoMember> {
    let is_good = |entry: &Arc<Entry>| match registry.node(&entry.node).map(|node| node.standing) {
        None | Some(Standing::Good) => true,
        Some(Standing::Quarantined | Standing::Barred) => false,
    };
    let mut entries = registry.entries_for(id).peekable();
    if entries.peek().is_none() {
        return Err(NoMember::NotRegistered);
    }
    if entries.any(is_good) { Ok(()) } else { Err(NoMember::NodeCutOff) }
}

fn lattice_of(registry: &Registry, id: &SpiffeId) -> Result<Lattice, NoMember> {
    let mut lattices: Vec<_> = registry.entries_for(id).filter_map(|entry| entry.lattice.as_ref()).collect();
    lattices.sort();
    lattices.dedup();
    match lattices.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(NoMember::NoLattice),
        [_, ..] => Err(NoMember::SeveralLattices),
    }
}

#[cfg(test)]
mod tests;
