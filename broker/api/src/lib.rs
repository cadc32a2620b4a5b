//! The gRPC contract between the broker, its nodes and its operators, and how to reach either service; and the SPIFFE Workload API, as the
//! standard writes it.
//!
//! This crate knows the wire: messages, services, channels. It does not know what a message means; broker and nodes parse each message
//! into their own types first.

pub mod authority;

mod channel;
mod unprinted;
mod wit_folder;

pub use authority::LegalAuthority;
pub use channel::{ConnectError, PeerStreamError, connect_node, connect_node_exporting, connect_operator};
pub use wit_folder::{WitFolderError, read_wit_folder};

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

/// The messages and the service of the SPIFFE Workload API, as generated from `proto/spiffe/`.
#[allow(
    missing_docs,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::pedantic,
    clippy::nursery,
    clippy::restriction,
    reason = "generated code; the contract is documented in the proto file"
)]
pub mod workload {
    tonic::include_proto!("_");
}

/// The messages and the service of SPIRE's Delegated Identity API that hosts use, as generated from `proto/spire/`.
#[allow(
    missing_docs,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::pedantic,
    clippy::nursery,
    clippy::restriction,
    reason = "generated code; the contract is documented in the proto file"
)]
pub mod delegated {
    tonic::include_proto!("spire.api.agent.delegatedidentity.v1");
}

/// The contract of the SPIFFE Workload API, encoded: what gRPC reflection tells of it.
pub const WORKLOAD_DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("workloadapi");

/// The largest message either side accepts, in bytes: a snapshot with the WIT and policies of the components a node serves.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;
