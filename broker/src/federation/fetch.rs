//! One fetch of one bundle: a GET over TLS, bounded in time, size and redirections.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{ACCEPT, HOST, LOCATION};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use portcullis_identity::{Bundle, MAX_DOCUMENT_BYTES, PeerRefused, PeerRule, PeerVerifier, SpiffeId, TrustBundles};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::roots::{NoRoots, WebRoots};
use crate::clock;
use crate::registry::{Endpoint, EndpointUrl, InvalidUrl, Profile};

/// Bytes of the head of an answer.
const HEAD_BYTES: usize = 32 << 10;
/// Redirections of one fetch.
const MAX_REDIRECTIONS: usize = 3;

/// A document as it came. It is not a bundle yet.
#[derive(Debug)]
pub(crate) struct Fetched {
    /// The body.
    pub(crate) json: Bytes,
    /// From where at last.
    pub(crate) url: EndpointUrl,
    /// SHA-256 of the certificate that the server showed.
    pub(crate) server_sha256: [u8; 32],
}

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// Nobody answers there.
    #[error("cannot connect to `{host}`: {cause}")]
    Connect { host: String, cause: io::Error },
    /// The server is not who it must be.
    #[error("the server does not prove itself: {0}")]
    Tls(String),
    /// There is nothing to verify the server with.
    #[error("no bundle is held for the trust domain of `{0}`, by which the endpoint proves itself")]
    Unprovable(SpiffeId),
    /// The same, for the web's authorities.
    #[error(transparent)]
    Roots(#[from] NoRoots),
    /// The URL's host cannot be in a certificate.
    #[error("`{0}` is not a host name")]
    Host(String),
    /// It speaks something else, or broke off.
    #[error("the endpoint does not answer in HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// It has no bundle.
    #[error("the endpoint answers with status {0}")]
    Status(u16),
    /// It sends us to a place where no bundle endpoint can be.
    #[error("the endpoint redirects to a place that is refused: {0}")]
    Redirection(#[from] InvalidUrl),
    /// It sends us around.
    #[error("the endpoint redirects more than {MAX_REDIRECTIONS} times")]
    Redirections,
    /// It has no end.
    #[error("the document is larger than {MAX_DOCUMENT_BYTES} bytes")]
    TooLarge,
    /// It takes too long.
    #[error("no whole answer within {} ms", .0.as_millis())]
    Timeout(Duration),
}

impl FetchError {
    /// Whether somebody should look at once: this is no outage.
    pub(crate) fn is_alarming(&self) -> bool {
        match self {
            Self::Tls(_) | Self::Redirection(_) => true,
            Self::Connect { .. }
            | Self::Unprovable(_)
            | Self::Roots(_)
            | Self::Host(_)
            | Self::Http(_)
            | Self::Status(_)
            | Self::Redirections
            | Self::TooLarge
            | Self::Timeout(_) => false,
        }
    }
}

/// Fetches what `endpoint` serves. An endpoint that proves itself by SPIFFE is verified with `bundle`, that of its own trust domain.
pub(crate) async fn fetch(
    endpoint: &Endpoint,
    bundle: Option<Bundle>,
    roots: &WebRoots,
    timeout: Duration,
) -> Result<Fetched, FetchError> {
    let config = Arc::new(tls(&endpoint.profile, bundle, roots, clock::now())?);
    let fetched = tokio::time::timeout(timeout, follow(&endpoint.url, config)).await;
    fetched.map_err(|_| FetchError::Timeout(timeout))?
}

/// Where an answer leads to is believed for this one fetch (Federation §5.2.1.4), under the same rules.
async fn follow(first: &EndpointUrl, config: Arc<ClientConfig>) -> Result<Fetched, FetchError> {
    let mut url = first.clone();
    for _ in 0..=MAX_REDIRECTIONS {
        match get(&url, Arc::clone(&config)).await? {
            (Answer::Document(json), server_sha256) => return Ok(Fetched { json, url, server_sha256 }),
            (Answer::Elsewhere(location), _) => url = url.redirected(&location)?,
        }
    }
    Err(FetchError::Redirections)
}

enum Answer {
    Document(Bytes),
    Elsewhere(String),
}

/// What the endpoint answers, and the SHA-256 of the certificate it showed.
async fn get(url: &EndpointUrl, config: Arc<ClientConfig>) -> Result<(Answer, [u8; 32]), FetchError> {
    let tcp = TcpStream::connect((url.host(), url.port())).await.map_err(|cause| failed(url, cause))?;
    let tls = TlsConnector::from(config).connect(server_name(url)?, tcp).await.map_err(|error| unproved(url, error))?;
    let leaf = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let server_sha256 = leaf.map(|leaf| sha256(leaf)).unwrap_or_default();
    let (mut sender, connection) = http1::Builder::new().max_buf_size(HEAD_BYTES).handshake(TokioIo::new(tls)).await?;
    let exchange = async {
        let request = Request::get(url.path_and_query())
            .header(HOST, url.authority())
            .header(ACCEPT, "application/json")
            .body(Empty::<Bytes>::new())
            // Every part of it comes from a parsed URL.
            .map_err(|_| FetchError::Host(url.to_string()))?;
        answer(sender.send_request(request).await?).await
    };
    // The connection is driven here, and ends with the answer: nothing of a fetch outlives it.
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    let answer = tokio::select! {
        answer = &mut exchange => answer,
        // What came before its end is read still; what did not come is an error of the exchange.
        _ = &mut connection => exchange.await,
    };
    Ok((answer?, server_sha256))
}

async fn answer(response: Response<Incoming>) -> Result<Answer, FetchError> {
    let status = response.status();
    match status {
        StatusCode::OK => collect(response.into_body()).await.map(Answer::Document),
        StatusCode::MOVED_PERMANENTLY
        | StatusCode::FOUND
        | StatusCode::SEE_OTHER
        | StatusCode::TEMPORARY_REDIRECT
        | StatusCode::PERMANENT_REDIRECT => {
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            location.map(|location| Answer::Elsewhere(location.to_owned())).ok_or(FetchError::Status(status.as_u16()))
        }
        other => Err(FetchError::Status(other.as_u16())),
    }
}

async fn collect(body: Incoming) -> Result<Bytes, FetchError> {
    if usize::try_from(body.size_hint().lower()).map_or(true, |length| length > MAX_DOCUMENT_BYTES) {
        return Err(FetchError::TooLarge);
    }
    match Limited::new(body, MAX_DOCUMENT_BYTES).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(FetchError::TooLarge),
        Err(error) => match error.downcast::<hyper::Error>() {
            Ok(error) => Err(FetchError::Http(*error)),
            Err(_) => Err(FetchError::TooLarge),
        },
    }
}

fn tls(
    profile: &Profile,
    bundle: Option<Bundle>,
    roots: &WebRoots,
    now: SystemTime,
) -> Result<ClientConfig, FetchError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let refused = |error: rustls::Error| FetchError::Tls(error.to_string());
    let mut config = match profile {
        Profile::HttpsWeb => {
            // Federation §5: what Mozilla calls intermediate. Nowhere else but at this edge is TLS 1.2 spoken to a foreign server.
            let builder = builder.with_protocol_versions(&[&TLS13, &TLS12]).map_err(refused)?;
            builder.with_root_certificates(roots.read()?).with_no_client_auth()
        }
        Profile::HttpsSpiffe(id) => {
            let bundle = bundle.filter(|bundle| bundle.trust_domain() == id.trust_domain());
            let bundle = bundle.ok_or_else(|| FetchError::Unprovable(id.clone()))?;
            let trust = TrustBundles::new([bundle], now).into_source();
            let verifier = PeerVerifier::new(trust, PeerRule::Exactly(id.clone()));
            let builder = builder.with_protocol_versions(&[&TLS13]).map_err(refused)?;
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        }
    };
    // Every fetch verifies anew.
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn server_name(url: &EndpointUrl) -> Result<ServerName<'static>, FetchError> {
    if let Ok(address) = url.host().parse::<IpAddr>() {
        return Ok(ServerName::IpAddress(address.into()));
    }
    ServerName::try_from(url.host().to_owned()).map_err(|_| FetchError::Host(url.host().to_owned()))
}

/// What a verifier of ours has to say stands behind the bland text that a peer is told.
fn unproved(url: &EndpointUrl, error: io::Error) -> FetchError {
    if let Some(refused) = PeerRefused::find(&error) {
        return FetchError::Tls(refused.reason().to_string());
    }
    let of_tls = error.get_ref().is_some_and(|cause| cause.is::<rustls::Error>());
    if of_tls { FetchError::Tls(error.to_string()) } else { failed(url, error) }
}

fn failed(url: &EndpointUrl, cause: io::Error) -> FetchError {
    FetchError::Connect { host: url.authority().to_owned(), cause }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    hash
}
