//! Authenticated byte streams that carry wRPC: both ends of a QUIC connection whose peers proved a SPIFFE ID, the
//! wRPC header and frame format, both ends of wRPC over NATS, the codes by which a call or a connection is refused, and
//! a limit on everything a peer can send.
//!
//! It does **not** know policies, WIT types, values, the broker or configuration; it never decides whether a peer may make
//! a call. It starts no task of its own, but on a tracker it is given: whoever owns a connection drives it. It logs nothing
//! but what goes wrong there, where nobody is told.

mod frame;
mod header;
mod leb;
mod limit;
pub mod nats;
pub mod quic;
mod refusal;

pub use frame::{
    FrameError, FrameLimits, FrameScanner, PathFrames, RootFrames, encode_frame_head, encode_root_frame,
    encode_root_frame_head,
};
pub use header::{Field, Header, HeaderLimits, InvalidHeader, Parsed};
pub use limit::LimitedReader;
pub use refusal::{CloseReason, Refusal};
