//! WIT values as JSON: the rules, the same in both directions and without loss.
//!
//! | WIT | JSON written | also read |
//! |---|---|---|
//! | `bool` | `true`, `false` | |
//! | `u8` `u16` `u32` `s8` `s16` `s32` | number | |
//! | `u64` `s64` | number; a decimal string under [`Int64::String`] | decimal string or number, whatever the rule |
//! | `f32` `f64` | the shortest number that reads back the same; `"NaN"`, `"Infinity"`, `"-Infinity"` | any number in range |
//! | `char` | string of one character | |
//! | `string` | string | |
//! | `list<u8>` | base64 string (RFC 4648 §4, with padding) | array of numbers |
//! | `list<T>`, `tuple` | array | |
//! | `record` | object with the WIT names; a field that is `none` is left out | `null` for a field that is an `option` |
//! | `variant` | `{"tag": case, "val": payload}`, without `val` where the case has no payload | `"val": null` there; no `val` where the payload is an `option` and `none` |
//! | `enum` | string | |
//! | `flags` | array of the names that are set, in the order of the WIT | any order |
//! | `option<T>` | `null` or the value | |
//! | `option<option<T>>` | `null` or `{"val": value}`, at each level whose payload is again an option | |
//! | `result` | `{"ok": value}` or `{"err": value}`, `null` where that arm has no payload | |
//!
//! * The parameters of a call are one object, as if they were the fields of a record; an array by position is read too. The result is
//!   the value itself, and `null` where a function has none.
//! * Types are taken by structure: an alias is what it stands for, and names are compared exactly as the WIT has them.
//! * An integer has no fraction and no exponent: `1.0` and `1e3` are refused, also where they are whole, and so is `-0`. A decimal
//!   string has no `+` and no leading zero.
//! * A number is rounded to the nearest `f64` and then, for an `f32`, to the nearest `f32`; one whose nearest is infinite is refused.
//!   `-0.0` keeps its sign; the payload and sign of a NaN are lost.
//! * Refused: an unknown or repeated key, a missing field that is not an `option`, a repeated flag, a tuple of another length, text
//!   after the value.
//!
//! [`parse_json`] reads text into a tree under these rules: `serde_json` itself keeps the last of two equal keys and rounds some
//! decimal fractions to a neighbour, so what it has parsed may already be another value.

mod read;
mod scalar;
mod text;
mod write;

pub use read::{from_json, params_from_json, result_from_json};
pub use text::parse_json;
pub use write::{params_to_json, result_to_json, to_json};

use std::fmt;

use crate::limits::Exceeded;
use crate::place::{Place, Shortened};

/// What a reader of the JSON wants where the rules leave a choice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JsonRules {
    /// How `u64` and `s64` are written.
    pub int64: Int64,
}

/// How `u64` and `s64` are written. Both are always read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Int64 {
    /// As a JSON number.
    #[default]
    Number,
    /// As a decimal string, for readers whose only number is an `f64`.
    String,
}

/// Why JSON is not a value of the type, or a value cannot be written as JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The text is not JSON, or repeats a key.
    #[error("not JSON at line {line} column {column}: {problem}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// In bytes, counted from 1.
        column: usize,
        /// What is wrong there.
        problem: String,
    },
    /// A part of the JSON is not what its WIT type asks for.
    #[error("{}: {found}, expected `{wit}`", place_or_whole(pointer))]
    Mismatch {
        /// Where: a JSON pointer (RFC 6901), empty for the whole.
        pointer: String,
        /// The WIT type at that place, shortened where it is long.
        wit: String,
        /// What stands there instead.
        found: String,
    },
    /// The value is larger than the limits allow.
    #[error(transparent)]
    TooLarge(#[from] Exceeded),
}

fn place_or_whole(pointer: &str) -> String {
    if pointer.is_empty() {
        "the value".to_owned()
    } else {
        format!("`{pointer}`")
    }
}

impl JsonError {
    fn mismatch(wit: &impl fmt::Display, found: impl Into<String>) -> Self {
        Self::Mismatch {
            pointer: String::new(),
            wit: Shortened(wit).to_string(),
            found: found.into(),
        }
    }

    /// The error is in the element at `position` of something larger.
    fn at(self, position: usize) -> Self {
        self.within(&position.to_string())
    }

    /// The error is in the member `name` of something larger.
    fn within(self, name: &str) -> Self {
        match self {
            Self::Mismatch { pointer, wit, found } => {
                let mut place = Place::from_pointer(pointer);
                place.enter(name);
                Self::Mismatch {
                    pointer: place.into_pointer(),
                    wit,
                    found,
                }
            }
            error @ (Self::Syntax { .. } | Self::TooLarge(_)) => error,
        }
    }
}
