//! What was promised, and whether it is kept.

use crate::outcome::Target;
use crate::report::{Report, Row};

/// Every target for which the run has the figures.
pub fn all(report: &Report) -> Vec<Target> {
    let mut targets = Vec::new();
    splice(report, &mut targets);
    http(report, &mut targets);
    decisions(report, &mut targets);
    for (kind, mb) in &report.idle_rss_mb {
        targets.push(Target::at_most(format!("memory of an idle sidecar, {kind}"), "MB", *mb, 15.0));
    }
    targets
}

fn splice(report: &Report, targets: &mut Vec<Target>) {
    let at = |name, concurrency| report.row(name, concurrency);
    if let (Some(a), Some(u), Some(b)) = (at("a ", 1), at("u ", 1), at("b ", 1)) {
        let legs = a.p50_us + u.p50_us + 10.0;
        targets.push(Target::at_most("p50 of b, of a + u + 10 µs", "µs", b.p50_us, legs));
    }
    if let (Some(n), Some(b)) = (at("n ", 1), at("b ", 1)) {
        targets.push(Target::at_most("p50 of b, of n", "µs", b.p50_us, n.p50_us));
    }
    if let (Some(a), Some(u), Some(b)) = (at("a ", 32), at("u ", 32), at("b ", 32)) {
        let what = "calls of b at 32, of 80 % of what legs a and u allow";
        targets.push(Target::at_least(what, "per s", b.per_s, 0.8 * both(a, u)));
    }
}

fn http(report: &Report, targets: &mut Vec<Target>) {
    let at = |name, concurrency| report.row(name, concurrency);
    if let (Some(a), Some(d), Some(c)) = (at("a ", 1), at("d ", 1), at("c ", 1)) {
        let legs = a.p50_us + d.p50_us + 40.0;
        targets.push(Target::at_most("p50 of c, of a + d + 40 µs", "µs", c.p50_us, legs));
    }
    if let (Some(a), Some(d), Some(c)) = (at("a ", 32), at("d ", 32), at("c ", 32)) {
        let what = "calls of c at 32, of 80 % of what legs a and d allow";
        targets.push(Target::at_least(what, "per s", c.per_s, 0.8 * both(a, d)));
    }
}

/// The rate of two legs one after the other on the same cores.
fn both(first: &Row, second: &Row) -> f64 {
    1.0 / (1.0 / first.per_s + 1.0 / second.per_s)
}

fn decisions(report: &Report, targets: &mut Vec<Target>) {
    let slowest = |kind: &str, of: &str| {
        let rows = report.rows.iter();
        rows.filter(|row| row.name.starts_with(kind) && row.name.contains(of))
            .map(|row| row.p50_us)
            .max_by(f64::total_cmp)
    };
    let uncached = "e decision uncached";
    for (what, value, most) in [
        ("p50 of a cached decision", slowest("e decision cached", ""), 1.0),
        ("p50 uncached, grants as data", slowest(uncached, "grants as data"), 10.0),
        ("p50 uncached, 10 policies in the slice", slowest(uncached, "policies"), 30.0),
    ] {
        targets.extend(value.map(|value| Target::at_most(what, "µs", value, most)));
    }
    let of_registered: Vec<_> =
        report.rows.iter().filter(|row| row.name.starts_with(uncached) && row.name.contains("policies")).collect();
    if let [few, .., many] = of_registered[..] {
        let what = "p50 uncached with most registered, of that with 10";
        targets.push(Target::at_most(what, "times", many.p50_us / few.p50_us, 1.5));
    }
}
