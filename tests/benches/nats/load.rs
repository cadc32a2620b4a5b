//! Calls, as many at a time as told, for a slice of time; and the medians over many slices.

use std::time::{Duration, Instant};

use e2e::nats::NatsServer;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::options::Options;
use crate::outcome::percentile;
use crate::report::{Report, Row};
use crate::way::{Caller, Way};

/// Calls at a time.
pub const CONCURRENCIES: [usize; 3] = [1, 8, 32];

/// For the last calls of a slice.
const PATIENCE: Duration = Duration::from_secs(10);

/// What one slice measured.
#[derive(Clone, Copy, Debug)]
struct Slice {
    p50_us: f64,
    p99_us: f64,
    per_s: f64,
    cpu_us: f64,
    server_us: f64,
}

pub fn measure(runtime: &Runtime, server: &NatsServer, ways: &[Way], options: &Options) -> Report {
    let mut slices = CONCURRENCIES.map(|_| vec![Vec::new(); ways.len()]);
    let mut report = Report::default();
    // One round more: the first warms up.
    for round in 0..=options.rounds() {
        for (concurrency, slices) in CONCURRENCIES.into_iter().zip(&mut slices) {
            for turn in 0..ways.len() {
                let index = (turn + round) % ways.len();
                let caller = ways[index].caller.clone();
                let slice = runtime.block_on(drive(caller, server, concurrency, options.slice()));
                match slice {
                    Some(slice) if round > 0 => slices[index].push(slice),
                    Some(_) => {}
                    None => report.hung.push(format!("{} at {concurrency}", ways[index].letter)),
                }
            }
        }
    }
    for (index, way) in ways.iter().enumerate() {
        for (concurrency, slices) in CONCURRENCIES.into_iter().zip(&slices) {
            let slices = &slices[index];
            assert!(!slices.is_empty(), "no slice of {} at {concurrency} came to its end", way.letter);
            let median = |of: fn(&Slice) -> f64| percentile(&mut slices.iter().map(of).collect::<Vec<_>>(), 0.5);
            report.rows.push(Row {
                name: format!("{} {}", way.letter, way.name),
                concurrency,
                p50_us: median(|slice| slice.p50_us),
                p99_us: median(|slice| slice.p99_us),
                per_s: median(|slice| slice.per_s),
                cpu_us: median(|slice| slice.cpu_us),
                server_us: median(|slice| slice.server_us),
            });
        }
    }
    report
}

/// Nothing where a call is never answered, as now and then one of a stock client.
async fn drive(caller: Caller, server: &NatsServer, concurrency: usize, length: Duration) -> Option<Slice> {
    let (began, before, server_before) = (Instant::now(), cpu_us("self"), cpu_us(&server.process().to_string()));
    let mut callers: JoinSet<_> = (0..concurrency).map(|_| calls(caller.clone(), began, length)).collect();
    let mut took = Vec::new();
    let ended = async {
        while let Some(caller) = callers.join_next().await {
            took.extend(caller.expect("no call fails"));
        }
    };
    tokio::time::timeout(length + PATIENCE, ended).await.ok()?;
    let calls = took.len() as f64;
    Some(Slice {
        per_s: calls / began.elapsed().as_secs_f64(),
        cpu_us: (cpu_us("self") - before) / calls,
        server_us: (cpu_us(&server.process().to_string()) - server_before) / calls,
        p50_us: percentile(&mut took, 0.5),
        p99_us: percentile(&mut took, 0.99),
    })
}

/// How long each call took, in microseconds.
async fn calls(caller: Caller, began: Instant, length: Duration) -> Vec<f64> {
    let mut took = Vec::with_capacity(8192);
    let mut last = began.elapsed();
    // At least one: on a busy machine a short slice may be over before it begins.
    loop {
        caller.call().await;
        let now = began.elapsed();
        took.push((now - last).as_nanos() as f64 / 1e3);
        last = now;
        if last >= length {
            return took;
        }
    }
}

/// What every thread of a process has run so far, in microseconds.
fn cpu_us(process: &str) -> f64 {
    let ran = |task: std::io::Result<std::fs::DirEntry>| {
        // A thread may have ended meanwhile.
        let stat = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse::<f64>().ok()
    };
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("this is Linux");
    tasks.filter_map(ran).sum::<f64>() / 1e3
}
