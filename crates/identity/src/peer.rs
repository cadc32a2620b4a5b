//! The authenticated other end of a connection.

use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use spiffe::SpiffeId;

use crate::{InvalidLeaf, Leaf};

/// The other end of a connection whose handshake a [`PeerVerifier`](crate::PeerVerifier) accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    leaf: Leaf,
    chain: Vec<CertificateDer<'static>>,
}

impl Peer {
    /// The peer behind the chain of a **finished** handshake, leaf first. Nothing is verified here.
    ///
    /// # Errors
    /// [`InvalidLeaf`], which a chain that a verifier accepted never gives.
    pub fn from_chain(chain: &[CertificateDer<'_>]) -> Result<Self, InvalidLeaf> {
        let first = chain.first().ok_or(InvalidLeaf::Missing)?;
        Ok(Self { leaf: Leaf::parse(first)?, chain: chain.iter().map(|der| der.clone().into_owned()).collect() })
    }

    /// Who it is.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        self.leaf.id()
    }

    /// When the connection has to end: the last moment of its certificate.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.leaf.not_after()
    }

    /// The serial number of its certificate, for revocations.
    #[must_use]
    pub fn serial(&self) -> &[u8] {
        self.leaf.serial()
    }

    /// Its leaf.
    #[must_use]
    pub fn leaf(&self) -> &Leaf {
        &self.leaf
    }

    /// What it presented, leaf first: to verify it anew when the bundles change.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_ca::{HOUR, NOW, TestCa, system};

    #[test]
    fn a_peer_is_its_leaf_and_what_it_presented() {
        let chain = TestCa::root("a.test").intermediate().leaf("/x");
        let peer = Peer::from_chain(&chain).unwrap();
        assert_eq!(peer.id().to_string(), "spiffe://a.test/x");
        assert_eq!(peer.not_after(), system(NOW + HOUR));
        assert_eq!(peer.serial(), peer.leaf().serial());
        assert_eq!(peer.chain(), chain);
    }

    #[test]
    fn nobody_is_no_peer() {
        assert_eq!(Peer::from_chain(&[]), Err(InvalidLeaf::Missing));
        let authority = TestCa::root("a.test").certificate().clone();
        assert!(matches!(Peer::from_chain(&[authority]), Err(InvalidLeaf::NoPath { .. })));
    }
}
