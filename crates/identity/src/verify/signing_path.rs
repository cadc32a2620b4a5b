//! Who signed an SVID of ours, up to the authority: what a holder looks at when authorities are withdrawn.

use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, UnixTime};

use super::{PeerRefused, RefusalReason, Usage, chain};
use crate::{Leaf, Peer, Revocations, Svid, TrustBundles};

/// The signers of one SVID, as the bundles of one moment verify it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningPath {
    /// The SHA-256 of each signer's public key, the authority's last.
    signers: Vec<[u8; 32]>,
}

impl SigningPath {
    /// The path from `svid` to an authority of its trust domain. Revocations are not looked at.
    ///
    /// # Errors
    /// [`PeerRefused`] where peers that hold `trust` refuse the SVID, for another reason than a revocation.
    pub fn of(svid: &Svid, trust: &TrustBundles, now: SystemTime) -> Result<Self, PeerRefused> {
        Self::find(svid.leaf(), svid.chain(), trust, now)
    }

    /// The same for what a peer presented.
    ///
    /// # Errors
    /// As for [`SigningPath::of`].
    pub fn of_peer(peer: &Peer, trust: &TrustBundles, now: SystemTime) -> Result<Self, PeerRefused> {
        Self::find(peer.leaf(), peer.chain(), trust, now)
    }

    fn find(
        leaf: &Leaf,
        chain: &[CertificateDer<'static>],
        trust: &TrustBundles,
        now: SystemTime,
    ) -> Result<Self, PeerRefused> {
        let id = leaf.id();
        let bundle =
            trust.get(id.trust_domain()).ok_or_else(|| RefusalReason::UnknownTrustDomain { id: id.clone() })?;
        let (end_entity, intermediates) =
            chain.split_first().ok_or(RefusalReason::Leaf(crate::InvalidLeaf::Missing))?;
        let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO));
        let revocations = Revocations::default();
        let candidate = chain::Candidate { end_entity, intermediates, leaf, revocations: &revocations };
        Ok(Self { signers: candidate.verify(bundle, now, Usage::ClientAuth)? })
    }

    /// Whether one of these keys is on the path.
    #[must_use]
    pub fn goes_through(&self, keys: &[[u8; 32]]) -> bool {
        self.signers.iter().any(|signer| keys.contains(signer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Authority,
        test_ca::{NOW, TestCa, system, td, trust},
    };

    #[test]
    fn a_path_goes_through_every_signer_and_through_no_other() {
        let (root, other) = (TestCa::root("a.test"), TestCa::root("a.test"));
        let intermediate = root.intermediate();
        let trust = trust([&root]).load_full();
        let path = SigningPath::of(&intermediate.svid("/x"), &trust, system(NOW)).unwrap();
        let key = |ca: &TestCa| Authority::parse(ca.certificate(), &td("a.test")).unwrap().public_key_sha256();
        assert!(path.goes_through(&[key(&root)]) && path.goes_through(&[key(&other), key(&intermediate)]));
        assert!(!path.goes_through(&[key(&other)]) && !path.goes_through(&[]));
        SigningPath::of(&other.svid("/x"), &trust, system(NOW)).unwrap_err();
    }
}
