//! What a call costs: directly, through a naive proxy, through the sidecar; and what deciding and encoding alone cost.
//!
//! `cargo bench -p e2e --bench quic`, with `-- --quick` for a smoke run of some seconds whose figures mean nothing, and with
//! `-- --only b,n` for the named variants alone, under a profiler. It prints one table, whether each target is met, and writes the rows to
//! `portcullis-bench/quic.json` in the target folder (`quic-quick.json` of a smoke run).
//!
//! # What is measured
//!
//! | | way of the call `echo(data: list<u8>) -> list<u8>` with 16 bytes |
//! |---|---|
//! | a | stock client → QUIC with mutual TLS → stock server |
//! | u | stock client → Unix socket → stock server |
//! | n | stock client → QUIC → a proxy of 40 lines without policy ([`naive`]) → Unix socket → the server of u |
//! | b | stock client → QUIC → sidecar, splice → Unix socket → the server of u |
//! | c | stock client → QUIC → sidecar, typed → HTTP service |
//! | d | the sidecar's HTTP client and pool → HTTP service |
//! | p | b with the sidecar in a process of its own: what b costs in the field; no target |
//!
//! *Stock* is `wrpc-transport` 0.29 and `wrpc-transport-quic` 0.6, untouched, with quinn's own settings. The client of a, n, b, c and p is the
//! same: one endpoint, one connection to each, our SVID.
//!
//! # On the same cores
//!
//! The targets compare b with a plus u: a call through the sidecar is the QUIC leg and the Unix leg one after the other. That only holds where
//! the legs have the same cores. So everything but p lives in this process, on **one tokio runtime of two workers**: clients, servers, naive
//! proxy, and the sidecar's own `daemon::run` with everything it has in production (its node with a stream to a broker, metrics, logs at level
//! `info`). A process per party would add its wake-ups to b and n and not to a and u, would let the kernel decide which leg gets a core, and
//! would measure that; p shows what it comes to. The broker and the nodes of the callers are idle and elsewhere.
//!
//! # Against noise
//!
//! Short slices: in every round, at each concurrency, every variant has its turn, in an order that rotates. What a busy neighbour takes,
//! it takes from all. Each figure is the median over the rounds, of the percentile or rate within one slice. The first round is thrown away.
//! The column *cpu* is what the parties of one call ran for it together (of p without the sidecar): waiting for a core is not in it.

#![allow(unreachable_pub, missing_docs, missing_debug_implementations, reason = "a program, not an interface")]

mod codec;
mod leg;
mod load;
mod memory;
mod naive;
#[path = "../support/options.rs"]
mod options;
#[path = "../support/outcome.rs"]
mod outcome;
mod policy;
mod report;
mod scene;
mod service;
mod sidecar;
mod stock;
mod targets;

use options::Options;
use report::Report;
use scene::Scene;

fn main() -> anyhow::Result<()> {
    let options = Options::parse(std::env::args().skip(1))?;
    outcome::build()?;
    let mut report = Report::default();
    let mut scene = Scene::set(&options)?;
    memory::measure(&scene, &options, &mut report)?;
    load::measure(&scene, &options, &mut report);
    scene.strike();
    if options.only.is_none() {
        policy::measure(&options, &mut report);
        codec::measure(&options, &mut report);
    }
    report.print();
    report.write(&options)
}
