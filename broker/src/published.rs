//! What the broker publishes about its own trust domain: the bundle document for foreign ones, and OpenID Connect discovery.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;

use portcullis_identity::BundleDocument;
use rustls::server::ResolvesServerCert;
use serde::Serialize;
use tokio::net::TcpListener;

use crate::broker::Broker;
use crate::config::{BundleEndpoint, CertificateFiles, Oidc};
use crate::daemon::StartError;
use crate::web::{self, Documents, FileCertificate};
use crate::wire::REFRESH_HINT_SECONDS;

/// OpenID Connect Discovery §4.
const CONFIGURATION: &str = "/.well-known/openid-configuration";
/// Where the keys are, below the issuer.
const KEYS: &str = "/keys";

/// OpenID Connect Discovery §3: what a relying party of JWT-SVIDs reads.
#[derive(Serialize)]
struct Configuration<'c> {
    issuer: &'c str,
    jwks_uri: String,
    /// Nobody is authorised here; some readers insist on the member.
    authorization_endpoint: &'c str,
    response_types_supported: [&'c str; 1],
    subject_types_supported: [&'c str; 1],
    id_token_signing_alg_values_supported: [&'c str; 1],
}

impl Broker {
    /// Our bundle, as foreign trust domains read it.
    pub(crate) fn own_document(&self) -> Option<BundleDocument> {
        let own = self.authority.bundle();
        let jwt = own.jwt_bundle()?;
        BundleDocument::new(own.x509.clone(), jwt, Some(own.sequence), Some(REFRESH_HINT_SECONDS)).ok()
    }
}

/// Serves our bundle; returns where.
///
/// # Errors
/// When the address cannot be bound or the certificate not be read.
pub(crate) fn serve_bundle(broker: &Arc<Broker>, endpoint: BundleEndpoint) -> Result<SocketAddr, StartError> {
    let BundleEndpoint { listen, path, certificate } = endpoint;
    let certificate: Arc<dyn ResolvesServerCert> = match certificate {
        Some(files) => from_files(broker, files)?,
        None => Arc::clone(&broker.own) as _,
    };
    let publisher = Arc::clone(broker);
    let documents: Documents = Arc::new(move |asked: &str| {
        let document = (asked == path).then(|| publisher.own_document())??;
        document.to_json().ok()
    });
    serve(broker, listen, certificate, documents)
}

/// Serves OpenID Connect discovery; returns where.
///
/// # Errors
/// As [`serve_bundle`].
pub(crate) fn serve_oidc(broker: &Arc<Broker>, oidc: Oidc) -> Result<SocketAddr, StartError> {
    let Oidc { issuer, path, listen, certificate } = oidc;
    let certificate = from_files(broker, certificate)?;
    let publisher = Arc::clone(broker);
    let documents: Documents = Arc::new(move |asked: &str| match asked.strip_prefix(path.as_str())? {
        CONFIGURATION => serde_json::to_string(&configuration(&issuer)).ok(),
        KEYS => Some(publisher.authority.bundle().jwt_bundle()?.to_oidc_jwks()),
        _ => None,
    });
    serve(broker, listen, certificate, documents)
}

fn configuration(issuer: &str) -> Configuration<'_> {
    Configuration {
        issuer,
        jwks_uri: format!("{issuer}{KEYS}"),
        authorization_endpoint: "",
        response_types_supported: ["id_token"],
        subject_types_supported: ["public"],
        id_token_signing_alg_values_supported: ["ES256"],
    }
}

fn from_files(broker: &Broker, files: CertificateFiles) -> Result<Arc<FileCertificate>, StartError> {
    let certificate = FileCertificate::open(files.chain, files.key)?;
    let fresh = Arc::clone(&certificate).keep_fresh();
    broker.tracker.spawn(broker.stop.clone().run_until_cancelled_owned(fresh));
    Ok(certificate)
}

fn serve(
    broker: &Broker,
    listen: SocketAddr,
    certificate: Arc<dyn ResolvesServerCert>,
    documents: Documents,
) -> Result<SocketAddr, StartError> {
    let failed = |cause| StartError::Listen { address: listen, cause };
    let listener = StdListener::bind(listen).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let listener = TcpListener::from_std(listener).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    web::serve(listener, web::tls(certificate)?, documents, &broker.tracker, broker.stop.clone());
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relying_party_finds_the_keys() {
        let json = serde_json::to_value(configuration("https://o.test/a")).unwrap();
        assert_eq!(json["issuer"], "https://o.test/a");
        assert_eq!(json["jwks_uri"], "https://o.test/a/keys");
        assert_eq!(json["response_types_supported"], serde_json::json!(["id_token"]));
    }
}
