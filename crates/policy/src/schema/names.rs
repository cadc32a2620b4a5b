//! The names a policy may use, for the schema, for checks that Cedar does not make, and for hints.

use std::collections::{BTreeMap, BTreeSet};

use super::InvalidSchema;
use crate::component::{Component, Interface, ParamType, ParamsReadable};
use crate::vocabulary::{ANY_ACTION, action_groups, action_id, component_entity_id};

#[derive(Debug, Clone)]
pub(crate) struct Names {
    pub(crate) lattices: BTreeSet<String>,
    /// Ids of the components' entities.
    pub(crate) components: BTreeSet<String>,
    /// Every group above a function.
    pub(crate) groups: BTreeSet<String>,
    /// Functions by interface.
    pub(crate) interfaces: BTreeMap<String, BTreeSet<String>>,
    /// Functions by the id of their action.
    pub(crate) actions: BTreeMap<String, ActionRecord>,
}

/// One function, whoever serves it.
#[derive(Debug, Clone)]
pub(crate) struct ActionRecord {
    /// Nearest first.
    pub(crate) groups: Vec<String>,
    servers: Vec<Server>,
}

/// A component that serves a function.
#[derive(Debug, Clone)]
struct Server {
    component: String,
    decodes: ParamsReadable,
    /// What a policy could read, were it decoded.
    params: BTreeMap<String, ParamType>,
}

impl Names {
    pub(super) fn of(components: &[Component]) -> Result<Self, InvalidSchema> {
        let mut names = Self {
            lattices: BTreeSet::new(),
            components: BTreeSet::new(),
            groups: BTreeSet::from([ANY_ACTION.to_owned()]),
            interfaces: BTreeMap::new(),
            actions: BTreeMap::new(),
        };
        for component in components {
            let entity = component_entity_id(&component.lattice, &component.id);
            if !names.components.insert(entity.clone()) {
                return Err(InvalidSchema::DuplicateComponent(entity));
            }
            names.lattices.insert(component.lattice.clone());
            let mut seen = BTreeSet::new();
            for interface in &component.interfaces {
                if !seen.insert(&interface.name) {
                    return Err(InvalidSchema::DuplicateInterface {
                        component: entity,
                        interface: interface.name.clone(),
                    });
                }
                names.serve(&entity, component.params, interface)?;
            }
        }
        Ok(names)
    }

    fn serve(&mut self, component: &str, decodes: ParamsReadable, interface: &Interface) -> Result<(), InvalidSchema> {
        check_name(&interface.name)?;
        let groups: Vec<_> = action_groups(&interface.name).into_iter().map(str::to_owned).collect();
        self.groups.extend(groups.iter().cloned());
        let known = self.interfaces.entry(interface.name.clone()).or_default();
        let mut seen = BTreeSet::new();
        for function in &interface.functions {
            check_name(&function.name)?;
            if !seen.insert(&function.name) {
                let (interface, function) = (interface.name.clone(), function.name.clone());
                return Err(InvalidSchema::DuplicateFunction { interface, function });
            }
            known.insert(function.name.clone());
            let record = self.actions.entry(action_id(&interface.name, &function.name));
            let record = record.or_insert_with(|| ActionRecord { groups: groups.clone(), servers: Vec::new() });
            let readable = function.params.iter().filter(|(_, kind)| *kind != ParamType::Unreadable);
            let params = readable.cloned().collect();
            record.servers.push(Server { component: component.to_owned(), decodes, params });
        }
        Ok(())
    }
}

impl ActionRecord {
    /// The readable parameters that all servers agree on, or `None` where one of them does not decode.
    pub(crate) fn params(&self) -> Option<BTreeMap<String, ParamType>> {
        if self.servers.iter().any(|server| server.decodes == ParamsReadable::Opaque) {
            return None;
        }
        let (first, others) = self.servers.split_first()?;
        let mut params = first.params.clone();
        params.retain(|name, kind| others.iter().all(|other| other.params.get(name) == Some(kind)));
        Some(params)
    }

    /// Entity ids of the components that serve it without decoding, and have a parameter that `read` says is read.
    pub(crate) fn undecoded(&self, read: impl Fn(&str) -> bool) -> Vec<String> {
        let opaque = self.servers.iter().filter(|server| server.decodes == ParamsReadable::Opaque);
        opaque
            .filter(|server| server.params.keys().any(|name| read(name)))
            .map(|server| server.component.clone())
            .collect()
    }
}

fn check_name(name: &str) -> Result<(), InvalidSchema> {
    let valid = !name.is_empty() && name != ANY_ACTION && !name.chars().any(|c| c == '#' || c.is_control());
    if valid { Ok(()) } else { Err(InvalidSchema::Name(name.to_owned())) }
}
