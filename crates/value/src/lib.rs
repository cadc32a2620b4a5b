//! WIT-typed values: their types, read from WIT sources; their wRPC encoding; their JSON.
//!
//! The crate is pure and knows nothing of wasmtime, of any transport, of files and of policy: it turns text and bytes into values
//! and back. Whatever comes from the wire or from JSON is taken as hostile: the [`Limits`] bound the memory and the time that
//! reading it can cost, and no input makes it panic.
//!
//! * [`Wit`] parses WIT sources into interfaces and the [`FunctionType`]s of their functions;
//! * [`decode_params`], [`decode_result`], [`encode_params`], [`encode_result`] are the wRPC encoding of a call;
//! * [`json`] holds the JSON rules and the functions that follow them.

mod codec;
mod function;
pub mod json;
mod limits;
mod place;
mod types;
mod value;
mod wit;

pub use codec::{
    DecodeError, EncodeError, Fault, decode, decode_params, decode_result, encode, encode_params, encode_result,
};
pub use function::FunctionType;
pub use limits::{Bound, Exceeded, Limits};
pub use types::{Enum, Flags, Record, ResultType, Type, Variant};
pub use value::Value;
pub use wit::{Function, FunctionKind, Interface, InvalidWit, Streams, Wit, WitSource};
