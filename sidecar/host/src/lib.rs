//! Runs wasm components whose imports are virtual components: loads a component, finds who serves each interface it imports, and
//! carries its calls there.
//!
//! It knows wasmtime and, through `portcullis-client`, the lattice. It knows nothing of legacy services, of policy's language, or of what
//! stands behind a virtual component; it never decides whether a call is allowed, the callee's sidecar does. The library reads no
//! arguments and no environment: the program `portcullis-host` does.

mod call;
pub mod cli;
pub mod config;
mod contract;
mod guest;
mod host;
mod interface_name;
mod lattice;
mod limits;
mod membership;
pub mod outcome;
mod outgoing;
mod program;
mod resolution;
mod rpc_error;
mod signature;
mod ticker;
mod val;
mod wit_cache;

pub use call::{Call, CallFailure, Callee, Refused};
pub use contract::Misfit;
pub use guest::{Export, Guest, Import, ImportedFunction, InvalidGuest, UnknownExport, engine};
pub use host::{Host, HostConfig, HostError};
pub use interface_name::{InterfaceName, InvalidInterfaceName};
pub use limits::HostLimits;
pub use membership::NoEntry;
pub use program::{Binding, Entrance, LinkError, Program, Trap};
pub use resolution::{Offer, Unresolved, resolve};
pub use signature::OnFailure;
