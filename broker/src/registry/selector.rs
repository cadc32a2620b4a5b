//! What must be attested of a workload before it earns an identity.

use std::fmt;
use std::str::FromStr;

/// Bytes; the longest that is honest names a path.
const MAX_BYTES: usize = 1024;
/// Bytes of the part before the first colon.
const MAX_KIND_BYTES: usize = 32;
/// Selectors of one entry.
const MAX_SELECTORS: usize = 32;

/// One attested property, `kind:value`, for instance `unix:uid:1000`. It is compared byte for byte and never normalised.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selector(Box<str>);

/// Not a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSelector {
    /// There is no kind, no value, or a character that has no place in them.
    #[error(
        "`{0}` is not a selector: write `kind:value`, for instance `unix:uid:1000`; a kind is lower-case letters, digits, `_` and `-`, \
         a value has no control characters and no space at its ends"
    )]
    Malformed(String),
    /// Nothing that is attested is this long.
    #[error("a selector of {0} bytes is longer than {MAX_BYTES}")]
    TooLong(usize),
    /// Attesting all of them would cost more than they prove.
    #[error("{0} selectors on one entry are more than {MAX_SELECTORS}")]
    TooMany(usize),
}

impl Selector {
    /// The selector as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Selector {
    type Err = InvalidSelector;

    fn from_str(text: &str) -> Result<Self, InvalidSelector> {
        if text.len() > MAX_BYTES {
            return Err(InvalidSelector::TooLong(text.len()));
        }
        let kind = |kind: &str| {
            (1..=MAX_KIND_BYTES).contains(&kind.len())
                && kind.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'))
        };
        let value = |value: &str| !value.is_empty() && value.trim() == value && !value.contains(char::is_control);
        match text.split_once(':') {
            Some((of_kind, of_value)) if kind(of_kind) && value(of_value) => Ok(Self(text.into())),
            Some(_) | None => {
                Err(InvalidSelector::Malformed(text.chars().take(80).flat_map(char::escape_debug).collect()))
            }
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// All that must be attested, in canonical order; none where the node itself holds the identity.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selectors(Box<[Selector]>);

impl Selectors {
    /// In canonical order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Selector> {
        self.0.iter()
    }

    /// Whether the node itself holds the identity.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<Vec<String>> for Selectors {
    type Error = InvalidSelector;

    /// One that is given twice counts once.
    fn try_from(texts: Vec<String>) -> Result<Self, InvalidSelector> {
        if texts.len() > MAX_SELECTORS {
            return Err(InvalidSelector::TooMany(texts.len()));
        }
        let mut selectors = texts.iter().map(|text| text.parse()).collect::<Result<Vec<Selector>, _>>()?;
        selectors.sort();
        selectors.dedup();
        Ok(Self(selectors.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selectors(texts: &[&str]) -> Result<Selectors, InvalidSelector> {
        texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>().try_into()
    }

    #[test]
    fn a_selector_is_a_kind_and_a_value() {
        for text in ["unix:uid:1000", "docker:label:com.acme:x y", "systemd:unit:redis@1.service", "k8s_x-2:ä"] {
            assert_eq!(text.parse::<Selector>().unwrap().as_str(), text);
        }
        for text in
            ["", ":", "unix", "unix:", ":uid", "Unix:uid:1", "un ix:1", "unix: 1", "unix:1 ", "unix:a\nb", "unix:\0"]
        {
            assert!(matches!(text.parse::<Selector>(), Err(InvalidSelector::Malformed(_))), "{text:?}");
        }
    }

    #[test]
    fn length_and_number_are_bounded() {
        let longest = format!("unix:{}", "a".repeat(MAX_BYTES - 5));
        longest.parse::<Selector>().unwrap();
        assert_eq!(format!("{longest}a").parse::<Selector>(), Err(InvalidSelector::TooLong(MAX_BYTES + 1)));
        assert!(format!("{}:x", "k".repeat(33)).parse::<Selector>().is_err());
        let many: Vec<_> = (0..=MAX_SELECTORS).map(|uid| format!("unix:uid:{uid}")).collect();
        assert_eq!(Selectors::try_from(many[1..].to_vec()).unwrap().iter().len(), MAX_SELECTORS);
        assert_eq!(Selectors::try_from(many), Err(InvalidSelector::TooMany(33)));
    }

    #[test]
    fn the_order_in_which_they_are_given_does_not_matter() {
        let one = selectors(&["unix:uid:1", "unix:gid:1", "unix:uid:1"]).unwrap();
        assert_eq!(one, selectors(&["unix:gid:1", "unix:uid:1"]).unwrap());
        assert_eq!(one.iter().map(Selector::as_str).collect::<Vec<_>>(), ["unix:gid:1", "unix:uid:1"]);
        assert!(selectors(&[]).unwrap().is_empty());
    }
}
