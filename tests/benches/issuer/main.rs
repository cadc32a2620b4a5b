//! What an SVID costs the broker, how soon a change is in force, and what the broker weighs with a full registry.
//!
//! `cargo bench -p e2e --bench issuer`, with `-- --quick` for a smoke run whose figures mean nothing, and with `-- --only s,u` for the named
//! ways alone, under a profiler. It prints one table, whether each target is met, and writes the rows to `portcullis-bench/issuer.json` in the
//! target folder (`issuer-quick.json` of a smoke run).
//!
//! # What is measured
//!
//! | | |
//! |---|---|
//! | r | in this process, a thread for each processor: a CSR parsed, its signature verified, a leaf signed by `rcgen`; and an ES256 signature alone |
//! | s | X.509-SVIDs over nodes' open streams |
//! | u | X.509-SVIDs by single calls |
//! | j | JWT-SVIDs by single calls |
//! | b | JWT-SVIDs over open streams, 32 in a request |
//! | c | an operator's change until it is in force: an entry's, until its node holds the new SVID; a policy's, until a caller feels it |
//! | f | the broker's memory and its cold start (from `exec` until it serves) with a full registry; the memory of an idle agent |
//!
//! The broker is the program that operators start, as they start it: logs at level `info`, every issuance audited, TLS, 1 000 policies and
//! 100 000 entries registered. What it costs is what the kernel charged its process, user and system, in slices that take turns with those of
//! r. So it does not matter how busy the machine is, nor how many cores the clients take. CSRs are made beforehand.
//!
//! # The rate of one node
//!
//! A node gets 500 certificates a second, and 2048 at once, whatever it asks. That bound is not for an operator to set: it is far above what
//! the largest host needs, and below what lets one stolen node starve the others. So the load comes from [`nodes::NODES`] nodes, as it would
//! in the field.

#![allow(unreachable_pub, missing_docs, missing_debug_implementations, reason = "a program, not an interface")]

mod change;
mod footprint;
mod load;
mod nodes;
#[path = "../support/options.rs"]
mod options;
#[path = "../support/outcome.rs"]
mod outcome;
mod raw;
mod registry;
mod report;

use e2e::Lab;
use options::Options;
use report::Report;

fn main() -> anyhow::Result<()> {
    let options = Options::parse(std::env::args().skip(1))?;
    outcome::build()?;
    let mut report = Report::default();
    let mut lab = Lab::start();
    let mut scene = options.wants('c').then(|| change::Scene::set(&lab));
    let agent = options.wants('f').then(|| footprint::agent(&lab));
    let entries = registry::fill(&lab, &options, &mut report);
    let nodes = nodes::Nodes::join(&lab, &entries);
    load::measure(&mut lab, &nodes, &options, &mut report);
    drop(nodes);
    if let Some(scene) = &mut scene {
        scene.measure(&lab, &options, &mut report);
    }
    if let Some(agent) = agent {
        footprint::measure(&mut lab, &agent, &options, &mut report);
    }
    report.print();
    report.write(&options)
}
