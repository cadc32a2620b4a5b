//! An X.509-SVID that is ours: the chain and its private key.

use std::{fmt, sync::Arc, time::SystemTime};

use rustls::{pki_types::CertificateDer, sign::CertifiedKey};
use spiffe::SpiffeId;
use thiserror::Error;

use crate::{Authority, InvalidAuthority, InvalidKey, InvalidLeaf, Leaf, MAX_INTERMEDIATES, PrivateKey};

/// Why a chain and a key are no SVID.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum InvalidSvid {
    /// The first certificate breaks the leaf profile.
    #[error(transparent)]
    Leaf(#[from] InvalidLeaf),
    /// A later certificate breaks the signing profile.
    #[error("intermediate {index} is refused: {reason}")]
    Intermediate {
        /// Which one, counted from 0 at the leaf's issuer.
        index: usize,
        /// Why.
        reason: InvalidAuthority,
    },
    /// The chain is longer than any peer accepts.
    #[error("chain holds {count} intermediates, peers accept {MAX_INTERMEDIATES}")]
    TooManyIntermediates {
        /// How many there are.
        count: usize,
    },
    /// The certificate was made for another key.
    #[error("private key does not belong to the certificate of `{id}`")]
    OtherKey {
        /// The certificate's ID.
        id: SpiffeId,
    },
    /// The key cannot sign.
    #[error(transparent)]
    Key(#[from] InvalidKey),
}

/// An X.509-SVID with its private key: what this process authenticates with.
pub struct Svid {
    leaf: Leaf,
    key: PrivateKey,
    certified: Arc<CertifiedKey>,
}

impl Svid {
    /// An SVID of a chain, leaf first, and the leaf's key.
    ///
    /// Checked are the profiles and that the key is the leaf's; whether anybody trusts the chain is for peers to say.
    ///
    /// # Errors
    /// [`InvalidSvid`] says what does not fit.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKey) -> Result<Self, InvalidSvid> {
        let (first, intermediates) = chain.split_first().ok_or(InvalidLeaf::Missing)?;
        if intermediates.len() > MAX_INTERMEDIATES {
            return Err(InvalidSvid::TooManyIntermediates { count: intermediates.len() });
        }
        let leaf = Leaf::parse(first)?;
        for (index, intermediate) in intermediates.iter().enumerate() {
            Authority::parse(intermediate, leaf.id().trust_domain())
                .map_err(|reason| InvalidSvid::Intermediate { index, reason })?;
        }
        if key.public_key_sha256() != leaf.public_key_sha256() {
            return Err(InvalidSvid::OtherKey { id: leaf.id().clone() });
        }
        let certified = Arc::new(CertifiedKey::new(chain, key.signing_key()?));
        Ok(Self { leaf, key, certified })
    }

    /// Who we are.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        self.leaf.id()
    }

    /// The certificates, leaf first, without the root.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// The leaf.
    #[must_use]
    pub fn leaf(&self) -> &Leaf {
        &self.leaf
    }

    /// The leaf's private key.
    #[must_use]
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// The first moment at which peers accept it.
    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        self.leaf.not_before()
    }

    /// The last moment at which peers accept it.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.leaf.not_after()
    }

    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid").field("leaf", &self.leaf).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_ca::{HOUR, NOW, TestCa, system};

    #[test]
    fn an_svid_is_a_chain_with_its_key() {
        let ca = TestCa::root("a.test").intermediate();
        let key = PrivateKey::generate().unwrap();
        let (hash, chain) = (key.public_key_sha256(), ca.leaf_with("/x", &key, |_| {}));
        let svid = Svid::new(chain.clone(), key).unwrap();
        assert_eq!((svid.id().path(), svid.chain()), ("/x", chain.as_slice()));
        assert_eq!((svid.not_before(), svid.not_after()), (system(NOW - 60), system(NOW + HOUR)));
        assert_eq!((svid.key().public_key_sha256(), svid.leaf().public_key_sha256()), (hash, hash));
    }

    #[test]
    fn another_ones_key_is_refused() {
        let chain = TestCa::root("a.test").leaf("/x");
        let error = Svid::new(chain, PrivateKey::generate().unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "private key does not belong to the certificate of `spiffe://a.test/x`");
    }

    #[test]
    fn an_empty_chain_is_refused() {
        let error = Svid::new(Vec::new(), PrivateKey::generate().unwrap()).unwrap_err();
        assert_eq!(error, InvalidSvid::Leaf(InvalidLeaf::Missing));
    }

    #[test]
    fn a_chain_that_no_peer_accepts_is_refused() {
        let root = TestCa::root("a.test");
        let with = |above: &[&CertificateDer<'static>]| {
            let key = PrivateKey::generate().unwrap();
            let mut chain = root.leaf_with("/x", &key, |_| {});
            chain.extend(above.iter().map(|der| (*der).clone()));
            Svid::new(chain, key)
        };
        let other = TestCa::root("b.test");
        assert!(with(&[root.certificate(); 4]).is_ok());
        assert_eq!(with(&[root.certificate(); 5]).unwrap_err(), InvalidSvid::TooManyIntermediates { count: 5 });
        assert!(matches!(
            with(&[root.certificate(), other.certificate()]).unwrap_err(),
            InvalidSvid::Intermediate { index: 1, reason: InvalidAuthority::OtherTrustDomain { .. } }
        ));
        assert!(matches!(
            with(&[&root.leaf("/y")[0]]).unwrap_err(),
            InvalidSvid::Intermediate { index: 0, reason: InvalidAuthority::NotAuthority }
        ));
    }

    #[test]
    fn debug_names_the_svid_and_hides_the_key() {
        let svid = TestCa::root("a.test").svid("/x");
        let shown = format!("{svid:?}");
        assert!(shown.contains("/x"), "{shown}");
        assert!(!shown.contains("key:") && !shown.contains("certified"), "{shown}");
    }
}
