//! The shape of JSON values: merged over samples, written as WIT.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{escaped, kebab};

/// What values at one place have in common.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shape {
    /// Only `null`, or nothing at all, was seen.
    Unknown,
    Bool,
    Integer,
    Float,
    Text,
    List(Box<Self>),
    /// By the names in the JSON, in the order they were first seen.
    Record(Vec<(String, Self)>),
    Optional(Box<Self>),
}

impl Shape {
    pub(super) fn of(value: &Value) -> Result<Self, String> {
        Ok(match value {
            Value::Null => Self::Optional(Box::new(Self::Unknown)),
            Value::Bool(_) => Self::Bool,
            Value::Number(number) if number.is_f64() => Self::Float,
            Value::Number(_) => Self::Integer,
            Value::String(_) => Self::Text,
            Value::Array(items) => {
                let mut shape = Self::Unknown;
                for item in items {
                    shape = shape.merged(Self::of(item)?)?;
                }
                Self::List(Box::new(shape))
            }
            Value::Object(fields) => {
                let fields = fields.iter().map(|(name, value)| Ok((name.clone(), Self::of(value)?)));
                Self::Record(fields.collect::<Result<_, String>>()?)
            }
        })
    }

    /// What two samples have in common: a field that only one of them has is optional.
    pub(super) fn merged(self, other: Self) -> Result<Self, String> {
        Ok(match (self, other) {
            (Self::Unknown, shape) | (shape, Self::Unknown) => shape,
            (Self::Optional(one), Self::Optional(two)) => one.merged(*two)?.optional(),
            (Self::Optional(one), two) | (two, Self::Optional(one)) => one.merged(two)?.optional(),
            (Self::Integer | Self::Float, Self::Float) | (Self::Float, Self::Integer) => Self::Float,
            (Self::List(one), Self::List(two)) => Self::List(Box::new(one.merged(*two)?)),
            (Self::Record(one), Self::Record(two)) => Self::Record(merged_fields(one, two)?),
            (one, two) if one == two => one,
            (one, two) => return Err(format!("{} and {} stand at the same place", one.name(), two.name())),
        })
    }

    pub(super) fn optional(self) -> Self {
        match self {
            Self::Optional(_) => self,
            Self::Unknown | Self::Bool | Self::Integer | Self::Float | Self::Text | Self::List(_) | Self::Record(_) => {
                Self::Optional(Box::new(self))
            }
        }
    }

    /// Whether nothing at all is known to be inside: WIT has no record without fields.
    pub(super) fn is_formless(&self) -> bool {
        match self {
            Self::Record(fields) => fields.iter().all(|(_, shape)| shape.is_formless()),
            Self::List(inner) | Self::Optional(inner) => inner.is_formless(),
            Self::Unknown | Self::Bool | Self::Integer | Self::Float | Self::Text => false,
        }
    }

    /// The WIT type; records get a name like `noun` and are added to `records`.
    pub(super) fn wit(&self, noun: &str, records: &mut Records) -> String {
        match self {
            Self::Unknown | Self::Text => "string".to_owned(),
            Self::Bool => "bool".to_owned(),
            Self::Integer => "s64".to_owned(),
            Self::Float => "f64".to_owned(),
            Self::List(item) => format!("list<{}>", item.wit(&singular(noun), records)),
            Self::Optional(inner) => format!("option<{}>", inner.wit(noun, records)),
            Self::Record(fields) => records.add(fields, noun),
        }
    }

    /// The WIT names of the fields, with the JSON's own.
    pub(super) fn names(&self, into: &mut Vec<(String, String)>) {
        match self {
            Self::Record(fields) => {
                for (json, shape) in fields.iter().filter(|(_, shape)| !shape.is_formless()) {
                    into.push((kebab(json), json.clone()));
                    shape.names(into);
                }
            }
            Self::List(inner) | Self::Optional(inner) => inner.names(into),
            Self::Unknown | Self::Bool | Self::Integer | Self::Float | Self::Text => {}
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Unknown => "nothing",
            Self::Bool => "a boolean",
            Self::Integer | Self::Float => "a number",
            Self::Text => "a string",
            Self::List(_) => "a list",
            Self::Record(_) => "an object",
            Self::Optional(_) => "null",
        }
    }
}

fn merged_fields(mut one: Vec<(String, Shape)>, two: Vec<(String, Shape)>) -> Result<Vec<(String, Shape)>, String> {
    for (name, shape) in &mut one {
        if !two.iter().any(|(other, _)| other == name) {
            *shape = std::mem::replace(shape, Shape::Unknown).optional();
        }
    }
    for (name, shape) in two {
        match one.iter_mut().find(|(other, _)| *other == name) {
            Some((_, known)) => {
                let before = std::mem::replace(known, Shape::Unknown);
                *known = before.merged(shape).map_err(|error| format!("`{name}`: {error}"))?;
            }
            None => one.push((name, shape.optional())),
        }
    }
    Ok(one)
}

/// The records of an interface, by their WIT names.
#[derive(Debug)]
pub(super) struct Records {
    texts: BTreeMap<String, String>,
    /// Names that are no longer free: functions stand in the same namespace.
    taken: Vec<String>,
}

impl Records {
    pub(super) fn new(taken: Vec<String>) -> Self {
        Self { texts: BTreeMap::new(), taken }
    }

    /// The records as WIT.
    pub(super) fn into_wit(self) -> String {
        self.texts.into_values().map(|text| format!("{text}\n")).collect()
    }

    /// Adds a record; the same noun with other fields gets a number.
    fn add(&mut self, fields: &[(String, Shape)], noun: &str) -> String {
        let fields = fields.iter().filter(|(_, shape)| !shape.is_formless());
        let lines: Vec<_> = fields
            .map(|(json, shape)| {
                let name = kebab(json);
                format!("        {}: {},\n", escaped(&name), shape.wit(&name, self))
            })
            .collect();
        for name in numbered(noun) {
            let text = format!("    record {} {{\n{}    }}\n", escaped(&name), lines.concat());
            let free = match self.texts.get(&name) {
                Some(known) => *known == text,
                None => !self.taken.contains(&name),
            };
            if free {
                self.texts.insert(name.clone(), text);
                return escaped(&name);
            }
        }
        noun.to_owned()
    }
}

/// The name, and the name with numbers behind it.
pub(super) fn numbered(name: &str) -> impl Iterator<Item = String> + use<> {
    let name = name.to_owned();
    std::iter::once(name.clone()).chain((2_u32..).map(move |number| format!("{name}-n{number}")))
}

/// `invoices` → `invoice`; a guess that a person may mend.
pub(super) fn singular(noun: &str) -> String {
    match noun.strip_suffix("ies") {
        Some(stem) if !stem.is_empty() => format!("{stem}y"),
        Some(_) | None => match noun.strip_suffix('s') {
            Some(stem) if !stem.is_empty() && !stem.ends_with('s') => stem.to_owned(),
            Some(_) | None => noun.to_owned(),
        },
    }
}
