//! Reading one key of a document.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use rustls::pki_types::CertificateDer;
use serde_json::{Map, Value};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use super::{BundleDocument, IgnoredReason};
use crate::{
    Authority, InvalidPublicKey, JwtAuthority,
    der::{SEQUENCE, tlv, unsigned},
    id::shown,
    jwk::{USE_JWT, USE_X509},
    jwt::{Curve, PublicKey},
};

enum KeyType {
    Ec,
    Rsa,
    /// Of X.509 authorities alone: no JWT-SVID is signed with such a key (JWT-SVID §2.1).
    Okp,
}

impl BundleDocument {
    /// Takes up a key, or says why not.
    pub(super) fn insert(&mut self, key: &Value) -> Result<(), IgnoredReason> {
        let key = key.as_object().ok_or(IgnoredReason::NotObject)?;
        let kty = match key.get("kty").and_then(Value::as_str) {
            Some("EC") => KeyType::Ec,
            Some("RSA") => KeyType::Rsa,
            Some("OKP") => KeyType::Okp,
            other => return Err(IgnoredReason::KeyType { kty: shown(other.unwrap_or_default()) }),
        };
        match key.get("use").map(Value::as_str) {
            Some(Some(USE_X509)) => self.insert_x509(&kty, key),
            Some(Some(USE_JWT)) => self.insert_jwt(&kty, key),
            Some(other) => Err(IgnoredReason::Use { usage: shown(other.unwrap_or_default()) }),
            None => Err(IgnoredReason::NoUse),
        }
    }

    /// X509-SVID §6. A `kid` should not be there, and is not looked at.
    fn insert_x509(&mut self, kty: &KeyType, key: &Map<String, Value>) -> Result<(), IgnoredReason> {
        refuse_private_key(key)?;
        // §6.2: of several values the first counts.
        let der = key
            .get("x5c")
            .and_then(Value::as_array)
            .and_then(|values| values.first()?.as_str())
            .and_then(|text| STANDARD.decode(text).ok())
            .map(CertificateDer::from)
            .ok_or(IgnoredReason::Member { member: "x5c" })?;
        let named = named_key(kty, key)?;
        // The signing profile bounds the certificate's length before anything in it is read.
        Authority::parse(&der, self.trust_domain())?;
        if let Some(bits) = named {
            let (_, certificate) = X509Certificate::from_der(&der).map_err(|_parse| IgnoredReason::OtherKey)?;
            if *certificate.public_key().subject_public_key.data != *bits {
                return Err(IgnoredReason::OtherKey);
            }
        }
        Ok(self.x509.insert(&der)?)
    }

    /// JWT-SVID §6.
    fn insert_jwt(&mut self, kty: &KeyType, key: &Map<String, Value>) -> Result<(), IgnoredReason> {
        refuse_private_key(key)?;
        let kid = key
            .get("kid")
            .and_then(Value::as_str)
            .and_then(|kid| kid.parse().ok())
            .ok_or(IgnoredReason::Member { member: "kid" })?;
        let algorithm = match key.get("alg") {
            None => None,
            Some(alg) => Some(alg.as_str().ok_or(IgnoredReason::Member { member: "alg" })?.parse()?),
        };
        let public_key = match kty {
            KeyType::Ec => {
                let crv = key.get("crv").and_then(Value::as_str).ok_or(IgnoredReason::Member { member: "crv" })?;
                let Some(curve) = [Curve::P256, Curve::P384].into_iter().find(|curve| curve.name() == crv) else {
                    return Err(InvalidPublicKey::Unsupported { found: format!("curve {}", shown(crv)) }.into());
                };
                PublicKey::ec(curve, &bytes(key, "x")?, &bytes(key, "y")?)?
            }
            KeyType::Rsa => PublicKey::rsa(&bytes(key, "n")?, &bytes(key, "e")?)?,
            KeyType::Okp => return Err(InvalidPublicKey::Unsupported { found: "OKP".to_owned() }.into()),
        };
        let authority = JwtAuthority::new(kid, public_key, algorithm, None)?;
        // The bundle has room for as many keys as a document.
        self.jwt.insert(authority).map_err(|_twice| IgnoredReason::KeyIdTwice)
    }
}

/// RFC 7518 §6.2.2.1, §6.3.2.1 and RFC 8037 §2: `d` is the private key of every type that is read here.
fn refuse_private_key(key: &Map<String, Value>) -> Result<(), IgnoredReason> {
    if key.contains_key("d") { Err(IgnoredReason::PrivateKey) } else { Ok(()) }
}

/// The key that a JWK names beside its certificate, as subjectPublicKey holds it; `None` if it names none.
fn named_key(kty: &KeyType, key: &Map<String, Value>) -> Result<Option<Vec<u8>>, IgnoredReason> {
    let members: &[&str] = match kty {
        KeyType::Ec => &["x", "y"],
        KeyType::Rsa => &["n", "e"],
        KeyType::Okp => &["x"],
    };
    if !members.iter().any(|member| key.contains_key(*member)) {
        return Ok(None);
    }
    Ok(Some(match kty {
        KeyType::Ec => [vec![4], bytes(key, "x")?, bytes(key, "y")?].concat(),
        KeyType::Rsa => tlv(SEQUENCE, &[unsigned(&bytes(key, "n")?), unsigned(&bytes(key, "e")?)].concat()),
        KeyType::Okp => bytes(key, "x")?,
    }))
}

/// A member in base64url (RFC 7518 §2).
fn bytes(key: &Map<String, Value>, member: &'static str) -> Result<Vec<u8>, IgnoredReason> {
    key.get(member)
        .and_then(Value::as_str)
        .and_then(|text| URL_SAFE_NO_PAD.decode(text).ok())
        .ok_or(IgnoredReason::Member { member })
}
