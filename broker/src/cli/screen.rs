//! Standard output: lines, tables for people, JSON for programs.

use std::io::{self, BufWriter, StdoutLock, Write as _};

use serde::Serialize;

use super::failure::Failure;

/// Standard output, locked and buffered.
pub(crate) struct Screen(BufWriter<StdoutLock<'static>>);

impl Screen {
    pub(crate) fn new() -> Self {
        Self(BufWriter::new(io::stdout().lock()))
    }

    /// Prints a line.
    pub(crate) fn line(&mut self, text: impl AsRef<str>) -> Result<(), Failure> {
        writeln!(self.0, "{}", text.as_ref()).map_err(|error| unwritable(&error))
    }

    /// Prints `value` as indented JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer_pretty(&mut self.0, value).map_err(|error| unwritable(&error.into()))?;
        self.line("")
    }

    /// Prints rows under a heading, in columns; `nothing` where there is none.
    pub(crate) fn table<const N: usize>(
        &mut self,
        heading: [&str; N],
        rows: &[[String; N]],
        nothing: &str,
    ) -> Result<(), Failure> {
        if rows.is_empty() {
            return self.line(nothing);
        }
        let heading = heading.map(str::to_owned);
        let mut widths = [0; N];
        for row in std::iter::once(&heading).chain(rows) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        for row in std::iter::once(&heading).chain(rows) {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
            self.line(cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }

    /// Writes out what is buffered, for somebody who watches.
    pub(crate) fn show(&mut self) -> Result<(), Failure> {
        self.0.flush().map_err(|error| unwritable(&error))
    }

    /// Writes out what is buffered, and ends.
    pub(crate) fn flush(mut self) -> Result<(), Failure> {
        self.0.flush().map_err(|error| unwritable(&error))
    }
}

fn unwritable(error: &io::Error) -> Failure {
    Failure::broken(format!("cannot write to standard output: {error}"))
}

/// Seconds since 1970 as RFC 3339; `-` for none.
pub(crate) fn time(seconds: u64) -> String {
    if seconds == 0 {
        return "-".to_owned();
    }
    humantime::format_rfc3339_seconds(portcullis_broker::clock::from_unix_seconds(seconds)).to_string()
}

/// A text for a cell; `-` for none.
pub(crate) fn cell(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}
