//! Calls, as many at a time as told, for a slice of time; and the medians over many slices.

use std::time::{Duration, Instant};

use crate::leg::Leg;
use crate::options::Options;
use crate::outcome::percentile;
use crate::report::{Report, Row};
use crate::scene::Scene;

/// Calls at a time.
const CONCURRENCIES: [usize; 3] = [1, 8, 32];

/// What one slice measured.
#[derive(Clone, Copy, Debug)]
struct Slice {
    p50_us: f64,
    p99_us: f64,
    per_s: f64,
    cpu_us: f64,
}

pub fn measure(scene: &Scene, options: &Options, report: &mut Report) {
    let variants = &scene.variants;
    // By concurrency, by variant.
    let mut slices = CONCURRENCIES.map(|_| vec![Vec::new(); variants.len()]);
    // One round more: the first warms up.
    for round in 0..=options.rounds() {
        for (concurrency, slices) in CONCURRENCIES.into_iter().zip(&mut slices) {
            for turn in 0..variants.len() {
                let index = (turn + round) % variants.len();
                let leg = variants[index].leg.clone();
                let slice = scene.runtime.block_on(drive(leg, concurrency, options.slice()));
                if round > 0 {
                    slices[index].push(slice);
                }
            }
        }
    }
    for (index, variant) in variants.iter().enumerate() {
        for (concurrency, slices) in CONCURRENCIES.into_iter().zip(&slices) {
            let slices = &slices[index];
            let median = |of: fn(&Slice) -> f64| percentile(&mut slices.iter().map(of).collect::<Vec<_>>(), 0.5);
            report.rows.push(Row {
                name: format!("{} {}", variant.letter, variant.name),
                concurrency,
                p50_us: median(|slice| slice.p50_us),
                p99_us: median(|slice| slice.p99_us),
                per_s: median(|slice| slice.per_s),
                mb_per_s: None,
                cpu_us: Some(median(|slice| slice.cpu_us)),
            });
        }
    }
}

async fn drive(leg: Leg, concurrency: usize, length: Duration) -> Slice {
    let (began, before) = (Instant::now(), cpu_us());
    let callers: Vec<_> = (0..concurrency).map(|_| tokio::spawn(calls(leg.clone(), began, length))).collect();
    let mut took = Vec::new();
    for caller in callers {
        took.extend(caller.await.expect("no call fails"));
    }
    let seconds = began.elapsed().as_secs_f64();
    Slice {
        per_s: took.len() as f64 / seconds,
        cpu_us: (cpu_us() - before) / took.len() as f64,
        p50_us: percentile(&mut took, 0.5),
        p99_us: percentile(&mut took, 0.99),
    }
}

/// How long each call took, in microseconds.
async fn calls(leg: Leg, began: Instant, length: Duration) -> Vec<f64> {
    let mut took = Vec::with_capacity(8192);
    let mut last = began.elapsed();
    while last < length {
        leg.call().await;
        let now = began.elapsed();
        took.push((now - last).as_nanos() as f64 / 1e3);
        last = now;
    }
    took
}

/// What every thread of this process has run so far, in microseconds.
fn cpu_us() -> f64 {
    let ran = |task: std::io::Result<std::fs::DirEntry>| {
        // A thread may have ended meanwhile.
        let stat = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse::<f64>().ok()
    };
    let tasks = std::fs::read_dir("/proc/self/task").expect("this is Linux");
    tasks.filter_map(ran).sum::<f64>() / 1e3
}
