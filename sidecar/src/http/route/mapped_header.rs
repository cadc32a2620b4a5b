//! Request headers that a route fills with parameters.

use http::{HeaderMap, HeaderName, HeaderValue};
use portcullis_value::Value;

use super::refusal::{ParameterFault, RefusedParameter};
use super::slot::{Place, Slot};
use super::text::{Form, text};

/// The longest header value that a parameter fills, in bytes: servers bound a header line at 8 KiB.
pub const HEADER_BYTES: usize = 8192;

/// A header whose value is a parameter between two constants.
#[derive(Clone, Debug)]
pub(crate) struct MappedHeader {
    pub(crate) name: HeaderName,
    pub(crate) slot: Slot,
    pub(crate) form: Form,
    pub(crate) prefix: String,
    pub(crate) suffix: String,
}

impl MappedHeader {
    /// Sets the header; leaves it out where the parameter is absent or flags are all unset.
    pub(crate) fn insert(&self, headers: &mut HeaderMap, args: &[Value]) -> Result<(), RefusedParameter> {
        let place = Place::Header(self.name.as_str());
        let Some(value) = self.slot.present(args, place)? else {
            return Ok(());
        };
        let written = text(value, self.slot.inner());
        let written = written.ok_or_else(|| self.slot.refuse(place, ParameterFault::WrongType))?;
        if self.form == Form::Flags && written.is_empty() {
            return Ok(());
        }
        check(&written).map_err(|fault| self.slot.refuse(place, fault))?;
        let length = self.prefix.len() + written.len() + self.suffix.len();
        if length > HEADER_BYTES {
            return Err(self.slot.refuse(place, ParameterFault::TooLong { limit: HEADER_BYTES }));
        }
        let mut whole = String::with_capacity(length);
        whole.extend([self.prefix.as_str(), &written, &self.suffix]);
        // What `check` lets through is a header value; the name of the fault is a formality.
        let value = HeaderValue::try_from(whole);
        let value = value.map_err(|_| self.slot.refuse(place, ParameterFault::ControlCharacter))?;
        headers.insert(self.name.clone(), value);
        Ok(())
    }
}

/// Checks that a text arrives at the service exactly as it is: visible ASCII with spaces inside.
fn check(text: &str) -> Result<(), ParameterFault> {
    if text.is_empty() {
        return Err(ParameterFault::Empty);
    }
    if text.chars().any(char::is_control) {
        return Err(ParameterFault::ControlCharacter);
    }
    if !text.is_ascii() {
        return Err(ParameterFault::NotAscii);
    }
    if text.starts_with(' ') || text.ends_with(' ') {
        return Err(ParameterFault::OuterSpace);
    }
    Ok(())
}
