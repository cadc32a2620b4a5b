//! The typed HTTP upstream: calls of WIT functions become requests to one legacy HTTP service.
//!
//! [`Mapping`] is pure: it compiles the operator's mapping file against the WIT into a [`Route`] per function, and a route turns
//! parameters into a request and an answer into a result. [`HttpUpstream`] is the rim: it holds the connections, the credentials
//! and the limits, and sends what a route says, once, to the one authority its configuration names.
//!
//! This module knows nothing of wRPC, of peers and of policy, but that a call needs a permit and a caller has a name.

mod answer;
mod config;
mod credentials;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod legacy;
mod mapping;
#[cfg(test)]
mod property;
mod route;
mod upstream;

pub use answer::{ERROR_TEXT_BYTES, UpstreamNonsense};
pub use config::{HttpConfigMistake, HttpUpstreamConfig};
pub(crate) use mapping::Spelling;
pub use mapping::{Mapping, MappingProblem};
pub use route::{HEADER_BYTES, OutboundRequest, ParameterFault, RefusedParameter, Route, TARGET_BYTES};
pub use upstream::{HttpCall, HttpFailure, HttpUpstream, TraceHeaders};
