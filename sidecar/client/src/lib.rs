//! What a sidecar or a host embeds: it joins the broker, keeps identities fresh, holds the registry and the policies the broker pushes, and
//! calls virtual components over QUIC, and those and wasm components over NATS.
//!
//! This crate knows the broker's contract and the wRPC transport. It knows nothing of upstreams, configuration files or wasm: the sidecar
//! and the host bring those.

pub mod explanation;
pub mod lattice;
pub mod node;
pub mod peers;

mod clock;
mod workload_source;

pub use node::{Node, NodeConfig, NodeKind, NodeState, StartError};
pub use peers::{CallError, Peers};
pub use workload_source::{InvalidSocket, SourceError, WorkloadSocket, WorkloadSource};
