//! rustls configurations: TLS 1.3 only, no resumption and no early data, so that every connection is verified against
//! the bundles of its own moment. The crypto provider is passed explicitly; the process default is never asked.

use std::sync::{Arc, LazyLock};

use rustls::{
    ClientConfig, ConfigBuilder, Error, ServerConfig, WantsVerifier,
    client::Resumption,
    crypto::{CryptoProvider, ring::default_provider},
    server::{NoServerSessionStorage, danger::ClientCertVerifier},
    version::TLS13,
};
use spiffe::TrustDomain;

use crate::{
    PeerVerifier, SvidSlot,
    verify::{OptionalClient, PinnedRootVerifier},
};

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(default_provider()));

/// The one crypto provider: ring.
pub(crate) fn provider() -> &'static Arc<CryptoProvider> {
    &PROVIDER
}

/// Whether a listener's clients must present a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Every client proves its SPIFFE ID.
    Required,
    /// A client without a certificate gets in as nobody; one that presents a certificate has to prove it.
    Optional,
}

/// A listener's configuration: TLS 1.3, no tickets, no ALPN.
///
/// # Errors
/// [`rustls::Error`] if the provider lacks TLS 1.3, which ring's does not.
pub fn server_config(
    verifier: Arc<PeerVerifier>,
    slot: Arc<SvidSlot>,
    client_auth: ClientAuth,
) -> Result<ServerConfig, Error> {
    let verifier: Arc<dyn ClientCertVerifier> = match client_auth {
        ClientAuth::Required => verifier,
        ClientAuth::Optional => Arc::new(OptionalClient(verifier)),
    };
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(slot);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// A dialer's configuration: TLS 1.3, no resumption, no SNI, no ALPN.
///
/// # Errors
/// As [`server_config`].
pub fn client_config(verifier: Arc<PeerVerifier>, slot: Arc<SvidSlot>) -> Result<ClientConfig, Error> {
    let config = client_builder()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(slot);
    Ok(without_resumption(config))
}

/// The configuration of a node that joins: it has no certificate, and accepts exactly the broker of `trust_domain`,
/// whose chain has to include a self-signed root with the pinned key.
///
/// `root_spki_sha256` is the SHA-256 of the root's SubjectPublicKeyInfo, from the join token.
///
/// # Errors
/// As [`server_config`].
pub fn joining_client_config(root_spki_sha256: [u8; 32], trust_domain: &TrustDomain) -> Result<ClientConfig, Error> {
    let verifier = Arc::new(PinnedRootVerifier::new(root_spki_sha256, trust_domain));
    let config = client_builder()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(without_resumption(config))
}

fn client_builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, Error> {
    ClientConfig::builder_with_provider(Arc::clone(provider())).with_protocol_versions(&[&TLS13])
}

fn without_resumption(mut config: ClientConfig) -> ClientConfig {
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config
}
