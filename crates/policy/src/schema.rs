//! The Cedar schema, generated from what is registered, and the names it knows.

use std::collections::{BTreeMap, BTreeSet};

use cedar_policy::SchemaFragment;
use serde_json::{Map, Value, json};

use crate::component::{Component, ParamType, ParamsReadable};
use crate::vocabulary::{ANY_ACTION, EntityKind, action_groups, action_id, component_entity_id};

/// What policies may name: the registered components, their lattices, and the functions of their interfaces.
#[derive(Debug, Clone)]
pub struct Schema {
    cedar: cedar_policy::Schema,
    text: String,
    names: Names,
}

/// Components that cannot be registered side by side, or whose names a policy could not tell apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSchema {
    /// Two components have the same lattice and id.
    #[error("virtual component `{0}` is registered twice")]
    DuplicateComponent(String),
    /// A component has two interfaces of one name.
    #[error("virtual component `{component}` serves interface `{interface}` twice")]
    DuplicateInterface {
        /// `LATTICE/ID`.
        component: String,
        /// The interface's name.
        interface: String,
    },
    /// An interface has two functions of one name.
    #[error("interface `{interface}` has two functions `{function}`")]
    DuplicateFunction {
        /// The interface's name.
        interface: String,
        /// The function's name.
        function: String,
    },
    /// A name that cannot be part of an action's name.
    #[error(
        "`{0}` cannot be the name of an interface or of a function: it is empty, is `any`, or has a `#` or a control character"
    )]
    Name(String),
    /// The policy engine refuses the generated schema.
    #[error("the generated schema is refused: {0}")]
    Refused(String),
}

/// The names a policy may use, for checks that Cedar does not make and for hints.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    pub(crate) lattices: BTreeSet<String>,
    pub(crate) components: BTreeSet<String>,
    /// Every group above a function.
    pub(crate) groups: BTreeSet<String>,
    /// Functions by interface.
    pub(crate) interfaces: BTreeMap<String, BTreeSet<String>>,
    /// By action id.
    pub(crate) actions: BTreeMap<String, ActionRecord>,
}

/// One function, whoever serves it.
#[derive(Debug, Clone)]
pub(crate) struct ActionRecord {
    pub(crate) groups: Vec<String>,
    /// The readable parameters that all its servers agree on; `None` where one of them does not decode.
    pub(crate) params: Option<BTreeMap<String, ParamType>>,
    /// Entity ids of the components that serve it without decoding.
    pub(crate) opaque: Vec<String>,
}

impl Schema {
    /// Generates the schema for `components`.
    ///
    /// Two components may serve the same interface: its functions exist once, and a parameter is readable only where all of
    /// them decode it and agree on its type.
    ///
    /// # Errors
    ///
    /// Where a component or a function is there twice, or where a name cannot be part of an action.
    pub fn new(components: &[Component]) -> Result<Self, InvalidSchema> {
        let mut names = Names::default();
        names.groups.insert(ANY_ACTION.to_owned());
        for component in components {
            names.register(component)?;
        }
        let refused = |error: &dyn std::fmt::Display| InvalidSchema::Refused(error.to_string());
        let fragment = SchemaFragment::from_json_value(names.to_json()).map_err(|error| refused(&error))?;
        let text = fragment.to_cedarschema().map_err(|error| refused(&error))?;
        let cedar = cedar_policy::Schema::from_schema_fragments([fragment]).map_err(|error| refused(&error))?;
        Ok(Self { cedar, text, names })
    }

    /// The schema in Cedar's own language, for people and editors.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn cedar(&self) -> &cedar_policy::Schema {
        &self.cedar
    }

    pub(crate) fn names(&self) -> &Names {
        &self.names
    }
}

impl Names {
    fn register(&mut self, component: &Component) -> Result<(), InvalidSchema> {
        let entity = component_entity_id(&component.lattice, &component.id);
        if !self.components.insert(entity.clone()) {
            return Err(InvalidSchema::DuplicateComponent(entity));
        }
        self.lattices.insert(component.lattice.clone());
        let mut seen = BTreeSet::new();
        for interface in &component.interfaces {
            check_name(&interface.name)?;
            if !seen.insert(&interface.name) {
                return Err(InvalidSchema::DuplicateInterface {
                    component: entity,
                    interface: interface.name.clone(),
                });
            }
            let groups: Vec<_> = action_groups(&interface.name).into_iter().map(str::to_owned).collect();
            self.groups.extend(groups.iter().cloned());
            self.interfaces.entry(interface.name.clone()).or_default();
            let mut functions = BTreeSet::new();
            for function in &interface.functions {
                check_name(&function.name)?;
                if !functions.insert(&function.name) {
                    return Err(InvalidSchema::DuplicateFunction {
                        interface: interface.name.clone(),
                        function: function.name.clone(),
                    });
                }
                let served = match component.params {
                    ParamsReadable::Decoded => Some(readable(&function.params)),
                    ParamsReadable::Opaque => None,
                };
                self.interfaces
                    .entry(interface.name.clone())
                    .or_default()
                    .insert(function.name.clone());
                self.serve(action_id(&interface.name, &function.name), &groups, &entity, served);
            }
        }
        Ok(())
    }

    /// Adds one server of an action; what it cannot read, nobody can.
    fn serve(&mut self, action: String, groups: &[String], entity: &str, served: Option<BTreeMap<String, ParamType>>) {
        let opaque = served.is_none();
        let record = self.actions.entry(action).and_modify(|record| {
            record.params = match (record.params.take(), &served) {
                (Some(mut known), Some(served)) => {
                    known.retain(|name, kind| served.get(name) == Some(kind));
                    Some(known)
                }
                (None, _) | (_, None) => None,
            };
        });
        let record = record.or_insert_with(|| ActionRecord {
            groups: groups.to_vec(),
            params: served,
            opaque: Vec::new(),
        });
        if opaque {
            record.opaque.push(entity.to_owned());
        }
    }

    fn to_json(&self) -> Value {
        let mut actions: Map<String, Value> = self
            .groups
            .iter()
            .map(|group| (group.clone(), self.group_json(group)))
            .collect();
        actions.extend(self.actions.iter().map(|(id, record)| (id.clone(), record.to_json())));
        json!({ "": { "entityTypes": entity_types(), "actions": actions } })
    }

    fn group_json(&self, group: &str) -> Value {
        let above: Vec<_> = action_groups(group)
            .into_iter()
            .filter(|above| *above != group)
            .take(1)
            .collect();
        member_of(&above)
    }
}

impl ActionRecord {
    fn to_json(&self) -> Value {
        let mut context = Map::new();
        context.insert("transport".to_owned(), json!({ "type": "String", "required": true }));
        context.insert("link_name".to_owned(), json!({ "type": "String", "required": false }));
        if let Some(params) = &self.params {
            let attributes: Map<String, Value> = params
                .iter()
                .filter_map(|(name, kind)| attribute(*kind).map(|attribute| (name.clone(), attribute)))
                .collect();
            context.insert(
                "params".to_owned(),
                json!({ "type": "Record", "attributes": attributes, "required": true }),
            );
        }
        let mut action = member_of(&self.groups.iter().map(String::as_str).take(1).collect::<Vec<_>>());
        if let Some(action) = action.as_object_mut() {
            let applies_to = json!({
                "principalTypes": [EntityKind::Workload.name(), EntityKind::HostedComponent.name()],
                "resourceTypes": [EntityKind::VirtualComponent.name()],
                "context": { "type": "Record", "attributes": context },
            });
            action.insert("appliesTo".to_owned(), applies_to);
        }
        action
    }
}

fn member_of(groups: &[&str]) -> Value {
    let groups: Vec<_> = groups.iter().map(|group| json!({ "id": group })).collect();
    json!({ "memberOf": groups })
}

fn entity_types() -> Value {
    let text = json!({ "type": "String", "required": true });
    json!({
        EntityKind::TrustDomain.name(): {},
        EntityKind::Lattice.name(): {},
        EntityKind::Workload.name(): {
            "memberOfTypes": [EntityKind::TrustDomain.name()],
            "shape": { "type": "Record", "attributes": { "trust_domain": text, "path": text } },
        },
        EntityKind::HostedComponent.name(): {
            "shape": { "type": "Record", "attributes": { "vouched_by": { "type": "String", "required": false } } },
        },
        EntityKind::VirtualComponent.name(): {
            "memberOfTypes": [EntityKind::Lattice.name()],
            "shape": { "type": "Record", "attributes": {
                "lattice": text,
                "id": text,
                "grants": {
                    "type": "Set",
                    "element": { "type": "Entity", "name": EntityKind::Workload.name() },
                    "required": true,
                },
            } },
        },
    })
}

fn attribute(kind: ParamType) -> Option<Value> {
    let (name, required) = match kind {
        ParamType::Bool => ("Boolean", true),
        ParamType::Long => ("Long", true),
        ParamType::String => ("String", true),
        ParamType::OptionalBool => ("Boolean", false),
        ParamType::OptionalLong => ("Long", false),
        ParamType::OptionalString => ("String", false),
        ParamType::Unreadable => return None,
    };
    Some(json!({ "type": name, "required": required }))
}

fn readable(params: &[(String, ParamType)]) -> BTreeMap<String, ParamType> {
    params
        .iter()
        .filter(|(_, kind)| *kind != ParamType::Unreadable)
        .cloned()
        .collect()
}

fn check_name(name: &str) -> Result<(), InvalidSchema> {
    let valid = !name.is_empty() && name != ANY_ACTION && !name.chars().any(|c| c == '#' || c.is_control());
    if valid {
        Ok(())
    } else {
        Err(InvalidSchema::Name(name.to_owned()))
    }
}
