use std::error::Error;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::CertificateError;
use rustls::pki_types::ServerName;
use tokio::io::AsyncBufReadExt as _;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

/// How long a connection to the broker may take, handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// HTTP/2 pings find a dead peer within twice this.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Why there is no channel.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address cannot be reached, or the TLS handshake failed: the cause says which.
    #[error("cannot reach the broker at `{address}`: {cause}")]
    Unreachable {
        /// What was dialled.
        address: String,
        /// The innermost cause, which names a TLS alert where there was one.
        cause: String,
    },
    /// Somebody answers, and our verifier refuses its certificate: trying again will not help.
    #[error("who answers at `{address}` is not accepted as the broker: {cause}")]
    NotTheBroker {
        /// What was dialled.
        address: String,
        /// What is wrong with the certificate.
        cause: String,
    },
}

/// Why the byte stream under a channel could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PeerStreamError {
    /// TCP or Unix socket.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Neither the name nor the address is one.
    #[error("`{0}` is not a server name")]
    Name(String),
}

/// Opens a channel to the broker's node service at `address` (`host:port`) over TLS as `config` has it.
///
/// The configuration's verifier decides who the peer must be; the name in the address is only dialled. Application protocol `h2` is added.
///
/// # Errors
/// When the address cannot be reached or either side refuses the other in the handshake.
pub async fn connect_node(address: &str, config: &rustls::ClientConfig) -> Result<Channel, ConnectError> {
    let mut config = config.clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let dialled: Arc<str> = address.into();
    let result = endpoint()
        .connect_with_connector(service_fn(move |_| {
            let (connector, address) = (connector.clone(), Arc::clone(&dialled));
            async move { tls_stream(&connector, &address).await.map(TokioIo::new) }
        }))
        .await;
    result.map_err(|error| unreachable_broker(address, &error))
}

/// As [`connect_node`], and gives the value that TLS exports under `label` on this connection (RFC 8446 §7.5).
///
/// A channel that dials anew later is another connection with another value.
///
/// # Errors
/// As for [`connect_node`].
pub async fn connect_node_exporting(
    address: &str,
    config: &rustls::ClientConfig,
    label: &'static [u8],
) -> Result<(Channel, [u8; 32]), ConnectError> {
    let mut config = config.clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let dialled: Arc<str> = address.into();
    let exported = Arc::new(Mutex::new([0; 32]));
    let keep = Arc::clone(&exported);
    let connect = service_fn(move |_| {
        let (connector, address, keep) = (connector.clone(), Arc::clone(&dialled), Arc::clone(&keep));
        async move {
            let stream = tls_stream(&connector, &address).await?;
            let value =
                stream.get_ref().1.export_keying_material([0; 32], label, None).map_err(std::io::Error::other)?;
            *keep.lock().unwrap_or_else(PoisonError::into_inner) = value;
            Ok::<_, PeerStreamError>(TokioIo::new(stream))
        }
    });
    let channel =
        endpoint().connect_with_connector(connect).await.map_err(|error| unreachable_broker(address, &error))?;
    let exported = *exported.lock().unwrap_or_else(PoisonError::into_inner);
    Ok((channel, exported))
}

async fn tls_stream(
    connector: &TlsConnector,
    address: &str,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, PeerStreamError> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    // The verifier looks at the SPIFFE ID alone and SNI is off, so any well-formed name serves.
    let name = ServerName::try_from("broker.portcullis").map_err(|_| PeerStreamError::Name(address.to_owned()))?;
    let mut stream = connector.connect(name, tcp).await?;
    // In TLS 1.3 `connect` returns before the server has judged our certificate. An HTTP/2 server speaks first, so waiting for its
    // first bytes turns a refusal into an error here instead of a broken first call.
    stream.fill_buf().await?;
    Ok(stream)
}

/// Opens a channel to the broker's operator service on the Unix socket `path`.
///
/// # Errors
/// When the socket cannot be reached.
pub async fn connect_operator(path: &Path) -> Result<Channel, ConnectError> {
    let dialled: Arc<Path> = path.into();
    let result = endpoint()
        .connect_with_connector(service_fn(move |_| {
            let path = Arc::clone(&dialled);
            async move { UnixStream::connect(&path).await.map(TokioIo::new) }
        }))
        .await;
    result.map_err(|error| unreachable_broker(&path.display().to_string(), &error))
}

fn endpoint() -> Endpoint {
    Endpoint::from_static("http://broker.portcullis")
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
}

fn unreachable_broker(address: &str, error: &tonic::transport::Error) -> ConnectError {
    let address = address.to_owned();
    match refused_certificate(error) {
        Some(cause) => ConnectError::NotTheBroker { address, cause },
        None => ConnectError::Unreachable { address, cause: innermost(error).to_string() },
    }
}

/// What our verifier says, where it is our verifier that ended the handshake.
fn refused_certificate(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(PeerStreamError::Io(io)) = error.downcast_ref() {
            let rustls::Error::InvalidCertificate(refused) = io.get_ref()?.downcast_ref()? else {
                return None;
            };
            return Some(if let CertificateError::Other(other) = refused {
                innermost(&*other.0).to_string()
            } else {
                refused.to_string()
            });
        }
        next = error.source();
    }
    None
}

fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause
}
