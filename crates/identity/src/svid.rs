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
            return Err(InvalidSvid::TooManyIntermediates {
                count: intermediates.len(),
            });
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
