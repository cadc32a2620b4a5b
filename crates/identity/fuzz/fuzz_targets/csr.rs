//! Arbitrary bytes as a certificate signing request.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_identity::{JwtAuthority, RequestedKey};

fuzz_target!(|der: &[u8]| {
    let Ok(requested) = RequestedKey::parse(der) else { return };
    assert!(der.len() <= 8 * 1024);
    let spki = requested.spki_der();
    assert!(der.windows(spki.len()).any(|window| window == spki), "a key comes from elsewhere");
    // The same limits hold for keys of JWT authorities, whose reader is another one.
    let kid = "k".parse().expect("a key id");
    let key = JwtAuthority::from_spki(kid, spki, None, None).expect("one key has one encoding");
    assert_eq!(key.spki_der(), spki);
});
