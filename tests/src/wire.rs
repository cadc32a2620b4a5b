//! wRPC as bytes, written by hand: what the daemons' own code would not send, and what must not depend on it.

use std::net::SocketAddr;
use std::sync::Arc;

use portcullis_identity::{PeerRule, PeerVerifier, TrustSource};
use portcullis_transport::quic::{ConnectionLost, classify};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ReadError, ReadToEndError, RecvStream, SendStream, WriteError};

use crate::forge::Certificate;

/// More than any answer a test reads.
const MAX_ANSWER: usize = 64 << 20;

/// How a call by hand ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// A clean end, and every byte before it.
    Answer(Vec<u8>),
    /// The stream was reset with this code.
    Reset(u64),
    /// The connection ended.
    Lost(ConnectionLost),
}

/// A LEB128 number.
pub fn leb(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while number >= 0x80 {
        out.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap());
    out
}

/// An invocation's header.
pub fn header(instance: &str, function: &str) -> Vec<u8> {
    let mut out = vec![0];
    for name in [instance, function] {
        out.extend(leb(name.len() as u64));
        out.extend(name.as_bytes());
    }
    out
}

/// A frame with a path.
pub fn nested_frame(path: &[u64], payload: &[u8]) -> Vec<u8> {
    let mut out = leb(path.len() as u64);
    path.iter().for_each(|index| out.extend(leb(*index)));
    out.extend(leb(payload.len() as u64));
    out.extend(payload);
    out
}

/// A frame of plain values.
pub fn frame(payload: &[u8]) -> Vec<u8> {
    nested_frame(&[], payload)
}

/// The head of a frame that claims more than will ever come.
pub fn frame_head(length: u64) -> Vec<u8> {
    [vec![0], leb(length)].concat()
}

/// Connects by quinn alone, as whoever holds the certificate, or as nobody. Any server of a trusted domain will do.
pub async fn raw_connect(
    trust: &TrustSource,
    certificate: Option<Certificate>,
    address: SocketAddr,
) -> Result<Connection, ConnectionLost> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(PeerVerifier::new(Arc::clone(trust), PeerRule::AnyTrusted));
    let config = match certificate {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
    let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    let connecting = endpoint.connect_with(config, address, "peer.invalid").unwrap();
    connecting.await.map_err(|error| classify(&error))
}

/// Opens a stream and writes `bytes`; its end stays open.
pub async fn begin(connection: &Connection, bytes: &[u8]) -> Result<(SendStream, RecvStream), ConnectionLost> {
    let (mut send, recv) = connection.open_bi().await.map_err(|error| classify(&error))?;
    match send.write_all(bytes).await {
        // A callee may refuse before everything was sent: the reading half says how.
        Ok(()) | Err(WriteError::Stopped(_)) => Ok((send, recv)),
        Err(WriteError::ConnectionLost(error)) => Err(classify(&error)),
        Err(error) => panic!("{error}"),
    }
}

/// Reads a stream to its end, however it ends.
pub async fn read_to_end(recv: &mut RecvStream) -> Ended {
    match recv.read_to_end(MAX_ANSWER).await {
        Ok(answer) => Ended::Answer(answer),
        Err(ReadToEndError::Read(ReadError::Reset(code))) => Ended::Reset(code.into_inner()),
        Err(ReadToEndError::Read(ReadError::ConnectionLost(error))) => Ended::Lost(classify(&error)),
        Err(error) => panic!("{error}"),
    }
}

/// One whole call: `bytes`, the end of the stream, and what comes back.
pub async fn raw_call(connection: &Connection, bytes: &[u8]) -> Ended {
    match begin(connection, bytes).await {
        Ok((mut send, mut recv)) => {
            // Fails only where the callee has stopped it.
            let _ = send.finish();
            read_to_end(&mut recv).await
        }
        Err(lost) => Ended::Lost(lost),
    }
}
