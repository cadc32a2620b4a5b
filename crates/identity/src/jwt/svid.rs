//! Signing JWT-SVIDs (JWT-SVID §2, §3).

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::Serialize;
use spiffe::SpiffeId;
use thiserror::Error;
use zeroize::Zeroizing;

use super::{Audience, JwtKey, MAX_AUDIENCES, MAX_TOKEN_BYTES};
use crate::NoRandomness;

/// Why no JWT-SVID is made.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum JwtNotSigned {
    /// The ID of a trust domain itself belongs to its authority.
    #[error("`{id}` names a trust domain, not a workload: the ID needs a path")]
    NoPath {
        /// The ID.
        id: SpiffeId,
    },
    /// JWT-SVID §3.2: there must be an audience.
    #[error("a JWT-SVID needs an audience")]
    NoAudience,
    /// There are more than [`MAX_AUDIENCES`].
    #[error("{count} audiences for one JWT-SVID: at most {MAX_AUDIENCES}, and one is best")]
    TooManyAudiences {
        /// How many were asked for.
        count: usize,
    },
    /// It would not be valid for a whole second.
    #[error("a JWT-SVID must expire at least one second after it is issued, and not before 1970")]
    Lifetime,
    /// The token would be longer than anybody accepts.
    #[error("JWT-SVID of {bytes} bytes is longer than {MAX_TOKEN_BYTES}: name fewer or shorter audiences")]
    TooLarge {
        /// How long it would be.
        bytes: usize,
    },
    /// Signing failed.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
}

/// A token's `jti`: 128 random bits, printed as 22 characters of base64url.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct JwtId([u8; 16]);

impl JwtId {
    /// Makes a new one.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn generate() -> Result<Self, NoRandomness> {
        let mut bytes = [0; 16];
        SystemRandom::new().fill(&mut bytes).map_err(|_unspecified| NoRandomness)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for JwtId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

/// What a JWT-SVID is to say.
#[derive(Clone, Copy, Debug)]
pub struct UnsignedJwt<'a> {
    /// `sub`: whose it is. The ID needs a path.
    pub id: &'a SpiffeId,
    /// `aud`: for whom it is meant, 1 to [`MAX_AUDIENCES`]; one is best. It is always written as an array.
    pub audience: &'a [Audience],
    /// `iat`, in whole seconds, rounded down.
    pub issued_at: SystemTime,
    /// `exp`, in whole seconds, rounded down.
    pub expires_at: SystemTime,
    /// `jti`: tells the tokens of one subject apart in an audit log. Validators need not look at it.
    pub jti: Option<JwtId>,
    /// `iss`: the issuer's URL, for relying parties that find the keys by OpenID Connect discovery.
    pub issuer: Option<&'a str>,
}

/// The claims in the order in which they are written.
#[derive(Serialize)]
struct Claims<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    sub: &'a str,
    aud: Vec<&'a str>,
    exp: u64,
    iat: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
}

/// Bytes of claims as they are most often.
const TYPICAL_CLAIMS: usize = 512;
/// Of ES256: r and s.
const SIGNATURE_BYTES: usize = 64;

impl UnsignedJwt<'_> {
    /// Signs with ES256. The header is exactly `alg`, `kid` and `typ` (JWT-SVID §2).
    ///
    /// # Errors
    /// [`JwtNotSigned`] says what is missing or too much.
    #[expect(clippy::expect_used, reason = "texts and integers always have a JSON form")]
    pub fn sign(self, key: &JwtKey) -> Result<JwtSvid, JwtNotSigned> {
        let Self { id, audience, issued_at, expires_at, jti, issuer } = self;
        if id.path().is_empty() {
            return Err(JwtNotSigned::NoPath { id: id.clone() });
        }
        if audience.is_empty() {
            return Err(JwtNotSigned::NoAudience);
        }
        if audience.len() > MAX_AUDIENCES {
            return Err(JwtNotSigned::TooManyAudiences { count: audience.len() });
        }
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map(|since| since.as_secs()).ok();
        let (iat, exp) = seconds(issued_at).zip(seconds(expires_at)).ok_or(JwtNotSigned::Lifetime)?;
        if exp <= iat || exp > super::claims::MAX_NUMERIC_DATE {
            return Err(JwtNotSigned::Lifetime);
        }
        let subject = id.to_string();
        let claims = Claims {
            iss: issuer,
            sub: &subject,
            aud: audience.iter().map(Audience::as_str).collect(),
            exp,
            iat,
            jti: jti.map(|jti| jti.to_string()),
        };
        let mut json = Vec::with_capacity(TYPICAL_CLAIMS);
        serde_json::to_writer(&mut json, &claims).expect("claims have a JSON form");
        // Room for all of it from the start, so that no shorter copy stays behind unwiped.
        let length = key.header().len() + encoded_length(json.len()) + encoded_length(SIGNATURE_BYTES) + 2;
        let mut token = Zeroizing::new(String::with_capacity(length));
        token.push_str(key.header());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(json, &mut token);
        let signature = key.sign(token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        if token.len() > MAX_TOKEN_BYTES {
            return Err(JwtNotSigned::TooLarge { bytes: token.len() });
        }
        let expires_at = super::claims::system_time(exp).ok_or(JwtNotSigned::Lifetime)?;
        Ok(JwtSvid { token, id: id.clone(), expires_at })
    }
}

/// Bytes of `n` bytes in base64url without padding.
const fn encoded_length(n: usize) -> usize {
    (n * 4).div_ceil(3)
}

/// A signed JWT-SVID. Whoever holds the token is its subject: it is never printed, and wiped on drop.
pub struct JwtSvid {
    token: Zeroizing<String>,
    id: SpiffeId,
    expires_at: SystemTime,
}

impl JwtSvid {
    /// The token in compact serialisation (JWT-SVID §5.1), at most [`MAX_TOKEN_BYTES`]. Never log it.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Whose it is.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The moment from which on it is refused.
    #[must_use]
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }
}

impl fmt::Debug for JwtSvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtSvid").field("id", &self.id).field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}
