//! The request target: the path and query of a route, with parameters in their places.

use portcullis_value::{Type, Value};

use super::refusal::{ParameterFault, RefusedParameter};
use super::slot::{Place, Slot};
use super::text::{Form, push_encoded, text};

/// The longest path and query that a route writes, in bytes: common servers refuse more than 8 KiB (RFC 9110 §4.1 asks for 8000).
pub const TARGET_BYTES: usize = 8192;

/// What happens to a slash or backslash in a path parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slashes {
    /// It is percent-encoded like any other reserved character.
    Encode,
    /// The call is refused: for servers that decode the path before they route by it.
    Refuse,
}

/// A path template and the query of a route.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) path: Vec<PathPiece>,
    pub(crate) query: Vec<Pair>,
    pub(crate) slashes: Slashes,
}

/// A part of a path. Between two slots there is always a slash.
#[derive(Clone, Debug)]
pub(crate) enum PathPiece {
    /// Sent as it is.
    Constant(String),
    /// A parameter, which fills one segment but for the constants beside it.
    Slot(Slot),
}

/// A key and what stands behind it in a query or a form.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    /// As the operator wrote it, for messages.
    pub(crate) name: String,
    /// Encoded, with the `=`.
    pub(crate) key: String,
    pub(crate) value: PairValue,
}

/// The value of a [`Pair`].
#[derive(Clone, Debug)]
pub(crate) enum PairValue {
    /// Encoded.
    Constant(String),
    /// A parameter between two encoded constants.
    Slot { slot: Slot, form: Form, prefix: String, suffix: String },
}

impl Target {
    /// The path and query of one call.
    pub(crate) fn write(&self, args: &[Value]) -> Result<String, RefusedParameter> {
        let mut out = String::with_capacity(64 + 32 * (self.path.len() + self.query.len()));
        for piece in &self.path {
            match piece {
                PathPiece::Constant(constant) => out.push_str(constant),
                PathPiece::Slot(slot) => self.push_segment(&mut out, slot, args)?,
            }
        }
        let path = out.len();
        for pair in &self.query {
            let place = Place::Query(&pair.name);
            pair.push(&mut out, args, &Writing { start: path, opening: "?", place, limit: Some(TARGET_BYTES) })?;
        }
        Ok(out)
    }

    fn push_segment(&self, out: &mut String, slot: &Slot, args: &[Value]) -> Result<(), RefusedParameter> {
        let place = Place::Path;
        let value = slot.present(args, place)?;
        let written = value.and_then(|value| text(value, slot.inner()));
        let Some(written) = written else {
            return Err(slot.refuse(place, ParameterFault::WrongType));
        };
        segment(&written, self.slashes).map_err(|fault| slot.refuse(place, fault))?;
        push_encoded(out, &written);
        if out.len() > TARGET_BYTES {
            return Err(slot.refuse(place, ParameterFault::TooLong { limit: TARGET_BYTES }));
        }
        Ok(())
    }
}

/// Checks that a text, once encoded, is one path segment and stays one for a server that decodes before it routes.
fn segment(text: &str, slashes: Slashes) -> Result<(), ParameterFault> {
    if text.is_empty() {
        return Err(ParameterFault::Empty);
    }
    if text.len() > TARGET_BYTES {
        return Err(ParameterFault::TooLong { limit: TARGET_BYTES });
    }
    if text.chars().any(char::is_control) {
        return Err(ParameterFault::ControlCharacter);
    }
    if text.split(['/', '\\']).any(|part| matches!(part, "." | "..")) {
        return Err(ParameterFault::DotSegment);
    }
    if slashes == Slashes::Refuse && text.contains(['/', '\\']) {
        return Err(ParameterFault::Slash);
    }
    Ok(())
}

/// Where and how pairs are written.
pub(crate) struct Writing<'r> {
    /// The length of what stands before the first pair.
    pub(crate) start: usize,
    /// What goes before the first pair; before every other one goes `&`.
    pub(crate) opening: &'static str,
    pub(crate) place: Place<'r>,
    /// The limit of the whole, in bytes; with one, control characters are refused: both belong to URLs and not to bodies.
    pub(crate) limit: Option<usize>,
}

impl Pair {
    /// Appends the pair: nothing where its parameter is absent, and once for each element of a list.
    pub(crate) fn push(&self, out: &mut String, args: &[Value], writing: &Writing<'_>) -> Result<(), RefusedParameter> {
        match &self.value {
            PairValue::Constant(constant) => {
                self.push_key(out, writing);
                out.push_str(constant);
                Ok(())
            }
            PairValue::Slot { slot, form, .. } => {
                let Some(value) = slot.present(args, writing.place)? else {
                    return Ok(());
                };
                match (form, value, slot.inner()) {
                    (Form::List, Value::List(elements), Type::List(ty)) => {
                        elements.iter().try_for_each(|element| self.push_value(out, (element, ty), writing))
                    }
                    (Form::Flags, Value::Flags(set), _) if !set.contains(&true) => Ok(()),
                    (Form::List | Form::Scalar | Form::Flags, value, ty) => self.push_value(out, (value, ty), writing),
                }
            }
        }
    }

    fn push_value(
        &self,
        out: &mut String,
        (value, ty): (&Value, &Type),
        writing: &Writing<'_>,
    ) -> Result<(), RefusedParameter> {
        let PairValue::Slot { slot, prefix, suffix, .. } = &self.value else {
            return Ok(());
        };
        let written = text(value, ty).ok_or_else(|| slot.refuse(writing.place, ParameterFault::WrongType))?;
        if let Some(limit) = writing.limit {
            if written.len() > limit {
                return Err(slot.refuse(writing.place, ParameterFault::TooLong { limit }));
            }
            if written.chars().any(char::is_control) {
                return Err(slot.refuse(writing.place, ParameterFault::ControlCharacter));
            }
        }
        self.push_key(out, writing);
        out.push_str(prefix);
        push_encoded(out, &written);
        out.push_str(suffix);
        match writing.limit {
            Some(limit) if out.len() > limit => Err(slot.refuse(writing.place, ParameterFault::TooLong { limit })),
            Some(_) | None => Ok(()),
        }
    }

    fn push_key(&self, out: &mut String, writing: &Writing<'_>) {
        let opened = out.len() > writing.start;
        out.push_str(if opened { "&" } else { writing.opening });
        out.push_str(&self.key);
    }
}
