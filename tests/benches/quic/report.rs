//! The table, the targets, and the file.

use serde_json::{Value, json};

use crate::options::Options;
use crate::outcome::{self, rounded};
use crate::targets;

/// One line of the table and of the file.
#[derive(Clone, Debug)]
pub struct Row {
    /// The letter of the variant, then words.
    pub name: String,
    /// Calls at a time.
    pub concurrency: usize,
    pub p50_us: f64,
    pub p99_us: f64,
    pub per_s: f64,
    /// Of large values, megabytes of encoding or of JSON per second.
    pub mb_per_s: Option<f64>,
    /// Of calls, what all parties in this process ran for one.
    pub cpu_us: Option<f64>,
}

#[derive(Debug, Default)]
pub struct Report {
    pub rows: Vec<Row>,
    /// Resident memory of an idle sidecar by kind of upstream, in megabytes.
    pub idle_rss_mb: Vec<(&'static str, f64)>,
}

impl Report {
    /// The row of a variant, or of the decision or codec case of that name.
    pub fn row(&self, name: &str, concurrency: usize) -> Option<&Row> {
        self.rows.iter().find(|row| row.concurrency == concurrency && row.name.starts_with(name))
    }

    #[expect(clippy::print_stdout, reason = "the table is what the bench is for")]
    pub fn print(&self) {
        println!();
        println!(
            "{:<44} {:>5} {:>12} {:>10} {:>10} {:>8} {:>8} {:>8}",
            "", "calls", "per s", "p50 µs", "p99 µs", "cpu µs", "p50/a", "per s/a"
        );
        for row in &self.rows {
            println!("{}", self.line(row));
        }
        for (kind, mb) in &self.idle_rss_mb {
            println!("{:<44} {mb:>31.1} MB", format!("idle sidecar's memory, {kind}"));
        }
        println!();
        for target in targets::all(self) {
            println!("{target}");
        }
    }

    fn line(&self, row: &Row) -> String {
        let (p50, p99) = (time(row.p50_us), time(row.p99_us));
        let mut line = format!("{:<44} {:>5} {:>12.0} {p50:>10} {p99:>10}", row.name, row.concurrency, row.per_s);
        if let Some(rate) = row.mb_per_s {
            line += &format!(" {rate:>8.0} MB/s");
        }
        if let Some(cpu) = row.cpu_us {
            line += &format!(" {cpu:>8.1}");
        }
        if let (Some(_), Some(a)) = (row.cpu_us, self.row("a ", row.concurrency)) {
            let (p50, rate) = (row.p50_us / a.p50_us, row.per_s / a.per_s);
            line += &format!(" {p50:>8.2} {rate:>8.2}");
        }
        line
    }

    /// Writes the rows as JSON.
    pub fn write(&self, options: &Options) -> anyhow::Result<()> {
        let rows: Vec<_> = self.rows.iter().map(Row::json).chain(self.memory()).collect();
        outcome::write("quic", &rows, options)
    }

    fn memory(&self) -> impl Iterator<Item = Value> {
        self.idle_rss_mb.iter().map(|(kind, mb)| {
            json!({
                "name": format!("idle sidecar, {kind}"), "concurrency": 0,
                "p50_us": null, "p99_us": null, "per_s": null, "rss_mb": rounded(*mb),
            })
        })
    }
}

impl Row {
    fn json(&self) -> Value {
        let mut row = json!({
            "name": self.name,
            "concurrency": self.concurrency,
            "p50_us": rounded(self.p50_us),
            "p99_us": rounded(self.p99_us),
            "per_s": self.per_s.round(),
        });
        if let Some(rate) = self.mb_per_s {
            row["mb_per_s"] = rounded(rate).into();
        }
        if let Some(cpu) = self.cpu_us {
            row["cpu_us"] = rounded(cpu).into();
        }
        row
    }
}

fn time(us: f64) -> String {
    if us < 10.0 { format!("{us:.3}") } else { format!("{us:.1}") }
}
