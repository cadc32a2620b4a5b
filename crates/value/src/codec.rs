//! The wRPC value encoding (wRPC `SPEC.md`, "Value encoding"), for every value type that is complete when it is sent.
//!
//! Choices where the specification is silent are those of `wrpc-transport` 0.29 and of the code `wit-bindgen-wrpc` 0.11 makes:
//!
//! * `bool`, `option` and `result` tags are exactly 0 or 1;
//! * `u8` and `s8` are one byte, every other integer is LEB128; a longer encoding than needed is accepted as long as it has no more
//!   bytes than the width could need and loses no bit;
//! * a discriminant is a `u32` and in range;
//! * `flags` are ⌈n/8⌉ bytes, at least one, lowest flag in the lowest bit of the first byte; a bit without a name is refused;
//! * a `char` is the UTF-8 of one scalar value, without a length;
//! * NaN is written in its canonical form and read in any.
//!
//! `wit-bindgen-wrpc` 0.11 writes `flags` in 1, 2, 4 or 8 bytes but reads ⌈n/8⌉: where the two differ, as with 17 to 24 names, its own
//! two ends do not understand each other. The encoding here is the one of the specification, which it reads.

mod decode;
mod encode;
mod leb128;

pub use decode::{DecodeError, Fault, decode, decode_params, decode_result};
pub use encode::{EncodeError, encode, encode_params, encode_result};

/// The bytes that a flags type of so many names takes.
const fn flags_width(names: usize) -> usize {
    let bytes = names.div_ceil(8);
    if bytes == 0 { 1 } else { bytes }
}
