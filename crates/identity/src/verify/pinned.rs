//! The verifier of a node that joins: it knows no bundle yet, only the hash of the root's key.

use rustls::{
    DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use spiffe::{SpiffeId, TrustDomain};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use super::{
    PeerRefused, PeerRule, RefusalReason, Usage, chain,
    rustls_side::{schemes, tls12_signature, tls13_signature},
};
use crate::{Authority, Bundle, Leaf, MAX_INTERMEDIATES, broker_id};

/// Accepts the broker of one trust domain, by a root that it presents and whose key is pinned.
#[derive(Debug)]
pub(crate) struct PinnedRootVerifier {
    root_spki_sha256: [u8; 32],
    broker: SpiffeId,
}

impl PinnedRootVerifier {
    pub(crate) fn new(root_spki_sha256: [u8; 32], trust_domain: &TrustDomain) -> Self {
        Self {
            root_spki_sha256,
            broker: broker_id(trust_domain),
        }
    }

    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        presented: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), PeerRefused> {
        let leaf = Leaf::parse(end_entity).map_err(RefusalReason::Leaf)?;
        if *leaf.id() != self.broker {
            let expected = PeerRule::Exactly(self.broker.clone());
            return Err(RefusalReason::NotExpected {
                id: leaf.id().clone(),
                expected,
            }
            .into());
        }
        // The root comes on top of what any peer may present.
        if presented.len() > MAX_INTERMEDIATES + 1 {
            let (id, count) = (leaf.id().clone(), presented.len());
            return Err(RefusalReason::TooManyIntermediates { id, count }.into());
        }
        let root = presented
            .iter()
            .find(|der| self.is_pinned_root(der))
            .ok_or_else(|| RefusalReason::RootNotPresented { id: leaf.id().clone() })?;
        let trust_domain = self.broker.trust_domain().clone();
        let bundle =
            Bundle::new(trust_domain, [root.clone().into_owned()]).map_err(|invalid| RefusalReason::Intermediate {
                id: leaf.id().clone(),
                reason: invalid.reason,
            })?;
        let intermediates: Vec<_> = presented.iter().filter(|der| *der != root).cloned().collect();
        chain::Candidate {
            end_entity,
            intermediates: &intermediates,
            leaf: &leaf,
        }
        .verify(&bundle, now, Usage::ServerAuth)
    }

    /// The hash vouches for the key alone; that the key signed this certificate vouches for the rest of it.
    fn is_pinned_root(&self, der: &CertificateDer<'_>) -> bool {
        let Ok(authority) = Authority::parse(der, self.broker.trust_domain()) else {
            return false;
        };
        authority.public_key_sha256() == self.root_spki_sha256
            && X509Certificate::from_der(der).is_ok_and(|(_, root)| root.verify_signature(None).is_ok())
    }
}

impl ServerCertVerifier for PinnedRootVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        tls12_signature()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}
