//! Where in a value something is, built while an error travels outwards, so that the way in costs nothing.

use std::fmt;

/// A JSON pointer (RFC 6901): `/lines/3/price`; empty for the value as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Place(String);

impl Place {
    /// The place is inside `segment` of something larger.
    pub(crate) fn enter(&mut self, segment: &str) {
        let segment = segment.replace('~', "~0").replace('/', "~1");
        self.0 = format!("/{segment}{}", self.0);
    }

    pub(crate) const fn from_pointer(pointer: String) -> Self {
        Self(pointer)
    }

    pub(crate) fn into_pointer(self) -> String {
        self.0
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            Ok(())
        } else {
            write!(f, " at `{}`", self.0)
        }
    }
}
