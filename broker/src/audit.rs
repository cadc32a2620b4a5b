//! The audit log: what the broker did, for whom, at whose word; append-only, and chained so that no change goes unnoticed.
//!
//! It is a folder of text files, one JSON object a line. Each line carries the SHA-256 of the line before, to the byte: a reader needs no
//! canonical form, and `sha256sum` and `jq` are enough to check it by hand. The files follow each other at a bounded size; old ones may be
//! archived, the chain goes on. What a change costs is known from the *head*: how many lines there are, and the hash of the last. Nodes are
//! told the head, signed; whoever cuts the log's end must make every node forget.
//!
//! **Nothing is issued and nothing changes unaudited.** A line is on disk before the certificate that it tells of leaves the broker, and before
//! the change that it tells of is stored. Where the disk is full, nothing is issued until it is not. Many lines share one sync, so that
//! issuance waits for the disk without being limited by it. Refusals are different: strangers cause them, so they are counted rather than
//! waited for, and a flood of them is summed up.
//!
//! It holds no secret: no token, no key, no policy's text.

mod chain;
mod event;
mod file;
mod folder;
mod log;
mod tail;
mod tally;
mod verify;

pub(crate) use self::chain::hex;
pub use self::chain::{Broken, Head};
pub use self::event::{Actor, Event};
pub use self::file::OpenError;
pub use self::folder::{FolderError, Segment, segments};
pub use self::log::{AuditLog, Pending, Unaudited, Unserved};
pub use self::verify::{InvalidHead, RememberedHead, Signature, Verified, VerifyError, verify};

/// Bytes of one line, its end included; every field in it is bounded.
pub const MAX_LINE: usize = 16 << 10;
