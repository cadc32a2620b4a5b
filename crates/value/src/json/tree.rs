//! JSON trees: from text, with exact floats, no repeated keys and within limits; and to values.

use serde_json::map::Entry;
use serde_json::{Map, Number, Value as Json};

use super::read::{from_json_text, params_from_json_text, result_from_json_text};
use super::text::{self, Text, Token};
use super::{JsonError, JsonRules};
use crate::limits::{Budget, Limits};
use crate::{FunctionType, Type, Value};

/// Parses one JSON text into a tree, for whoever must look at its shape; a value of a known type is better read from the text itself.
///
/// The limits count JSON values as they count WIT values, with two more levels: for the object that holds the parameters of a call,
/// and for the array that flags are, or bytes may be. A tree takes much more memory than the value it stands for: some 700 bytes for
/// each object.
///
/// # Errors
/// When the bytes are not JSON, an object repeats a key, a number overflows an `f64`, or the text exceeds the limits.
pub fn parse_json(text: &[u8], limits: &Limits) -> Result<Json, JsonError> {
    let budget = Budget::new(limits);
    budget.reach(text.len())?;
    let levels = budget.depth().saturating_add(2);
    let mut parser = Parser { text: Text::new(text)?, budget };
    let json = parser.value(levels)?;
    parser.text.finish()?;
    Ok(json)
}

/// Reads a value from a JSON tree. It is written out for that: [`from_json_text`] is the direct way.
///
/// # Errors
/// As [`from_json_text`].
pub fn from_json(json: &Json, ty: &Type, rules: &JsonRules, limits: &Limits) -> Result<Value, JsonError> {
    from_json_text(json.to_string().as_bytes(), ty, rules, limits)
}

/// Reads the parameters of a call from a JSON tree, as [`params_from_json_text`].
///
/// # Errors
/// As [`from_json_text`].
pub fn params_from_json(
    function: &FunctionType,
    json: &Json,
    rules: &JsonRules,
    limits: &Limits,
) -> Result<Vec<Value>, JsonError> {
    params_from_json_text(function, json.to_string().as_bytes(), rules, limits)
}

/// Reads the result of a call from a JSON tree, as [`result_from_json_text`].
///
/// # Errors
/// As [`from_json_text`].
pub fn result_from_json(
    function: &FunctionType,
    json: &Json,
    rules: &JsonRules,
    limits: &Limits,
) -> Result<Option<Value>, JsonError> {
    result_from_json_text(function, json.to_string().as_bytes(), rules, limits)
}

struct Parser<'a> {
    text: Text<'a>,
    budget: Budget,
}

impl Parser<'_> {
    fn value(&mut self, levels: usize) -> Result<Json, JsonError> {
        let inner = self.budget.descend(levels)?;
        let start = self.text;
        match self.text.token()? {
            Token::Null => Ok(Json::Null),
            Token::Bool(value) => Ok(Json::Bool(value)),
            Token::String(text) => Ok(Json::String(text.into_owned())),
            Token::Number(written) => match number(written) {
                Some(number) => Ok(Json::Number(number)),
                None => Err(start.problem("a number overflows 64 bits")),
            },
            Token::Array => self.array(inner),
            Token::Object => self.object(inner),
        }
    }

    fn array(&mut self, levels: usize) -> Result<Json, JsonError> {
        let mut elements = Vec::new();
        let mut more = self.text.open(b']');
        while more {
            self.budget.charge(1)?;
            elements.push(self.value(levels)?);
            more = self.text.more(b']')?;
        }
        Ok(Json::Array(elements))
    }

    fn object(&mut self, levels: usize) -> Result<Json, JsonError> {
        let mut members = Map::new();
        let mut more = self.text.open(b'}');
        while more {
            self.budget.charge(1)?;
            let start = self.text;
            match members.entry(self.text.key()?) {
                Entry::Vacant(entry) => entry.insert(self.value(levels)?),
                Entry::Occupied(entry) => return Err(start.repeated(entry.key())),
            };
            more = self.text.more(b'}')?;
        }
        Ok(Json::Object(members))
    }
}

/// `-0` stays a float: no integer has a negative zero.
fn number(written: text::Number<'_>) -> Option<Number> {
    let text = written.text;
    let integer = match (written.whole, text.starts_with('-')) {
        (true, false) => text.parse::<u64>().ok().map(Number::from),
        (true, true) => text.parse::<i64>().ok().filter(|value| *value != 0).map(Number::from),
        (false, _) => None,
    };
    integer.or_else(|| text.parse::<f64>().ok().and_then(Number::from_f64))
}
