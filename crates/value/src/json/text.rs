//! JSON text (RFC 8259) to a tree: exact floats, no repeated keys, within limits.

use std::borrow::Cow;

use serde_json::map::Entry;
use serde_json::{Map, Number, Value as Json};

use super::JsonError;
use crate::limits::{Budget, Limits};

/// Parses one JSON text. The limits count JSON values as they count WIT values, with one more level for the object that holds the
/// parameters of a call.
///
/// # Errors
/// When the bytes are not JSON, an object repeats a key, a number overflows an `f64`, or the text exceeds the limits.
pub fn parse_json(text: &[u8], limits: &Limits) -> Result<Json, JsonError> {
    let budget = Budget::new(limits);
    budget.reach(text.len())?;
    let levels = budget.depth().saturating_add(1);
    let mut parser = Parser { text, at: 0, budget };
    parser.skip_space();
    let json = parser.value(levels)?;
    parser.skip_space();
    match parser.peek() {
        None => Ok(json),
        Some(_) => Err(parser.problem("text follows the value")),
    }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    budget: Budget,
}

impl<'a> Parser<'a> {
    fn value(&mut self, levels: usize) -> Result<Json, JsonError> {
        let inner = self.budget.descend(levels)?;
        match self.peek() {
            Some(b'{') => self.object(inner),
            Some(b'[') => self.array(inner),
            Some(b'"') => Ok(Json::String(self.string()?.into_owned())),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word(b"true", Json::Bool(true)),
            Some(b'f') => self.word(b"false", Json::Bool(false)),
            Some(b'n') => self.word(b"null", Json::Null),
            Some(_) => Err(self.problem("expected a value")),
            None => Err(self.problem("the text ends where a value should be")),
        }
    }

    fn object(&mut self, levels: usize) -> Result<Json, JsonError> {
        let mut members = Map::new();
        self.at += 1;
        self.skip_space();
        if self.eat(b'}') {
            return Ok(Json::Object(members));
        }
        loop {
            self.budget.charge(1)?;
            let start = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.problem("expected a key in quotes"));
            }
            let key = self.string()?.into_owned();
            self.skip_space();
            if !self.eat(b':') {
                return Err(self.problem("expected `:` after a key"));
            }
            self.skip_space();
            let entry = match members.entry(key) {
                Entry::Vacant(entry) => entry,
                Entry::Occupied(entry) => {
                    self.at = start;
                    return Err(self.problem(format!("the key `{}` is repeated", entry.key())));
                }
            };
            entry.insert(self.value(levels)?);
            if self.ends(b'}')? {
                return Ok(Json::Object(members));
            }
        }
    }

    fn array(&mut self, levels: usize) -> Result<Json, JsonError> {
        let mut elements = Vec::new();
        self.at += 1;
        self.skip_space();
        if self.eat(b']') {
            return Ok(Json::Array(elements));
        }
        loop {
            self.budget.charge(1)?;
            elements.push(self.value(levels)?);
            if self.ends(b']')? {
                return Ok(Json::Array(elements));
            }
        }
    }

    /// Whether a comma or the end follows a member.
    fn ends(&mut self, end: u8) -> Result<bool, JsonError> {
        self.skip_space();
        if self.eat(end) {
            return Ok(true);
        }
        if !self.eat(b',') {
            return Err(self.problem(format!("expected `,` or `{}`", char::from(end))));
        }
        self.skip_space();
        Ok(false)
    }

    fn word(&mut self, word: &[u8], json: Json) -> Result<Json, JsonError> {
        if !self.rest().starts_with(word) {
            return Err(self.problem("expected a value"));
        }
        self.at += word.len();
        Ok(json)
    }

    fn number(&mut self) -> Result<Json, JsonError> {
        let start = self.at;
        let negative = self.eat(b'-');
        let zero = self.peek() == Some(b'0');
        let digits = self.digits()?;
        if zero && digits > 1 {
            self.at = start;
            return Err(self.problem("a number begins with a superfluous 0"));
        }
        let mut whole = true;
        if self.eat(b'.') {
            whole = false;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            whole = false;
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        let text = self
            .text
            .get(start..self.at)
            .and_then(|text| str::from_utf8(text).ok())
            .unwrap_or_default();
        // `-0` stays a float: no integer has a negative zero.
        let integer = match (whole, negative) {
            (true, false) => text.parse::<u64>().ok().map(Number::from),
            (true, true) => text.parse::<i64>().ok().filter(|value| *value != 0).map(Number::from),
            (false, _) => None,
        };
        match integer.or_else(|| text.parse::<f64>().ok().and_then(Number::from_f64)) {
            Some(number) => Ok(Json::Number(number)),
            None => {
                self.at = start;
                Err(self.problem("a number overflows 64 bits"))
            }
        }
    }

    fn digits(&mut self) -> Result<usize, JsonError> {
        let digits = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += digits;
        if digits == 0 {
            Err(self.problem("expected a digit"))
        } else {
            Ok(digits)
        }
    }

    /// A string from its opening quote; borrowed where it has no escape.
    fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        self.at += 1;
        let mut text = Cow::Borrowed("");
        loop {
            let plain = self.plain()?;
            if text.is_empty() {
                text = Cow::Borrowed(plain);
            } else {
                text.to_mut().push_str(plain);
            }
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => {
                    self.at += 1;
                    let escaped = self.escape()?;
                    text.to_mut().push(escaped);
                }
                Some(_) => return Err(self.problem("a control character stands in a string")),
                None => return Err(self.problem("the text ends inside a string")),
            }
        }
    }

    /// Characters up to the next quote, backslash or control character.
    fn plain(&mut self) -> Result<&'a str, JsonError> {
        let rest = self.rest();
        let length = rest
            .iter()
            .take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..=0x1f))
            .count();
        match str::from_utf8(rest.get(..length).unwrap_or_default()) {
            Ok(plain) => {
                self.at += length;
                Ok(plain)
            }
            Err(error) => {
                self.at += error.valid_up_to();
                Err(self.problem("a string is not UTF-8"))
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let escaped = match self.peek() {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode_escape();
            }
            Some(_) | None => return Err(self.problem("there is no such escape")),
        };
        self.at += 1;
        Ok(escaped)
    }

    fn unicode_escape(&mut self) -> Result<char, JsonError> {
        let first = self.hex()?;
        if let Some(scalar) = char::from_u32(u32::from(first)) {
            return Ok(scalar);
        }
        let second = if self.rest().starts_with(b"\\u") {
            self.at += 2;
            Some(self.hex()?)
        } else {
            None
        };
        let pair = [Some(first), second].into_iter().flatten();
        match char::decode_utf16(pair).next() {
            Some(Ok(scalar)) => Ok(scalar),
            Some(Err(_)) | None => Err(self.problem("a surrogate stands alone")),
        }
    }

    fn hex(&mut self) -> Result<u16, JsonError> {
        let digits = self
            .rest()
            .get(..4)
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let number = digits
            .and_then(|digits| str::from_utf8(digits).ok())
            .and_then(|digits| u16::from_str_radix(digits, 16).ok());
        let Some(number) = number else {
            return Err(self.problem("expected four hexadecimal digits"));
        };
        self.at += 4;
        Ok(number)
    }

    fn skip_space(&mut self) {
        self.at += self
            .rest()
            .iter()
            .take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))
            .count();
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn problem(&self, problem: impl Into<String>) -> JsonError {
        let before = self.text.get(..self.at).unwrap_or(self.text);
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        JsonError::Syntax {
            line,
            column,
            problem: problem.into(),
        }
    }
}
