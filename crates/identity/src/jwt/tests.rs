//! JWT-SVIDs against the standard's rules, other implementations, and forged tokens.

use std::{collections::HashMap, io::Write as _, process::Command};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::prelude::*;
use ring::hmac;
use serde_json::{Value, json};

use super::{claims::MAX_NUMERIC_DATE, *};
use crate::{
    InvalidSpiffeId, SpiffeId, TrustDomain,
    document::BundleDocument,
    parse_spiffe_id,
    test_ca::{HOUR, NOW, system, td},
};

const ID: &str = "spiffe://a.test/x";

fn audience(text: &str) -> Audience {
    text.parse().unwrap()
}

fn workload(text: &str) -> SpiffeId {
    parse_spiffe_id(text).unwrap()
}

fn bundles(trust_domain: &TrustDomain, key: &JwtKey) -> JwtBundles {
    JwtBundles::new([JwtBundle::new(trust_domain.clone(), [key.authority(None)]).unwrap()])
}

/// An issuer of `a.test` that signs whatever it is told to.
struct Issuer {
    key: JwtKey,
    bundles: JwtBundles,
}

impl Issuer {
    fn new() -> Self {
        let key = JwtKey::generate().unwrap();
        let bundles = bundles(&td("a.test"), &key);
        Self { key, bundles }
    }

    fn header(&self) -> Value {
        json!({ "alg": "ES256", "kid": self.key.kid().as_str(), "typ": "JWT" })
    }

    /// A token of these texts, with a signature that fits.
    fn signed(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.key.sign(message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn with_header(&self, header: &Value) -> String {
        self.signed(&header.to_string(), &claims().to_string())
    }

    fn with_claims(&self, claims: &Value) -> String {
        self.signed(&self.header().to_string(), &claims.to_string())
    }

    /// A good token, but for one member of its header; `null` stands for itself, `None` takes the member away.
    fn with_header_member(&self, name: &str, value: Option<Value>) -> String {
        self.with_header(&changed(self.header(), name, value))
    }

    fn with_claim(&self, name: &str, value: Option<Value>) -> String {
        self.with_claims(&changed(claims(), name, value))
    }

    fn check(&self, token: &str) -> Result<JwtClaims, JwtRefused> {
        self.check_at(token, NOW, 0)
    }

    fn check_at(&self, token: &str, now: u64, leeway: u64) -> Result<JwtClaims, JwtRefused> {
        validate_jwt(token, &audience("y"), &self.bundles, system(now), Duration::from_secs(leeway))
    }
}

fn claims() -> Value {
    json!({ "sub": ID, "aud": ["y"], "exp": NOW + 300, "iat": NOW })
}

fn changed(mut object: Value, name: &str, value: Option<Value>) -> Value {
    let members = object.as_object_mut().unwrap();
    match value {
        Some(value) => drop(members.insert(name.to_owned(), value)),
        None => drop(members.remove(name)),
    }
    object
}

fn part(token: &str, index: usize) -> Value {
    let encoded = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(encoded).unwrap()).unwrap()
}

fn unsigned<'a>(id: &'a SpiffeId, audience: &'a [Audience]) -> UnsignedJwt<'a> {
    UnsignedJwt { id, audience, issued_at: system(NOW), expires_at: system(NOW + 300), jti: None, issuer: None }
}

#[test]
fn a_signed_token_holds_exactly_what_the_standard_names() {
    let issuer = Issuer::new();
    let (id, audiences) = (workload(ID), [audience("y")]);
    let svid = unsigned(&id, &audiences).sign(&issuer.key).unwrap();
    assert_eq!(part(svid.token(), 0), issuer.header());
    assert_eq!(part(svid.token(), 1), claims());
    assert_eq!((svid.id(), svid.expires_at()), (&id, system(NOW + 300)));
    let valid = issuer.check(svid.token()).unwrap();
    assert_eq!((valid.id(), valid.audience()), (&id, audiences.as_slice()));
    assert_eq!((valid.expires_at(), valid.issued_at()), (system(NOW + 300), Some(system(NOW))));
    assert_eq!(Value::Object(valid.into_all()), claims());
}

#[test]
fn a_token_may_say_who_issued_it_and_which_one_it_is() {
    let issuer = Issuer::new();
    let (id, audiences, jti) = (workload(ID), ["y", "z"].map(audience), JwtId::generate().unwrap());
    let token = UnsignedJwt { jti: Some(jti), issuer: Some("https://a.test"), ..unsigned(&id, &audiences) };
    let svid = token.sign(&issuer.key).unwrap();
    let expected = json!({
        "iss": "https://a.test", "sub": ID, "aud": ["y", "z"], "exp": NOW + 300, "iat": NOW, "jti": jti.to_string()
    });
    assert_eq!(part(svid.token(), 1), expected);
    assert_eq!(jti.to_string().len(), 22);
    assert_ne!(jti, JwtId::generate().unwrap());
}

#[test]
fn what_would_be_no_jwt_svid_is_not_signed() {
    let key = JwtKey::generate().unwrap();
    let (id, root, one) = (workload(ID), workload("spiffe://a.test"), [audience("y")]);
    assert_eq!(unsigned(&root, &one).sign(&key).unwrap_err(), JwtNotSigned::NoPath { id: root.clone() });
    assert_eq!(unsigned(&id, &[]).sign(&key).unwrap_err(), JwtNotSigned::NoAudience);
    let many: Vec<_> = (0..17).map(|n| audience(&n.to_string())).collect();
    assert!(unsigned(&id, &many[..16]).sign(&key).is_ok());
    assert_eq!(unsigned(&id, &many).sign(&key).unwrap_err(), JwtNotSigned::TooManyAudiences { count: 17 });
    for expires_at in [system(NOW), system(NOW - 1), system(0), system(MAX_NUMERIC_DATE + 1)] {
        let token = UnsignedJwt { expires_at, ..unsigned(&id, &one) };
        assert_eq!(token.sign(&key).unwrap_err(), JwtNotSigned::Lifetime);
    }
    let before_1970 = system(0) - Duration::from_secs(1);
    let token = UnsignedJwt { issued_at: before_1970, ..unsigned(&id, &one) };
    assert_eq!(token.sign(&key).unwrap_err(), JwtNotSigned::Lifetime);
    let long: Vec<_> = (0..16).map(|n| audience(&format!("{n:01024}"))).collect();
    assert!(matches!(unsigned(&id, &long).sign(&key), Err(JwtNotSigned::TooLarge { .. })));
}

#[test]
fn the_longest_id_and_audience_fit_a_token() {
    let issuer = Issuer::new();
    let id = workload(&format!("spiffe://a.test/{}", "x".repeat(2048 - 16)));
    let audiences = [audience(&"y".repeat(1024))];
    let svid = unsigned(&id, &audiences).sign(&issuer.key).unwrap();
    let valid = validate_jwt(svid.token(), &audiences[0], &issuer.bundles, system(NOW), Duration::ZERO).unwrap();
    assert_eq!(valid.id(), &id);
}

#[test]
fn an_audience_is_neither_empty_nor_endless() {
    assert_eq!("".parse::<Audience>(), Err(InvalidAudience { bytes: 0 }));
    assert!("y".repeat(1024).parse::<Audience>().is_ok());
    assert_eq!("y".repeat(1025).parse::<Audience>(), Err(InvalidAudience { bytes: 1025 }));
    assert_eq!(audience("a\nb").to_string(), "a\\nb");
}

#[test]
fn a_token_and_its_key_are_not_printed() {
    let key = JwtKey::generate().unwrap();
    let (id, audiences) = (workload(ID), [audience("y")]);
    let svid = unsigned(&id, &audiences).sign(&key).unwrap();
    for part in svid.token().split('.') {
        assert!(!format!("{svid:?}").contains(part));
    }
    assert_eq!(format!("{key:?}"), format!("JwtKey {{ kid: KeyId({:?}), .. }}", key.kid().as_str()));
}

#[test]
fn a_key_survives_its_encoding_and_keeps_its_name() {
    let key = JwtKey::generate().unwrap();
    let again = JwtKey::from_pkcs8(key.pkcs8()).unwrap();
    assert_eq!((key.kid(), key.authority(None)), (again.kid(), again.authority(None)));
    assert_eq!(key.kid().as_str().len(), 43);
    assert_ne!(key.kid(), JwtKey::generate().unwrap().kid());
    let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    for der in [&[][..], &key.pkcs8()[1..], &[key.pkcs8(), &[0]].concat(), p384.serialized_der()] {
        assert_eq!(JwtKey::from_pkcs8(der).unwrap_err(), crate::InvalidKey);
    }
}

#[test]
fn an_authority_survives_the_wire() {
    let key = JwtKey::generate().unwrap();
    let authority = key.authority(Some(system(NOW)));
    let (kid, spki) = (authority.kid().as_str().parse().unwrap(), authority.spki_der());
    assert_eq!(JwtAuthority::from_spki(kid, &spki, None, authority.not_after()).unwrap(), authority);
    let kid: KeyId = "k".parse().unwrap();
    for (der, error) in [
        (&spki[..spki.len() - 1], InvalidPublicKey::Malformed),
        (&[spki.as_slice(), &[0]].concat(), InvalidPublicKey::Malformed),
        (&[&[0x30, 0x81], &spki[1..]].concat(), InvalidPublicKey::Malformed),
        (&[], InvalidPublicKey::Malformed),
    ] {
        assert_eq!(JwtAuthority::from_spki(kid.clone(), der, None, None).unwrap_err(), error);
    }
    // The algorithm, then the point by its first coordinate alone.
    let compressed = [&spki[2..23], &crate::der::tlv(0x03, &[&[0, 2], &spki[27..59]].concat())].concat();
    let compressed = crate::der::tlv(0x30, &compressed);
    assert!(JwtAuthority::from_spki(kid.clone(), &compressed, None, None).is_err());
    let wrong = Some(JwtAlgorithm::Rs256);
    let error = JwtAuthority::from_spki(kid, &spki, wrong, None).unwrap_err();
    assert_eq!(error.to_string(), "algorithm RS256 does not fit the key");
}

#[test]
fn a_key_id_is_neither_empty_nor_endless() {
    assert_eq!("".parse::<KeyId>(), Err(InvalidKeyId { bytes: 0 }));
    assert!("k".repeat(256).parse::<KeyId>().is_ok());
    assert_eq!("k".repeat(257).parse::<KeyId>(), Err(InvalidKeyId { bytes: 257 }));
    assert_eq!("a\u{1b}".parse::<KeyId>().unwrap().to_string(), "a\\u{1b}");
}

/// RFC 7638 §3.1.
#[test]
fn a_thumbprint_is_that_of_the_standard_s_example() {
    let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3\
             oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdA\
             ZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-\
             kEgU8awapJzKnqDKgw";
    let key = PublicKey::rsa(&URL_SAFE_NO_PAD.decode(n).unwrap(), &[1, 0, 1]).unwrap();
    assert_eq!(key.thumbprint(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    assert_eq!(PublicKey::from_spki(&key.spki()).unwrap(), key);
}

/// RFC 7515 appendix A.3.
#[test]
fn the_standard_s_example_of_es256_verifies() {
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    let (x, y) = ("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0");
    let key = PublicKey::ec(Curve::P256, &decode(x), &decode(y)).unwrap();
    let authority = JwtAuthority::new("k".parse().unwrap(), key, None, None).unwrap();
    let message = "eyJhbGciOiJFUzI1NiJ9.\
                   eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let signature = decode("DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q");
    assert!(authority.verifies(message.as_bytes(), &signature));
    assert!(!authority.verifies(message.trim_end_matches('Q').as_bytes(), &signature));
}

fn foreign() -> (JwtBundles, HashMap<String, String>) {
    let parsed = BundleDocument::parse(include_bytes!("../../fixtures/jose/bundle.json"), &td("example.org")).unwrap();
    let tokens = serde_json::from_slice(include_bytes!("../../fixtures/jose/tokens.json")).unwrap();
    (JwtBundles::new([parsed.document.jwt().clone()]), tokens)
}

#[test]
fn tokens_of_another_implementation_are_valid_in_all_algorithms_but_es512() {
    let (bundles, tokens) = foreign();
    assert_eq!(tokens.len(), 9);
    for (alg, token) in tokens {
        let result = validate_jwt(&token, &audience("y"), &bundles, system(NOW), Duration::ZERO);
        if alg == "ES512" {
            assert_eq!(result.unwrap_err(), JwtRefused::Algorithm(InvalidJwtAlgorithm::Es512));
        } else {
            let valid = result.unwrap();
            assert_eq!((valid.all()["alg"].as_str(), valid.id().path()), (Some(alg.as_str()), "/x"));
        }
    }
}

/// The same RSA key stands in the bundle six times, each time for another algorithm.
#[test]
fn a_key_verifies_the_algorithm_that_it_is_for_and_no_other() {
    let (bundles, tokens) = foreign();
    for (alg, token) in tokens.iter().filter(|(alg, _)| *alg != "ES512") {
        for other in tokens.keys().filter(|other| *other != "ES512" && *other != alg) {
            let header = json!({ "alg": alg, "kid": other });
            let (_, rest) = token.split_once('.').unwrap();
            let token = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header.to_string()));
            let error = validate_jwt(&token, &audience("y"), &bundles, system(NOW), Duration::ZERO).unwrap_err();
            assert!(matches!(error, JwtRefused::OtherAlgorithm { .. }), "{error:?}");
        }
    }
}

#[test]
fn openssl_verifies_a_signed_token() {
    let key = JwtKey::generate().unwrap();
    let (id, audiences) = (workload(ID), [audience("y")]);
    let svid = unsigned(&id, &audiences).sign(&key).unwrap();
    let (message, signature) = svid.token().rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let (r, s) = signature.split_at(32);
    // ECDSA-Sig-Value (RFC 3279 §2.2.3) is what OpenSSL reads.
    let der = crate::der::tlv(0x30, &[crate::der::unsigned(r), crate::der::unsigned(s)].concat());
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        std::fs::File::create(&path).unwrap().write_all(bytes).unwrap();
        path
    };
    let (spki, der) = (file("key.der", &key.authority(None).spki_der()), file("signature", &der));
    let verify = |message: &[u8]| {
        let mut openssl = Command::new("openssl");
        openssl.args(["dgst", "-sha256", "-keyform", "DER", "-verify"]).arg(&spki).arg("-signature").arg(&der);
        openssl.arg(file("message", message)).output().unwrap().status.success()
    };
    assert!(verify(message.as_bytes()));
    assert!(!verify(&message.as_bytes()[1..]));
}

#[test]
fn only_the_compact_serialisation_is_read() {
    let issuer = Issuer::new();
    let token = issuer.with_claims(&claims());
    assert!(issuer.check(&token).is_ok());
    let parts: Vec<_> = token.split('.').collect();
    let flattened = json!({ "protected": parts[0], "payload": parts[1], "signature": parts[2] });
    let general = json!({ "payload": parts[1], "signatures": [{ "protected": parts[0], "signature": parts[2] }] });
    for text in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        parts[0].to_owned(),
        parts[..2].join("."),
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.{}", parts[2]),
        format!("{token}="),
        format!("{token}\n"),
        format!(" {token}"),
        format!("Bearer {token}"),
        format!("{}..{}", parts[0], parts[2]),
        flattened.to_string(),
        general.to_string(),
    ] {
        let error = issuer.check(&text).unwrap_err();
        assert!(matches!(error, JwtRefused::NotCompact | JwtRefused::Json { .. }), "{text}: {error:?}");
    }
    // Detached and empty signatures.
    for signature in ["", "AA", &"A".repeat(86)] {
        let error = issuer.check(&format!("{}.{}.{signature}", parts[0], parts[1])).unwrap_err();
        assert!(matches!(error, JwtRefused::Signature { .. }), "{error:?}");
    }
}

#[test]
fn a_token_that_is_too_long_is_not_read() {
    let issuer = Issuer::new();
    let error = issuer.check(&"a".repeat(MAX_TOKEN_BYTES + 1)).unwrap_err();
    assert_eq!(error, JwtRefused::TooLarge { bytes: MAX_TOKEN_BYTES + 1 });
    assert_eq!(issuer.check(&"a".repeat(MAX_TOKEN_BYTES)), Err(JwtRefused::NotCompact));
}

/// JWT-SVID §4: before anything else is looked at, so nothing else has to be right.
#[test]
fn another_algorithm_is_refused_before_anything_else() {
    let issuer = Issuer::new();
    let algorithms = [
        json!("none"),
        json!("None"),
        json!("HS256"),
        json!("EdDSA"),
        json!("es256"),
        json!(""),
        json!(["ES256"]),
        json!({ "ES256": 1 }),
        json!(256),
        json!(null),
    ];
    for alg in algorithms.into_iter().map(Some).chain([None]) {
        let header = json!({ "crit": ["exp"], "typ": "at+jwt", "kid": 1 });
        let token = issuer.signed(&changed(header, "alg", alg.clone()).to_string(), "not even JSON");
        let error = issuer.check(&token).unwrap_err();
        assert!(matches!(error, JwtRefused::Algorithm(InvalidJwtAlgorithm::Forbidden { .. })), "{alg:?}: {error:?}");
    }
    let token = issuer.with_header_member("alg", Some(json!("ES512")));
    assert_eq!(issuer.check(&token), Err(JwtRefused::Algorithm(InvalidJwtAlgorithm::Es512)));
}

#[test]
fn the_public_key_is_no_secret_for_a_mac() {
    let issuer = Issuer::new();
    let header = changed(issuer.header(), "alg", Some(json!("HS256")));
    let message = [header, claims()].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let secret = hmac::Key::new(hmac::HMAC_SHA256, &issuer.key.authority(None).spki_der());
    let tag = URL_SAFE_NO_PAD.encode(hmac::sign(&secret, message.as_bytes()));
    let error = issuer.check(&format!("{message}.{tag}")).unwrap_err();
    assert_eq!(error.to_string(), "token's alg is refused: `HS256` is no algorithm of JWT-SVIDs");
}

#[test]
fn another_header_is_refused_even_if_it_is_signed() {
    let issuer = Issuer::new();
    for name in ["crit", "jwk", "jku", "x5u", "x5c", "x5t", "x5t#S256", "b64", "cty", "zip", "enc", "Alg", "x"] {
        let token = issuer.with_header_member(name, Some(json!("x")));
        assert_eq!(issuer.check(&token), Err(JwtRefused::Header { name: name.to_owned() }));
    }
}

#[test]
fn a_type_is_jwt_jose_or_not_named() {
    let issuer = Issuer::new();
    for typ in [None, Some(json!("JWT")), Some(json!("JOSE"))] {
        assert!(issuer.check(&issuer.with_header_member("typ", typ)).is_ok());
    }
    for typ in
        ["wit+jwt", "at+jwt", "jwt", "JWT ", ""].map(Value::from).into_iter().chain([json!(null), json!(["JWT"])])
    {
        assert_eq!(issuer.check(&issuer.with_header_member("typ", Some(typ))), Err(JwtRefused::Type));
    }
}

#[test]
fn a_token_names_its_key() {
    let issuer = Issuer::new();
    for kid in [None, Some(json!(null)), Some(json!("")), Some(json!(1)), Some(json!("k".repeat(257)))] {
        assert_eq!(issuer.check(&issuer.with_header_member("kid", kid)), Err(JwtRefused::NoKeyId));
    }
    let upper = issuer.key.kid().as_str().to_uppercase();
    let error = issuer.check(&issuer.with_header_member("kid", Some(json!(upper)))).unwrap_err();
    assert!(matches!(error, JwtRefused::UnknownKey { .. }), "{error:?}");
}

#[test]
fn a_member_that_is_named_twice_is_refused() {
    let issuer = Issuer::new();
    let (header, claims) = (issuer.header().to_string(), claims().to_string());
    let twice = |object: &str, member: &str| object.replacen('{', &format!("{{{member},"), 1);
    for (header, claims, part) in [
        (twice(&header, r#""alg":"ES256""#), claims.clone(), "header"),
        (twice(&header, r#""kid":"x""#), claims.clone(), "header"),
        (header.clone(), twice(&claims, r#""sub":"spiffe://a.test/admin""#), "claims"),
        (header.clone(), twice(&claims, r#""\u0065xp":9999999999"#), "claims"),
        (header.clone(), twice(&claims, r#""x":{"y":1,"y":2}"#), "claims"),
        (header.clone(), "[]".to_owned(), "claims"),
        (header.clone(), format!("{claims}{claims}"), "claims"),
        ("null".to_owned(), claims.clone(), "header"),
    ] {
        let error = issuer.check(&issuer.signed(&header, &claims)).unwrap_err();
        assert!(matches!(error, JwtRefused::Json { part: found, .. } if found == part), "{error:?}");
    }
}

#[test]
fn a_subject_is_the_id_of_a_workload() {
    let issuer = Issuer::new();
    assert_eq!(issuer.check(&issuer.with_claim("sub", None)), Err(JwtRefused::NoSubject));
    for sub in [json!(null), json!(1), json!([ID])] {
        assert_eq!(issuer.check(&issuer.with_claim("sub", Some(sub))), Err(JwtRefused::Claim { claim: "sub" }));
    }
    for sub in ["", "x", "https://a.test/x", "spiffe://A.test/x", "spiffe://a.test/x/", "spiffe://a.test/../x"] {
        let error = issuer.check(&issuer.with_claim("sub", Some(json!(sub)))).unwrap_err();
        assert!(matches!(error, JwtRefused::Subject(_)), "{sub}: {error:?}");
    }
    let long = format!("spiffe://a.test/{}", "x".repeat(2048));
    let error = issuer.check(&issuer.with_claim("sub", Some(json!(long)))).unwrap_err();
    assert!(matches!(error, JwtRefused::Subject(InvalidSpiffeId::TooLong { .. })), "{error:?}");
    let error = issuer.check(&issuer.with_claim("sub", Some(json!("spiffe://a.test")))).unwrap_err();
    assert_eq!(error, JwtRefused::SubjectWithoutPath { id: workload("spiffe://a.test") });
}

#[test]
fn a_subject_is_vouched_for_by_its_own_trust_domain_alone() {
    let (ours, theirs) = (Issuer::new(), JwtKey::generate().unwrap());
    let bundle = |name: &str, key: &JwtKey| JwtBundle::new(td(name), [key.authority(None)]).unwrap();
    let bundles = JwtBundles::new([bundle("a.test", &ours.key), bundle("b.test", &theirs)]);
    let check = |token: &str| validate_jwt(token, &audience("y"), &bundles, system(NOW), Duration::ZERO);
    let claim = |sub: &str| ours.with_claim("sub", Some(json!(sub)));
    assert!(check(&claim(ID)).is_ok());
    let kid = ours.key.kid().clone();
    let error = JwtRefused::UnknownKey { trust_domain: td("b.test"), kid };
    assert_eq!(check(&claim("spiffe://b.test/x")), Err(error));
    let unknown = JwtRefused::UnknownTrustDomain { trust_domain: td("c.test") };
    assert_eq!(check(&claim("spiffe://c.test/x")), Err(unknown));
    // A key of the same name in the other trust domain does not help either.
    let same_name = JwtAuthority::from_spki(ours.key.kid().clone(), &theirs.authority(None).spki_der(), None, None);
    let bundles = JwtBundles::new([JwtBundle::new(td("b.test"), [same_name.unwrap()]).unwrap()]);
    let forged = claim("spiffe://b.test/x");
    let error = validate_jwt(&forged, &audience("y"), &bundles, system(NOW), Duration::ZERO).unwrap_err();
    assert!(matches!(error, JwtRefused::Signature { .. }), "{error:?}");
}

#[test]
fn the_first_bundle_of_a_trust_domain_counts() {
    let (ours, theirs) = (Issuer::new(), JwtKey::generate().unwrap());
    let bundle = |key: &JwtKey| JwtBundle::new(td("a.test"), [key.authority(None)]).unwrap();
    let bundles = JwtBundles::new([bundle(&ours.key), bundle(&theirs)]);
    assert_eq!(bundles.get(&td("a.test")), Some(&bundle(&ours.key)));
    assert_eq!(bundles.iter().count(), 1);
}

#[test]
fn a_bundle_has_one_key_of_a_name() {
    let (a, b) = (JwtKey::generate().unwrap().authority(None), JwtKey::generate().unwrap().authority(None));
    let bundle = JwtBundle::new(td("a.test"), [a.clone(), b.clone(), a.clone()]).unwrap();
    assert_eq!(bundle.authorities(), [a.clone(), b.clone()]);
    assert_eq!(bundle.authority(b.kid()), Some(&b));
    let same_name = JwtAuthority::from_spki(a.kid().clone(), &b.spki_der(), None, None).unwrap();
    let error = JwtBundle::new(td("a.test"), [a.clone(), same_name]).unwrap_err();
    assert_eq!(error, InvalidJwtBundle::KeyIdTwice { trust_domain: td("a.test"), kid: a.kid().clone() });
    let many = |count: usize| {
        let name =
            |n: usize| JwtAuthority::from_spki(n.to_string().parse().unwrap(), &a.spki_der(), None, None).unwrap();
        JwtBundle::new(td("a.test"), (0..count).map(name))
    };
    assert!(many(MAX_JWT_AUTHORITIES).is_ok());
    assert!(matches!(many(MAX_JWT_AUTHORITIES + 1), Err(InvalidJwtBundle::TooMany { .. })));
}

#[test]
fn a_key_that_ended_verifies_nothing() {
    let issuer = Issuer::new();
    let authority = issuer.key.authority(Some(system(NOW)));
    let bundles = JwtBundles::new([JwtBundle::new(td("a.test"), [authority]).unwrap()]);
    let token = issuer.with_claims(&claims());
    let check = |now: u64, leeway: u64| {
        validate_jwt(&token, &audience("y"), &bundles, system(now), Duration::from_secs(leeway)).map(drop)
    };
    assert_eq!(check(NOW - 1, 1), Ok(()));
    let ended = Err(JwtRefused::UnknownKey { trust_domain: td("a.test"), kid: issuer.key.kid().clone() });
    assert_eq!(check(NOW, 0), ended);
    assert_eq!(check(NOW + 9, 10), Ok(()));
    assert_eq!(check(NOW + 10, 10), ended);
}

#[test]
fn an_audience_is_there_and_names_the_validator_exactly() {
    let issuer = Issuer::new();
    for aud in [json!("y"), json!(["y"]), json!(["x", "y"]), json!(["y", "y"])] {
        assert!(issuer.check(&issuer.with_claim("aud", Some(aud))).is_ok());
    }
    let other = JwtRefused::OtherAudience { id: workload(ID), audience: audience("y") };
    for aud in [json!("x"), json!("Y"), json!("y "), json!("yy"), json!(["x", "Y"]), json!("y/")] {
        assert_eq!(issuer.check(&issuer.with_claim("aud", Some(aud))), Err(other.clone()));
    }
    for aud in [None, Some(json!([]))] {
        assert_eq!(issuer.check(&issuer.with_claim("aud", aud)), Err(JwtRefused::NoAudience));
    }
    for aud in [
        json!(""),
        json!([""]),
        json!(["y", ""]),
        json!(null),
        json!(1),
        json!({ "y": 1 }),
        json!(["y", 1]),
        json!([["y"]]),
    ] {
        let error = issuer.check(&issuer.with_claim("aud", Some(aud.clone()))).unwrap_err();
        assert_eq!(error, JwtRefused::Claim { claim: "aud" }, "{aud}");
    }
    let many = issuer.with_claim("aud", Some(json!(vec!["y"; 17])));
    assert_eq!(issuer.check(&many), Err(JwtRefused::TooManyAudiences { count: 17 }));
}

#[test]
fn a_token_expires() {
    let issuer = Issuer::new();
    assert_eq!(issuer.check(&issuer.with_claim("exp", None)), Err(JwtRefused::NoExpiry));
    for exp in [json!(null), json!("1767229200"), json!(-1), json!(-0.5), json!([NOW]), json!(1e300), json!(u64::MAX)] {
        let error = issuer.check(&issuer.with_claim("exp", Some(exp.clone()))).unwrap_err();
        assert_eq!(error, JwtRefused::Claim { claim: "exp" }, "{exp}");
    }
    let token = issuer.with_claim("exp", Some(json!(NOW)));
    let expired = Err(JwtRefused::Expired { id: workload(ID) });
    assert!(issuer.check_at(&issuer.with_claim("exp", Some(json!(NOW + 1))), NOW, 0).is_ok());
    assert_eq!(issuer.check_at(&token, NOW, 0), expired);
    assert!(issuer.check_at(&token, NOW, 1).is_ok());
    assert_eq!(issuer.check_at(&token, NOW + 60, 60), expired);
    // More leeway than the limit is cut.
    assert!(issuer.check_at(&token, NOW + 119, u64::MAX).is_ok());
    assert_eq!(issuer.check_at(&token, NOW + 120, u64::MAX), expired);
    assert_eq!(issuer.check(&issuer.with_claim("exp", Some(json!(0)))), expired);
    let last = issuer.with_claim("exp", Some(json!(MAX_NUMERIC_DATE)));
    assert!(issuer.check(&last).is_ok());
}

/// RFC 7519 §2: a NumericDate may have a fraction. It never lengthens a token's life.
#[test]
fn a_date_with_a_fraction_is_rounded_down() {
    let issuer = Issuer::new();
    let at = |exp: f64| issuer.check(&issuer.with_claim("exp", Some(json!(exp))));
    assert_eq!(at(1_767_225_601.9).unwrap().expires_at(), system(NOW + 1));
    assert_eq!(at(1_767_225_600.9), Err(JwtRefused::Expired { id: workload(ID) }));
    assert_eq!(at(1.9e9).unwrap().expires_at(), system(1_900_000_000));
}

#[test]
fn a_token_is_not_valid_before_its_time() {
    let issuer = Issuer::new();
    for claim in ["iat", "nbf"] {
        let with = |time: u64| issuer.with_claim(claim, Some(json!(time)));
        assert!(issuer.check(&with(NOW)).is_ok());
        assert_eq!(issuer.check(&with(NOW + 1)), Err(JwtRefused::NotYetValid { id: workload(ID), claim }));
        assert!(issuer.check_at(&with(NOW + 10), NOW, 10).is_ok());
        assert!(issuer.check_at(&with(NOW + 11), NOW, 10).is_err());
        assert!(issuer.check_at(&with(NOW + 121), NOW, HOUR).is_err());
        for time in [json!(null), json!("1"), json!(-1)] {
            let token = issuer.with_claim(claim, Some(time));
            assert_eq!(issuer.check(&token), Err(JwtRefused::Claim { claim }));
        }
    }
    assert_eq!(issuer.check(&issuer.with_claim("iat", None)).unwrap().issued_at(), None);
    let before_1970 = system(0) - Duration::from_secs(1);
    let token = issuer.with_claim("iat", None);
    assert!(validate_jwt(&token, &audience("y"), &issuer.bundles, before_1970, Duration::ZERO).is_ok());
}

#[test]
fn all_claims_are_returned_as_they_stand() {
    let issuer = Issuer::new();
    let mut all = claims();
    all["roles"] = json!({ "deep": [1, 2.5, null, true, "ä"] });
    let valid = issuer.check(&issuer.with_claims(&all)).unwrap();
    assert_eq!(Value::Object(valid.all().clone()), all);
    assert!(!format!("{valid:?}").contains("roles"));
}

#[test]
fn a_refusal_says_nothing_that_should_not_be_logged() {
    let issuer = Issuer::new();
    let texts = [
        issuer.with_claim("sub", Some(json!("\u{1b}[31m\n"))),
        issuer.with_header_member("\u{1b}", Some(json!(1))),
        issuer.with_header_member("alg", Some(json!("\u{1b}".repeat(5000)))),
        issuer.with_header_member("kid", Some(json!("\u{1b}\n"))),
    ];
    for token in texts {
        let error = issuer.check(&token).unwrap_err().to_string();
        assert!(!error.contains(char::is_control) && error.len() < 3000, "{error:?}");
        assert!(token.split('.').all(|part| !error.contains(part)), "{error}");
    }
}

#[test]
fn the_head_of_an_audit_log_is_signed_for_itself_alone() {
    let key = JwtKey::generate().unwrap();
    let (authority, hash) = (key.authority(None), [7; 32]);
    let signature = key.sign_audit_head(5, &hash).unwrap();
    assert_eq!(signature.len(), 64);
    assert!(authority.verifies_audit_head(5, &hash, &signature));
    assert!(!authority.verifies_audit_head(6, &hash, &signature));
    assert!(!authority.verifies_audit_head(5, &[8; 32], &signature));
    assert!(!authority.verifies_audit_head(5, &hash, &signature[1..]));
    assert!(!JwtKey::generate().unwrap().authority(None).verifies_audit_head(5, &hash, &signature));
}

/// SPIFFE-ID §3.2: what a token says lies inside what is signed.
#[test]
fn a_token_that_was_changed_anywhere_is_refused() {
    let issuer = Issuer::new();
    let token = issuer.with_claims(&claims());
    for at in 0..token.len() {
        for bit in 0..7 {
            let mut changed = token.clone().into_bytes();
            changed[at] ^= 1 << bit;
            let changed = String::from_utf8(changed).unwrap();
            assert!(issuer.check(&changed).is_err(), "byte {at}, bit {bit}");
        }
    }
}

proptest! {
    #[test]
    fn what_is_signed_is_valid_for_its_audience_until_it_expires(
        path in "(/[a-zA-Z0-9._-]{0,5}[a-z]){1,4}",
        audiences in proptest::collection::vec("[ -~ä]{1,20}", 1..5),
        lifetime in 1..100_000_u64,
        passed in 0..200_000_u64,
    ) {
        let issuer = Issuer::new();
        let id = workload(&format!("spiffe://a.test{path}"));
        let audiences: Vec<_> = audiences.iter().map(|text| audience(text)).collect();
        let token = UnsignedJwt { expires_at: system(NOW + lifetime), ..unsigned(&id, &audiences) };
        let svid = token.sign(&issuer.key).unwrap();
        for audience in &audiences {
            let result = validate_jwt(svid.token(), audience, &issuer.bundles, system(NOW + passed), Duration::ZERO);
            prop_assert_eq!(result.is_ok(), passed < lifetime);
        }
    }

    #[test]
    fn arbitrary_text_is_refused_and_nothing_panics(token in "[A-Za-z0-9_.=-]{0,300}") {
        prop_assert!(Issuer::new().check(&token).is_err());
    }

    #[test]
    fn a_date_is_read_if_and_only_if_it_can_be_expressed(exp in any::<f64>()) {
        let issuer = Issuer::new();
        let refused = issuer.check(&issuer.with_claim("exp", Some(json!(exp))));
        let readable = (0.0..253_402_300_800.0).contains(&exp);
        prop_assert_eq!(refused == Err(JwtRefused::Claim { claim: "exp" }), !readable);
    }
}
