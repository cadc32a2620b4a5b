//! JSON trees to values.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Number, Value as Json};

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
        Json::Object(members) => reader.fields(members, &function.params, levels),
        Json::Array(elements) => {
            let types = function.params.iter().map(|(_, ty)| ty);
            same_length("parameters", types.len(), elements.len())?;
            elements
                .iter()
                .zip(types)
                .enumerate()
                .map(|(position, (element, ty))| reader.value(element, ty, levels).map_err(|error| error.at(position)))
                .collect()
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => Err(JsonError::expected(
            "an object or an array of parameters",
            describe(json),
        )),
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
        None => Err(JsonError::expected("null", describe(json))),
    }
}

struct Reader {
    budget: Budget,
}

impl Reader {
    /// Reading needs no choice of the rules today: every form they allow is read.
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
        let value = match (ty, json) {
            (Type::Bool, Json::Bool(value)) => Some(Value::Bool(*value)),
            (Type::U8, Json::Number(number)) => unsigned(number).map(Value::U8),
            (Type::U16, Json::Number(number)) => unsigned(number).map(Value::U16),
            (Type::U32, Json::Number(number)) => unsigned(number).map(Value::U32),
            (Type::U64, Json::Number(number)) => number.as_u64().map(Value::U64),
            (Type::S8, Json::Number(number)) => signed(number).map(Value::S8),
            (Type::S16, Json::Number(number)) => signed(number).map(Value::S16),
            (Type::S32, Json::Number(number)) => signed(number).map(Value::S32),
            (Type::S64, Json::Number(number)) => number.as_i64().map(Value::S64),
            (Type::U64, Json::String(text)) => decimal(text).map(Value::U64),
            (Type::S64, Json::String(text)) => decimal(text).map(Value::S64),
            (Type::F32, _) => float32(json).map(Value::F32),
            (Type::F64, _) => float64(json).map(Value::F64),
            (Type::Char, Json::String(text)) => only_char(text).map(Value::Char),
            (Type::String, Json::String(text)) => Some(Value::String(text.clone())),
            (Type::Bytes, Json::String(text)) => match STANDARD.decode(text) {
                Ok(bytes) => Some(Value::Bytes(Bytes::from(bytes))),
                Err(error) => return Err(JsonError::mismatch(ty, format!("a string that is not base64: {error}"))),
            },
            (Type::Enum(names), Json::String(text)) => position(&names.cases, text).map(Value::Enum),
            (Type::Option(_), Json::Null) => Some(Value::none()),
            (Type::Option(payload), _) => Some(Value::some(self.present(json, payload, inner)?)),
            (Type::Bytes, Json::Array(elements)) => Some(Value::Bytes(number_array(elements)?)),
            (Type::List(element), Json::Array(elements)) => Some(Value::List(self.list(elements, element, inner)?)),
            (Type::Tuple(types), Json::Array(elements)) => Some(Value::Tuple(self.tuple(elements, types, inner)?)),
            (Type::Flags(flags), Json::Array(names)) => Some(Value::Flags(flag_bits(names, flags)?)),
            (Type::Record(record), Json::Object(members)) => {
                Some(Value::Record(self.fields(members, &record.fields, inner)?))
            }
            (Type::Variant(variant), Json::Object(members)) => Some(self.variant(members, variant, inner)?),
            (Type::Result(arms), Json::Object(members)) => Some(self.result(members, arms, inner)?),
            (_, _) => None,
        };
        value.ok_or_else(|| JsonError::mismatch(ty, describe(json)))
    }

    /// The value of an option that is not `none`.
    fn present(&mut self, json: &Json, payload: &Type, levels: usize) -> Result<Value, JsonError> {
        self.budget.charge(1)?;
        if !payload.is_option() {
            return self.value(json, payload, levels);
        }
        let Json::Object(members) = json else {
            return Err(JsonError::expected("null or {\"val\": ..}", describe(json)));
        };
        known_keys(members, &["val"])?;
        let Some(inner) = members.get("val") else {
            return Err(JsonError::expected("null or {\"val\": ..}", "an object without `val`"));
        };
        self.value(inner, payload, levels).map_err(|error| error.within("val"))
    }

    fn list(&mut self, elements: &[Json], ty: &Type, levels: usize) -> Result<Vec<Value>, JsonError> {
        self.budget.charge(elements.len())?;
        let values = elements
            .iter()
            .enumerate()
            .map(|(position, element)| self.value(element, ty, levels).map_err(|error| error.at(position)));
        values.collect()
    }

    fn tuple(&mut self, elements: &[Json], types: &[Type], levels: usize) -> Result<Vec<Value>, JsonError> {
        same_length("elements", types.len(), elements.len())?;
        self.budget.charge(elements.len())?;
        let values = elements
            .iter()
            .zip(types)
            .enumerate()
            .map(|(position, (element, ty))| self.value(element, ty, levels).map_err(|error| error.at(position)));
        values.collect()
    }

    fn fields(
        &mut self,
        members: &Map<String, Json>,
        fields: &[(String, Type)],
        levels: usize,
    ) -> Result<Vec<Value>, JsonError> {
        self.budget.charge(fields.len())?;
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
        Err(JsonError::expected("no such field", "a value").within(unknown.map_or("", String::as_str)))
    }

    /// A value that may be absent where its type is an option.
    fn field(&mut self, member: Option<&Json>, ty: &Type, levels: usize) -> Result<Value, JsonError> {
        match member {
            Some(json) => self.value(json, ty, levels),
            None if ty.is_option() => Ok(Value::none()),
            None => Err(JsonError::mismatch(ty, "nothing")),
        }
    }

    fn variant(&mut self, members: &Map<String, Json>, ty: &Variant, levels: usize) -> Result<Value, JsonError> {
        known_keys(members, &["tag", "val"])?;
        let Some(Json::String(tag)) = members.get("tag") else {
            return Err(JsonError::expected("the name of a case", "no string").within("tag"));
        };
        let found = ty.cases.iter().zip(0..).find(|((name, _), _)| name == tag);
        let Some(((_, payload_type), position)) = found else {
            let names = ty.cases.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>();
            return Err(JsonError::expected(one_of(&names), quoted(tag)).within("tag"));
        };
        let payload = match (payload_type, members.get("val")) {
            (None, None | Some(Json::Null)) => None,
            (None, Some(json)) => return Err(JsonError::expected("null", describe(json)).within("val")),
            (Some(ty), member) => {
                self.budget.charge(1)?;
                Some(Box::new(
                    self.field(member, ty, levels).map_err(|error| error.within("val"))?,
                ))
            }
        };
        Ok(Value::Variant(position, payload))
    }

    fn result(&mut self, members: &Map<String, Json>, arms: &ResultType, levels: usize) -> Result<Value, JsonError> {
        let (Some((key, json)), 1) = (members.iter().next(), members.len()) else {
            let found = format!("an object of {} members", members.len());
            return Err(JsonError::expected("{\"ok\": ..} or {\"err\": ..}", found));
        };
        let mut arm = |ty: Option<&Type>| match ty {
            Some(ty) => {
                self.budget.charge(1)?;
                Ok(Some(Box::new(
                    self.value(json, ty, levels).map_err(|error| error.within(key))?,
                )))
            }
            None if json.is_null() => Ok(None),
            None => Err(JsonError::expected("null", describe(json)).within(key)),
        };
        match key.as_str() {
            "ok" => Ok(Value::Result(Ok(arm(arms.ok.as_ref())?))),
            "err" => Ok(Value::Result(Err(arm(arms.err.as_ref())?))),
            _ => Err(JsonError::expected(
                "{\"ok\": ..} or {\"err\": ..}",
                format!("the key {}", quoted(key)),
            )),
        }
    }
}

fn unsigned<T: TryFrom<u64>>(number: &Number) -> Option<T> {
    number.as_u64().and_then(|value| T::try_from(value).ok())
}

fn signed<T: TryFrom<i64>>(number: &Number) -> Option<T> {
    number.as_i64().and_then(|value| T::try_from(value).ok())
}

/// An integer as its decimal string: no `+`, no leading zero, no `-0`.
fn decimal<T: std::str::FromStr + ToString>(text: &str) -> Option<T> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let canonical = text == "0" || !(digits.starts_with('0') || digits.starts_with('+'));
    if canonical { text.parse().ok() } else { None }
}

fn float64(json: &Json) -> Option<f64> {
    match json {
        Json::Number(number) => number.as_f64(),
        Json::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding to the nearest f32 is the rule, and overflow is checked"
)]
fn float32(json: &Json) -> Option<f32> {
    let wide = float64(json)?;
    let narrow = wide as f32;
    if narrow.is_infinite() && wide.is_finite() {
        None
    } else {
        Some(narrow)
    }
}

fn only_char(text: &str) -> Option<char> {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(only), None) => Some(only),
        (None | Some(_), _) => None,
    }
}

fn number_array(elements: &[Json]) -> Result<Bytes, JsonError> {
    let bytes = elements.iter().enumerate().map(|(position, element)| {
        let byte = element.as_u64().and_then(|value| u8::try_from(value).ok());
        byte.ok_or_else(|| JsonError::mismatch(&Type::U8, describe(element)).at(position))
    });
    bytes.collect::<Result<Vec<_>, _>>().map(Bytes::from)
}

fn flag_bits(names: &[Json], flags: &Flags) -> Result<Vec<bool>, JsonError> {
    let mut bits = vec![false; flags.names.len()];
    for (place, json) in names.iter().enumerate() {
        let set = json
            .as_str()
            .and_then(|name| flags.names.iter().position(|known| known == name));
        let Some(bit) = set.and_then(|position| bits.get_mut(position)) else {
            let known = flags.names.iter().map(String::as_str).collect::<Vec<_>>();
            return Err(JsonError::expected(one_of(&known), describe(json)).at(place));
        };
        if *bit {
            return Err(JsonError::expected("each flag once", describe(json)).at(place));
        }
        *bit = true;
    }
    Ok(bits)
}

fn position(names: &[String], name: &str) -> Option<u32> {
    names
        .iter()
        .position(|known| known == name)
        .and_then(|position| u32::try_from(position).ok())
}

fn known_keys(members: &Map<String, Json>, known: &[&str]) -> Result<(), JsonError> {
    match members.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(JsonError::expected(one_of(known), format!("the key {}", quoted(key)))),
    }
}

fn same_length(noun: &str, expected: usize, found: usize) -> Result<(), JsonError> {
    if expected == found {
        return Ok(());
    }
    Err(JsonError::expected(
        format!("{expected} {noun}"),
        format!("an array of {found}"),
    ))
}

fn one_of(names: &[&str]) -> String {
    const SHOWN: usize = 10; // names: a message stays on one line
    let mut text = names.iter().take(SHOWN).copied().collect::<Vec<_>>().join(" | ");
    if names.len() > SHOWN {
        text.push_str(" | …");
    }
    text
}

/// What a JSON value is, for messages: short ones verbatim.
fn describe(json: &Json) -> String {
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
