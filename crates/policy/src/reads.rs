//! What a policy reads of the context, found in its text alone, so that a verdict is cached only by what determines it.

use std::collections::BTreeSet;

use cedar_policy::Policy;
use serde_json::{Map, Value};

/// Which parts of the context may matter to a policy. Doubt counts as reading.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reads {
    pub(crate) params: ParamReads,
    pub(crate) link_name: bool,
}

/// Which parameters may matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum ParamReads {
    #[default]
    None,
    /// These; even an empty set asks whether there are parameters at all.
    Named(BTreeSet<String>),
    All,
}

impl ParamReads {
    pub(crate) fn any(&self) -> bool {
        match self {
            Self::None => false,
            Self::Named(_) | Self::All => true,
        }
    }

    pub(crate) fn includes(&self, name: &str) -> bool {
        match self {
            Self::None => false,
            Self::Named(names) => names.contains(name),
            Self::All => true,
        }
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::All, _) | (_, Self::All) => Self::All,
            (Self::None, only) | (only, Self::None) => only,
            (Self::Named(mut names), Self::Named(more)) => {
                names.extend(more);
                Self::Named(names)
            }
        }
    }
}

impl Reads {
    const EVERYTHING: Self = Self { params: ParamReads::All, link_name: true };

    /// What evaluating `policy` may read.
    pub(crate) fn of(policy: &Policy) -> Self {
        // No other spelling reaches the context, and the JSON form takes a second parse.
        if policy.to_cedar().is_some_and(|text| !text.contains("context")) {
            return Self::default();
        }
        // A policy that has no JSON form is not understood here: it may read everything.
        let json = policy.to_json();
        json.map_or(Self::EVERYTHING, |json| json.get("conditions").map_or_else(Self::default, Self::of_json))
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self { params: self.params.and(other.params), link_name: self.link_name || other.link_name }
    }

    fn of_json(node: &Value) -> Self {
        match node {
            Value::Object(fields) => {
                fields.iter().map(|(key, value)| Self::of_field(key, value)).fold(Self::default(), Self::and)
            }
            Value::Array(items) => items.iter().map(Self::of_json).fold(Self::default(), Self::and),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Self::default(),
        }
    }

    fn of_field(key: &str, value: &Value) -> Self {
        if key == "Var" && value == "context" {
            return Self::EVERYTHING;
        }
        let Some(Access { of, path }) = Access::of_field(key, value) else {
            return Self::of_json(value);
        };
        match path.as_slice() {
            ["params"] if is_context(of) && key == "has" => Self::of_params(None),
            ["params", name, ..] if is_context(of) => Self::of_params(Some(name)),
            [attribute, ..] if is_context(of) => Self::of_context(attribute),
            [name, ..] if is_params(of) => Self::of_params(Some(name)),
            _ => Self::of_json(value),
        }
    }

    /// A parameter, or only whether there are any.
    fn of_params(name: Option<&str>) -> Self {
        let names = name.map(str::to_owned).into_iter().collect();
        Self { params: ParamReads::Named(names), ..Self::default() }
    }

    /// `context.attribute`, not followed by a further attribute, or `context has attribute` other than `params`.
    fn of_context(attribute: &str) -> Self {
        match attribute {
            "params" => Self { params: ParamReads::All, ..Self::default() },
            "link_name" => Self { link_name: true, ..Self::default() },
            // The transport is part of the key under which verdicts are kept; another attribute is in no context.
            _ => Self::default(),
        }
    }
}

/// `of.attribute`, `of has attribute` or `of has attribute.attribute`: exactly these shapes, anything else is looked through piece
/// by piece.
struct Access<'a> {
    of: &'a Value,
    path: Vec<&'a str>,
}

impl<'a> Access<'a> {
    fn of_field(key: &str, value: &'a Value) -> Option<Self> {
        let fields = value.as_object().filter(|fields| matches!(key, "." | "has") && fields.len() == 2)?;
        let of = fields.get("left")?;
        let path = match fields.get("attr")? {
            Value::String(attribute) => vec![attribute.as_str()],
            Value::Array(path) => path.iter().map(Value::as_str).collect::<Option<_>>()?,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => return None,
        };
        Some(Self { of, path })
    }
}

fn only(node: &Value) -> Option<(&String, &Value)> {
    node.as_object().filter(|fields| fields.len() == 1).and_then(|fields: &Map<String, Value>| fields.iter().next())
}

fn is_context(node: &Value) -> bool {
    only(node).is_some_and(|(key, value)| key == "Var" && value == "context")
}

fn is_params(node: &Value) -> bool {
    only(node)
        .filter(|(key, _)| *key == ".")
        .and_then(|(key, value)| Access::of_field(key, value))
        .is_some_and(|access| is_context(access.of) && access.path == ["params"])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(condition: &str) -> Reads {
        let text = format!("@advice(\"context.params\") permit(principal, action, resource) when {{ {condition} }};");
        Reads::of(&Policy::parse(None, text).unwrap())
    }

    fn named(names: &[&str]) -> ParamReads {
        ParamReads::Named(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn every_way_to_read_a_parameter_is_seen() {
        for (condition, expected) in [
            ("true", ParamReads::None),
            ("context.transport == \"quic\"", ParamReads::None),
            ("\"context.params\" == resource.id", ParamReads::None),
            ("principal has params && principal.params.x == 1", ParamReads::None),
            ("{context: 1, params: 2}.params == 2", ParamReads::None),
            ("context has params", named(&[])),
            ("context.params.x == 1", named(&["x"])),
            ("context.params[\"customer-id\"] == \"7\"", named(&["customer-id"])),
            ("context[\"params\"][\"x\"] == 1", named(&["x"])),
            ("context.params has y && context.params.x == 1", named(&["x", "y"])),
            ("context has params.z", named(&["z"])),
            ("context.params has a.b", named(&["a"])),
            (
                "if context.params.b then resource.id like \"x*\" else [context.params.c].contains(1)",
                named(&["b", "c"]),
            ),
            ("!(context.params.x == 1) || -context.params.y > 2 * context.params.z", named(&["x", "y", "z"])),
            ("context.params == resource.params", ParamReads::All),
            ("{a: context.params} == {a: 1}", ParamReads::All),
            ("[context].contains(resource)", ParamReads::All),
            ("context == resource", ParamReads::All),
            ("(if true then context else context).params.x == 1", ParamReads::All),
            ("{\".\": context} == {a: 1}", ParamReads::All),
            ("context.params.x == 1 && context.params == resource.x", ParamReads::All),
            ("ip(context.params.address).isLoopback()", named(&["address"])),
        ] {
            assert_eq!(reads(condition).params, expected, "{condition}");
        }
    }

    #[test]
    fn a_link_name_is_seen_alone() {
        for (condition, link_name, params) in [
            ("context has link_name && context.link_name == \"x\"", true, ParamReads::None),
            ("context has link_name", true, ParamReads::None),
            ("context has unknown", false, ParamReads::None),
            ("context.transport == \"nats\"", false, ParamReads::None),
            ("context == resource", true, ParamReads::All),
        ] {
            assert_eq!(reads(condition), Reads { params, link_name }, "{condition}");
        }
    }

    #[test]
    fn unless_clauses_and_later_clauses_count() {
        let text = "forbid(principal, action, resource) when { true } unless { context.params.x == 1 };";
        assert_eq!(Reads::of(&Policy::parse(None, text).unwrap()).params, named(&["x"]));
    }
}
