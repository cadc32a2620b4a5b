//! Audiences: for whom a JWT-SVID is meant (JWT-SVID §3.2).

use std::{fmt, str::FromStr};

use thiserror::Error;

/// The longest audience, in bytes: half a SPIFFE ID's limit, and far above any URL that is configured by hand.
pub const MAX_AUDIENCE_BYTES: usize = 1024;

/// The most audiences of one token. JWT-SVID §7.2 recommends one: each can replay the token to the others.
pub const MAX_AUDIENCES: usize = 16;

/// A text that cannot be an audience.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("audience of {bytes} bytes: use 1 to {MAX_AUDIENCE_BYTES}")]
pub struct InvalidAudience {
    /// How long it is.
    pub bytes: usize,
}

/// For whom a token is meant: any text of 1 to [`MAX_AUDIENCE_BYTES`] bytes. It is compared byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Audience(String);

impl Audience {
    /// The audience as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Audience {
    type Error = InvalidAudience;

    fn try_from(text: String) -> Result<Self, InvalidAudience> {
        if (1..=MAX_AUDIENCE_BYTES).contains(&text.len()) {
            Ok(Self(text))
        } else {
            Err(InvalidAudience { bytes: text.len() })
        }
    }
}

impl FromStr for Audience {
    type Err = InvalidAudience;

    fn from_str(text: &str) -> Result<Self, InvalidAudience> {
        Self::try_from(text.to_owned())
    }
}

/// Without control characters: a caller may have chosen it.
impl fmt::Display for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_debug().fmt(f)
    }
}
