//! Arbitrary bytes as a JWT-SVID: as the whole token, and as header and claims under a signature that fits.

#![no_main]

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use libfuzzer_sys::fuzz_target;
use portcullis_identity::{
    Audience, JwtBundle, JwtBundles, JwtKey, JwtRefused, parse_spiffe_id, parse_trust_domain, validate_jwt,
};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};

/// A key that stands here for everybody to read.
const PKCS8: &[u8] = include_bytes!("../key.pkcs8");

struct World {
    kid: String,
    pair: EcdsaKeyPair,
    audience: Audience,
    bundles: JwtBundles,
    now: SystemTime,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let key = JwtKey::from_pkcs8(PKCS8).expect("a key");
    let trust_domain = parse_trust_domain("example.org").expect("a trust domain");
    let bundle = JwtBundle::new(trust_domain, [key.authority(None)]).expect("a bundle");
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, PKCS8, &SystemRandom::new());
    World {
        kid: key.kid().as_str().to_owned(),
        pair: pair.expect("the same key"),
        audience: "y".parse().expect("an audience"),
        bundles: JwtBundles::new([bundle]),
        now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600),
    }
});
const LEEWAY: Duration = Duration::from_secs(30);

fuzz_target!(|input: &[u8]| {
    if let Ok(token) = std::str::from_utf8(input) {
        check(token);
    }
    // A header without a line break, then the claims.
    if let Some(at) = input.iter().position(|byte| *byte == b'\n') {
        let (header, claims) = (&input[..at], &input[at + 1..]);
        check(&signed(header, claims));
        // Few of the headers that the fuzzer tries name the key.
        let header = format!(r#"{{"alg":"ES256","kid":"{}"}}"#, WORLD.kid);
        check(&signed(header.as_bytes(), claims));
    }
});

fn signed(header: &[u8], claims: &[u8]) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = WORLD.pair.sign(&SystemRandom::new(), message.as_bytes()).expect("randomness");
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn check(token: &str) {
    let World { audience, bundles, now, .. } = &*WORLD;
    match validate_jwt(token, audience, bundles, *now, LEEWAY) {
        Ok(claims) => {
            assert_eq!(claims.id().trust_domain().as_str(), "example.org");
            assert!(!claims.id().path().is_empty() && parse_spiffe_id(&claims.id().to_string()).is_ok());
            assert!(claims.audience().contains(audience));
            assert!(claims.expires_at() + LEEWAY > *now, "an expired token is valid");
            assert!(claims.issued_at().is_none_or(|at| at <= *now + LEEWAY), "a token is valid before its time");
            assert_eq!(claims.all()["sub"].as_str(), Some(claims.id().to_string().as_str()));
        }
        Err(refused) => {
            assert!(!refused.to_string().contains(char::is_control), "a log line is broken");
            assert!(!matches!(refused, JwtRefused::Signature { .. }) || token.matches('.').count() == 2);
        }
    }
}
