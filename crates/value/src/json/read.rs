//! JSON trees to values.

use std::fmt::Display;
use std::iter;

use bytes::Bytes;
use serde_json::{Map, Value as Json};

use super::scalar::scalar;
use super::{JsonError, JsonRules};
use crate::limits::{Budget, Limits};
use crate::{Flags, FunctionType, ResultType, Type, Value, Variant};

/// Reads a value.
///
/// # Errors
/// When the JSON is not a value of the type or exceeds the limits.
pub fn from_json(json: &Json, ty: &Type, rules: &JsonRules, limits: &Limits) -> Result<Value, JsonError> {
    Reader::new(rules, limits).root(json, ty)
}

/// Reads the parameters of a call: an object by their names, or an array by their positions.
///
/// # Errors
/// As [`from_json`].
pub fn params_from_json(
    function: &FunctionType,
    json: &Json,
    rules: &JsonRules,
    limits: &Limits,
) -> Result<Vec<Value>, JsonError> {
    let mut reader = Reader::new(rules, limits);
    let levels = reader.budget.depth();
    match json {
        Json::Object(members) => reader.fields(members, &function.params, function, levels),
        Json::Array(elements) if elements.len() == function.params.len() => {
            reader.elements(elements, function.params.iter().map(|(_, ty)| ty), levels)
        }
        Json::Array(_) | Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {
            Err(JsonError::mismatch(function, describe(json)))
        }
    }
}

/// Reads the result of a call: `null` where the function has none.
///
/// # Errors
/// As [`from_json`].
pub fn result_from_json(
    function: &FunctionType,
    json: &Json,
    rules: &JsonRules,
    limits: &Limits,
) -> Result<Option<Value>, JsonError> {
    match &function.result {
        Some(ty) => from_json(json, ty, rules, limits).map(Some),
        None if json.is_null() => Ok(None),
        None => Err(JsonError::mismatch(&"null", describe(json))),
    }
}

struct Reader {
    budget: Budget,
}

impl Reader {
    /// Reading leaves no choice to the rules today: every form is read under all of them.
    fn new(_rules: &JsonRules, limits: &Limits) -> Self {
        Self {
            budget: Budget::new(limits),
        }
    }

    fn root(&mut self, json: &Json, ty: &Type) -> Result<Value, JsonError> {
        self.value(json, ty, self.budget.depth())
    }

    fn value(&mut self, json: &Json, ty: &Type, levels: usize) -> Result<Value, JsonError> {
        let inner = self.budget.descend(levels)?;
        match (ty, json) {
            (Type::Option(_), Json::Null) => Ok(Value::none()),
            (Type::Option(payload), json) if payload.is_option() => self.wrapped(json, ty, payload, inner),
            (Type::Option(payload), json) => Ok(Value::Option(self.payload(json, payload, inner)?)),
            (Type::Bytes, Json::Array(elements)) => number_array(elements),
            (Type::List(element), Json::Array(elements)) => {
                self.budget.charge(elements.len())?;
                Ok(Value::List(self.elements(
                    elements,
                    iter::repeat_n(&**element, elements.len()),
                    inner,
                )?))
            }
            (Type::Tuple(types), Json::Array(elements)) if types.len() == elements.len() => {
                self.budget.charge(elements.len())?;
                Ok(Value::Tuple(self.elements(elements, types.iter(), inner)?))
            }
            (Type::Flags(flags), Json::Array(names)) => flag_bits(names, flags, ty),
            (Type::Record(record), Json::Object(members)) => {
                self.budget.charge(record.fields.len())?;
                Ok(Value::Record(self.fields(members, &record.fields, ty, inner)?))
            }
            (Type::Variant(variant), Json::Object(members)) => self.variant(members, variant, ty, inner),
            (Type::Result(arms), Json::Object(members)) => self.result(members, arms, ty, inner),
            (ty, json) => scalar(json, ty),
        }
    }

    fn elements<'t>(
        &mut self,
        elements: &[Json],
        types: impl Iterator<Item = &'t Type>,
        levels: usize,
    ) -> Result<Vec<Value>, JsonError> {
        let mut values = Vec::with_capacity(elements.len());
        for (position, (element, ty)) in elements.iter().zip(types).enumerate() {
            values.push(self.value(element, ty, levels).map_err(|error| error.at(position))?);
        }
        Ok(values)
    }

    fn fields(
        &mut self,
        members: &Map<String, Json>,
        fields: &[(String, Type)],
        wit: &impl Display,
        levels: usize,
    ) -> Result<Vec<Value>, JsonError> {
        let mut values = Vec::with_capacity(fields.len());
        let mut known = 0;
        for (name, ty) in fields {
            let member = members.get(name);
            known += usize::from(member.is_some());
            values.push(self.field(member, ty, levels).map_err(|error| error.within(name))?);
        }
        if known == members.len() {
            return Ok(values);
        }
        let unknown = members.keys().find(|key| fields.iter().all(|(name, _)| name != *key));
        Err(JsonError::mismatch(
            wit,
            format!("the unknown name {}", quoted(unknown.map_or("", String::as_str))),
        ))
    }

    /// A value that may be left out where its type is an option.
    fn field(&mut self, member: Option<&Json>, ty: &Type, levels: usize) -> Result<Value, JsonError> {
        match member {
            Some(json) => self.value(json, ty, levels),
            None if ty.is_option() => Ok(Value::none()),
            None => Err(JsonError::mismatch(ty, "nothing")),
        }
    }

    fn payload(&mut self, json: &Json, ty: &Type, levels: usize) -> Result<Option<Box<Value>>, JsonError> {
        self.budget.charge(1)?;
        Ok(Some(Box::new(self.value(json, ty, levels)?)))
    }

    /// The value of an option whose payload is an option: `{"val": value}`.
    fn wrapped(&mut self, json: &Json, ty: &Type, payload: &Type, levels: usize) -> Result<Value, JsonError> {
        let Some((json, 1)) = json
            .as_object()
            .and_then(|members| Some((members.get("val")?, members.len())))
        else {
            let found = describe(json);
            return Err(JsonError::mismatch(
                ty,
                format!("{found} where null or {{\"val\": ..}} should be"),
            ));
        };
        Ok(Value::Option(
            self.payload(json, payload, levels)
                .map_err(|error| error.within("val"))?,
        ))
    }

    fn variant(
        &mut self,
        members: &Map<String, Json>,
        variant: &Variant,
        ty: &Type,
        levels: usize,
    ) -> Result<Value, JsonError> {
        if let Some(key) = members.keys().find(|key| !matches!(key.as_str(), "tag" | "val")) {
            return Err(JsonError::mismatch(ty, format!("the unknown name {}", quoted(key))));
        }
        let tag = members.get("tag").unwrap_or(&Json::Null);
        let found = variant
            .cases
            .iter()
            .zip(0..)
            .find(|((name, _), _)| tag.as_str() == Some(name));
        let Some(((_, payload_type), position)) = found else {
            return Err(JsonError::mismatch(ty, describe(tag)).within("tag"));
        };
        let payload = match (payload_type, members.get("val")) {
            (None, None | Some(Json::Null)) => Ok(None),
            (None, Some(json)) => Err(JsonError::mismatch(&"nothing", describe(json))),
            (Some(ty), Some(json)) => self.payload(json, ty, levels),
            (Some(ty), None) if ty.is_option() => self.payload(&Json::Null, ty, levels),
            (Some(ty), None) => Err(JsonError::mismatch(ty, "nothing")),
        };
        Ok(Value::Variant(position, payload.map_err(|error| error.within("val"))?))
    }

    fn result(
        &mut self,
        members: &Map<String, Json>,
        arms: &ResultType,
        ty: &Type,
        levels: usize,
    ) -> Result<Value, JsonError> {
        let only = if members.len() == 1 {
            members.iter().next()
        } else {
            None
        };
        let (arm, key, json) = match only.map(|(key, json)| (key.as_str(), json)) {
            Some((key @ "ok", json)) => (&arms.ok, key, json),
            Some((key @ "err", json)) => (&arms.err, key, json),
            Some(_) | None => {
                return Err(JsonError::mismatch(
                    ty,
                    "an object that is neither {\"ok\": ..} nor {\"err\": ..}",
                ));
            }
        };
        let payload = match arm {
            Some(ty) => self.payload(json, ty, levels),
            None if json.is_null() => Ok(None),
            None => Err(JsonError::mismatch(&"null", describe(json))),
        };
        let payload = payload.map_err(|error| error.within(key))?;
        Ok(Value::Result(if key == "ok" { Ok(payload) } else { Err(payload) }))
    }
}

fn number_array(elements: &[Json]) -> Result<Value, JsonError> {
    let mut bytes = Vec::with_capacity(elements.len());
    for (position, element) in elements.iter().enumerate() {
        let byte = element.as_u64().and_then(|value| u8::try_from(value).ok());
        bytes.push(byte.ok_or_else(|| JsonError::mismatch(&Type::U8, describe(element)).at(position))?);
    }
    Ok(Value::Bytes(Bytes::from(bytes)))
}

fn flag_bits(names: &[Json], flags: &Flags, ty: &Type) -> Result<Value, JsonError> {
    let mut bits = vec![false; flags.names.len()];
    for (position, json) in names.iter().enumerate() {
        let set = json
            .as_str()
            .and_then(|name| flags.names.iter().position(|known| known == name));
        let Some(bit) = set.and_then(|set| bits.get_mut(set)) else {
            return Err(JsonError::mismatch(ty, describe(json)).at(position));
        };
        if *bit {
            return Err(JsonError::mismatch(ty, format!("{} for the second time", describe(json))).at(position));
        }
        *bit = true;
    }
    Ok(Value::Flags(bits))
}

/// What a JSON value is, for messages: short ones verbatim.
pub(super) fn describe(json: &Json) -> String {
    match json {
        Json::Null => "null".to_owned(),
        Json::Bool(value) => format!("`{value}`"),
        Json::Number(number) => format!("the number `{number}`"),
        Json::String(text) => format!("the string {}", quoted(text)),
        Json::Array(elements) => format!("an array of {}", elements.len()),
        Json::Object(_) => "an object".to_owned(),
    }
}

fn quoted(text: &str) -> String {
    const LONGEST: usize = 40; // characters: a message stays on one line
    match text.char_indices().nth(LONGEST) {
        None => format!("`{}`", text.escape_debug()),
        Some((end, _)) => format!("`{}…`", text.get(..end).unwrap_or_default().escape_debug()),
    }
}
