//! The command line.
//!
//! Exit codes: 0 done, 1 broken or unreachable, 2 wrong usage, 3 refused by policy.

mod inspect;
mod lines;
mod run;

use std::{
    fmt::Display,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};

/// Exit code of wrong usage, the one that clap gives.
const USAGE: u8 = 2;
/// Exit code of a refusal: nothing is broken, the answer is no.
const REFUSED: u8 = 3;

/// Runs wasm components whose imports are virtual components: over mutual TLS, each under its own identity.
#[derive(Debug, Parser)]
#[command(name = "portcullis-host", version, max_term_width = 110)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// How logs are written to standard error; PORTCULLIS_LOG filters them (`info`, `portcullis_host=debug`).
    #[arg(long, global = true, value_enum, default_value = "text")]
    log_format: LogFormat,
    /// Answers as JSON on standard output.
    #[arg(long, global = true)]
    json: bool,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<run::Run>),
    Inspect(inspect::Inspect),
    /// Prints a completion script for a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

impl Arguments {
    /// What is logged where PORTCULLIS_LOG says nothing.
    #[must_use]
    pub fn default_log(&self) -> &'static str {
        match self.command {
            Command::Run(_) => "warn",
            Command::Inspect(_) | Command::Completion { .. } => "error",
        }
    }

    /// How logs are written.
    #[must_use]
    pub fn log_format(&self) -> LogFormat {
        self.log_format
    }

    /// Reports an error that came before the command.
    #[must_use]
    pub fn failed(&self, error: &dyn Display) -> ExitCode {
        broken(error)
    }
}

/// How answers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    Json,
}

/// Carries out one command line. `credentials` is the folder that systemd names in `$CREDENTIALS_DIRECTORY`.
pub async fn run(arguments: Arguments, credentials: Option<PathBuf>) -> ExitCode {
    let form = if arguments.json { Form::Json } else { Form::Text };
    match arguments.command {
        Command::Run(command) => command.carry_out(form, credentials).await,
        Command::Inspect(command) => command.carry_out(form),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "portcullis-host", &mut script);
            exit(say_bytes(&script))
        }
    }
}

/// Prints a line to standard output.
fn say(text: &str) -> io::Result<()> {
    say_bytes(format!("{text}\n").as_bytes())
}

fn say_bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush())
}

/// A closed pipe is nobody's fault.
fn exit(said: io::Result<()>) -> ExitCode {
    match said {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => broken(&error),
    }
}

fn complain(text: &str) {
    // Nobody is left to tell where standard error is closed.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

fn broken(error: &dyn Display) -> ExitCode {
    complain(&format!("error: {error}"));
    ExitCode::FAILURE
}

fn misused(error: &dyn Display) -> ExitCode {
    complain(&format!("error: {error}"));
    ExitCode::from(USAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }
}
