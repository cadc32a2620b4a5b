//! `run`: the broker itself.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use portcullis_broker::Daemon;
use portcullis_broker::atomic_file::{self, Existing};
use portcullis_broker::config::Settings;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::Environment;
use super::failure::Failure;

/// Run a broker.
///
/// With nothing but a trust domain it makes its certificate authority and its store in the data folder, serves nodes on
/// 127.0.0.1:7440 and operators on DATA/operator.sock. SIGTERM and SIGINT end it in order.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Run {
    /// The trust domain whose authority this broker is, for instance acme.test
    #[arg(long, value_name = "NAME")]
    trust_domain: Option<String>,
    /// Keys and store; made, for its owner alone, where it is missing [default: portcullis-data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where to serve nodes [default: 127.0.0.1:7440]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// Under which address nodes reach this broker; join tokens carry it [default: the one it listens on]
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// The operator socket [default: DATA/operator.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Where to serve /live, /ready, /status and /metrics: unix:PATH or a loopback address [default: unix:DATA/admin.sock]
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// A user id that may use the operator socket, beside root and the broker's own; may be repeated
    #[arg(long = "operator-uid", value_name = "UID")]
    operator_uids: Vec<u32>,
    /// The key that seals the CA keys on disk: a file (`portcullis-broker seal-key new` makes one), or credential:NAME for a
    /// credential that systemd passes
    #[arg(long, value_name = "FILE")]
    seal_key_file: Option<String>,
    /// A TOML file with these settings (trust_domain, data, listen, advertise, operator_socket, admin, operator_uids, node_ttl,
    /// svid_ttl, ca_lifetime, jwt_key_lifetime, seal_key_file, x509pop_ca, x509pop_name; tables federation, bundle_endpoint, oidc, nats);
    /// the command line wins
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Once serving, write the bound addresses and the process id to this file, as JSON
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,
    /// How log lines look; PORTCULLIS_LOG (else RUST_LOG) filters them
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
}

const EXAMPLES: &str = "Examples:
  portcullis-broker run --trust-domain acme.test --data /var/lib/portcullis
  portcullis-broker run --trust-domain acme.test --listen 0.0.0.0:7440 --advertise broker.acme.test:7440
  portcullis-broker run --trust-domain acme.test --seal-key-file credential:portcullis-seal";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    Text,
    Json,
}

/// What `--ready-file` holds.
#[derive(Debug, Serialize)]
struct Ready {
    control: String,
    operator_socket: PathBuf,
    admin: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    bundle_endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oidc: Option<String>,
    pid: u32,
}

impl Run {
    pub(crate) async fn execute(self, environment: Environment) -> Result<(), Failure> {
        let Environment { socket: _, log, credentials, ssl_cert_file } = environment;
        start_logging(self.log_format, log.as_deref())?;
        let ready_file = self.ready_file.clone();
        let config = Settings { credentials, ..self.settings(ssl_cert_file)? }
            .check()
            .map_err(|error| Failure::misused(error.to_string()))?;
        let shutdown = CancellationToken::new();
        // Before anything is served, so that no signal is missed.
        let signals = Signals::new()?;
        let listener = TcpListener::bind(config.listen)
            .await
            .map_err(|error| Failure::broken(format!("cannot listen on `{}`: {error}", config.listen)))?;
        if let Some(nats) = &config.nats {
            portcullis_broker::nats::check(nats).await.map_err(|error| Failure::broken(error.to_string()))?;
        }
        let daemon = Daemon::start(config, listener).map_err(|error| Failure::broken(error.to_string()))?;
        if let Some(path) = ready_file {
            write_ready(&path, &daemon)?;
        }
        tokio::join!(daemon.run(shutdown.clone()), signals.cancel(shutdown));
        Ok(())
    }

    fn settings(self, ssl_cert_file: Option<PathBuf>) -> Result<Settings, Failure> {
        let file = match &self.config {
            Some(path) => read_settings(path)?,
            None => Settings::default(),
        };
        let line = Settings {
            trust_domain: self.trust_domain,
            data: self.data,
            listen: self.listen,
            advertise: self.advertise,
            operator_socket: self.socket,
            admin: self.admin,
            operator_uids: if self.operator_uids.is_empty() { None } else { Some(self.operator_uids) },
            node_ttl: None,
            svid_ttl: None,
            ca_lifetime: None,
            jwt_key_lifetime: None,
            seal_key_file: self.seal_key_file,
            credentials: None,
            x509pop_ca: None,
            x509pop_name: None,
            federation: None,
            bundle_endpoint: None,
            oidc: None,
            nats: None,
        };
        let mut settings = line.or(file);
        let federation = settings.federation.get_or_insert_default();
        federation.ca_file = federation.ca_file.take().or(ssl_cert_file);
        Ok(settings)
    }
}

pub(super) fn read_settings(path: &std::path::Path) -> Result<Settings, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::broken(format!("cannot read `{}`: {error}", path.display())))?;
    Settings::parse(path, &text).map_err(|error| Failure::misused(error.to_string()))
}

/// The two signals that end a broker in order.
pub(super) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    /// Nobody waits for it. Where it is caught, a file that may not grow is an error of the disk, and not the broker's end.
    _file_size: tokio::signal::unix::Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::broken(format!("cannot listen to signals: {error}")));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            _file_size: listen(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?,
        })
    }

    pub(super) async fn cancel(mut self, shutdown: CancellationToken) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        shutdown.cancel();
    }
}

fn write_ready(path: &std::path::Path, daemon: &Daemon) -> Result<(), Failure> {
    let ready = Ready {
        control: daemon.control_address().to_string(),
        operator_socket: daemon.operator_socket().to_owned(),
        admin: daemon.admin().to_string(),
        bundle_endpoint: daemon.bundle_endpoint().map(|address| address.to_string()),
        oidc: daemon.oidc().map(|address| address.to_string()),
        pid: std::process::id(),
    };
    let failed = |error: String| Failure::broken(format!("cannot write `{}`: {error}", path.display()));
    let text = serde_json::to_string(&ready).map_err(|error| failed(error.to_string()))?;
    atomic_file::write(path, text.as_bytes(), 0o644, Existing::Replace).map_err(|error| failed(error.to_string()))
}

pub(super) fn start_logging(format: LogFormat, filter: Option<&str>) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(filter.unwrap_or("info"))
        .map_err(|error| Failure::misused(format!("the log filter is not one: {error}")))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}
