//! One unmodified wasmCloud host, started as `wasmcloud` 1.9.2 starts its own: the same library, flags and environment, as far as the
//! tests need them. Everything that is decided is decided in `wasmcloud-host`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use nkeys::KeyPair;
use tokio::signal;
use tracing_subscriber::util::SubscriberInitExt as _;
use wasmcloud_core::OtelConfig;
use wasmcloud_core::logging::Level;
use wasmcloud_host::url::Url;
use wasmcloud_host::wasmbus::Features;
use wasmcloud_host::wasmbus::host_config::PolicyService;
use wasmcloud_host::{WasmbusHost, WasmbusHostConfig};

/// The release whose host this is.
const VERSION: &str = "1.9.2";
/// How long a host may take to end.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// A wasmCloud host, with the flags and the environment of `wasmcloud` 1.9.2.
#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long, default_value = "127.0.0.1", env = "WASMCLOUD_NATS_HOST")]
    nats_host: String,
    #[arg(long, default_value_t = 4222, env = "WASMCLOUD_NATS_PORT")]
    nats_port: u16,
    #[arg(long, env = "WASMCLOUD_CTL_TLS")]
    ctl_tls: bool,
    #[arg(long, env = "WASMCLOUD_RPC_TLS")]
    rpc_tls: bool,
    #[arg(long, default_value = "2000", env = "WASMCLOUD_RPC_TIMEOUT_MS", value_parser = milliseconds)]
    rpc_timeout_ms: Duration,
    #[arg(short = 'x', long, default_value = "default", env = "WASMCLOUD_LATTICE")]
    lattice: String,
    #[arg(long, env = "WASMCLOUD_HOST_SEED")]
    host_seed: Option<String>,
    #[arg(short, long = "label", value_parser = label)]
    labels: Vec<(String, String)>,
    #[arg(long, env = "WASMCLOUD_ALLOW_FILE_LOAD")]
    allow_file_load: bool,
    #[arg(long, env = "WASMCLOUD_POLICY_TOPIC")]
    policy_topic: Option<String>,
    #[arg(long, env = "WASMCLOUD_POLICY_CHANGES_TOPIC", requires = "policy_topic")]
    policy_changes_topic: Option<String>,
    #[arg(long, env = "WASMCLOUD_POLICY_TIMEOUT", requires = "policy_topic", value_parser = milliseconds)]
    policy_timeout_ms: Option<Duration>,
    #[arg(long, default_value = "600000", env = "WASMCLOUD_MAX_EXECUTION_TIME_MS", value_parser = milliseconds)]
    max_execution_time_ms: Duration,
    #[arg(long, default_value = "info", env = "WASMCLOUD_LOG_LEVEL", value_parser = level)]
    log_level: Level,
    #[arg(long = "feature", env = "WASMCLOUD_EXPERIMENTAL_FEATURES", value_delimiter = ',')]
    features: Vec<Features>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let (log, no_flame_graph) = (arguments.log_level.clone(), None::<&str>);
    let telemetry = OtelConfig::default();
    let (dispatch, _guard) = wasmcloud_tracing::configure_observability(
        "wasmcloud-host",
        &telemetry,
        false,
        no_flame_graph,
        Some(&log),
        Some(&log),
    )?;
    dispatch.try_init().context("failed to init observability for host")?;
    let (host, shutdown) =
        Box::pin(WasmbusHost::new(arguments.settings()?)).await.context("failed to initialize host")?;
    let mut terminate = signal::unix::signal(signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        stopped = host.stopped() => { stopped?; }
    }
    drop(host);
    tokio::time::timeout(SHUTDOWN, shutdown)
        .await
        .context("host shutdown timed out")?
        .context("failed to shutdown host")
}

impl Arguments {
    fn settings(self) -> anyhow::Result<WasmbusHostConfig> {
        let server = Url::parse(&format!("nats://{}:{}", self.nats_host, self.nats_port))?;
        let host_key = self.host_seed.as_deref().map(KeyPair::from_seed).transpose()?.map(Arc::new);
        Ok(WasmbusHostConfig {
            ctl_nats_url: server.clone(),
            ctl_tls: self.ctl_tls,
            rpc_nats_url: server,
            rpc_tls: self.rpc_tls,
            rpc_timeout: self.rpc_timeout_ms,
            lattice: Arc::from(self.lattice),
            host_key,
            labels: HashMap::from_iter(self.labels),
            provider_shutdown_delay: Some(Duration::from_millis(300)),
            allow_file_load: self.allow_file_load,
            log_level: self.log_level,
            policy_service_config: PolicyService {
                policy_topic: self.policy_topic,
                policy_changes_topic: self.policy_changes_topic,
                policy_timeout_ms: self.policy_timeout_ms,
            },
            max_execution_time: self.max_execution_time_ms,
            experimental_features: self.features.into_iter().sum(),
            version: VERSION.to_owned(),
            ..WasmbusHostConfig::default()
        })
    }
}

fn milliseconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_millis)
}

fn level(text: &str) -> Result<Level, String> {
    Ok(match text {
        "error" => Level::Error,
        "warn" => Level::Warn,
        "info" => Level::Info,
        "debug" => Level::Debug,
        "trace" => Level::Trace,
        other => return Err(format!("`{other}` is no level")),
    })
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not key=value"))?;
    Ok((key.to_owned(), value.to_owned()))
}
