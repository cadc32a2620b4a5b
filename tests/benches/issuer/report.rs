//! The table, the targets, and the file.

use serde_json::{Value, json};

use crate::options::Options;
use crate::outcome::{self, Target, percentile, rounded};

/// What one SVID costs.
#[derive(Clone, Debug)]
pub struct Row {
    /// The letter of the way, then words.
    pub name: String,
    /// Of the broker's process; of r, of one thread here.
    pub cpu_us: f64,
    /// How many a second there were, on whatever cores were left.
    pub per_s: Option<f64>,
    /// The share of the raw cost in it.
    pub of_raw: Option<f64>,
}

/// How long changes took, in milliseconds.
#[derive(Clone, Debug)]
struct Latency {
    name: &'static str,
    p50_ms: f64,
    p99_ms: f64,
}

/// Anything else.
#[derive(Clone, Debug)]
struct Figure {
    name: &'static str,
    unit: &'static str,
    value: f64,
}

#[derive(Debug, Default)]
pub struct Report {
    pub rows: Vec<Row>,
    latencies: Vec<Latency>,
    figures: Vec<Figure>,
}

impl Report {
    pub fn raw(&mut self, name: &str, cpu_us: f64) {
        self.rows.push(Row { name: name.to_owned(), cpu_us, per_s: None, of_raw: None });
    }

    pub fn latency(&mut self, name: &'static str, mut took_ms: Vec<f64>) {
        let (p50_ms, p99_ms) = (percentile(&mut took_ms, 0.5), percentile(&mut took_ms, 0.99));
        self.latencies.push(Latency { name, p50_ms, p99_ms });
    }

    pub fn figure(&mut self, name: &'static str, unit: &'static str, value: f64) {
        self.figures.push(Figure { name, unit, value });
    }

    pub fn memory(&mut self, name: &'static str, mb: f64) {
        self.figure(name, "MB", mb);
    }

    #[expect(clippy::print_stdout, reason = "the table is what the bench is for")]
    pub fn print(&self) {
        println!("\n{:<52} {:>10} {:>10} {:>10}", "one SVID", "cpu µs", "of raw", "per s");
        for Row { name, cpu_us, per_s, of_raw } in &self.rows {
            let of_raw = of_raw.map_or_else(String::new, |share| format!("{:.1} %", share * 100.0));
            let per_s = per_s.map_or_else(String::new, |rate| format!("{rate:.0}"));
            println!("{name:<52} {cpu_us:>10.1} {of_raw:>10} {per_s:>10}");
        }
        println!("\n{:<52} {:>10} {:>10}", "a change", "p50 ms", "p99 ms");
        for Latency { name, p50_ms, p99_ms } in &self.latencies {
            println!("{name:<52} {p50_ms:>10.2} {p99_ms:>10.2}");
        }
        println!();
        for Figure { name, unit, value } in &self.figures {
            println!("{name:<52} {value:>10.2} {unit}");
        }
        println!();
        for target in self.targets() {
            println!("{target}");
        }
    }

    /// Every target for which the run has the figures.
    fn targets(&self) -> Vec<Target> {
        let mut targets = Vec::new();
        for (letter, least) in [("s ", 65.0), ("u ", 55.0), ("j ", 35.0), ("b ", 60.0)] {
            let row = self.rows.iter().find(|row| row.name.starts_with(letter));
            if let Some((row, share)) = row.and_then(|row| Some((row, row.of_raw?))) {
                targets.push(Target::at_least(format!("{}, of the raw rate", row.name), "%", share * 100.0, least));
            }
        }
        for Latency { name, p50_ms, p99_ms } in &self.latencies {
            targets.push(Target::at_most(format!("{name}, p50"), "ms", *p50_ms, 20.0));
            targets.push(Target::at_most(format!("{name}, p99"), "ms", *p99_ms, 100.0));
        }
        for (name, most) in
            [("f broker, cold start", 2.0), ("f broker after a cold start", 100.0), ("f agent, idle", 15.0)]
        {
            let figure = self.figures.iter().find(|figure| figure.name == name);
            targets.extend(figure.map(|figure| Target::at_most(name, figure.unit, figure.value, most)));
        }
        targets
    }

    /// Writes the rows as JSON.
    pub fn write(&self, options: &Options) -> anyhow::Result<()> {
        let rows = self.rows.iter().map(|row| {
            let of_raw = row.of_raw.map(rounded);
            json!({
                "name": row.name, "cpu_us": rounded(row.cpu_us), "per_s": row.per_s.map(f64::round), "of_raw": of_raw,
            })
        });
        let latencies = self
            .latencies
            .iter()
            .map(|row| json!({ "name": row.name, "p50_ms": rounded(row.p50_ms), "p99_ms": rounded(row.p99_ms) }));
        let figures = self
            .figures
            .iter()
            .map(|figure| json!({ "name": figure.name, "unit": figure.unit, "value": rounded(figure.value) }));
        let rows: Vec<Value> = rows.chain(latencies).chain(figures).collect();
        outcome::write("issuer", &rows, options)
    }
}
