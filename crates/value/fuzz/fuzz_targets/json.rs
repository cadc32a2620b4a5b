//! Arbitrary text as the JSON of a value.

#![no_main]

mod types;

use libfuzzer_sys::fuzz_target;
use portcullis_value::json::{JsonRules, from_json, from_json_text, parse_json, to_json};

fuzz_target!(|input: &[u8]| {
    let Some((ty, text)) = types::choose(input) else { return };
    let rules = JsonRules::default();
    let direct = from_json_text(text, &ty, &rules, &types::LIMITS);
    if let Ok(tree) = parse_json(text, &types::LIMITS) {
        let by_tree = from_json(&tree, &ty, &rules, &types::LIMITS);
        assert_eq!(by_tree.is_ok(), direct.is_ok(), "{by_tree:?} {direct:?}");
    }
    let Ok(value) = direct else { return };
    let mut again = Vec::new();
    to_json(&value, &ty, &rules, &mut again).expect("what was read has the type");
    let back = from_json_text(&again, &ty, &rules, &types::LIMITS).expect("what was written is read");
    assert_eq!(
        format!("{back:?}").replace("-NaN", "NaN"),
        format!("{value:?}").replace("-NaN", "NaN")
    );
});
