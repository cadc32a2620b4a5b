//! Names that are safe as a segment of a SPIFFE ID's path and as a token of a NATS subject.

use std::{fmt, str::FromStr};

use thiserror::Error;

use crate::id::shown;

/// A name has at most this many bytes.
const MAX_NAME_BYTES: usize = 64;

/// Ids that would be read as something else in a lattice address.
const RESERVED_IDS: [&str; 3] = ["vc", "host", "wrpc"];

/// Why a text is not a name.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InvalidName {
    /// The name is empty.
    #[error("{kind} is empty: use 1 to {MAX_NAME_BYTES} letters, digits, `_` or `-`")]
    Empty {
        /// What was to be named.
        kind: &'static str,
    },
    /// The name is too long.
    #[error("{kind} of {bytes} bytes is longer than {MAX_NAME_BYTES}")]
    TooLong {
        /// What was to be named.
        kind: &'static str,
        /// How long the name is.
        bytes: usize,
    },
    /// The name holds a character that has a meaning in a path or a subject.
    #[error("{kind} `{text}` holds {character:?}: use letters, digits, `_` and `-` only")]
    Character {
        /// What was to be named.
        kind: &'static str,
        /// What was given.
        text: String,
        /// The first character that is not allowed.
        character: char,
    },
    /// The id has a meaning of its own in lattice addresses.
    #[error("component id `{text}` is reserved: choose another than `vc`, `host` or `wrpc`")]
    Reserved {
        /// What was given.
        text: String,
    },
    /// A target is written as its lattice, a slash and its id.
    #[error("`{text}` is not a target: write it as `LATTICE/ID`")]
    NotTarget {
        /// What was given.
        text: String,
    },
}

fn check(kind: &'static str, text: &str) -> Result<(), InvalidName> {
    if text.is_empty() {
        return Err(InvalidName::Empty { kind });
    }
    if text.len() > MAX_NAME_BYTES {
        return Err(InvalidName::TooLong { kind, bytes: text.len() });
    }
    match text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))) {
        Some(character) => Err(InvalidName::Character { kind, text: shown(text), character }),
        None => Ok(()),
    }
}

fn check_component_id(kind: &'static str, text: &str) -> Result<(), InvalidName> {
    check(kind, text)?;
    if RESERVED_IDS.contains(&text) {
        return Err(InvalidName::Reserved { text: text.to_owned() });
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                $check($kind, &text)?;
                Ok(Self(text))
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                $check($kind, text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name! {
    /// A lattice's name: `[A-Za-z0-9_-]{1,64}`.
    Lattice, "lattice name", check
}
name! {
    /// A component's id within its lattice: `[A-Za-z0-9_-]{1,64}`, but never `vc`, `host` or `wrpc`.
    ComponentId, "component id", check_component_id
}
name! {
    /// The name a node joined under: `[A-Za-z0-9_-]{1,64}`.
    NodeName, "node name", check
}

/// Where a component or a virtual component is found: its lattice and its id, written `LATTICE/ID`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The lattice it belongs to.
    pub lattice: Lattice,
    /// Its id within that lattice.
    pub id: ComponentId,
}

impl FromStr for Target {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (lattice, id) = text.split_once('/').ok_or_else(|| InvalidName::NotTarget { text: shown(text) })?;
        Ok(Self { lattice: lattice.parse()?, id: id.parse()? })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.lattice, self.id)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_that_could_leave_its_segment_is_refused() {
        for text in ["", ".", "..", "a/b", "a.b", "a%2fb", "a b", "a*", ">", "ä", "a\0", "a\n", "a:b", "$a"] {
            assert!(text.parse::<Lattice>().is_err(), "{text:?} was accepted as a lattice");
            assert!(text.parse::<ComponentId>().is_err(), "{text:?} was accepted as an id");
            assert!(NodeName::try_from(text.to_owned()).is_err(), "{text:?} was accepted as a node");
        }
        assert!("a".repeat(64).parse::<Lattice>().is_ok());
        let error = "a".repeat(65).parse::<Lattice>().unwrap_err();
        assert_eq!(error.to_string(), "lattice name of 65 bytes is longer than 64");
    }

    #[test]
    fn an_id_with_a_meaning_in_addresses_is_refused_as_an_id_alone() {
        for text in ["vc", "host", "wrpc"] {
            assert_eq!(text.parse::<ComponentId>(), Err(InvalidName::Reserved { text: text.to_owned() }));
            assert_eq!(ComponentId::try_from(text.to_owned()), Err(InvalidName::Reserved { text: text.to_owned() }));
            assert!(text.parse::<NodeName>().is_ok());
        }
        assert!("vcs".parse::<ComponentId>().is_ok());
    }

    #[test]
    fn a_target_is_a_lattice_a_slash_and_an_id() {
        let target: Target = "prod/billing_2-x".parse().unwrap();
        assert_eq!((target.lattice.as_str(), target.id.as_ref()), ("prod", "billing_2-x"));
        for text in ["", "prod", "prod/", "/billing", "prod/billing/x", "prod/vc", "prod//billing"] {
            assert!(text.parse::<Target>().is_err(), "{text:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn a_name_is_accepted_if_and_only_if_it_is_path_safe(text in "[A-Za-z0-9_./%ä -]{0,70}") {
            let allowed = (1..=64).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
            prop_assert_eq!(text.parse::<NodeName>().is_ok(), allowed);
        }

        #[test]
        fn a_target_survives_printing(text in "[A-Za-z0-9_-]{1,64}/[A-Za-z0-9_-]{5,64}") {
            prop_assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
    }
}
