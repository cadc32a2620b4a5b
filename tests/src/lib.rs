//! The harness of the end-to-end tests: whole daemons as separate processes on loopback, at ports the kernel chose, and what is needed to
//! talk to them. It waits for facts, never for time, and ends what it started by its own process id.

#![allow(
    missing_docs,
    missing_debug_implementations,
    clippy::missing_panics_doc,
    reason = "a harness for tests: it panics where a test should fail"
)]

mod admin;
mod agent;
mod audit;
mod callee;
mod component;
mod forge;
mod impostor;
mod lab;
mod lattice;
mod load;
pub mod nats;
mod network;
mod process;
mod service;
mod upstream;
mod wasmcloud;
pub mod wire;

pub use admin::get;
pub use agent::{Agent, open_files, own_uid};
pub use audit::audit_events;
pub use callee::{Answer, FakeCallee, Visits};
pub use component::{Component, guest};
pub use forge::{Certificate, Flaw, Forge};
pub use impostor::Impostor;
pub use lab::{Caller, ITEMS, Lab, PIPE_WIT, PIPES, SidecarSetup, WIT};
pub use lattice::{Joined, Lattice};
pub use load::Load;
pub use network::{Cable, Host, has_own_network};
pub use process::{Daemon, Memory, Ran, binary, cpu_seconds, memory, run, run_in};
pub use service::{Behaviour, LegacyService, Seen};
pub use upstream::ScriptedUpstream;
pub use wasmcloud::{Operator, WasmcloudHost, provider};

/// How long anything in a test may take before it has failed.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// Waits until a server may have its port again: while it was away, somebody's connection may have been given it.
pub fn until_free(address: std::net::SocketAddr) {
    eventually("a port to be free again", || std::net::TcpListener::bind(address).ok());
}

/// Waits until `probe` gives something.
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(std::time::Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
