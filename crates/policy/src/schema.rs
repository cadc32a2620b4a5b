//! The Cedar schema, generated from what is registered, and the names it knows.

mod names;

use cedar_policy::SchemaFragment;
use serde_json::{Map, Value, json};

use crate::component::{Component, ParamType};
use crate::vocabulary::{EntityKind, action_groups};
pub(crate) use names::{ActionRecord, Names};

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
        let names = Names::of(components)?;
        let refused = |error: &dyn std::fmt::Display| InvalidSchema::Refused(error.to_string());
        let fragment = SchemaFragment::from_json_value(whole(&names)).map_err(|error| refused(&error))?;
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

fn whole(names: &Names) -> Value {
    let group = |id: &String| {
        let above = action_groups(id).into_iter().find(|above| above != id);
        (id.clone(), member_of(above))
    };
    let mut actions: Map<String, Value> = names.groups.iter().map(group).collect();
    actions.extend(names.actions.iter().map(|(id, record)| (id.clone(), function(record))));
    json!({ "": { "entityTypes": entity_types(), "actions": actions } })
}

fn function(record: &ActionRecord) -> Value {
    let mut context = Map::new();
    context.insert("transport".to_owned(), json!({ "type": "String", "required": true }));
    context.insert("link_name".to_owned(), json!({ "type": "String", "required": false }));
    if let Some(params) = record.params() {
        let attributes: Map<String, Value> =
            params.into_iter().filter_map(|(name, kind)| attribute(kind).map(|attribute| (name, attribute))).collect();
        context.insert("params".to_owned(), json!({ "type": "Record", "attributes": attributes, "required": true }));
    }
    let mut action = member_of(record.groups.first().map(String::as_str));
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
fn member_of(group: Option<&str>) -> Value {
    let groups: Vec<_> = group.map(|group| json!({ "id": group })).into_iter().collect();
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
