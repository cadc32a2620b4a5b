//! Arbitrary bytes as the encoding of a value.

#![no_main]

mod types;

use libfuzzer_sys::fuzz_target;
use portcullis_value::{decode, encode};

fuzz_target!(|input: &[u8]| {
    let Some((ty, bytes)) = types::choose(input) else {
        return;
    };
    let Ok(values) = decode([&ty], bytes, &types::LIMITS) else {
        return;
    };
    let mut again = Vec::new();
    encode(&values[0], &ty, &mut again).expect("what was decoded has the type");
    let back = decode([&ty], &again, &types::LIMITS).expect("what was encoded is decoded");
    assert_eq!(
        format!("{back:?}").replace("-NaN", "NaN"),
        format!("{values:?}").replace("-NaN", "NaN")
    );
});
