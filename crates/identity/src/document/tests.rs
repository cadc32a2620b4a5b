//! Bundle documents against the standard's rules, another implementation, and damaged ones.

use std::time::Duration;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    Audience, InvalidAuthority, InvalidJwtAlgorithm, InvalidPublicKey, JwtBundles, JwtKey, JwtRefused, TrustBundles,
    UnsignedJwt, parse_spiffe_id,
    test_ca::{NOW, TestCa, system, td},
    validate_jwt,
};

const FOREIGN: &[u8] = include_bytes!("../../fixtures/jose/bundle.json");

fn read(document: &Value) -> Result<ParsedDocument, InvalidDocument> {
    BundleDocument::parse(document.to_string().as_bytes(), &td("a.test"))
}

fn read_keys(keys: &[Value]) -> ParsedDocument {
    read(&json!({ "keys": keys })).unwrap()
}

fn x509_key(ca: &TestCa) -> Value {
    json!({ "kty": "EC", "use": "x509-svid", "x5c": [STANDARD.encode(ca.certificate())] })
}

fn jwt_key(key: &JwtKey) -> Value {
    let bundle = JwtBundle::new(td("a.test"), [key.authority(None)]).unwrap();
    let set: Value = serde_json::from_str(&bundle.to_workload_jwks()).unwrap();
    with(&set["keys"][0], "use", json!("jwt-svid"))
}

fn with(key: &Value, name: &str, value: Value) -> Value {
    let mut key = key.clone();
    key[name] = value;
    key
}

fn without(key: &Value, name: &str) -> Value {
    let mut key = key.clone();
    key.as_object_mut().unwrap().remove(name);
    key
}

/// The reason for which this key alone is passed over; the key beside it counts.
fn ignored(key: &Value) -> IgnoredReason {
    let good = jwt_key(&JwtKey::generate().unwrap());
    let parsed = read_keys(&[key.clone(), good]);
    assert_eq!((parsed.document.jwt().authorities().len(), parsed.document.x509().authorities().len()), (1, 0));
    let [ignored] = parsed.ignored.as_slice() else { panic!("{:?}", parsed.ignored) };
    assert_eq!(ignored.index(), 0);
    ignored.reason().clone()
}

fn document(x509: &[&TestCa], jwt: &[&JwtKey]) -> BundleDocument {
    let x509 = Bundle::new(td("a.test"), x509.iter().map(|ca| ca.certificate().clone())).unwrap();
    let jwt = JwtBundle::new(td("a.test"), jwt.iter().map(|key| key.authority(None))).unwrap();
    BundleDocument::new(x509, jwt, Some(7), Some(300)).unwrap()
}

#[test]
fn a_document_holds_exactly_what_the_standard_names() {
    let (ca, key) = (TestCa::root("a.test"), JwtKey::generate().unwrap());
    let text = document(&[&ca], &[&key]).to_json().unwrap();
    let written: Value = serde_json::from_str(&text).unwrap();
    let (x, y) = (&written["keys"][0]["x"], &written["keys"][0]["y"]);
    let x5c = STANDARD.encode(ca.certificate());
    let point = [x, y].map(|text| URL_SAFE_NO_PAD.decode(text.as_str().unwrap()).unwrap()).concat();
    assert!(ca.certificate().windows(64).any(|window| window == point));
    let jwt = jwt_key(&key);
    let expected = json!({
        "spiffe_sequence": 7,
        "spiffe_refresh_hint": 300,
        "keys": [
            { "kty": "EC", "use": "x509-svid", "crv": "P-256", "x": x, "y": y, "x5c": [x5c] },
            { "kty": "EC", "use": "jwt-svid", "kid": key.kid().as_str(), "crv": "P-256", "x": jwt["x"], "y": jwt["y"] },
        ],
    });
    assert_eq!(written, expected);
    assert!(
        text.starts_with(r#"{"spiffe_sequence":7,"spiffe_refresh_hint":300,"keys":[{"kty":"EC","use":"x509-svid","#)
    );
}

#[test]
fn equal_content_is_equal_text() {
    let (cas, keys) = (["a", "b", "c"].map(|_| TestCa::root("a.test")), [0, 1, 2].map(|_| JwtKey::generate().unwrap()));
    let forth = document(&[&cas[0], &cas[1], &cas[2]], &[&keys[0], &keys[1], &keys[2]]);
    let back = document(&[&cas[2], &cas[1], &cas[0]], &[&keys[1], &keys[2], &keys[0]]);
    assert_eq!(forth.to_json(), back.to_json());
    let text = forth.to_json().unwrap();
    let ParsedDocument { document, ignored } = BundleDocument::parse(text.as_bytes(), &td("a.test")).unwrap();
    assert_eq!((document.to_json().unwrap(), ignored), (text, Vec::new()));
}

#[test]
fn the_optional_members_are_left_out_if_they_are_not_known() {
    let document =
        BundleDocument::new(Bundle::empty(td("a.test")), JwtBundle::empty(td("a.test")), None, None).unwrap();
    assert_eq!(document.to_json().unwrap(), r#"{"keys":[]}"#);
    assert!(document.is_empty());
}

#[test]
fn one_document_is_of_one_trust_domain() {
    let error = BundleDocument::new(Bundle::empty(td("a.test")), JwtBundle::empty(td("b.test")), None, None);
    assert_eq!(error.unwrap_err(), OtherTrustDomain { x509: td("a.test"), jwt: td("b.test") });
}

#[test]
fn a_document_of_another_implementation_is_read_and_written() {
    let ParsedDocument { document, ignored } = BundleDocument::parse(FOREIGN, &td("example.org")).unwrap();
    // P-256, P-384, P-521, RSA, Ed25519; and all algorithms of JWT-SVIDs but ES512.
    assert_eq!((document.x509().authorities().len(), document.jwt().authorities().len()), (5, 8));
    assert_eq!((document.sequence(), document.refresh_hint_seconds()), (Some(u64::MAX), Some(300)));
    let [es512] = ignored.as_slice() else { panic!("{ignored:?}") };
    assert_eq!(es512.to_string(), "key 7 (`ES512`) is ignored: `ES512` is not supported: use ES256, ES384, or RSA");

    // What is written says of each key the same as the other implementation did.
    let theirs: Value = serde_json::from_slice(FOREIGN).unwrap();
    let ours: Value = serde_json::from_str(&document.to_json().unwrap()).unwrap();
    let ours = ours["keys"].as_array().unwrap();
    assert_eq!(ours.len(), 13);
    for key in ours {
        let their = theirs["keys"]
            .as_array()
            .unwrap()
            .iter()
            .find(|their| their.get("kid") == key.get("kid") && their.get("x5c") == key.get("x5c"));
        let mut expected = their.unwrap().clone();
        // `alg` is left out where the key says it.
        if ["ES256", "ES384", "RS256"].map(Value::from).contains(&expected["alg"]) {
            expected = without(&expected, "alg");
        }
        assert_eq!(*key, expected);
    }
}

#[test]
fn what_is_no_bundle_document_is_refused_as_a_whole() {
    let json = |text: &str| BundleDocument::parse(text.as_bytes(), &td("a.test")).unwrap_err();
    for text in ["", "<html>", "null", "[]", "{", r#"{"keys":[]"#, r#"{"keys":[],"keys":[]}"#, r#"{"keys":[]} x"#] {
        assert!(matches!(json(text), InvalidDocument::Json(_)), "{text}");
    }
    assert!(matches!(json(r#"{"keys":[{"a":1,"a":2}]}"#), InvalidDocument::Json(_)));
    for text in ["{}", r#"{"spiffe_sequence":1}"#, r#"{"Keys":[]}"#] {
        assert_eq!(json(text), InvalidDocument::NoKeys);
    }
    for text in [r#"{"keys":null}"#, r#"{"keys":{}}"#, r#"{"keys":"x"}"#] {
        assert_eq!(json(text), InvalidDocument::Keys);
    }
    for wrong in ["1.0", "-1", "\"1\"", "null", "18446744073709551616", "1e3"] {
        assert_eq!(json(&format!(r#"{{"keys":[],"spiffe_sequence":{wrong}}}"#)), InvalidDocument::Sequence);
        assert_eq!(json(&format!(r#"{{"keys":[],"spiffe_refresh_hint":{wrong}}}"#)), InvalidDocument::RefreshHint);
    }
}

#[test]
fn a_document_has_a_limit() {
    let text = format!("{}{}", r#"{"keys":[]}"#, " ".repeat(MAX_DOCUMENT_BYTES - 11));
    assert!(BundleDocument::parse(text.as_bytes(), &td("a.test")).is_ok());
    let error = BundleDocument::parse(format!("{text} ").as_bytes(), &td("a.test")).unwrap_err();
    assert_eq!(error, InvalidDocument::TooLarge { bytes: MAX_DOCUMENT_BYTES + 1 });
    assert_eq!(read_keys(&vec![json!({}); MAX_DOCUMENT_KEYS]).ignored.len(), MAX_DOCUMENT_KEYS);
    let many = json!({ "keys": vec![json!({}); MAX_DOCUMENT_KEYS + 1] });
    assert_eq!(read(&many).unwrap_err(), InvalidDocument::TooManyKeys { count: MAX_DOCUMENT_KEYS + 1 });
}

#[test]
fn members_that_the_standard_does_not_name_are_not_looked_at() {
    let key = with(&jwt_key(&JwtKey::generate().unwrap()), "x-new", json!({ "a": [1] }));
    let parsed = read(&json!({ "keys": [key], "x-new": [[[]]], "spiffe_refresh_hint": u64::MAX })).unwrap();
    assert!(parsed.ignored.is_empty() && !parsed.document.is_empty());
    // A hint that no clock needs is the longest one.
    assert_eq!(parsed.document.refresh_hint_seconds(), Some(u32::MAX));
    assert_eq!(parsed.document.sequence(), None);
}

/// Trust Domain and Bundle §4.1.3.
#[test]
fn a_document_without_usable_keys_is_valid_and_trusts_nobody() {
    let key = JwtKey::generate().unwrap();
    for document in [json!({ "keys": [] }), json!({ "keys": [{ "kty": "EC", "use": "wit-svid" }] })] {
        let document = read(&document).unwrap().document;
        assert!(document.is_empty());
        let id = parse_spiffe_id("spiffe://a.test/x").unwrap();
        let audience: [Audience; 1] = ["y".parse().unwrap()];
        let (issued_at, expires_at) = (system(NOW), system(NOW + 60));
        let token = UnsignedJwt { id: &id, audience: &audience, issued_at, expires_at, jti: None, issuer: None };
        let svid = token.sign(&key).unwrap();
        let bundles = JwtBundles::new([document.jwt().clone()]);
        let error = validate_jwt(svid.token(), &audience[0], &bundles, system(NOW), Duration::ZERO).unwrap_err();
        assert!(matches!(error, JwtRefused::UnknownKey { .. }), "{error:?}");
        let bundles = TrustBundles::new([document.x509().clone()], system(NOW));
        assert!(bundles.get(&td("a.test")).unwrap().authorities().is_empty());
    }
}

/// Trust Domain and Bundle §4.2.1, §4.2.2. A whole federation must not end because one partner tries something new.
#[test]
fn keys_of_an_unknown_type_or_use_are_passed_over() {
    let key = jwt_key(&JwtKey::generate().unwrap());
    let unknown_type = |kty: &str| IgnoredReason::KeyType { kty: kty.to_owned() };
    let unknown_use = |usage: &str| IgnoredReason::Use { usage: usage.to_owned() };
    assert_eq!(ignored(&with(&key, "kty", json!("AKP"))), unknown_type("AKP"));
    assert_eq!(ignored(&with(&key, "kty", json!("ec"))), unknown_type("ec"));
    assert_eq!(ignored(&with(&key, "kty", json!(["EC"]))), unknown_type(""));
    assert_eq!(ignored(&without(&key, "kty")), unknown_type(""));
    for usage in ["wit-svid", "sig", "JWT-SVID", "jwt-svid ", ""] {
        assert_eq!(ignored(&with(&key, "use", json!(usage))), unknown_use(usage));
    }
    assert_eq!(ignored(&with(&key, "use", json!(["jwt-svid"]))), unknown_use(""));
    assert_eq!(ignored(&without(&key, "use")), IgnoredReason::NoUse);
    for key in [json!(null), json!([]), json!("x"), json!(1)] {
        assert_eq!(ignored(&key), IgnoredReason::NotObject);
    }
}

#[test]
fn an_unreadable_jwt_key_does_not_discard_the_others() {
    let key = jwt_key(&JwtKey::generate().unwrap());
    let member = |member| IgnoredReason::Member { member };
    for kid in [json!(null), json!(""), json!(1), json!("k".repeat(257))] {
        assert_eq!(ignored(&with(&key, "kid", kid)), member("kid"));
    }
    assert_eq!(ignored(&without(&key, "kid")), member("kid"));
    assert_eq!(ignored(&without(&key, "crv")), member("crv"));
    for name in ["x", "y"] {
        for value in [json!(null), json!(1), json!("AA=="), json!("A+/A"), json!("A")] {
            assert_eq!(ignored(&with(&key, name, value)), member(name));
        }
        assert_eq!(ignored(&without(&key, name)), member(name));
        let short = InvalidPublicKey::Coordinate { bytes: 1, expected: 32 };
        assert_eq!(ignored(&with(&key, name, json!("AA"))), IgnoredReason::from(short));
    }
    let unsupported = |found: &str| IgnoredReason::from(InvalidPublicKey::Unsupported { found: found.to_owned() });
    assert_eq!(ignored(&with(&key, "crv", json!("P-521"))), unsupported("curve P-521"));
    assert_eq!(ignored(&with(&key, "kty", json!("OKP"))), unsupported("OKP"));
    assert_eq!(ignored(&with(&key, "kty", json!("RSA"))), member("n"));
    let rsa = |n: &[u8], e: &str| json!({ "kty": "RSA", "use": "jwt-svid", "kid": "k", "n": URL_SAFE_NO_PAD.encode(n), "e": e });
    assert_eq!(ignored(&rsa(&[0xff; 128], "AQAB")), unsupported("RSA of 1024 bits"));
    assert_eq!(ignored(&rsa(&[0xff; 1024], "AQAB")), unsupported("RSA of 8192 bits"));
    assert_eq!(ignored(&rsa(&[0xff; 256], "AQ")), unsupported("RSA with exponent 1"));
    assert_eq!(ignored(&rsa(&[], "AQAB")), unsupported("RSA of 0 bits"));
    assert_eq!(ignored(&with(&key, "alg", json!("ES512"))), IgnoredReason::from(InvalidJwtAlgorithm::Es512));
    let forbidden = InvalidJwtAlgorithm::Forbidden { alg: "HS256".to_owned() };
    assert_eq!(ignored(&with(&key, "alg", json!("HS256"))), IgnoredReason::from(forbidden));
    assert_eq!(ignored(&with(&key, "alg", json!(1))), member("alg"));
    let algorithm = "RS256".parse().unwrap();
    assert_eq!(
        ignored(&with(&key, "alg", json!("RS256"))),
        IgnoredReason::from(InvalidPublicKey::Algorithm { algorithm })
    );
}

#[test]
fn a_private_key_that_was_published_does_not_count() {
    let key = JwtKey::generate().unwrap();
    assert_eq!(ignored(&with(&jwt_key(&key), "d", json!("AA"))), IgnoredReason::PrivateKey);
    assert_eq!(ignored(&with(&x509_key(&TestCa::root("a.test")), "d", json!(null))), IgnoredReason::PrivateKey);
}

#[test]
fn of_two_keys_with_one_name_the_first_counts() {
    let (a, b) = (JwtKey::generate().unwrap(), JwtKey::generate().unwrap());
    let second = with(&jwt_key(&b), "kid", json!(a.kid().as_str()));
    let parsed = read_keys(&[jwt_key(&a), jwt_key(&a), second]);
    assert_eq!(parsed.document.jwt().authorities(), [a.authority(None)]);
    let [ignored] = parsed.ignored.as_slice() else { panic!("{:?}", parsed.ignored) };
    assert_eq!(
        (ignored.index(), ignored.kid(), ignored.reason()),
        (2, Some(a.kid().as_str()), &IgnoredReason::KeyIdTwice)
    );
}

#[test]
fn an_rsa_key_may_have_leading_zeros_and_is_written_without() {
    let n = [&[0, 0], [0xff; 256].as_slice()].concat();
    let key = json!({ "kty": "RSA", "use": "jwt-svid", "kid": "k", "n": URL_SAFE_NO_PAD.encode(n), "e": "AAEAAQ" });
    let document = read_keys(&[key]).document;
    let written: Value = serde_json::from_str(&document.to_json().unwrap()).unwrap();
    let n = URL_SAFE_NO_PAD.encode([0xff; 256]);
    assert_eq!(written["keys"][0], json!({ "kty": "RSA", "use": "jwt-svid", "kid": "k", "n": n, "e": "AQAB" }));
}

/// X509-SVID §6.2.
#[test]
fn of_several_certificates_the_first_counts() {
    let (a, b) = (TestCa::root("a.test"), TestCa::root("a.test"));
    let key =
        with(&x509_key(&a), "x5c", json!([STANDARD.encode(a.certificate()), STANDARD.encode(b.certificate()), 1]));
    let document = read_keys(&[key.clone(), key]).document;
    assert_eq!(document.x509().certificates().collect::<Vec<_>>(), [a.certificate()]);
}

/// X509-SVID §6.2: three malformed keys and a good one make one root.
#[test]
fn an_unreadable_certificate_does_not_discard_the_others() {
    let good = x509_key(&TestCa::root("a.test"));
    let x5c = good["x5c"][0].as_str().unwrap().to_owned();
    let member = IgnoredReason::Member { member: "x5c" };
    let url_safe = x5c.replace('+', "-").replace('/', "_").trim_end_matches('=').to_owned();
    for wrong in [json!([]), json!(null), json!(x5c), json!([1]), json!([format!("{x5c}\n")])] {
        assert_eq!(ignored(&with(&good, "x5c", wrong)), member);
    }
    if url_safe != x5c {
        assert_eq!(ignored(&with(&good, "x5c", json!([url_safe]))), member);
    }
    assert_eq!(ignored(&without(&good, "x5c")), member);
    let certificate = |der: &[u8]| {
        let reason = ignored(&with(&good, "x5c", json!([STANDARD.encode(der)])));
        let IgnoredReason::Authority(reason) = reason else { panic!("{reason:?}") };
        reason
    };
    let der = STANDARD.decode(&x5c).unwrap();
    assert!(matches!(certificate(b""), InvalidAuthority::Certificate(_)));
    assert!(matches!(certificate(&der[1..]), InvalidAuthority::Certificate(_)));
    assert!(matches!(certificate(&[der.as_slice(), &[0]].concat()), InvalidAuthority::Certificate(_)));
    assert!(matches!(certificate(&[0x30; 9000]), InvalidAuthority::Certificate(_)));
    let ca = TestCa::root("a.test");
    assert_eq!(certificate(&ca.leaf("/x")[0]), InvalidAuthority::NotAuthority);
    let other = TestCa::root("b.test");
    assert!(matches!(certificate(other.certificate()), InvalidAuthority::OtherTrustDomain { .. }));
    let bad = |x5c: Value| with(&good, "x5c", x5c);
    let parsed = read_keys(&[bad(json!([])), bad(json!(["AA=="])), without(&good, "x5c"), good.clone()]);
    assert_eq!((parsed.document.x509().authorities().len(), parsed.ignored.len()), (1, 3));
}

/// RFC 7517 §4.7.
#[test]
fn a_key_beside_a_certificate_is_the_certificate_s() {
    let (ca, other) = (TestCa::root("a.test"), TestCa::root("a.test"));
    let written = |ca: &TestCa| -> Value {
        let text = document(&[ca], &[]).to_json().unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["keys"][0].clone()
    };
    let (key, theirs) = (written(&ca), written(&other));
    assert!(read_keys(std::slice::from_ref(&key)).ignored.is_empty());
    assert_eq!(ignored(&with(&key, "x", theirs["x"].clone())), IgnoredReason::OtherKey);
    assert_eq!(ignored(&with(&key, "x5c", theirs["x5c"].clone())), IgnoredReason::OtherKey);
    assert_eq!(ignored(&without(&key, "y")), IgnoredReason::Member { member: "y" });
    let rsa = json!({ "kty": "RSA", "use": "x509-svid", "x5c": key["x5c"], "n": "AQ", "e": "AQAB" });
    assert_eq!(ignored(&rsa), IgnoredReason::OtherKey);
    // A `kid` is the publisher's mistake; it names nothing.
    assert!(read_keys(&[with(&key, "kid", json!("k"))]).ignored.is_empty());
}

/// JWT-SVID §6.2: an X.509 authority's key, and one for another purpose, verifies no token.
#[test]
fn keys_for_another_use_verify_no_token() {
    let key = JwtKey::generate().unwrap();
    for usage in ["x509-svid", "wit-svid", "sig"] {
        let parsed = read_keys(&[with(&jwt_key(&key), "use", json!(usage))]);
        assert!(parsed.document.is_empty());
    }
}

#[test]
fn what_is_logged_about_a_key_holds_no_control_characters() {
    let key = json!({ "kty": "\u{1b}[31m", "use": "\n", "kid": "\u{7}" });
    let parsed = read_keys(&[key.clone(), with(&key, "kty", json!("EC"))]);
    let texts: Vec<_> = parsed.ignored.iter().map(ToString::to_string).collect();
    assert_eq!(texts[0], "key 0 (`\\u{7}`) is ignored: unknown key type `\\u{1b}[31m`");
    assert_eq!(texts[1], "key 1 (`\\u{7}`) is ignored: unknown use `\\n`");
}

/// Workload API §6.2.2; OpenID Connect Discovery §3.
#[test]
fn keys_are_published_in_the_form_that_each_reader_expects() {
    let key = JwtKey::generate().unwrap();
    let foreign = BundleDocument::parse(FOREIGN, &td("example.org")).unwrap().document;
    let ps256 = foreign.jwt().authorities().iter().find(|key| key.algorithm().as_str() == "PS256").unwrap();
    let bundle = JwtBundle::new(td("a.test"), [ps256.clone(), key.authority(None)]).unwrap();
    let keys = |text: String| -> Vec<Value> {
        let set: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(set.as_object().unwrap().len(), 1);
        let mut keys = set["keys"].as_array().unwrap().clone();
        keys.sort_by_key(|key| key["kty"].to_string());
        keys
    };
    let workload = keys(bundle.to_workload_jwks());
    assert_eq!(workload[0], without(&jwt_key(&key), "use"));
    assert_eq!((workload[1]["alg"].as_str(), workload[1].get("use")), (Some("PS256"), None));
    let oidc = keys(bundle.to_oidc_jwks());
    for (key, alg) in oidc.iter().zip(["ES256", "PS256"]) {
        assert_eq!((key["use"].as_str(), key["alg"].as_str()), (Some("sig"), Some(alg)));
    }
}

proptest! {
    #[test]
    fn a_document_survives_being_written(
        x509 in 0..4_usize,
        jwt in 0..4_usize,
        sequence: Option<u64>,
        hint: Option<u32>,
    ) {
        let x509: Vec<_> = (0..x509).map(|_| TestCa::root("a.test").certificate().clone()).collect();
        let jwt = (0..jwt).map(|_| JwtKey::generate().unwrap().authority(None));
        let bundles = (Bundle::new(td("a.test"), x509).unwrap(), JwtBundle::new(td("a.test"), jwt).unwrap());
        let text = BundleDocument::new(bundles.0, bundles.1, sequence, hint).unwrap().to_json().unwrap();
        let ParsedDocument { document, ignored } = BundleDocument::parse(text.as_bytes(), &td("a.test")).unwrap();
        prop_assert!(ignored.is_empty());
        prop_assert_eq!((document.sequence(), document.refresh_hint_seconds()), (sequence, hint));
        prop_assert_eq!(document.to_json().unwrap(), text);
    }

    /// Whatever happens to a document on its way, no new key comes into it.
    #[test]
    fn a_damaged_document_is_refused_or_loses_keys(at in 0..8000_usize, byte: u8) {
        let mut damaged = FOREIGN.to_vec();
        prop_assume!(at < damaged.len());
        damaged[at] = byte;
        let whole = BundleDocument::parse(FOREIGN, &td("example.org")).unwrap().document;
        if let Ok(ParsedDocument { document, .. }) = BundleDocument::parse(&damaged, &td("example.org")) {
            prop_assert!(document.x509().authorities().len() <= whole.x509().authorities().len());
            prop_assert!(document.jwt().authorities().len() <= whole.jwt().authorities().len());
        }
    }
}
