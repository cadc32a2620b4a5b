//! Validating JWT-SVIDs (JWT-SVID §4, §6.2).

use std::time::{Duration, SystemTime};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use spiffe::{SpiffeId, TrustDomain};
use thiserror::Error;

use super::{
    Audience, InvalidJwtAlgorithm, JwtAlgorithm, JwtBundles, JwtClaims, KeyId, MAX_AUDIENCES, MAX_LEEWAY,
    MAX_TOKEN_BYTES, claims,
};
use crate::{
    InvalidSpiffeId,
    id::shown,
    json::{InvalidJson, parse_object},
};

/// Why a token is refused. No text of it holds the token, or any part of its signature.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum JwtRefused {
    /// It is longer than [`MAX_TOKEN_BYTES`].
    #[error("token of {bytes} bytes is longer than {MAX_TOKEN_BYTES}")]
    TooLarge {
        /// How long it is.
        bytes: usize,
    },
    /// JWT-SVID §5.1: it is not three parts in base64url, joined by dots.
    #[error("not a token in compact serialisation")]
    NotCompact,
    /// A part is not a JSON object, or names a member twice.
    #[error("token's {part} is refused: {reason}")]
    Json {
        /// `header` or `claims`.
        part: &'static str,
        /// Why.
        reason: InvalidJson,
    },
    /// JWT-SVID §2.1: `alg` is missing, no text, or no algorithm that is verified here.
    #[error("token's alg is refused: {0}")]
    Algorithm(#[from] InvalidJwtAlgorithm),
    /// JWT-SVID §2: a header that must not be there, such as `crit`, `jwk`, `jku`, `x5u` or `x5c`.
    #[error("token's header holds `{name}`: only alg, kid and typ are allowed")]
    Header {
        /// Its name.
        name: String,
    },
    /// JWT-SVID §2.3: `typ` is neither `JWT` nor `JOSE`.
    #[error("token's typ is neither `JWT` nor `JOSE`")]
    Type,
    /// The header names no key. JWT-SVID §2.2 leaves `kid` optional; like SPIRE and go-spiffe we ask for it, so that a
    /// token costs one verification and no key is tried that it was not made with.
    #[error("token's header names no key: kid is missing, empty, too long, or no text")]
    NoKeyId,
    /// A claim has another type or range than RFC 7519 §4.1 gives it.
    #[error("token's claim `{claim}` is malformed")]
    Claim {
        /// Its name.
        claim: &'static str,
    },
    /// JWT-SVID §3.1: `sub` is missing.
    #[error("token has no subject")]
    NoSubject,
    /// JWT-SVID §3.1: `sub` is no SPIFFE ID.
    #[error("token's subject is refused: {0}")]
    Subject(#[source] InvalidSpiffeId),
    /// `sub` is the ID of a trust domain, not of a workload in it.
    #[error("token's subject `{id}` names a trust domain, not a workload")]
    SubjectWithoutPath {
        /// The ID.
        id: SpiffeId,
    },
    /// There is no bundle for the subject's trust domain.
    #[error("trust domain `{trust_domain}` is not known")]
    UnknownTrustDomain {
        /// The trust domain.
        trust_domain: TrustDomain,
    },
    /// The subject's trust domain has no such key, or not any more.
    #[error("trust domain `{trust_domain}` has no key `{kid}`")]
    UnknownKey {
        /// The trust domain.
        trust_domain: TrustDomain,
        /// The key that the token names.
        kid: KeyId,
    },
    /// The key is for another algorithm than the token names.
    #[error("key `{kid}` is for {expected}, the token names {found}")]
    OtherAlgorithm {
        /// The key.
        kid: KeyId,
        /// What the key is for.
        expected: JwtAlgorithm,
        /// What the token names.
        found: JwtAlgorithm,
    },
    /// The signature does not fit.
    #[error("token for `{id}` is not signed by key `{kid}`")]
    Signature {
        /// Who the token claims to be.
        id: SpiffeId,
        /// The key.
        kid: KeyId,
    },
    /// JWT-SVID §3.2: `aud` is missing or empty.
    #[error("token has no audience")]
    NoAudience,
    /// There are more than [`MAX_AUDIENCES`].
    #[error("token has {count} audiences, more than {MAX_AUDIENCES}")]
    TooManyAudiences {
        /// How many there are.
        count: usize,
    },
    /// JWT-SVID §3.2: the token is meant for somebody else.
    #[error("token of `{id}` is not meant for `{audience}`")]
    OtherAudience {
        /// Whose token it is.
        id: SpiffeId,
        /// Who was asked for.
        audience: Audience,
    },
    /// JWT-SVID §3.3: `exp` is missing.
    #[error("token has no expiry")]
    NoExpiry,
    /// JWT-SVID §3.3: `exp` is past.
    #[error("token of `{id}` has expired")]
    Expired {
        /// Whose token it is.
        id: SpiffeId,
    },
    /// `iat` or `nbf` lies in the future.
    #[error("token of `{id}` is not valid yet: `{claim}` lies in the future")]
    NotYetValid {
        /// Whose token it is.
        id: SpiffeId,
        /// Which date.
        claim: &'static str,
    },
}

/// Validates a JWT-SVID for `audience` at the moment `now`, and returns what it says.
///
/// Checked are, in this order: length and form; header; that the subject is a SPIFFE ID with a path; that its trust
/// domain has the key `kid`; that the key is for `alg`; the signature; then audience and dates. `leeway` (at most
/// [`MAX_LEEWAY`] counts) is what clocks may differ: it lengthens `exp` and the key's end, and precedes `iat` and `nbf`.
///
/// # Errors
/// [`JwtRefused`] names the first rule that is broken.
pub fn validate_jwt(
    token: &str,
    audience: &Audience,
    bundles: &JwtBundles,
    now: SystemTime,
    leeway: Duration,
) -> Result<JwtClaims, JwtRefused> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(JwtRefused::TooLarge { bytes: token.len() });
    }
    let leeway = leeway.min(MAX_LEEWAY);
    let (message, signature) = token.rsplit_once('.').ok_or(JwtRefused::NotCompact)?;
    // A fourth part would leave a dot in the claims, which base64url does not know.
    let (header, claims) = message.split_once('.').ok_or(JwtRefused::NotCompact)?;
    let Header { algorithm, kid } = Header::parse(&object("header", header)?)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_alphabet| JwtRefused::NotCompact)?;
    let claims = object("claims", claims)?;
    let id = claims::subject(&claims)?;
    let trust_domain = id.trust_domain();
    let bundle = bundles
        .get(trust_domain)
        .ok_or_else(|| JwtRefused::UnknownTrustDomain { trust_domain: trust_domain.clone() })?;
    let Some(authority) = bundle.authority_at(&kid, now, leeway) else {
        return Err(JwtRefused::UnknownKey { trust_domain: trust_domain.clone(), kid });
    };
    if authority.algorithm() != algorithm {
        return Err(JwtRefused::OtherAlgorithm { kid, expected: authority.algorithm(), found: algorithm });
    }
    if !authority.verifies(message.as_bytes(), &signature) {
        return Err(JwtRefused::Signature { id, kid });
    }
    JwtClaims::check(claims, audience, now, leeway)
}

fn object(part: &'static str, encoded: &str) -> Result<Map<String, Value>, JwtRefused> {
    let json = URL_SAFE_NO_PAD.decode(encoded).map_err(|_alphabet| JwtRefused::NotCompact)?;
    parse_object(&json).map_err(|reason| JwtRefused::Json { part, reason })
}

/// What a header says, all of it (JWT-SVID §2).
struct Header {
    algorithm: JwtAlgorithm,
    kid: KeyId,
}

impl Header {
    fn parse(header: &Map<String, Value>) -> Result<Self, JwtRefused> {
        // JWT-SVID §4: before anything else is looked at.
        let alg = header.get("alg").and_then(Value::as_str).unwrap_or_default();
        let algorithm = alg.parse()?;
        if let Some(name) = header.keys().find(|name| !["alg", "kid", "typ"].contains(&name.as_str())) {
            return Err(JwtRefused::Header { name: shown(name) });
        }
        if header.get("typ").is_some_and(|typ| !matches!(typ.as_str(), Some("JWT" | "JOSE"))) {
            return Err(JwtRefused::Type);
        }
        let kid = header.get("kid").and_then(Value::as_str).and_then(|kid| kid.parse().ok());
        Ok(Self { algorithm, kid: kid.ok_or(JwtRefused::NoKeyId)? })
    }
}
