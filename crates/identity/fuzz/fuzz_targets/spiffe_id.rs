//! Arbitrary text as a SPIFFE ID and as the name of a trust domain.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_identity::{is_reserved, node_name, parse_spiffe_id, parse_trust_domain};

fuzz_target!(|text: &str| {
    if let Ok(id) = parse_spiffe_id(text) {
        assert_eq!(id.to_string(), text, "an ID is what it prints as");
        assert!(text.len() <= 2048 && text.starts_with("spiffe://"));
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b".-_/:".contains(&b);
        assert!(text.bytes().all(allowed), "an ID holds other characters");
        assert!(parse_trust_domain(id.trust_domain().as_str()).is_ok());
        let segments = id.path().split('/').skip(1);
        assert!(segments.clone().all(|segment| !["", ".", ".."].contains(&segment)), "a segment leads elsewhere");
        assert_eq!(is_reserved(&id), segments.clone().next() == Some("portcullis"));
        assert!(node_name(&id).is_none() || is_reserved(&id));
    }
    if let Ok(trust_domain) = parse_trust_domain(text) {
        assert_eq!(trust_domain.as_str(), text, "a trust domain is what it prints as");
        assert!(parse_spiffe_id(&trust_domain.id_string()).is_ok());
    }
});
