//! `portcullis-host`: arguments and logs; everything else is in the library.

use std::{io::IsTerminal as _, process::ExitCode};

use clap::Parser as _;
use portcullis_host::cli::{Arguments, LogFormat};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_env("PORTCULLIS_LOG").unwrap_or_else(|_| EnvFilter::new(arguments.default_log()));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match arguments.log_format() {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().init(),
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return arguments.failed(&error),
    };
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(Into::into);
    runtime.block_on(portcullis_host::cli::run(arguments, credentials))
}
