//! `follow`: a broker that answers a lattice's logins beside another one.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use portcullis_broker::Follower;
use portcullis_broker::atomic_file::{self, Existing};
use portcullis_broker::config::Settings;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::Environment;
use super::failure::Failure;
use super::run::{LogFormat, Signals, read_settings, start_logging};

/// Below this a moment without a word would end it.
const SHORTEST_AGE: Duration = Duration::from_secs(10);
/// Revocations that are not heard must not be ignored for longer than a day.
const LONGEST_AGE: Duration = Duration::from_secs(24 * 3600);

/// Answer a lattice's logins beside a broker that runs, and go on while that one is away.
///
/// It takes a copy of the registry over the lattice's servers and follows each change, shares the logins with the other broker and refuses a
/// login token that the other one took. It issues nothing, changes nothing, and decides nothing of what hosts may start. Give it the settings
/// of the broker that it follows, the same `nats.folder`, and a data folder of its own. SIGTERM and SIGINT end it in order.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  portcullis-broker follow --config /etc/portcullis/broker.toml --data /var/lib/portcullis-follower
  portcullis-broker follow --config broker.toml --data follower --admin 127.0.0.1:9441 --max-age 1h")]
pub(crate) struct Follow {
    /// The trust domain of the broker that it follows
    #[arg(long, value_name = "NAME")]
    trust_domain: Option<String>,
    /// Its audit log; made, for its owner alone, where it is missing
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Where to serve /live, /ready, /status and /metrics: unix:PATH or a loopback address [default: unix:DATA/admin.sock]
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// A TOML file with the settings of the broker that it follows, of which it uses trust_domain and the table nats
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// How long it answers without a word of the other broker, 10 seconds to 24 hours: for so long it may not know what was revoked
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_age)]
    max_age: Duration,
    /// Once it has a copy, write its admin address and process id to this file, as JSON
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,
    /// How log lines look; PORTCULLIS_LOG (else RUST_LOG) filters them
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
}

/// What `--ready-file` holds.
#[derive(Debug, Serialize)]
struct Ready {
    admin: String,
    pid: u32,
}

impl Follow {
    pub(crate) async fn execute(self, environment: Environment) -> Result<(), Failure> {
        start_logging(self.log_format, environment.log.as_deref())?;
        let file = read_settings(&self.config)?;
        let settings = Settings {
            trust_domain: self.trust_domain.or(file.trust_domain),
            data: Some(self.data),
            admin: self.admin,
            nats: file.nats,
            ..Settings::default()
        };
        let config = settings.check().map_err(|error| Failure::misused(error.to_string()))?;
        if config.nats.is_none() {
            return Err(Failure::misused(portcullis_broker::FollowError::NoLattice.to_string()));
        }
        let shutdown = CancellationToken::new();
        let signals = Signals::new()?;
        let follower = Follower::start(config, self.max_age);
        let follower = follower.await.map_err(|error| Failure::broken(error.to_string()))?;
        let ready = async {
            follower.has_copy().await;
            tracing::info!("ready");
            let ready = Ready { admin: follower.admin().to_string(), pid: std::process::id() };
            let written = self.ready_file.as_deref().map_or(Ok(()), |path| write(path, &ready));
            match written {
                Ok(()) => std::future::pending().await,
                Err(failure) => failure,
            }
        };
        let ended = tokio::select! {
            failure = ready => Err(failure),
            () = signals.cancel(shutdown) => Ok(()),
        };
        follower.stop().await;
        ended
    }
}

fn write(path: &std::path::Path, ready: &Ready) -> Result<(), Failure> {
    let failed = |error: String| Failure::broken(format!("cannot write `{}`: {error}", path.display()));
    let text = serde_json::to_string(ready).map_err(|error| failed(error.to_string()))?;
    atomic_file::write(path, text.as_bytes(), 0o644, Existing::Replace).map_err(|error| failed(error.to_string()))
}

fn parse_age(text: &str) -> Result<Duration, String> {
    let age = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if (SHORTEST_AGE..=LONGEST_AGE).contains(&age) {
        Ok(age)
    } else {
        Err("it is not between 10 seconds and 24 hours".to_owned())
    }
}
