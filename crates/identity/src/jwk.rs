//! Writing keys as JWKs and key sets as JWK Sets (RFC 7517, RFC 7518 §6, RFC 8037 §2).

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde::Serialize;
use x509_parser::{
    certificate::X509Certificate,
    oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_SIG_ED25519},
    prelude::FromDer as _,
    public_key::PublicKey as ParsedKey,
    x509::SubjectPublicKeyInfo,
};

use crate::{Authority, JwtAuthority, JwtBundle, der::without_leading_zeros, jwt::JwkMembers};

/// What `use` says in a SPIFFE bundle (X509-SVID §6.1, JWT-SVID §6.1). Case counts.
pub(crate) const USE_X509: &str = "x509-svid";
pub(crate) const USE_JWT: &str = "jwt-svid";

/// A JWK Set, members in the order in which they are written.
#[derive(Serialize)]
pub(crate) struct JwkSet {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) spiffe_sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) spiffe_refresh_hint: Option<u32>,
    pub(crate) keys: Vec<Jwk>,
}

impl JwkSet {
    #[expect(clippy::expect_used, reason = "texts and integers always have a JSON form")]
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a key set has a JSON form")
    }
}

/// A public key, members in the order in which they are written.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) struct Jwk {
    kty: &'static str,
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    usage: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alg: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crv: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    y: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    e: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    x5c: Vec<String>,
}

impl Jwk {
    /// A JWT authority, with `kid`. `alg` is named only where the key alone does not say it.
    pub(crate) fn of_jwt(authority: &JwtAuthority, usage: Option<&'static str>) -> Self {
        let mut jwk = match authority.key().jwk() {
            JwkMembers::Ec { crv, x, y } => {
                Self { kty: "EC", crv: Some(crv), x: Some(x), y: Some(y), ..Self::default() }
            }
            JwkMembers::Rsa { n, e } => Self { kty: "RSA", n: Some(n), e: Some(e), ..Self::default() },
        };
        jwk.usage = usage;
        jwk.kid = Some(authority.kid().as_str().to_owned());
        jwk.alg = authority.needs_algorithm().then(|| authority.algorithm().as_str());
        jwk
    }

    /// An X.509 authority, without `kid` (X509-SVID §6.1); `None` if no JWK can express its key.
    pub(crate) fn of_x509(authority: &Authority) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(authority.der()).ok()?;
        let mut jwk = Self::of_spki(certificate.public_key())?;
        jwk.usage = Some(USE_X509);
        jwk.x5c = vec![STANDARD.encode(authority.der())];
        Some(jwk)
    }

    fn of_spki(spki: &SubjectPublicKeyInfo<'_>) -> Option<Self> {
        let encode = |bytes: &[u8]| Some(URL_SAFE_NO_PAD.encode(bytes));
        let algorithm = &spki.algorithm.algorithm;
        let bits = &spki.subject_public_key.data;
        if *algorithm == OID_SIG_ED25519 {
            return Some(Self { kty: "OKP", crv: Some("Ed25519"), x: encode(bits), ..Self::default() });
        }
        if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
            let curve = spki.algorithm.parameters.as_ref()?.as_oid().ok()?;
            let known = [(OID_EC_P256, "P-256", 32), (OID_NIST_EC_P384, "P-384", 48), (OID_NIST_EC_P521, "P-521", 66)];
            let (_, name, bytes) = known.into_iter().find(|(oid, ..)| *oid == curve)?;
            let (x, y) = bits.strip_prefix(&[4])?.split_at_checked(bytes)?;
            let exact = y.len() == bytes;
            return exact.then(|| Self { kty: "EC", crv: Some(name), x: encode(x), y: encode(y), ..Self::default() });
        }
        match spki.parsed().ok()? {
            ParsedKey::RSA(rsa) => {
                let (n, e) = (without_leading_zeros(rsa.modulus), without_leading_zeros(rsa.exponent));
                Some(Self { kty: "RSA", n: encode(n), e: encode(e), ..Self::default() })
            }
            ParsedKey::EC(_)
            | ParsedKey::DSA(_)
            | ParsedKey::GostR3410(_)
            | ParsedKey::GostR3410_2012(_)
            | ParsedKey::Unknown(_) => None,
        }
    }
}

impl JwtBundle {
    /// The keys as the Workload API answers them (Workload API §6.2.2): a JWK Set without `use`, ordered by `kid`.
    #[must_use]
    pub fn to_workload_jwks(&self) -> String {
        self.key_set(|authority| Jwk::of_jwt(authority, None))
    }

    /// The keys for OpenID Connect discovery (OpenID Connect Discovery §3, `jwks_uri`): a JWK Set with `use` = `sig`
    /// and `alg`, ordered by `kid`.
    #[must_use]
    pub fn to_oidc_jwks(&self) -> String {
        self.key_set(|authority| Jwk {
            alg: Some(authority.algorithm().as_str()),
            ..Jwk::of_jwt(authority, Some("sig"))
        })
    }

    fn key_set(&self, jwk: impl Fn(&JwtAuthority) -> Jwk) -> String {
        let keys = self.by_key_id().into_iter().map(jwk).collect();
        JwkSet { spiffe_sequence: None, spiffe_refresh_hint: None, keys }.to_json()
    }

    /// The authorities in the one order in which they are written.
    pub(crate) fn by_key_id(&self) -> Vec<&JwtAuthority> {
        let mut sorted: Vec<_> = self.authorities().iter().collect();
        sorted.sort_by_key(|authority| authority.kid());
        sorted
    }
}
