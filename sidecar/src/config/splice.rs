//! `[upstream.splice]`: a framed wRPC server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::reader::{Reader, Section};

/// Where framed wRPC is spoken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpliceAddress {
    /// `unix:/path`.
    Unix(PathBuf),
    /// `tcp:host:port`.
    Tcp(String),
}

/// `[upstream.splice]`.
#[derive(Clone, Debug)]
pub struct SpliceSection {
    /// Where.
    pub address: SpliceAddress,
    /// For one connection.
    pub connect_timeout: Duration,
    /// How long a call with streams may be silent in both directions.
    pub idle_timeout: Duration,
    /// How it writes streams.
    pub streams: Option<StreamEncoding>,
}

/// The two encodings of streams that wRPC has under one version number: a stream that has ended already when it is sent stands among the
/// plain values, and looks different there. Nothing on the wire tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEncoding {
    /// `wrpc-transport` up to 0.29, as wasmCloud 1 hosts speak it.
    V029,
    /// From 0.30 on.
    V030,
}

pub(super) fn read(mut section: Section<'_, '_>, base: &Path, reader: &mut Reader<'_>) -> Option<SpliceSection> {
    let address = section.required_text("address", reader);
    let connect_timeout = section.duration("connect_timeout", reader).unwrap_or(Duration::from_secs(2));
    let idle_timeout = section.duration("idle_timeout", reader).unwrap_or(Duration::from_secs(300));
    let streams = section.text("streams", reader).and_then(|found| match found.value.as_str() {
        "0.29" => Some(StreamEncoding::V029),
        "0.30" => Some(StreamEncoding::V030),
        other => {
            let message = format!("`upstream.splice.streams`: `{other}` is neither 0.29 nor 0.30");
            reader.mistake(
                Some(found.at),
                message,
                Some("the version of wRPC that the service is built with".to_owned()),
            );
            None
        }
    });
    section.finish(reader);
    let address = address?;
    let address = match address.value.split_once(':') {
        Some(("unix", path)) if !path.is_empty() => SpliceAddress::Unix(base.join(path)),
        Some(("tcp", peer)) if peer.contains(':') => SpliceAddress::Tcp(peer.to_owned()),
        Some(_) | None => {
            let message =
                format!("`upstream.splice.address`: `{}` is neither unix:PATH nor tcp:HOST:PORT", address.value);
            reader.mistake(Some(address.at), message, None);
            return None;
        }
    };
    Some(SpliceSection { address, connect_timeout, idle_timeout, streams })
}
