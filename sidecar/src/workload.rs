//! The SPIFFE Workload API on a Unix socket, for the service beside the sidecar and for every SPIFFE client on the machine.
//!
//! Callers are attested, not trusted (`attest`); what they may have is decided by a plain function over what the broker registered
//! ([`Snapshot`]); where identities come from is behind [`Identities`]. This module knows no broker, no policy and no lattice.

mod api;
mod attest;
mod connection;
pub(crate) mod delegated;
mod identities;
mod quota;
mod snapshot;
mod socket;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use portcullis_api::WORKLOAD_DESCRIPTORS;
use portcullis_api::workload::spiffe_workload_api_server::SpiffeWorkloadApiServer;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::InterceptorLayer;
use tonic::transport::Server;
use tracing::error;

pub use attest::Selectors;
pub(crate) use delegated::COMPONENT;
pub use identities::{Identities, InvalidToken, Token, TokenClaims, TokenRefused, WantedToken};
pub use quota::WorkloadLimits;
pub use snapshot::{DomainBundle, Entry, Filling, Held, Snapshot, Template};
pub use socket::SocketError;

use api::Api;
use quota::Quota;

/// Bytes of a request's message: a token of 16 KiB and its audience fit.
const MAX_REQUEST_BYTES: usize = 32 << 10;
/// Bytes of a request's header fields.
const MAX_HEADER_BYTES: u32 = 8 << 10;
/// Unread bytes of a connection and of one of its requests.
const WINDOW_BYTES: u32 = 64 << 10;
/// Requests under way on one connection.
const STREAMS_PER_CONNECTION: u32 = 64;
/// Requests that a client opened and reset before they were served; more end the connection.
const MAX_RESET_STREAMS: usize = 16;
/// Pings find a client that does not read within twice this.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Where and how the Workload API is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadConfig {
    /// The socket.
    pub socket: PathBuf,
    /// Its mode. Callers are attested, so that it may be open to all.
    pub mode: u32,
    /// The users who may connect at all; empty: everybody.
    pub uids: Vec<u32>,
    /// Audiences that take a token once: none for them is handed out twice.
    pub login_audiences: Vec<String>,
    /// What callers may take.
    pub limits: WorkloadLimits,
}

/// A Workload API that is being served, for the operator's eyes.
#[derive(Clone, Debug)]
pub struct WorkloadApi {
    quota: Arc<Quota>,
}

impl WorkloadApi {
    /// Makes the socket.
    ///
    /// # Errors
    /// When its path is taken or cannot be used.
    pub fn bind(config: &WorkloadConfig) -> Result<UnixListener, SocketError> {
        socket::bind(&config.socket, config.mode)
    }

    /// Serves `identities` until `stop`.
    pub fn serve<I: Identities>(
        listener: UnixListener,
        config: &WorkloadConfig,
        identities: I,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let quota = Arc::new(Quota::new(config.limits));
        let incoming = connection::incoming(listener, config.uids.clone(), Arc::clone(&quota), tasks, stop.clone());
        let api = Api::new(identities, Arc::clone(&quota), tasks.clone(), stop.clone());
        let checked = Arc::clone(&quota);
        let server = bounded_server()
            .layer(InterceptorLayer::new(move |request| api::admit(request, &checked)))
            .add_service(SpiffeWorkloadApiServer::new(api).max_decoding_message_size(MAX_REQUEST_BYTES))
            // Behind the same header and the same rate as every call (Workload Endpoint §7).
            .add_optional_service(
                described(reflection().build_v1()).map(|it| it.max_decoding_message_size(MAX_REQUEST_BYTES)),
            )
            .add_optional_service(
                described(reflection().build_v1alpha()).map(|it| it.max_decoding_message_size(MAX_REQUEST_BYTES)),
            )
            .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
        let path = config.socket.clone();
        tasks.spawn(async move {
            if let Err(error) = server.await {
                error!(%error, "the workload API ended");
            }
            // Left behind it would only be replaced at the next start.
            let _ = std::fs::remove_file(path);
        });
        Self { quota }
    }

    /// Connections of workloads.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.quota.connections()
    }

    /// Streams of workloads.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.quota.streams()
    }
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(WORKLOAD_DESCRIPTORS)
}

/// The API is served without a description of itself where there can be none.
fn described<S>(service: Result<S, tonic_reflection::server::Error>) -> Option<S> {
    service.inspect_err(|error| error!(%error, "the workload API cannot describe itself")).ok()
}

/// A gRPC server on a socket that any process of the machine may open.
fn bounded_server() -> Server {
    Server::builder()
        .initial_connection_window_size(WINDOW_BYTES)
        .initial_stream_window_size(WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .http2_max_pending_accept_reset_streams(Some(MAX_RESET_STREAMS))
        .http2_max_local_error_reset_streams(Some(MAX_RESET_STREAMS))
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
