//! Conformance with the SPIFFE standards: a table of requirements (`rows`), each with what shows that it is met, and the checks.
//!
//! The checks of `blackbox` ask a Workload API over its socket and know nothing of who serves it. They run against a broker and an agent
//! that are started here; with `SPIFFE_ENDPOINT_SOCKET=unix:///PATH` against that one, which must give this process an identity:
//!
//! ```text
//! SPIFFE_ENDPOINT_SOCKET=unix:///run/spire/agent.sock cargo test --release -p e2e --test conformance table:: -- --nocapture
//! ```

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests fail by panicking"
)]

mod blackbox;
mod chain;
mod clients;
mod handshake;
mod issued;
mod ours;
mod regressions;
mod rows;
mod socket;
mod table;
mod token;
