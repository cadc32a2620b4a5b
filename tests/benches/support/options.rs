//! The command line.

use std::time::Duration;

use anyhow::bail;

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// A smoke run: everything once, nothing long enough to mean something.
    pub quick: bool,
    /// The variants to run; nothing for all.
    pub only: Option<Vec<char>>,
}

impl Options {
    pub fn parse(arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        // `cargo bench` says `--bench`; without it, it is `cargo test --benches` that only wants to know whether it still works.
        let mut options = Self { quick: true, only: None };
        let mut quick = false;
        let mut arguments = arguments.peekable();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--bench" => options.quick = false,
                "--quick" => quick = true,
                "--only" => {
                    let Some(variants) = arguments.next() else {
                        bail!("--only needs variants, for instance `--only b,n`");
                    };
                    options.only = Some(variants.chars().filter(char::is_ascii_alphabetic).collect());
                }
                other => bail!("`{other}` is not understood: there are --quick and --only VARIANTS"),
            }
        }
        options.quick |= quick;
        Ok(options)
    }

    pub fn wants(&self, variant: char) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(&variant))
    }

    /// Rounds that count.
    pub fn rounds(&self) -> usize {
        if self.quick { 1 } else { 30 }
    }

    /// How long one variant runs at one concurrency in one round.
    pub fn slice(&self) -> Duration {
        Duration::from_millis(if self.quick { 25 } else { 250 })
    }
}
