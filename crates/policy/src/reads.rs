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
    const EVERYTHING: Self = Self {
        params: ParamReads::All,
        link_name: true,
    };

    /// What evaluating `policy` may read.
    pub(crate) fn of(policy: &Policy) -> Self {
        // A policy that has no JSON form is not understood here: it may read everything.
        policy.to_json().map_or(Self::EVERYTHING, |json| {
            json.get("conditions").map_or_else(Self::default, Self::of_json)
        })
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            params: self.params.and(other.params),
            link_name: self.link_name || other.link_name,
        }
    }

    fn of_json(node: &Value) -> Self {
        match node {
            Value::Object(fields) => fields
                .iter()
                .map(|(key, value)| Self::of_field(key, value))
                .fold(Self::default(), Self::and),
            Value::Array(items) => items.iter().map(Self::of_json).fold(Self::default(), Self::and),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Self::default(),
        }
    }

    fn of_field(key: &str, value: &Value) -> Self {
        if key == "Var" && value == "context" {
            return Self::EVERYTHING;
        }
        match Access::of_field(key, value) {
            Some(Access {
                of,
                attribute: "params",
            }) if is_context(of) && key == "has" => Self {
                params: ParamReads::Named(BTreeSet::new()),
                ..Self::default()
            },
            Some(Access { of, attribute }) if is_context(of) => Self::of_context(attribute),
            Some(Access { of, attribute }) if is_params(of) => {
                let params = ParamReads::Named(BTreeSet::from([attribute.to_owned()]));
                Self {
                    params,
                    ..Self::default()
                }
            }
            Some(_) | None => Self::of_json(value),
        }
    }

    /// `context.attribute`, not followed by a further attribute, or `context has attribute` other than `params`.
    fn of_context(attribute: &str) -> Self {
        match attribute {
            "params" => Self {
                params: ParamReads::All,
                ..Self::default()
            },
            "link_name" => Self {
                link_name: true,
                ..Self::default()
            },
            "transport" => Self::default(),
            _ => Self::EVERYTHING,
        }
    }
}

/// `of.attribute` or `of has attribute`: exactly these shapes, anything else is looked through piece by piece.
struct Access<'a> {
    of: &'a Value,
    attribute: &'a str,
}

impl<'a> Access<'a> {
    fn of_field(key: &str, value: &'a Value) -> Option<Self> {
        let fields = value
            .as_object()
            .filter(|fields| matches!(key, "." | "has") && fields.len() == 2)?;
        Some(Self {
            of: fields.get("left")?,
            attribute: fields.get("attr")?.as_str()?,
        })
    }
}

fn only(node: &Value) -> Option<(&String, &Value)> {
    node.as_object()
        .filter(|fields| fields.len() == 1)
        .and_then(|fields: &Map<String, Value>| fields.iter().next())
}

fn is_context(node: &Value) -> bool {
    only(node).is_some_and(|(key, value)| key == "Var" && value == "context")
}

fn is_params(node: &Value) -> bool {
    only(node)
        .filter(|(key, _)| *key == ".")
        .and_then(|(key, value)| Access::of_field(key, value))
        .is_some_and(|access| is_context(access.of) && access.attribute == "params")
}
