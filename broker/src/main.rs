//! `portcullis-broker`: the control plane as a process, and the operator's commands that talk to it.

mod cli;

use std::process::ExitCode;

use clap::Parser as _;

use self::cli::{Arguments, Environment};

fn main() -> ExitCode {
    let environment = Environment {
        socket: std::env::var_os("PORTCULLIS_BROKER_SOCKET").map(Into::into),
        credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(Into::into),
        log: std::env::var("PORTCULLIS_LOG").or_else(|_| std::env::var("RUST_LOG")).ok(),
        ssl_cert_file: std::env::var_os("SSL_CERT_FILE").map(Into::into),
    };
    cli::run(Arguments::parse(), environment)
}
