//! JWTs by hand: taken apart, verified by OpenSSL, and signed with whatever they say.

use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};

pub(crate) fn decode(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A part of a token: 0 is the header, 1 the claims.
pub(crate) fn part(token: &str, index: usize) -> Value {
    let parts: Vec<_> = token.split('.').collect();
    assert_eq!(parts.len(), 3, "not the compact serialisation");
    serde_json::from_slice(&decode(parts[index])).unwrap()
}

/// The token with another part; its signature stays.
pub(crate) fn replaced(token: &str, index: usize, text: &str) -> String {
    let mut parts: Vec<_> = token.split('.').map(str::to_owned).collect();
    parts[index] = encode(text);
    parts.join(".")
}

pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// Whether OpenSSL verifies an ES256 token by a key of a JWK set.
pub(crate) fn openssl_verifies(token: &str, jwk: &Value) -> bool {
    let (message, signature) = token.rsplit_once('.').unwrap();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    // SubjectPublicKeyInfo of a P-256 point (RFC 5480 §2).
    let mut spki = vec![0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    spki.extend([0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04]);
    for coordinate in ["x", "y"] {
        spki.extend(decode(jwk[coordinate].as_str().unwrap()));
    }
    // ECDSA-Sig-Value (RFC 3279 §2.2.3) of the two halves (RFC 7518 §3.4).
    let signature = decode(signature);
    let integers: Vec<u8> = signature.chunks(32).flat_map(der_integer).collect();
    let mut der = vec![0x30, u8::try_from(integers.len()).unwrap()];
    der.extend(integers);
    let (key, signature, message) =
        (write("key.der", &spki), write("signature", &der), write("message", message.as_bytes()));
    let mut openssl = Command::new("openssl");
    openssl.args(["dgst", "-sha256", "-keyform", "DER", "-verify"]).arg(key).arg("-signature").arg(signature);
    openssl.arg(message).output().expect("openssl is installed").status.success()
}

fn der_integer(bytes: &[u8]) -> Vec<u8> {
    let start = bytes.iter().position(|&byte| byte != 0).unwrap_or(bytes.len() - 1);
    let mut value = bytes[start..].to_vec();
    if value[0] >= 0x80 {
        value.insert(0, 0);
    }
    [vec![0x02, u8::try_from(value.len()).unwrap()], value].concat()
}

/// Whoever has the key that signs tokens: signs lies that only the rules can find.
#[derive(Debug)]
pub(crate) struct TokenForge {
    key: EcdsaKeyPair,
    kid: String,
}

impl TokenForge {
    /// With the key out of a broker's data folder, as a thief could; `token` is one that it signed.
    pub(crate) fn stolen_from(data: &Path, token: &str) -> Self {
        let mut files = std::fs::read_dir(data.join("ca")).unwrap().map(|entry| entry.unwrap().path());
        let file = files.find(|path| path.extension().is_some_and(|extension| extension == "key")).unwrap();
        Self::with(&std::fs::read(file).unwrap(), part(token, 0)["kid"].as_str().unwrap())
    }

    pub(crate) fn with(pkcs8: &[u8], kid: &str) -> Self {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &SystemRandom::new()).unwrap();
        Self { key, kid: kid.to_owned() }
    }

    pub(crate) fn header(&self) -> Value {
        json!({ "alg": "ES256", "kid": self.kid, "typ": "JWT" })
    }

    /// A token of these texts, with a signature that fits.
    pub(crate) fn sign(&self, header: &Value, claims: &str) -> String {
        let message = format!("{}.{}", encode(header.to_string()), encode(claims));
        let signature = self.key.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", encode(signature))
    }
}
