//! What the programs weigh, and how long the broker takes to come up.

use std::time::{Duration, Instant};

use e2e::{Daemon, Lab};

use crate::options::Options;
use crate::outcome::percentile;
use crate::report::Report;

/// An agent for local workloads that has nothing to do.
pub fn agent(lab: &Lab) -> Daemon {
    let config = lab.path().join("agent.toml");
    let text = format!(
        "[node]\nstate = \"agent-state\"\njoin_token_file = \"{}\"\n[workload_api]\nsocket = \"{}\"\n",
        lab.token("agent").display(),
        lab.path().join("api/workload.sock").display()
    );
    std::fs::write(&config, text).unwrap();
    lab.start_sidecar("agent", &config)
}

pub fn measure(lab: &mut Lab, agent: &Daemon, options: &Options, report: &mut Report) {
    report.memory("f broker after all of the above", mb(lab.broker()));
    report.memory("f agent, idle", mb(agent));
    let starts = if options.quick { 1 } else { 5 };
    let (mut took, mut weighed) = (Vec::new(), Vec::new());
    for _ in 0..starts {
        lab.broker().terminate();
        assert!(lab.broker().wait().success());
        let began = Instant::now();
        lab.start_broker();
        took.push(began.elapsed().as_secs_f64());
        // Nodes come back, and it comes to rest.
        std::thread::sleep(Duration::from_secs(if options.quick { 0 } else { 2 }));
        weighed.push(mb(lab.broker()));
    }
    report.figure("f broker, cold start", "s", percentile(&mut took, 0.5));
    report.memory("f broker after a cold start", percentile(&mut weighed, 1.0));
}

fn mb(process: &Daemon) -> f64 {
    process.memory().now as f64 / 1e6
}
