//! Arbitrary bytes as the bundle document of a trust domain.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_identity::{BundleDocument, MAX_DOCUMENT_KEYS, ParsedDocument, parse_trust_domain};

fuzz_target!(|json: &[u8]| {
    let trust_domain = parse_trust_domain("example.org").expect("a trust domain");
    let Ok(ParsedDocument { document, ignored }) = BundleDocument::parse(json, &trust_domain) else {
        return;
    };
    let keys = document.x509().authorities().len() + document.jwt().authorities().len();
    assert!(keys + ignored.len() <= MAX_DOCUMENT_KEYS);
    for key in &ignored {
        assert!(!key.to_string().contains(char::is_control), "a log line is broken");
    }
    let Ok(written) = document.to_json() else { return };
    let again = BundleDocument::parse(written.as_bytes(), &trust_domain).expect("what was written is read");
    assert!(again.ignored.is_empty(), "{:?}", again.ignored);
    assert_eq!(again.document.to_json().as_deref(), Ok(written.as_str()));
    for set in [document.jwt().to_workload_jwks(), document.jwt().to_oidc_jwks()] {
        let set = BundleDocument::parse(set.as_bytes(), &trust_domain).expect("a key set is a JWK Set");
        assert!(set.document.is_empty(), "a key counts without the use that SPIFFE gives it");
    }
});
