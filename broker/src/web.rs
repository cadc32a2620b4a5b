//! Small documents over HTTPS, for anybody: our bundle for foreign trust domains, and what OpenID Connect asks of an issuer.
//!
//! GET alone, no client certificate, nothing of a request but its method and path is looked at (Federation §5.2.1.3, §5.2.2.3). Every
//! connection is for one request and ends within seconds.

mod certificate;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::version::{TLS12, TLS13};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::certificate::CertificateError;
pub(crate) use self::certificate::FileCertificate;

use crate::listener::Places;
use crate::throttle;

/// For a handshake, a request and its answer together; a document has a few kilobytes.
const LIFETIME: Duration = Duration::from_secs(10);
/// For the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of that head; hyper takes no less.
const HEAD_BYTES: usize = 8 << 10;
/// Connections at one time, and from one source.
const MAX_CONNECTIONS: usize = 256;
const MAX_CONNECTIONS_PER_SOURCE: usize = 32;
/// The wait after an error of the listener itself, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The document at a path; `None` where there is none. It is made anew for each request, so that it is always the latest.
pub(crate) type Documents = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// The TLS that any client of the web can speak: what Mozilla calls intermediate (Federation §5).
///
/// # Errors
/// When the provider lacks the protocol versions, which ring's does not.
pub(crate) fn tls(certificate: Arc<dyn ResolvesServerCert>) -> Result<rustls::ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Serves `documents` until `stop`.
pub(crate) fn serve(
    listener: TcpListener,
    tls: rustls::ServerConfig,
    documents: Documents,
    tracker: &TaskTracker,
    stop: CancellationToken,
) {
    let tasks = tracker.clone();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let places = Places::new(MAX_CONNECTIONS, MAX_CONNECTIONS_PER_SOURCE);
    let accept = async move {
        loop {
            let (tcp, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Who finds no place is turned away unheard; whoever holds the places is gone in seconds.
            let Some(place) = places.take(throttle::source(address.ip())) else { continue };
            let (acceptor, documents) = (acceptor.clone(), Arc::clone(&documents));
            tasks.spawn(async move {
                let answered = tokio::time::timeout(LIFETIME, answer(&acceptor, tcp, documents)).await;
                drop(place);
                if let Ok(Err(error)) = answered {
                    tracing::debug!(%address, %error, "a client of the web got no answer");
                }
            });
        }
    };
    tracker.spawn(stop.run_until_cancelled_owned(accept));
}

async fn answer(acceptor: &TlsAcceptor, tcp: TcpStream, documents: Documents) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let tls = acceptor.accept(tcp).await?;
    let service = service_fn(move |request| {
        let response = respond(&request, &documents);
        std::future::ready(Ok::<_, Infallible>(response))
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(tls), service)
        .await
        .map_err(io::Error::other)
}

fn respond(request: &Request<Incoming>, documents: &Documents) -> Response<Full<Bytes>> {
    if *request.method() != Method::GET {
        let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    let Some(document) = documents(request.uri().path()) else { return empty(StatusCode::NOT_FOUND) };
    let mut response = Response::new(Full::new(Bytes::from(document)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
