//! The broker's own connections to the servers.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr};
use rustls::ClientConfig;
use rustls::crypto::ring::default_provider;

use super::subjects::BROKER_INBOX;
use crate::config::Nats;
use crate::federation::WebRoots;

/// For one server to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest wait between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Attempts to connect anew: some ten seconds of them.
const ATTEMPTS: usize = 16;
/// Messages that wait for us; beyond, the oldest are lost, and their clients try again.
const SUBSCRIPTION_CAPACITY: usize = 4096;
/// Messages of ours that wait to be written.
const CLIENT_CAPACITY: usize = 1024;
/// The first version whose callout has no known hole, and that answers for a client without token by its sentinel.
const OLDEST: (i64, i64, i64) = (2, 12, 7);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("no server answers: {0}")]
    Unreachable(String),
    #[error("the server refuses the broker's credentials: they are of another set-up: {0}")]
    Refused(String),
    #[error("nats-server {version} is too old: 2.12.7 is the oldest that is used")]
    TooOld { version: String },
    #[error("the credentials are not those that `nats init` writes")]
    Credentials,
    #[error("cannot set up TLS: {0}")]
    Tls(String),
}

/// Connects as the user of `credentials`.
///
/// # Errors
/// When no server answers, or none takes us.
pub(super) async fn connect(settings: &Nats, name: &'static str, credentials: &str) -> Result<Client, ConnectError> {
    let options = ConnectOptions::with_credentials(credentials).map_err(|_| ConnectError::Credentials)?;
    let options = options
        .name(name)
        // What is asked of other brokers is not asked of this one.
        .no_echo()
        .custom_inbox_prefix(BROKER_INBOX)
        .connection_timeout(CONNECT_TIMEOUT)
        .request_timeout(Some(CONNECT_TIMEOUT))
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        .client_capacity(CLIENT_CAPACITY)
        // Then everything is read anew, the servers' authorities among it.
        .max_reconnects(Some(ATTEMPTS))
        .ignore_discovered_servers()
        .reconnect_delay_callback(pause)
        .event_callback(move |event| async move { log(name, &event) });
    let secure = settings.servers.iter().any(|server| server.starts_with("tls://"));
    let options = if secure { options.require_tls(true).tls_client_config(tls(settings)?) } else { options };
    let addresses: Vec<ServerAddr> = settings.servers.iter().filter_map(|server| server.parse().ok()).collect();
    let connected = tokio::time::timeout(CONNECT_TIMEOUT.saturating_mul(2), options.connect(addresses)).await;
    let client =
        connected.map_err(|_| ConnectError::Unreachable("timed out".to_owned()))?.map_err(|error| {
            match error.kind() {
                ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                    ConnectError::Refused(error.to_string())
                }
                ConnectErrorKind::ServerParse
                | ConnectErrorKind::Dns
                | ConnectErrorKind::TimedOut
                | ConnectErrorKind::Tls
                | ConnectErrorKind::Io
                | ConnectErrorKind::MaxReconnects => ConnectError::Unreachable(causes(&error)),
            }
        })?;
    let version = client.server_info().version;
    let (major, minor, patch) = OLDEST;
    if client.is_server_compatible(major, minor, patch) { Ok(client) } else { Err(ConnectError::TooOld { version }) }
}

/// What happened, and why: of a server with the wrong certificate only the causes tell.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn tls(settings: &Nats) -> Result<ClientConfig, ConnectError> {
    let failed = |error: String| ConnectError::Tls(error);
    let roots = WebRoots::new(settings.ca_file.clone()).read().map_err(|error| failed(error.to_string()))?;
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn pause(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts).unwrap_or(u32::MAX).min(8);
    Duration::from_millis(5).saturating_mul(1 << doublings).min(LONGEST_PAUSE)
}

fn log(connection: &'static str, event: &Event) {
    match event {
        Event::Connected => tracing::info!(connection, "connected to the lattice"),
        Event::Disconnected => tracing::warn!(connection, "disconnected from the lattice"),
        Event::SlowConsumer(_) => tracing::error!(connection, "messages of the lattice were lost: too many at once"),
        Event::ServerError(error) => tracing::warn!(connection, %error, "the lattice's server complains"),
        Event::ClientError(error) => tracing::warn!(connection, %error, "the connection to the lattice fails"),
        Event::LameDuckMode | Event::Draining | Event::Closed => {
            tracing::info!(connection, %event, "the connection to the lattice ends");
        }
    }
}
