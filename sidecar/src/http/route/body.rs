//! The request body of a route.

use bytes::Bytes;
use portcullis_value::Value;
use portcullis_value::json::{JsonError, JsonRules, to_json};

use super::refusal::{ParameterFault, RefusedParameter};
use super::slot::{Place, Slot};
use super::target::{Pair, Writing};
use super::text::text;

/// What a route sends as the body.
#[derive(Clone, Debug)]
pub(crate) enum BodyPlan {
    /// No body at all.
    Nothing,
    /// One parameter as JSON.
    Json(Slot),
    /// Parameters as one JSON object.
    Object(Vec<Member>),
    /// `application/x-www-form-urlencoded`.
    Form(Vec<Pair>),
    /// One scalar as text.
    Text(Slot),
    /// One `list<u8>` as it is.
    Bytes(Slot),
}

/// One member of a JSON object.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// The quoted name and the colon.
    pub(crate) key: String,
    pub(crate) slot: Slot,
}

impl BodyPlan {
    /// The body of one call; `None` where there is none, so that no content type is sent either.
    pub(crate) fn write(&self, args: &[Value], rules: &JsonRules) -> Result<Option<Bytes>, RefusedParameter> {
        let place = Place::Body;
        Ok(Some(match self {
            Self::Nothing => return Ok(None),
            Self::Json(slot) => {
                let mut out = Vec::with_capacity(128);
                push_json(&mut out, slot, args, rules)?;
                out.into()
            }
            Self::Object(members) => object(members, args, rules)?.into(),
            Self::Form(pairs) => {
                let mut out = String::with_capacity(128);
                for pair in pairs {
                    pair.push(&mut out, args, &Writing { start: 0, opening: "", place, limit: None })?;
                }
                out.into()
            }
            Self::Text(slot) => {
                let Some(value) = slot.present(args, place)? else {
                    return Ok(None);
                };
                let written = text(value, slot.inner());
                written.ok_or_else(|| slot.refuse(place, ParameterFault::WrongType))?.into_owned().into()
            }
            Self::Bytes(slot) => match slot.present(args, place)? {
                Some(Value::Bytes(bytes)) => bytes.clone(),
                Some(_) => return Err(slot.refuse(place, ParameterFault::WrongType)),
                None => return Ok(None),
            },
        }))
    }
}

/// An object of parameters: what is `none` is left out, as the JSON rules have it for the fields of a record.
fn object(members: &[Member], args: &[Value], rules: &JsonRules) -> Result<Vec<u8>, RefusedParameter> {
    let mut out = Vec::with_capacity(128);
    out.push(b'{');
    for Member { key, slot } in members {
        if matches!(slot.whole(args, Place::Body)?, Value::Option(None)) {
            continue;
        }
        if out.len() > 1 {
            out.push(b',');
        }
        out.extend_from_slice(key.as_bytes());
        push_json(&mut out, slot, args, rules)?;
    }
    out.push(b'}');
    Ok(out)
}

fn push_json(out: &mut Vec<u8>, slot: &Slot, args: &[Value], rules: &JsonRules) -> Result<(), RefusedParameter> {
    let value = slot.whole(args, Place::Body)?;
    to_json(value, &slot.ty, rules, out).map_err(|error| slot.refuse(Place::Body, json_fault(&error)))
}

fn json_fault(error: &JsonError) -> ParameterFault {
    ParameterFault::Json(error.to_string())
}
