//! Who is accepted at the other end of a handshake.

mod chain;
mod pinned;
mod refused;
mod rustls_side;
mod signing_path;

use std::{fmt, sync::Arc};

use rustls::pki_types::{CertificateDer, UnixTime};
use spiffe::{SpiffeId, TrustDomain};

use crate::{Leaf, Peer, TrustSource};

pub(crate) use self::{pinned::PinnedRootVerifier, rustls_side::OptionalClient};
pub use self::{
    refused::{PeerRefused, RefusalReason},
    signing_path::SigningPath,
};

/// Which of the peers that prove a SPIFFE ID are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerRule {
    /// One only, compared whole.
    Exactly(SpiffeId),
    /// All of one trust domain.
    TrustDomain(TrustDomain),
    /// All of every trust domain whose bundle is held; what they may do is for policy to say.
    AnyTrusted,
}

impl PeerRule {
    fn accepts(&self, id: &SpiffeId) -> bool {
        match self {
            Self::Exactly(expected) => id == expected,
            Self::TrustDomain(trust_domain) => id.trust_domain() == trust_domain,
            Self::AnyTrusted => true,
        }
    }
}

impl fmt::Display for PeerRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(id) => write!(f, "`{id}`"),
            Self::TrustDomain(trust_domain) => write!(f, "a member of `{trust_domain}`"),
            Self::AnyTrusted => f.write_str("any trusted peer"),
        }
    }
}

/// What the peer's certificate is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// The peer is the client of the connection.
    ClientAuth,
    /// The peer is the server of the connection.
    ServerAuth,
}

type Observer = Box<dyn Fn(&PeerRefused) + Send + Sync>;

/// Verifies peers in both directions, against the bundles of the moment.
pub struct PeerVerifier {
    trust: TrustSource,
    rule: PeerRule,
    observer: Option<Observer>,
}

impl PeerVerifier {
    /// A verifier that accepts whom `rule` accepts.
    #[must_use]
    pub fn new(trust: TrustSource, rule: PeerRule) -> Arc<Self> {
        Arc::new(Self { trust, rule, observer: None })
    }

    /// Like [`Self::new`], and tells `observer` of every refusal in a handshake.
    ///
    /// QUIC keeps only the bland text of a verifier's error; this is how the reason reaches the local log.
    #[must_use]
    pub fn observed(
        trust: TrustSource,
        rule: PeerRule,
        observer: impl Fn(&PeerRefused) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { trust, rule, observer: Some(Box::new(observer)) })
    }

    /// Verifies a chain at the moment `now`: leaf profile, revocation, path to an authority of the leaf's **own** trust
    /// domain, signing profile and revocation of everything on that path, then the rule (X509-SVID §5).
    ///
    /// # Errors
    /// [`PeerRefused`], whose [`reason`](PeerRefused::reason) is for local eyes only.
    pub fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: Usage,
    ) -> Result<SpiffeId, PeerRefused> {
        let leaf = Leaf::parse(end_entity).map_err(RefusalReason::Leaf)?;
        let trust = self.trust.load();
        let trust_domain = leaf.id().trust_domain();
        let bundle =
            trust.get(trust_domain).ok_or_else(|| RefusalReason::UnknownTrustDomain { id: leaf.id().clone() })?;
        let revocations = trust.revocations();
        if revocations.of_leaf(&leaf) {
            return Err(RefusalReason::Revoked { id: leaf.id().clone() }.into());
        }
        chain::Candidate { end_entity, intermediates, leaf: &leaf, revocations }.verify(bundle, now, usage)?;
        if !self.rule.accepts(leaf.id()) {
            let expected = self.rule.clone();
            return Err(RefusalReason::NotExpected { id: leaf.id().clone(), expected }.into());
        }
        Ok(leaf.id().clone())
    }

    /// Verifies a peer anew, as after a change of the bundles: its connection has to end if this fails.
    ///
    /// # Errors
    /// [`PeerRefused`] as [`Self::verify`].
    pub fn verify_again(&self, peer: &Peer, now: UnixTime, usage: Usage) -> Result<(), PeerRefused> {
        let (first, intermediates) =
            peer.chain().split_first().ok_or(RefusalReason::Leaf(crate::InvalidLeaf::Missing))?;
        self.verify(first, intermediates, now, usage).map(|_same_id| ())
    }

    fn observe(&self, refused: &PeerRefused) {
        if let Some(observer) = &self.observer {
            observer(refused);
        }
    }
}

impl fmt::Debug for PeerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerVerifier").field("rule", &self.rule).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::{
        TrustBundles, parse_spiffe_id,
        test_ca::{Chain, NOW, TestCa, now, system, td, trust},
    };

    #[test]
    fn exactly_means_the_whole_id() {
        let (a, b) = (TestCa::root("a.test"), TestCa::root("a.test.evil.test"));
        let trust = trust([&a, &b]);
        let rule = PeerRule::Exactly(parse_spiffe_id("spiffe://a.test/pay").unwrap());
        let verifier = PeerVerifier::new(trust, rule);
        let verify = |chain: Chain| verifier.verify(&chain[0], &chain[1..], now(), Usage::ServerAuth);
        verify(a.leaf("/pay")).unwrap();
        for path in ["/payroll", "/pay/x", "/pa", "/Pay", "/x/pay"] {
            let refused = verify(a.leaf(path)).unwrap_err();
            assert!(matches!(refused.reason(), RefusalReason::NotExpected { .. }), "{path}");
        }
        let refused = verify(b.leaf("/pay")).unwrap_err();
        assert_eq!(
            refused.reason().to_string(),
            "peer is `spiffe://a.test.evil.test/pay`, expected `spiffe://a.test/pay`"
        );
    }

    #[test]
    fn a_trust_domain_rule_accepts_its_members_alone() {
        let (a, b) = (TestCa::root("a.test"), TestCa::root("a.test.b"));
        let verifier = PeerVerifier::new(trust([&a, &b]), PeerRule::TrustDomain(td("a.test")));
        let verify = |chain: Chain| verifier.verify(&chain[0], &chain[1..], now(), Usage::ClientAuth);
        verify(a.leaf("/x")).unwrap();
        assert!(matches!(verify(b.leaf("/x")).unwrap_err().reason(), RefusalReason::NotExpected { .. }));
    }

    #[test]
    fn a_peer_is_refused_again_once_its_root_is_withdrawn() {
        let (old, new) = (TestCa::root("a.test"), TestCa::root("a.test"));
        let trust = trust([&old]);
        let peer = Peer::from_chain(&old.intermediate().leaf("/x")).unwrap();
        let verifier = PeerVerifier::new(Arc::clone(&trust), PeerRule::AnyTrusted);
        verifier.verify_again(&peer, now(), Usage::ClientAuth).unwrap();

        trust.store(Arc::new(TrustBundles::new([new.bundle()], system(NOW))));
        verifier.verify_again(&peer, now(), Usage::ClientAuth).unwrap_err();
    }

    #[test]
    fn a_refusal_is_bland_outside_and_exact_inside() {
        let root = TestCa::root("a.test");
        let chain = TestCa::root("secret.test").leaf("/inner");
        let seen = Arc::new(Mutex::new(None));
        let observer = {
            let seen = Arc::clone(&seen);
            move |refused: &PeerRefused| *seen.lock().unwrap() = Some(refused.clone())
        };
        let verifier = PeerVerifier::observed(trust([&root]), PeerRule::AnyTrusted, observer);
        let error = rustls::server::danger::ClientCertVerifier::verify_client_cert(&*verifier, &chain[0], &[], now())
            .unwrap_err();

        // What quinn puts into CONNECTION_CLOSE is this text.
        assert_eq!(error.to_string(), "invalid peer certificate: Other(OtherError(PeerRefused))");
        assert!(!format!("{error:?}").contains("secret"));

        let expected = "no bundle is held for the trust domain of `spiffe://secret.test/inner`";
        let io = std::io::Error::new(std::io::ErrorKind::InvalidData, error);
        assert_eq!(PeerRefused::find(&io).unwrap().reason().to_string(), expected);
        assert_eq!(seen.lock().unwrap().as_ref().unwrap().reason().to_string(), expected);
        assert!(PeerRefused::find(&std::io::Error::other("else")).is_none());
    }
}
