//! QUIC, both ends: a [`Listener`] admits connections, a [`Dialer`] makes them; a [`Connection`] is one whose peer
//! proved its SPIFFE ID under TLS 1.3, and each of its bidirectional streams carries one call.
//!
//! Only the dialling end opens streams. There is no ALPN, because stock wRPC clients offer none and QUIC then forbids
//! us to ask for one; no resumption and no 0-RTT; no datagrams.

mod admission;
mod call;
mod connection;
mod dialer;
mod limits;
mod listener;
mod lost;
mod stream;

pub use call::{CallUnread, Invocation, read_header, read_root_frames, write_invocation, write_root_frame};
pub use connection::Connection;
pub use dialer::{ConnectError, Dialer};
pub use limits::QuicLimits;
pub use listener::{Attempts, BindError, HandshakeRefused, Incoming, Listener};
pub use lost::{ConnectionLost, classify};
pub use quinn::{RecvStream, SendStream};
pub use stream::{StreamFailed, next_chunk, read_refusal, refuse, write_refusal};
