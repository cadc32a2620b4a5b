//! The certificate that handshakes present, replaceable while listeners and dialers run.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::{
    SignatureScheme,
    client::ResolvesClientCert,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::Svid;

/// The SVID that the next handshake presents, as server and as client. No configuration is rebuilt at a renewal.
#[derive(Debug)]
pub struct SvidSlot {
    current: ArcSwap<Svid>,
}

impl SvidSlot {
    /// A slot that holds `svid`.
    #[must_use]
    pub fn new(svid: impl Into<Arc<Svid>>) -> Arc<Self> {
        Arc::new(Self { current: ArcSwap::new(svid.into()) })
    }

    /// Presents `svid` from the next handshake on. Connections that stand keep what they were made with.
    pub fn store(&self, svid: impl Into<Arc<Svid>>) {
        self.current.store(svid.into());
    }

    /// The SVID that the next handshake presents.
    #[must_use]
    pub fn load(&self) -> Arc<Svid> {
        self.current.load_full()
    }
}

impl ResolvesServerCert for SvidSlot {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(self.current.load().certified()))
    }
}

impl ResolvesClientCert for SvidSlot {
    fn resolve(&self, _root_hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(self.current.load().certified()))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
