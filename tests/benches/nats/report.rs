//! The table, the targets, and the file.

use serde_json::{Value, json};

use crate::load::CONCURRENCIES;
use crate::options::Options;
use crate::outcome::{self, Target, rounded};

/// One line of the table and of the file.
#[derive(Clone, Debug)]
pub struct Row {
    /// The letter of the way, then words.
    pub name: String,
    /// Calls at a time.
    pub concurrency: usize,
    pub p50_us: f64,
    pub p99_us: f64,
    pub per_s: f64,
    /// What this process ran for one call.
    pub cpu_us: f64,
    /// What the NATS server ran for one.
    pub server_us: f64,
}

#[derive(Debug, Default)]
pub struct Report {
    pub rows: Vec<Row>,
    /// Slices that count for nothing: one of their calls was never answered.
    pub hung: Vec<String>,
}

impl Report {
    fn row(&self, letter: &str, concurrency: usize) -> Option<&Row> {
        self.rows.iter().find(|row| row.concurrency == concurrency && row.name.starts_with(letter))
    }

    #[expect(clippy::print_stdout, reason = "the table is what the bench is for")]
    pub fn print(&self) {
        println!();
        println!(
            "{:<32} {:>5} {:>10} {:>10} {:>10} {:>8} {:>8} {:>8}",
            "", "calls", "per s", "p50 µs", "p99 µs", "cpu µs", "server", "per s/s"
        );
        for row in &self.rows {
            let Row { name, concurrency, p50_us, p99_us, per_s, cpu_us, server_us } = row;
            let of_stock = self.row("s ", *concurrency).map_or(f64::NAN, |stock| per_s / stock.per_s);
            println!(
                "{name:<32} {concurrency:>5} {per_s:>10.0} {p50_us:>10.1} {p99_us:>10.1} {cpu_us:>8.1} {server_us:>8.1} {of_stock:>8.2}"
            );
        }
        for slice in &self.hung {
            println!("a call of {slice} was never answered: that slice does not count");
        }
        println!();
        for target in self.targets() {
            println!("{target}");
        }
    }

    fn targets(&self) -> Vec<Target> {
        let mut targets = Vec::new();
        for concurrency in CONCURRENCIES {
            let (Some(stock), Some(ours)) = (self.row("s ", concurrency), self.row("o ", concurrency)) else {
                continue;
            };
            let what = |what| format!("{what} at {concurrency}");
            targets.push(Target::at_least(what("calls of o, of 1.3 × s"), "per s", ours.per_s, 1.3 * stock.per_s));
            targets.push(Target::at_most(what("p50 of o, of s"), "µs", ours.p50_us, stock.p50_us));
        }
        for concurrency in CONCURRENCIES {
            let row = |letter| self.row(letter, concurrency);
            let (Some(ours), Some(unix), Some(both)) = (row("o "), row("u "), row("b ")) else { continue };
            let legs = 1.0 / (1.0 / ours.per_s + 1.0 / unix.per_s);
            let what = format!("calls of b at {concurrency}, of 80 % of the legs o and u");
            targets.push(Target::at_least(what, "per s", both.per_s, 0.8 * legs));
        }
        targets
    }

    /// Writes the rows as JSON.
    pub fn write(&self, options: &Options) -> anyhow::Result<()> {
        let rows: Vec<_> = self.rows.iter().map(Row::json).collect();
        outcome::write("nats", &rows, options)
    }
}

impl Row {
    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "concurrency": self.concurrency,
            "p50_us": rounded(self.p50_us),
            "p99_us": rounded(self.p99_us),
            "per_s": self.per_s.round(),
            "cpu_us": rounded(self.cpu_us),
            "server_us": rounded(self.server_us),
        })
    }
}
