//! The command line.
//!
//! Exit codes: 0 done, 1 broken or unreachable, 2 wrong usage, 3 refused: by policy, by the callee, or by `check`.

mod ask;
mod check;
mod invoke;
mod run;
mod scaffold;
mod status;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};

/// Exit code of a command line that asks for what cannot be: that of clap, too.
const MISUSED: u8 = 2;
/// Exit code of a refusal: nothing is broken, the answer is no.
const REFUSED: u8 = 3;

/// Puts a legacy service into a wasm lattice: as a virtual component, over mutual TLS, with every call decided by policy.
#[derive(Debug, Parser)]
#[command(name = "portcullis-sidecar", version, max_term_width = 110)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// How logs are written to standard error; PORTCULLIS_LOG filters them (`info`, `portcullis_sidecar=debug`).
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
    Run(run::Run),
    Check(check::Check),
    Invoke(invoke::Invoke),
    Status(status::StatusCommand),
    New(scaffold::New),
    /// Prints a completion script for a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

impl Arguments {
    /// What is logged where PORTCULLIS_LOG says nothing: a daemon speaks, a command keeps quiet.
    #[must_use]
    pub fn default_log(&self) -> &'static str {
        match self.command {
            Command::Run(_) => "info",
            Command::Check(_)
            | Command::Invoke(_)
            | Command::Status(_)
            | Command::New(_)
            | Command::Completion { .. } => "error",
        }
    }

    /// How logs are written.
    #[must_use]
    pub fn log_format(&self) -> LogFormat {
        self.log_format
    }

    /// Reports an error that came before the command.
    #[must_use]
    pub fn failed(&self, error: &dyn std::fmt::Display) -> ExitCode {
        broken(error)
    }
}

/// Carries out one command line. `credentials` is the folder that systemd names in `$CREDENTIALS_DIRECTORY`.
pub async fn run(arguments: Arguments, credentials: Option<PathBuf>) -> ExitCode {
    let json = arguments.json;
    match arguments.command {
        Command::Run(command) => command.carry_out(credentials).await,
        Command::Check(command) => command.carry_out(json),
        Command::Invoke(command) => command.carry_out(json, credentials).await,
        Command::Status(command) => command.carry_out(json).await,
        Command::New(command) => command.carry_out(json),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "portcullis-sidecar", &mut script);
            say_bytes(&script)
        }
    }
}

/// Prints to standard output; a closed pipe is nobody's fault.
fn say(text: &str) -> ExitCode {
    say_bytes(format!("{text}\n").as_bytes())
}

fn say_bytes(bytes: &[u8]) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => broken(&error),
    }
}

fn complain(text: &str) {
    // Nobody is left to tell where standard error is closed.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

fn broken(error: &dyn std::fmt::Display) -> ExitCode {
    complain(&format!("error: {error}"));
    ExitCode::FAILURE
}

fn refused(why: &dyn std::fmt::Display) -> ExitCode {
    complain(&format!("refused: {why}"));
    ExitCode::from(REFUSED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }
}
