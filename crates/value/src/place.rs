//! Words for messages: where in a value something is, and the type that stands there.

use std::fmt::{self, Write as _};

/// A JSON pointer (RFC 6901): `/lines/3/price`; empty for the value as a whole. It is built while an error travels outwards, so
/// that the way in costs nothing.
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
        if self.0.is_empty() { Ok(()) } else { write!(f, " at `{}`", self.0) }
    }
}

/// The text of a type in a message: a long one ends in `…`, so that the message stays on one line.
#[derive(Debug)]
pub(crate) struct Shortened<'a, T>(pub(crate) &'a T);

impl<T: fmt::Display> fmt::Display for Shortened<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 120; // characters
        let mut text = Prefix { text: String::new(), room: LONGEST };
        if write!(text, "{}", self.0).is_err() {
            text.text.push('…');
        }
        f.write_str(&text.text)
    }
}

/// The beginning of a text; more than it has room for is an error, which stops the writing.
struct Prefix {
    text: String,
    room: usize,
}

impl fmt::Write for Prefix {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        for char in part.chars() {
            self.room = self.room.checked_sub(1).ok_or(fmt::Error)?;
            self.text.push(char);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Place, Shortened};
    use crate::Type;

    #[test]
    fn a_place_escapes_what_a_pointer_must() {
        let mut place = Place::default();
        place.enter("a/b~c");
        place.enter("3");
        assert_eq!(place.into_pointer(), "/3/a~1b~0c");
    }

    #[test]
    fn a_long_type_is_cut() {
        let pair = |ty: Type| Type::tuple([ty.clone(), ty]);
        let small = pair(pair(Type::U8));
        assert_eq!(Shortened(&small).to_string(), small.to_string());
        let vast = (0..60).fold(Type::U8, |ty, _| pair(ty));
        let text = Shortened(&vast).to_string();
        assert_eq!(text.chars().count(), 121);
        assert!(text.ends_with('…'));
    }
}
