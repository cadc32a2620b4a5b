//! The `invoices` program: arguments, address, signals.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::Parser;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

/// A small billing service over HTTP and JSON, with invoices in memory.
///
/// Try: invoices --listen 127.0.0.1:8080, then: curl http://127.0.0.1:8080/api/v1/invoices/INV-1001
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Where to listen; port 0 takes any free one
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Write {"address":..,"pid":..} here once requests are answered
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("invoices: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let listener = TcpListener::bind(arguments.listen).await?;
    let address = listener.local_addr()?;
    let shutdown = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let signalled = async {
        tokio::select! { _ = terminate.recv() => (), _ = interrupt.recv() => () }
        shutdown.cancel();
    };
    if let Some(path) = &arguments.ready_file {
        invoices::write_ready_file(path, address, std::process::id())?;
    }
    std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("invoices: listening on http://{address}\n"))?;
    tokio::join!(invoices::serve(listener, shutdown.clone()), signalled);
    Ok(())
}
