//! Tokens of NATS: JWTs of version 2, signed with Ed25519 by the key that `iss` names (`ed25519-nkey`).
//!
//! The published crates cannot read what a server sends for a client with a certificate; these can, and look at nothing before the
//! signature fits.

use base32_text::base32;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::key::{Owner, PublicKey, SigningKey};

/// Bytes; a chain of five certificates has 40 KiB as PEM, a login token 16.
pub const MAX_TOKEN_BYTES: usize = 256 << 10;
const HEADER: &str = r#"{"typ":"JWT","alg":"ed25519-nkey"}"#;
/// Bytes of a header, encoded.
const MAX_HEADER_BYTES: usize = 128;

/// Why a token is refused. No text of it holds any part of the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefused {
    /// It is longer than [`MAX_TOKEN_BYTES`].
    #[error("token of {0} bytes is longer than {MAX_TOKEN_BYTES}")]
    TooLarge(usize),
    /// Not three parts in base64url.
    #[error("not a token in compact serialisation")]
    NotCompact,
    /// The header names another algorithm or type.
    #[error("token's header is not that of an `ed25519-nkey` JWT")]
    Header,
    /// The claims are not what they must be.
    #[error("token's claims are refused: {0}")]
    Claims(String),
    /// `iss` is not a key that may sign this.
    #[error("token's issuer is not the key of the owner that signs such tokens")]
    Issuer,
    /// The signature does not fit.
    #[error("token is not signed by its issuer")]
    Signature,
}

/// What every token says, around what its kind says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims<N> {
    /// For whom it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub aud: String,
    /// Until when, seconds since 1970; 0 for ever.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub exp: u64,
    /// A hash of the rest.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub jti: String,
    /// When it was made.
    #[serde(default)]
    pub iat: u64,
    /// Who signed it.
    #[serde(default)]
    pub iss: String,
    /// What people call its subject.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// From when on; 0 at once.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub nbf: u64,
    /// Whom it is about.
    #[serde(default)]
    pub sub: String,
    /// What it says of it.
    pub nats: N,
}

impl<N> Claims<N> {
    /// Claims about `sub`.
    pub fn about(sub: &str, iat: u64, nats: N) -> Self {
        let empty = String::new;
        Self { aud: empty(), exp: 0, jti: empty(), iat, iss: empty(), name: empty(), nbf: 0, sub: sub.to_owned(), nats }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Only what is looked at; Go writes `typ` and `alg`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    typ: String,
    alg: String,
}

#[derive(Deserialize)]
struct Issuer {
    #[serde(default)]
    iss: String,
}

/// Signs `claims` with `key`.
///
/// # Errors
/// When they cannot be written as JSON, or are too long.
pub fn encode<N: Serialize>(mut claims: Claims<N>, key: &SigningKey) -> Result<String, TokenRefused> {
    let unwritable = |error: serde_json::Error| TokenRefused::Claims(error.to_string());
    key.public().as_str().clone_into(&mut claims.iss);
    claims.jti.clear();
    let unnamed = serde_json::to_vec(&claims).map_err(unwritable)?;
    claims.jti = base32(ring::digest::digest(&ring::digest::SHA512_256, &unnamed).as_ref());
    let payload = serde_json::to_vec(&claims).map_err(unwritable)?;
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(HEADER), URL_SAFE_NO_PAD.encode(payload));
    let signature = key.sign(message.as_bytes()).ok_or(TokenRefused::Signature)?;
    let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
    if token.len() > MAX_TOKEN_BYTES { Err(TokenRefused::TooLarge(token.len())) } else { Ok(token) }
}

/// Reads a token that an `owner` signed itself; returns who, and what it says. Dates and audience are for the caller to judge.
///
/// # Errors
/// [`TokenRefused`] names the first rule that is broken.
pub fn decode<N: DeserializeOwned>(token: &str, owner: Owner) -> Result<(PublicKey, Claims<N>), TokenRefused> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(TokenRefused::TooLarge(token.len()));
    }
    let (message, signature) = token.rsplit_once('.').ok_or(TokenRefused::NotCompact)?;
    let (header, payload) = message.split_once('.').ok_or(TokenRefused::NotCompact)?;
    if header.len() > MAX_HEADER_BYTES {
        return Err(TokenRefused::Header);
    }
    let plain = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_alphabet| TokenRefused::NotCompact);
    let header: Header = serde_json::from_slice(&plain(header)?).map_err(|_| TokenRefused::Header)?;
    if !header.typ.eq_ignore_ascii_case("jwt") || header.alg != "ed25519-nkey" {
        return Err(TokenRefused::Header);
    }
    let payload = plain(payload)?;
    let Issuer { iss } = serde_json::from_slice(&payload).map_err(|error| refused(&error))?;
    let issuer = PublicKey::parse(owner, &iss).map_err(|_| TokenRefused::Issuer)?;
    if !issuer.verifies(message.as_bytes(), &plain(signature)?) {
        return Err(TokenRefused::Signature);
    }
    let claims = serde_json::from_slice(&payload).map_err(|error| refused(&error))?;
    Ok((issuer, claims))
}

/// Where, not what: the claims may hold secrets.
fn refused(error: &serde_json::Error) -> TokenRefused {
    TokenRefused::Claims(format!("{:?} error in line {}, column {}", error.classify(), error.line(), error.column()))
}

mod base32_text {
    const ALPHABET: [char; 32] = [
        'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'I', 'J', 'K', 'L', 'M', 'N', 'O', 'P', 'Q', 'R', 'S', 'T', 'U', 'V',
        'W', 'X', 'Y', 'Z', '2', '3', '4', '5', '6', '7',
    ];

    /// RFC 4648 §6 without padding.
    pub(super) fn base32(bytes: &[u8]) -> String {
        let mut text = String::with_capacity(bytes.len().saturating_mul(8).div_ceil(5));
        for chunk in bytes.chunks(5) {
            let bits = chunk.iter().fold(0_u64, |bits, byte| (bits << 8) | u64::from(*byte)) << (40 - 8 * chunk.len());
            for place in 0..(chunk.len() * 8).div_ceil(5) {
                let index = usize::try_from((bits >> (35 - 5 * place)) & 31).unwrap_or_default();
                text.extend(ALPHABET.get(index));
            }
        }
        text
    }

    #[cfg(test)]
    mod tests {
        #[test]
        fn the_vectors_of_rfc_4648_hold() {
            for (bytes, text) in [("", ""), ("f", "MY"), ("fo", "MZXQ"), ("foo", "MZXW6"), ("foobar", "MZXW6YTBOI")] {
                assert_eq!(super::base32(bytes.as_bytes()), text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Any = serde_json::Value;

    fn made(key: &SigningKey, nats: Any) -> String {
        encode(Claims { exp: 7, ..Claims::about("UX", 5, nats) }, key).unwrap()
    }

    #[test]
    fn a_token_says_what_was_signed() {
        let key = SigningKey::generate(Owner::Account);
        let token = made(&key, serde_json::json!({"a": [1, "ü"]}));
        let (issuer, claims) = decode::<Any>(&token, Owner::Account).unwrap();
        assert_eq!((&issuer, claims.exp, claims.iat, claims.sub.as_str()), (key.public(), 7, 5, "UX"));
        assert_eq!(claims.jti.len(), 52);
        // Only an account's key signs what an account must have signed.
        assert_eq!(decode::<Any>(&token, Owner::Server).unwrap_err(), TokenRefused::Issuer);
    }

    #[test]
    fn another_algorithm_is_refused() {
        let token = made(&SigningKey::generate(Owner::User), Any::Null);
        let (_, rest) = token.split_once('.').unwrap();
        for header in [r#"{"typ":"JWT","alg":"none"}"#, r#"{"typ":"JWT","alg":"ed25519"}"#, r#"{"alg":"ed25519-nkey"}"#]
        {
            let forged = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header));
            assert_eq!(decode::<Any>(&forged, Owner::User).unwrap_err(), TokenRefused::Header);
        }
    }

    #[test]
    fn a_longer_token_is_not_looked_at() {
        let token = "a".repeat(MAX_TOKEN_BYTES + 1);
        assert_eq!(decode::<Any>(&token, Owner::User).unwrap_err(), TokenRefused::TooLarge(token.len()));
    }

    proptest! {
        #[test]
        fn a_token_with_one_other_byte_is_refused(place in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let key = SigningKey::generate(Owner::Server);
            let mut bytes = made(&key, serde_json::json!({"x": "y"})).into_bytes();
            let place = place.index(bytes.len());
            prop_assume!(bytes[place] != byte && byte.is_ascii());
            bytes[place] = byte;
            prop_assert!(decode::<Any>(std::str::from_utf8(&bytes).unwrap(), Owner::Server).is_err());
        }

        #[test]
        fn no_text_breaks_the_parser(text in "\\PC{0,200}", parts in "[A-Za-z0-9_-]{0,90}\\.[A-Za-z0-9_-]{0,90}\\.[A-Za-z0-9_-]{0,90}") {
            prop_assert!(decode::<Any>(&text, Owner::User).is_err());
            prop_assert!(decode::<Any>(&parts, Owner::User).is_err());
        }

        #[test]
        fn claims_survive_the_journey(name in "\\PC{0,40}", aud in "\\PC{0,40}", exp in any::<u64>(), text in "\\PC{0,60}") {
            let key = SigningKey::generate(Owner::Operator);
            let claims = Claims { name, aud, exp, ..Claims::about("S", 1, text) };
            let (_, read) = decode::<String>(&encode(claims.clone(), &key).unwrap(), Owner::Operator).unwrap();
            prop_assert_eq!((read.name, read.aud, read.exp, read.nats), (claims.name, claims.aud, claims.exp, claims.nats));
        }
    }
}
