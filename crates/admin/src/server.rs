use std::convert::Infallible;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::AdminAddress;

/// For a request's head to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// For one connection in all.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

/// What is looked at.
pub trait Observed: Send + Sync + 'static {
    /// Why it does not serve, where it does not.
    fn not_ready(&self) -> Option<String>;
    /// The text of `/metrics`.
    fn metrics(&self) -> String;
    /// The JSON of `/status`, or why there is none.
    fn status(&self) -> Result<String, String>;
}

/// An open admin listener.
#[derive(Debug)]
pub struct Admin {
    listener: Listening,
    address: AdminAddress,
}

#[derive(Debug)]
enum Listening {
    Unix(UnixListener),
    Loopback(TcpListener),
}

impl Admin {
    /// Opens the address; a socket file that nobody serves any more is replaced. To be called on a tokio runtime.
    ///
    /// # Errors
    /// When it is in use, or not ours to take.
    pub fn open(address: &AdminAddress) -> io::Result<Self> {
        match address {
            AdminAddress::Unix(path) => {
                remove_stale(path)?;
                let listener = UnixListener::bind(path)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
                Ok(Self { listener: Listening::Unix(listener), address: address.clone() })
            }
            AdminAddress::Loopback(wanted) => {
                let listener = std::net::TcpListener::bind(wanted)?;
                listener.set_nonblocking(true)?;
                let address = AdminAddress::Loopback(listener.local_addr()?);
                Ok(Self { listener: Listening::Loopback(TcpListener::from_std(listener)?), address })
            }
        }
    }

    /// The address that was bound.
    #[must_use]
    pub fn address(&self) -> &AdminAddress {
        &self.address
    }

    /// Serves until `stop`.
    pub async fn serve(self, source: Arc<dyn Observed>, stop: CancellationToken) {
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.accept() => accepted,
                () = stop.cancelled() => break,
            };
            match accepted {
                Ok(stream) => {
                    let serving = connection(stream, Arc::clone(&source));
                    connections.spawn(stop.clone().run_until_cancelled_owned(serving));
                }
                Err(error) => {
                    warn!(%error, "cannot accept an operator");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        if let AdminAddress::Unix(path) = &self.address {
            // Left behind it would only be replaced at the next start.
            let _ = std::fs::remove_file(path);
        }
        connections.close();
        connections.wait().await;
    }

    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match &self.listener {
            Listening::Unix(listener) => listener.accept().await.map(|(stream, _)| Box::new(stream) as Box<dyn Stream>),
            Listening::Loopback(listener) => {
                listener.accept().await.map(|(stream, _)| Box::new(stream) as Box<dyn Stream>)
            }
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

fn remove_stale(path: &Path) -> io::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process serves it")),
        Err(_) => std::fs::remove_file(path),
    }
}

async fn connection(stream: Box<dyn Stream>, source: Arc<dyn Observed>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = respond(&request, &*source);
        async move { Ok::<_, Infallible>(response) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_TIMEOUT, serving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "operator's connection failed"),
        Err(_) => debug!("operator's connection timed out"),
    }
}

fn respond(request: &Request<Incoming>, source: &dyn Observed) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        return answer(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET\n".to_owned());
    }
    match request.uri().path() {
        "/live" => answer(StatusCode::OK, "text/plain", "live\n".to_owned()),
        "/ready" => match source.not_ready() {
            None => answer(StatusCode::OK, "text/plain", "ready\n".to_owned()),
            Some(why) => answer(StatusCode::SERVICE_UNAVAILABLE, "text/plain", format!("{why}\n")),
        },
        "/metrics" => answer(StatusCode::OK, "application/openmetrics-text; version=1.0.0", source.metrics()),
        "/status" => match source.status() {
            Ok(json) => answer(StatusCode::OK, "application/json", json),
            Err(why) => answer(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", why),
        },
        _ => answer(StatusCode::NOT_FOUND, "text/plain", "/live /ready /status /metrics\n".to_owned()),
    }
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}
