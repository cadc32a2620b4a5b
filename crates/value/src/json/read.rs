//! JSON to values, from the text itself.

use std::fmt::Display;
use std::{iter, mem};

use bytes::Bytes;

use super::scalar::{integer, scalar};
use super::text::{Text, Token, quoted};
use super::{JsonError, JsonRules};
use crate::limits::{Budget, Limits};
use crate::{Flags, FunctionType, ResultType, Type, Value, Variant};

/// Reads a value from JSON text.
///
/// # Errors
/// When the text is not JSON, is not a value of the type, or exceeds the limits.
pub fn from_json_text(text: &[u8], ty: &Type, rules: &JsonRules, limits: &Limits) -> Result<Value, JsonError> {
    Reader::read(text, rules, limits, |reader, levels| reader.value(ty, levels))
}

/// Reads the parameters of a call from JSON text: an object by their names, or an array by their positions.
///
/// # Errors
/// As [`from_json_text`].
pub fn params_from_json_text(
    function: &FunctionType,
    text: &[u8],
    rules: &JsonRules,
    limits: &Limits,
) -> Result<Vec<Value>, JsonError> {
    Reader::read(text, rules, limits, |reader, levels| match reader.text.token()? {
        Token::Object => reader.fields(&function.params, function, levels),
        Token::Array => reader.positions(function.params.iter().map(|(_, ty)| ty), function, levels),
        token @ (Token::Null | Token::Bool(_) | Token::Number(_) | Token::String(_)) => {
            Err(JsonError::mismatch(function, token.describe()))
        }
    })
}

/// Reads the result of a call from JSON text: `null` where the function has none.
///
/// # Errors
/// As [`from_json_text`].
pub fn result_from_json_text(
    function: &FunctionType,
    text: &[u8],
    rules: &JsonRules,
    limits: &Limits,
) -> Result<Option<Value>, JsonError> {
    Reader::read(text, rules, limits, |reader, levels| match &function.result {
        Some(ty) => reader.value(ty, levels).map(Some),
        None => reader.null().map(|()| None),
    })
}

struct Reader<'a> {
    text: Text<'a>,
    budget: Budget,
}

impl<'a> Reader<'a> {
    /// Reading leaves no choice to the rules today: every form is read under all of them.
    fn read<T>(
        text: &'a [u8],
        _rules: &JsonRules,
        limits: &Limits,
        read: impl FnOnce(&mut Self, usize) -> Result<T, JsonError>,
    ) -> Result<T, JsonError> {
        let budget = Budget::new(limits);
        budget.reach(text.len())?;
        let levels = budget.depth();
        let mut reader = Self { text: Text::new(text)?, budget };
        let value = read(&mut reader, levels)?;
        reader.text.finish()?;
        Ok(value)
    }

    fn value(&mut self, ty: &Type, levels: usize) -> Result<Value, JsonError> {
        let inner = self.budget.descend(levels)?;
        if let Type::Option(payload) = ty {
            return Ok(Value::Option(self.option(payload, ty, inner)?));
        }
        match (ty, self.text.token()?) {
            (Type::Bytes, Token::Array) => self.number_array(),
            (Type::List(element), Token::Array) => Ok(Value::List(self.list(element, inner)?)),
            (Type::Tuple(types), Token::Array) => {
                self.budget.charge(types.len())?;
                Ok(Value::Tuple(self.positions(types.iter(), ty, inner)?))
            }
            (Type::Flags(flags), Token::Array) => self.flags(flags, ty),
            (Type::Record(record), Token::Object) => {
                self.budget.charge(record.fields.len())?;
                Ok(Value::Record(self.fields(&record.fields, ty, inner)?))
            }
            (Type::Variant(variant), Token::Object) => self.variant(variant, ty, inner),
            (Type::Result(arms), Token::Object) => self.result(arms, ty, inner),
            (ty, token) => scalar(ty, token),
        }
    }

    fn option(&mut self, payload: &Type, ty: &Type, levels: usize) -> Result<Option<Box<Value>>, JsonError> {
        if self.text.peek() == Some(b'n') {
            return self.null().map(|()| None);
        }
        if !payload.is_option() {
            return self.payload(payload, levels);
        }
        let refusal = |found| JsonError::mismatch(ty, format!("{found} where null or {{\"val\": ..}} should be"));
        let token = self.text.token()?;
        if !matches!(token, Token::Object) {
            return Err(refusal(token.describe()));
        }
        if !self.text.open(b'}') || self.text.key()? != "val" {
            return Err(refusal(token.describe()));
        }
        let value = self.payload(payload, levels).map_err(|error| error.within("val"))?;
        if self.text.more(b'}')? {
            return Err(refusal(token.describe()));
        }
        Ok(value)
    }

    fn payload(&mut self, ty: &Type, levels: usize) -> Result<Option<Box<Value>>, JsonError> {
        self.budget.charge(1)?;
        Ok(Some(Box::new(self.value(ty, levels)?)))
    }

    /// The payload of a case or an arm: `null` where it has none.
    fn arm(&mut self, ty: Option<&Type>, levels: usize) -> Result<Option<Box<Value>>, JsonError> {
        match ty {
            Some(ty) => self.payload(ty, levels),
            None => self.null().map(|()| None),
        }
    }

    fn null(&mut self) -> Result<(), JsonError> {
        match self.text.token()? {
            Token::Null => Ok(()),
            token @ (Token::Bool(_) | Token::Number(_) | Token::String(_) | Token::Array | Token::Object) => {
                Err(JsonError::mismatch(&"null", token.describe()))
            }
        }
    }

    fn list(&mut self, element: &Type, levels: usize) -> Result<Vec<Value>, JsonError> {
        let mut values = Vec::new();
        let mut more = self.text.open(b']');
        while more {
            self.budget.charge(1)?;
            values.push(self.value(element, levels).map_err(|error| error.at(values.len()))?);
            more = self.text.more(b']')?;
        }
        Ok(values)
    }

    /// An array with one element of each type.
    fn positions<'t>(
        &mut self,
        types: impl ExactSizeIterator<Item = &'t Type>,
        wit: &impl Display,
        levels: usize,
    ) -> Result<Vec<Value>, JsonError> {
        let mut values = Vec::with_capacity(types.len());
        let mut more = self.text.open(b']');
        for (position, ty) in types.enumerate() {
            if !more {
                return Err(JsonError::mismatch(wit, format!("an array of {position}")));
            }
            values.push(self.value(ty, levels).map_err(|error| error.at(position))?);
            more = self.text.more(b']')?;
        }
        if more {
            return Err(JsonError::mismatch(wit, format!("an array of more than {}", values.len())));
        }
        Ok(values)
    }

    fn number_array(&mut self) -> Result<Value, JsonError> {
        let mut bytes = Vec::new();
        let mut more = self.text.open(b']');
        while more {
            let token = self.text.token()?;
            let byte = if let Token::Number(number) = token { integer(number) } else { None };
            let byte = byte.ok_or_else(|| JsonError::mismatch(&Type::U8, token.describe()).at(bytes.len()))?;
            bytes.push(byte);
            more = self.text.more(b']')?;
        }
        Ok(Value::Bytes(Bytes::from(bytes)))
    }

    fn flags(&mut self, flags: &Flags, ty: &Type) -> Result<Value, JsonError> {
        let mut bits = vec![false; flags.names.len()];
        let mut more = self.text.open(b']');
        for position in 0.. {
            if !more {
                break;
            }
            let token = self.text.token()?;
            let known = |text: &str| flags.names.iter().position(|name| name == text);
            let set = if let Token::String(text) = &token { known(text) } else { None };
            match set.and_then(|set| bits.get_mut(set)) {
                None => return Err(JsonError::mismatch(ty, token.describe()).at(position)),
                Some(true) => {
                    let found = format!("{} for the second time", token.describe());
                    return Err(JsonError::mismatch(ty, found).at(position));
                }
                Some(bit) => *bit = true,
            }
            more = self.text.more(b']')?;
        }
        Ok(Value::Flags(bits))
    }

    /// An object whose members are the fields, in any order.
    fn fields(
        &mut self,
        fields: &[(String, Type)],
        wit: &impl Display,
        levels: usize,
    ) -> Result<Vec<Value>, JsonError> {
        let mut slots = iter::repeat_with(|| None).take(fields.len()).collect::<Vec<_>>();
        let mut next = 0;
        let mut more = self.text.open(b'}');
        while more {
            let start = self.text;
            let key = self.text.key()?;
            let named = |position: &usize| fields.get(*position).is_some_and(|(name, _)| *name == key);
            // Members mostly come in the order of the fields.
            let position = Some(next).filter(named).or_else(|| (0..fields.len()).find(named));
            let place = position.and_then(|position| Some((position, fields.get(position)?, slots.get_mut(position)?)));
            let Some((position, (name, ty), slot)) = place else {
                return Err(JsonError::mismatch(wit, format!("the unknown name {}", quoted(&key))));
            };
            if slot.is_some() {
                return Err(start.repeated(&key));
            }
            *slot = Some(self.value(ty, levels).map_err(|error| error.within(name))?);
            next = position + 1;
            more = self.text.more(b'}')?;
        }
        let values = slots.into_iter().zip(fields).map(|(slot, (name, ty))| match slot {
            Some(value) => Ok(value),
            None if ty.is_option() => Ok(Value::none()),
            None => Err(JsonError::mismatch(ty, "nothing").within(name)),
        });
        values.collect()
    }

    fn variant(&mut self, variant: &Variant, ty: &Type, levels: usize) -> Result<Value, JsonError> {
        let (mut case, mut place, mut payload) = (None, None, None);
        let mut more = self.text.open(b'}');
        while more {
            let start = self.text;
            let key = self.text.key()?;
            match &*key {
                "tag" if case.is_none() => case = Some(self.tag(variant, ty).map_err(|error| error.within("tag"))?),
                "val" if place.is_none() => {
                    place = Some(self.text);
                    match case {
                        Some((_, ty)) => payload = Some(self.arm(ty, levels).map_err(|error| error.within("val"))?),
                        // Flags, and bytes as numbers, nest one level more in JSON than in WIT.
                        None => self.skip(levels.saturating_add(1))?,
                    }
                }
                "tag" | "val" => return Err(start.repeated(&key)),
                _ => return Err(JsonError::mismatch(ty, format!("the unknown name {}", quoted(&key)))),
            }
            more = self.text.more(b'}')?;
        }
        let Some((position, payload_type)) = case else {
            return Err(JsonError::mismatch(ty, "nothing").within("tag"));
        };
        let payload = match payload {
            Some(payload) => payload,
            None => self.late_payload(place, payload_type, levels).map_err(|error| error.within("val"))?,
        };
        Ok(Value::Variant(position, payload))
    }

    fn tag<'t>(&mut self, variant: &'t Variant, ty: &Type) -> Result<(u32, Option<&'t Type>), JsonError> {
        let token = self.text.token()?;
        if let Token::String(tag) = &token {
            let mut cases = variant.cases.iter().zip(0..);
            if let Some(((_, payload), position)) = cases.find(|((name, _), _)| name == tag) {
                return Ok((position, payload.as_ref()));
            }
        }
        Err(JsonError::mismatch(ty, token.describe()))
    }

    /// The payload of a variant whose `val` stands before its `tag`, or not at all.
    fn late_payload(
        &mut self,
        place: Option<Text<'a>>,
        ty: Option<&Type>,
        levels: usize,
    ) -> Result<Option<Box<Value>>, JsonError> {
        match (place, ty) {
            (Some(place), ty) => {
                let end = mem::replace(&mut self.text, place);
                let payload = self.arm(ty, levels)?;
                self.text = end;
                Ok(payload)
            }
            (None, None) => Ok(None),
            (None, Some(ty)) if ty.is_option() => {
                self.budget.charge(1)?;
                Ok(Some(Box::new(Value::none())))
            }
            (None, Some(ty)) => Err(JsonError::mismatch(ty, "nothing")),
        }
    }

    fn result(&mut self, arms: &ResultType, ty: &Type, levels: usize) -> Result<Value, JsonError> {
        let refusal = || JsonError::mismatch(ty, "an object that is neither {\"ok\": ..} nor {\"err\": ..}");
        if !self.text.open(b'}') {
            return Err(refusal());
        }
        let value = match &*self.text.key()? {
            "ok" => Ok(self.arm(arms.ok.as_ref(), levels).map_err(|error| error.within("ok"))?),
            "err" => Err(self.arm(arms.err.as_ref(), levels).map_err(|error| error.within("err"))?),
            _ => return Err(refusal()),
        };
        if self.text.more(b'}')? {
            return Err(refusal());
        }
        Ok(Value::Result(value))
    }

    /// Steps over any value.
    fn skip(&mut self, levels: usize) -> Result<(), JsonError> {
        let inner = self.budget.descend(levels)?;
        match self.text.token()? {
            Token::Null | Token::Bool(_) | Token::Number(_) | Token::String(_) => {}
            Token::Array => {
                let mut more = self.text.open(b']');
                while more {
                    self.skip(inner)?;
                    more = self.text.more(b']')?;
                }
            }
            Token::Object => {
                let mut more = self.text.open(b'}');
                while more {
                    self.text.key()?;
                    self.skip(inner)?;
                    more = self.text.more(b'}')?;
                }
            }
        }
        Ok(())
    }
}
