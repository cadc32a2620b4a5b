//! The data plane beside one legacy service. It terminates wRPC over QUIC with mutual TLS, decides every call by policy, and speaks to the
//! service in its own language.
//!
//! It knows one virtual component, as the broker registered it, and one upstream. It does not issue identities, does not keep the
//! registry, and knows nothing of wasm. The library never reads arguments or the environment.

pub mod agent;
pub mod check;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod files;
pub mod http;
pub mod invoke;
pub mod lattice;
mod links;
mod local;
pub mod scaffold;
pub mod status;
pub mod workload;

mod clock;
mod component;
mod connection;
mod gate;
mod meters;
mod supply;
mod upstream;
