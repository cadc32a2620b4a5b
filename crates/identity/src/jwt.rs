//! JWT-SVIDs: their keys, signing, bundles and validation (JWT-SVID, RFC 7515, RFC 7519).

mod algorithm;
mod audience;
mod authority;
mod bundle;
mod claims;
mod key;
mod public_key;
mod svid;
mod validate;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub(crate) use self::public_key::{Curve, JwkMembers, PublicKey};
pub use self::{
    algorithm::{InvalidJwtAlgorithm, JwtAlgorithm},
    audience::{Audience, InvalidAudience, MAX_AUDIENCE_BYTES, MAX_AUDIENCES},
    authority::{InvalidKeyId, JwtAuthority, KeyId, MAX_KEY_ID_BYTES},
    bundle::{InvalidJwtBundle, JwtBundle, JwtBundles, MAX_JWT_AUTHORITIES},
    claims::JwtClaims,
    key::JwtKey,
    public_key::InvalidPublicKey,
    svid::{JwtId, JwtNotSigned, JwtSvid, UnsignedJwt},
    validate::{JwtRefused, validate_jwt},
};

/// The longest token that is signed or looked at, in bytes.
///
/// A token for the longest SPIFFE ID and one audience has under 5 KiB; HTTP servers take 8 to 16 KiB of headers.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// The most that clocks are believed to differ, whatever leeway a caller names (JWT-SVID §3.3: a small amount).
pub const MAX_LEEWAY: Duration = Duration::from_secs(120);
