//! The part of a body that becomes a value.

use portcullis_value::json::{JsonRules, from_json, from_json_text};
use portcullis_value::{Type, Value};

use super::UpstreamNonsense;
use super::body::ReceivedBody;

/// The longest error text that is taken from a body, in bytes: enough for a message, too little for a page.
pub const ERROR_TEXT_BYTES: usize = 4096;

/// Where a value is in the body, and how it is written there.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// RFC 6901; empty for the whole body.
    pub(crate) pointer: String,
    pub(crate) form: PartForm,
    /// The type of the value, with the service's names.
    pub(crate) ty: Type,
}

/// How a part is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PartForm {
    /// As the JSON of its type.
    Json,
    /// As text: the body itself, or a JSON string; other JSON gives its own text.
    Text,
    /// As text for people: what is not UTF-8 is replaced, what is too long is cut, and the status stands in for nothing.
    ErrorText,
    /// As bytes: the body itself.
    Bytes,
}

/// What happens to JSON fields that the WIT does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnknownFields {
    /// The answer is nonsense.
    Refuse,
    /// They are dropped.
    Ignore,
}

impl Part {
    /// Reads the value.
    pub(super) fn read(&self, mut body: ReceivedBody<'_>, unknown: UnknownFields) -> Result<Value, UpstreamNonsense> {
        match self.form {
            PartForm::Json => self.read_json(body, unknown),
            PartForm::Bytes if self.absent(&body) => Ok(Value::none()),
            PartForm::Bytes => Ok(self.filled(Value::Bytes(bytes::Bytes::copy_from_slice(body.bytes()?)))),
            PartForm::Text if self.absent(&body) => Ok(Value::none()),
            PartForm::Text => match self.text(&mut body)? {
                Some(text) => Ok(self.filled(Value::String(text))),
                None if self.ty.is_option() => Ok(Value::none()),
                None => Err(UpstreamNonsense::MissingPart(self.pointer.clone())),
            },
            PartForm::ErrorText => Ok(self.filled(Value::String(self.error_text(&mut body)?))),
        }
    }

    /// Whether an empty body is `none`. A text or bytes of no length are values, so only a 204 is none there.
    fn absent(&self, body: &ReceivedBody<'_>) -> bool {
        let nothing = if self.form == PartForm::Json { body.is_empty() } else { body.status() == 204 };
        nothing && self.ty.is_option()
    }

    fn filled(&self, value: Value) -> Value {
        if self.ty.is_option() { Value::some(value) } else { value }
    }

    fn read_json(&self, mut body: ReceivedBody<'_>, unknown: UnknownFields) -> Result<Value, UpstreamNonsense> {
        if self.absent(&body) {
            return Ok(Value::none());
        }
        // The rules only say how 64-bit integers are written; both forms are read.
        let (rules, limits) = (JsonRules::default(), body.limits());
        let nonsense = |error| UpstreamNonsense::Json { part: self.pointer.clone(), error };
        if self.pointer.is_empty() && unknown == UnknownFields::Refuse {
            return from_json_text(body.bytes()?, &self.ty, &rules, limits).map_err(nonsense);
        }
        let Some(part) = body.json()?.pointer_mut(&self.pointer) else {
            return if self.ty.is_option() {
                Ok(Value::none())
            } else {
                Err(UpstreamNonsense::MissingPart(self.pointer.clone()))
            };
        };
        if unknown == UnknownFields::Ignore {
            drop_unknown(part, &self.ty);
        }
        from_json(part, &self.ty, &rules, limits).map_err(nonsense)
    }

    /// The text of the part; `None` where it is not there.
    fn text(&self, body: &mut ReceivedBody<'_>) -> Result<Option<String>, UpstreamNonsense> {
        if self.pointer.is_empty() {
            let text = std::str::from_utf8(body.bytes()?).map_err(|_| UpstreamNonsense::NotUtf8)?;
            return Ok(Some(text.to_owned()));
        }
        Ok(match body.json()?.pointer_mut(&self.pointer) {
            Some(serde_json::Value::String(text)) => Some(std::mem::take(text)),
            Some(serde_json::Value::Null) | None => None,
            Some(other) => Some(other.to_string()),
        })
    }

    fn error_text(&self, body: &mut ReceivedBody<'_>) -> Result<String, UpstreamNonsense> {
        let status = body.status();
        let text = if self.pointer.is_empty() {
            // One byte more, so that what has to be cut is seen; a character cut in two is replaced, and then cut.
            let bytes = body.bytes()?;
            let bytes = bytes.get(..ERROR_TEXT_BYTES + 1).unwrap_or(bytes);
            String::from_utf8_lossy(bytes).into_owned()
        } else {
            self.text(body)?.unwrap_or_default()
        };
        if text.trim().is_empty() {
            return Ok(format!("HTTP status {status}"));
        }
        Ok(shortened(text))
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > ERROR_TEXT_BYTES {
        let end = text.floor_char_boundary(ERROR_TEXT_BYTES - '…'.len_utf8());
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Drops the fields that no record of the type has, wherever the JSON has the form of the type.
fn drop_unknown(json: &mut serde_json::Value, ty: &Type) {
    match ty {
        Type::Record(record) => {
            let Some(object) = json.as_object_mut() else { return };
            object.retain(|name, _| record.fields.iter().any(|(field, _)| field == name));
            for (name, ty) in &record.fields {
                within(object.get_mut(name), Some(ty));
            }
        }
        Type::List(element) => {
            json.as_array_mut().into_iter().flatten().for_each(|value| drop_unknown(value, element));
        }
        Type::Tuple(types) => {
            let elements = json.as_array_mut().into_iter().flatten();
            elements.zip(types.iter()).for_each(|(value, ty)| drop_unknown(value, ty));
        }
        Type::Option(payload) if payload.is_option() => within(json.get_mut("val"), Some(payload)),
        Type::Option(payload) => drop_unknown(json, payload),
        Type::Variant(variant) => {
            let tag = json.get("tag").and_then(serde_json::Value::as_str).map(str::to_owned);
            let case = variant.cases.iter().find(|(name, _)| Some(name) == tag.as_ref());
            within(json.get_mut("val"), case.and_then(|(_, payload)| payload.as_ref()));
        }
        Type::Result(result) => {
            within(json.get_mut("ok"), result.ok.as_ref());
            within(json.get_mut("err"), result.err.as_ref());
        }
        Type::Bool
        | Type::U8
        | Type::U16
        | Type::U32
        | Type::U64
        | Type::S8
        | Type::S16
        | Type::S32
        | Type::S64
        | Type::F32
        | Type::F64
        | Type::Char
        | Type::String
        | Type::Bytes
        | Type::Enum(_)
        | Type::Flags(_) => {}
    }
}

fn within(json: Option<&mut serde_json::Value>, ty: Option<&Type>) {
    if let (Some(json), Some(ty)) = (json, ty) {
        drop_unknown(json, ty);
    }
}
