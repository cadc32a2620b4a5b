//! What a call over NATS costs: by the stock transport, by ours, through the sidecar, and the least that NATS itself allows.
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
//! | f | wRPC by ours at both ends, in the five messages that a stock end needs |
//! | o | the same in two: our own ends need no handshake where everything fits into one message, and tell each other so |
//! | u | wRPC by `wrpc-transport` 0.29 at both ends of a Unix socket |
//! | b | ours → sidecar, which decides → the server of u |
//! | q | stock client → QUIC with mutual TLS → that sidecar → that server |
//! | r | no wRPC: a NATS request and its reply (2 messages), by async-nats at both ends |
//!
//! The target of b compares it with the two legs one after the other, o and u, on the same cores. The sidecar is the one that operators start, with
//! its node on a broker, its metrics and its logs; here without TLS to the NATS server, as both ends of o are.
//!
//! Bytes alone, no values, but for u, b and q, whose server decodes and encodes a `list<u8>`. No callee of s and o waits for the end of the parameters, as none needs to who knows
//! their type. Every end has a connection of its own to one `nats-server`, a process beside; all ends of each way live in this process, on one
//! tokio runtime of two workers.
//!
//! # Against noise
//!
//! As in the benchmark of QUIC: short slices, in every round every way has its turn, in an order that rotates. Each figure is the median over
//! the rounds. A slice in which a call is never answered (0.31 may drop the handshake of its own) does not count, and is told. The column *cpu* is what this process ran for one call, *server* what `nats-server` ran for it.

#![allow(unreachable_pub, missing_docs, missing_debug_implementations, reason = "a program, not an interface")]

mod load;
#[path = "../support/options.rs"]
mod options;
#[path = "../support/outcome.rs"]
mod outcome;
mod report;
mod scene;
#[path = "../quic/sidecar.rs"]
mod sidecar;
#[expect(dead_code, reason = "no stock server over QUIC here")]
#[path = "../quic/stock.rs"]
mod stock;
mod way;

use options::Options;

fn main() -> anyhow::Result<()> {
    let options = Options::parse(std::env::args().skip(1))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let server = e2e::nats::NatsServer::start();
    tracing_subscriber::fmt()
        .with_env_filter("info,wrpc_transport=off,wrpc_transport_quic=off,wrpc_transport_nats=off")
        .with_writer(std::io::sink)
        .init();
    outcome::build()?;
    let mut ways = runtime.block_on(way::all(&server));
    let mut scene = scene::Scene::set(&runtime, &server)?;
    ways.extend(way::through_the_sidecar(&runtime, &server, &mut scene)?);
    ways.retain(|way| options.wants(way.letter));
    let report = load::measure(&runtime, &server, &ways, &options);
    ways.clear();
    scene.strike(&runtime);
    report.print();
    report.write(&options)
}
