//! NATS, both ends: a [`Link`] is a connection to a server over which one identity calls and is called; an [`Acceptor`]
//! takes the calls to one virtual component; a [`Session`] replaces a link by a renewed one without a failed call.
//!
//! The wire is that of `wrpc.0.0.1`, which wasmCloud hosts speak:
//!
//! ```text
//! caller → {target}.wrpc.0.0.1.{instance}.{function}   reply A, headers, the first plain parameters
//! callee → A                                           reply B: the handshake; or a status: refused
//! caller → B.params[.{path}]                           further parameters; an empty message ends a path
//! callee → A.results[.{path}]                          the same
//! ```
//!
//! Between two ends of ours A may say, by a token that others take for a part of a name, that the request holds all
//! parameters. The callee then answers with all results in one message to `A.whole`, or shakes hands as ever.
//!
//! It knows no framing and no WIT: every path of a call is bytes with an end, read by [`Incoming`] and written by
//! [`Outgoing`]. It starts no task of its own but what async-nats starts for its connection.

mod acceptor;
mod buffer;
mod bulk;
mod called;
mod clock;
mod failure;
mod headers;
mod hearing;
mod idle;
mod inbox;
mod incoming;
mod invoke;
mod limits;
mod link;
mod listening;
mod live;
mod outgoing;
mod path;
mod proof;
mod router;
mod routes;
mod session;
mod settings;
mod shared;
mod status;
mod subject;
mod subscriptions;
mod together;
mod verbatim;

pub use acceptor::{Acceptor, Arrival, IncomingCall, Rejected, SubscribeError};
pub use buffer::Piece;
pub use called::CalledName;
pub use failure::{CallFailed, Malformed, Overflow, Step};
pub use headers::{Headers, HeadersTooLarge, InvalidHeaderLine};
pub use hearing::{Announcement, AskError, Hearing};
pub use inbox::{InboxPrefix, InvalidInboxPrefix, NoRandomness};
pub use incoming::{Incoming, PathReader};
pub use invoke::Call;
pub use limits::{Deadlines, NatsLimits, Patience};
pub use link::{ConnectError, Link, LinkDriver};
pub use listening::Listening;
pub use outgoing::{Outgoing, PathWriter};
pub use path::{InvalidPath, Path};
pub use proof::{Proof, Unproved};
pub use session::{Session, SessionAcceptor};
pub use settings::{InvalidCredentials, InvalidServer, Login, NatsServer, NatsSettings, NatsTls, TokenSource};
pub use status::NatsRefusal;
pub use subject::{
    CallerToken, InvalidName, InvalidSubject, InvalidToken, RequestSubject, Target, Token, VirtualAddress,
};
