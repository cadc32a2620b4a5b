//! The verifier of a node that joins: it knows no bundle yet, only the hash of the root's key.

use rustls::{
    Error,
    client::danger::{ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use spiffe::{SpiffeId, TrustDomain};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use super::{PeerRefused, PeerRule, RefusalReason, Usage, chain, rustls_side::tls13_signatures};
use crate::{Authority, Bundle, Leaf, MAX_INTERMEDIATES, Revocations, broker_id};

/// Accepts the broker of one trust domain, by a root that it presents and whose key is pinned.
#[derive(Debug)]
pub(crate) struct PinnedRootVerifier {
    root_spki_sha256: [u8; 32],
    broker: SpiffeId,
}

impl PinnedRootVerifier {
    pub(crate) fn new(root_spki_sha256: [u8; 32], trust_domain: &TrustDomain) -> Self {
        Self { root_spki_sha256, broker: broker_id(trust_domain) }
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
            return Err(RefusalReason::NotExpected { id: leaf.id().clone(), expected }.into());
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
        let bundle = Bundle::new(trust_domain, [root.clone().into_owned()])
            .map_err(|invalid| RefusalReason::Intermediate { id: leaf.id().clone(), reason: invalid.reason })?;
        let intermediates: Vec<_> = presented.iter().filter(|der| *der != root).cloned().collect();
        // Who joins knows of no revocation yet; the broker's own certificate is the newest it has.
        let revocations = Revocations::default();
        chain::Candidate { end_entity, intermediates: &intermediates, leaf: &leaf, revocations: &revocations }
            .verify(&bundle, now, Usage::ServerAuth)
            .map(|_path| ())
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

    tls13_signatures!();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        InvalidLeaf, PrivateKey,
        test_ca::{Chain, NOW, TestCa, date, now, td},
    };

    const BROKER: &str = "/portcullis/broker";

    fn verify(pinned: &TestCa, chain: &Chain) -> Result<(), RefusalReason> {
        let pin = pinned.bundle().authorities()[0].public_key_sha256();
        PinnedRootVerifier::new(pin, &td("a.test"))
            .verify(&chain[0], &chain[1..], now())
            .map_err(|refused| refused.reason().clone())
    }

    /// A leaf with the path, what its issuer presents, and these certificates on top.
    fn chain(issuer: &TestCa, path: &str, above: &[&TestCa]) -> Chain {
        let mut chain = issuer.leaf_with(path, &PrivateKey::generate().unwrap(), |_| {});
        chain.extend(above.iter().map(|ca| ca.certificate().clone()));
        chain
    }

    #[test]
    fn the_broker_below_the_pinned_root_is_accepted() {
        let root = TestCa::root("a.test");
        assert_eq!(verify(&root, &chain(&root, BROKER, &[&root])), Ok(()));
        let four = root.intermediate().intermediate().intermediate().intermediate();
        assert_eq!(verify(&root, &chain(&four, BROKER, &[&root])), Ok(()));
        // What else is presented does not matter.
        assert_eq!(verify(&root, &chain(&root, BROKER, &[&TestCa::root("a.test"), &root])), Ok(()));
    }

    #[test]
    fn another_root_is_refused() {
        let (root, other) = (TestCa::root("a.test"), TestCa::root("a.test"));
        for chain in [chain(&root, BROKER, &[&root]), chain(&root.intermediate(), BROKER, &[])] {
            assert!(matches!(verify(&other, &chain), Err(RefusalReason::RootNotPresented { .. })));
        }
    }

    /// Whoever saw the pinned root can present it.
    #[test]
    fn a_pinned_root_that_signed_nothing_below_is_refused() {
        let (root, attacker) = (TestCa::root("a.test"), TestCa::root("a.test"));
        for issuer in [&attacker, &attacker.intermediate()] {
            let result = verify(&root, &chain(issuer, BROKER, &[&attacker, &root]));
            assert!(
                matches!(result, Err(RefusalReason::UnknownIssuer { .. } | RefusalReason::Chain { .. })),
                "{result:?}"
            );
        }
    }

    /// A node's certificate is from the same root, and is no broker's.
    #[test]
    fn everybody_but_the_broker_is_refused() {
        let root = TestCa::root("a.test");
        for path in ["/portcullis/node/edge", "/portcullis/broker/x", "/portcullis/brokers", "/broker", "/x"] {
            let result = verify(&root, &chain(&root, path, &[&root]));
            assert!(matches!(result, Err(RefusalReason::NotExpected { .. })), "{path}: {result:?}");
        }
        let other = TestCa::root("b.test");
        let result = verify(&other, &chain(&other, BROKER, &[&other]));
        assert!(matches!(result, Err(RefusalReason::NotExpected { .. })));
        let result = verify(&root, &vec![root.certificate().clone(); 2]);
        assert!(matches!(result, Err(RefusalReason::Leaf(InvalidLeaf::NoPath { .. }))));
    }

    /// Only the key is pinned: a certificate over it that the key did not sign says whatever its author likes.
    #[test]
    fn a_root_certificate_that_its_key_did_not_sign_is_refused() {
        let root = TestCa::root("a.test");
        let mut forged = root.certificate().to_vec();
        *forged.last_mut().unwrap() ^= 1;
        let mut chain = chain(&root, BROKER, &[]);
        chain.push(CertificateDer::from(forged));
        assert!(matches!(verify(&root, &chain), Err(RefusalReason::RootNotPresented { .. })));
    }

    #[test]
    fn a_root_of_another_profile_is_refused() {
        let root = TestCa::root_with("a.test", |params| params.key_usages.clear());
        let other = TestCa::root_with("a.test", |params| params.not_after = date(NOW - 1));
        let pin = Authority::parse(other.certificate(), &td("a.test")).unwrap().public_key_sha256();
        assert!(matches!(
            verify(&other, &chain(&other, BROKER, &[&other])),
            Err(RefusalReason::AuthorityNotCurrent { .. })
        ));
        let chain = chain(&root, BROKER, &[&root]);
        let verifier = PinnedRootVerifier::new(pin, &td("a.test"));
        let refused = verifier.verify(&chain[0], &chain[1..], now()).unwrap_err();
        assert!(matches!(refused.reason(), RefusalReason::RootNotPresented { .. }));
    }

    #[test]
    fn a_chain_has_at_most_the_root_and_four_more() {
        let root = TestCa::root("a.test");
        let result = verify(&root, &chain(&root, BROKER, &[&root; 6]));
        assert!(matches!(result, Err(RefusalReason::TooManyIntermediates { count: 6, .. })));
    }
}
