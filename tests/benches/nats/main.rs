//! What a call over NATS costs: by the stock transport, by ours, and the least that NATS itself allows.
//!
//! `cargo bench -p e2e --bench nats`, with `-- --quick` for a smoke run whose figures mean nothing, and with `-- --only s,o` for the named
//! ways alone, under a profiler. It prints one table, whether each target is met, and writes the rows to `portcullis-bench/nats.json` in the
//! target folder (`nats-quick.json` of a smoke run).
//!
//! # What is measured
//!
//! | | way of a call with 17 bytes of parameters that come back |
//! |---|---|
//! | s | wRPC by `wrpc-transport-nats` 0.31 at both ends |
//! | o | wRPC by ours at both ends |
//! | r | no wRPC: a NATS request and its reply (2 messages instead of 5), by async-nats at both ends |
//!
//! Bytes alone, no values: what the transports cost, not the codecs. No callee waits for the end of the parameters, as none needs to who knows
//! their type. Every end has a connection of its own to one `nats-server`, a process beside; both ends of each way live in this process, on one
//! tokio runtime of two workers.
//!
//! # Against noise
//!
//! As in the benchmark of QUIC: short slices, in every round every way has its turn, in an order that rotates. Each figure is the median over
//! the rounds. The column *cpu* is what this process ran for one call, *server* what `nats-server` ran for it.

#![allow(unreachable_pub, missing_docs, missing_debug_implementations, reason = "a program, not an interface")]

mod load;
#[path = "../support/options.rs"]
mod options;
#[expect(dead_code, reason = "this bench starts no daemon of ours")]
#[path = "../support/outcome.rs"]
mod outcome;
mod report;
mod way;

use options::Options;

fn main() -> anyhow::Result<()> {
    let options = Options::parse(std::env::args().skip(1))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let server = e2e::nats::NatsServer::start();
    let mut ways = runtime.block_on(way::all(&server));
    ways.retain(|way| options.wants(way.letter));
    let report = load::measure(&runtime, &server, &ways, &options);
    report.print();
    report.write(&options)
}
