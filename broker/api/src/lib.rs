//! The gRPC contract between the broker, its nodes and its operators, and how to reach either service.
//!
//! This crate knows the wire: messages, services, channels. It does not know what a message means; broker and nodes parse each message
//! into their own types first.

mod channel;

pub use channel::{ConnectError, PeerStreamError, connect_node, connect_node_exporting, connect_operator};

/// The messages and services of `portcullis.v1`, as generated from `proto/`.
#[allow(
    missing_docs,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::pedantic,
    clippy::nursery,
    clippy::restriction,
    reason = "generated code; the contract is documented in the proto files"
)]
pub mod v1 {
    tonic::include_proto!("portcullis.v1");
}

/// The largest message either side accepts, in bytes: a snapshot with the WIT and policies of the components a node serves.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;
