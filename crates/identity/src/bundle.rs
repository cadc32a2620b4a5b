//! Bundles: which authorities may sign for which trust domain.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use rustls::pki_types::{CertificateDer, TrustAnchor};
use spiffe::TrustDomain;
use thiserror::Error;

use crate::{Authority, InvalidAuthority, InvalidCertificate};

/// Why a bundle is refused: one authority in it is.
#[derive(Clone, Debug, Error, PartialEq)]
#[error("authority {index} of trust domain `{trust_domain}` is refused: {reason}")]
pub struct InvalidBundle {
    /// The bundle's trust domain.
    pub trust_domain: TrustDomain,
    /// Which authority, counted from 0.
    pub index: usize,
    /// Why.
    pub reason: InvalidAuthority,
}

/// The X.509 authorities of one trust domain.
///
/// A bundle may be empty: its trust domain is known, and nobody in it is trusted.
#[derive(Clone, Debug)]
pub struct Bundle {
    trust_domain: TrustDomain,
    authorities: Vec<Authority>,
    /// One per authority, in the same order.
    anchors: Vec<TrustAnchor<'static>>,
}

impl Bundle {
    /// A bundle of these certificates. A certificate that is given twice counts once.
    ///
    /// # Errors
    /// [`InvalidBundle`] names the first certificate that is not an authority's.
    pub fn new(
        trust_domain: TrustDomain,
        certificates: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<Self, InvalidBundle> {
        let mut bundle = Self {
            trust_domain,
            authorities: Vec::new(),
            anchors: Vec::new(),
        };
        for (index, der) in certificates.into_iter().enumerate() {
            let (authority, anchor) = trusted(&der, &bundle.trust_domain).map_err(|reason| InvalidBundle {
                trust_domain: bundle.trust_domain.clone(),
                index,
                reason,
            })?;
            if !bundle.authorities.contains(&authority) {
                bundle.authorities.push(authority);
                bundle.anchors.push(anchor);
            }
        }
        Ok(bundle)
    }

    /// Whose authorities these are.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The authorities, in the order in which they were given.
    #[must_use]
    pub fn authorities(&self) -> &[Authority] {
        &self.authorities
    }

    /// The authorities' certificates.
    pub fn certificates(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.authorities.iter().map(Authority::der)
    }

    pub(crate) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    /// The authority behind an element of [`Self::anchors`].
    pub(crate) fn authority_of(&self, anchor: &TrustAnchor<'_>) -> Option<&Authority> {
        self.anchors
            .iter()
            .zip(&self.authorities)
            .find(|(candidate, _)| std::ptr::eq(*candidate, anchor))
            .map(|(_, authority)| authority)
    }

    fn without_expired(self, now: SystemTime) -> Self {
        let Self {
            trust_domain,
            authorities,
            anchors,
        } = self;
        let (authorities, anchors) = authorities
            .into_iter()
            .zip(anchors)
            .filter(|(authority, _)| now <= authority.not_after())
            .unzip();
        Self {
            trust_domain,
            authorities,
            anchors,
        }
    }
}

fn trusted(
    der: &CertificateDer<'static>,
    trust_domain: &TrustDomain,
) -> Result<(Authority, TrustAnchor<'static>), InvalidAuthority> {
    let authority = Authority::parse(der, trust_domain)?;
    let anchor = webpki::anchor_from_trusted_cert(der).map_err(|_parse| InvalidCertificate::Malformed)?;
    Ok((authority, anchor.to_owned()))
}

/// The bundles that a daemon holds at one moment, by trust domain.
#[derive(Clone, Debug, Default)]
pub struct TrustBundles {
    bundles: HashMap<TrustDomain, Bundle>,
}

/// Where verifiers read the bundles at each handshake; whoever receives new bundles stores them here.
pub type TrustSource = Arc<ArcSwap<TrustBundles>>;

impl TrustBundles {
    /// The bundles without the authorities that expired before `now`.
    ///
    /// Of two bundles for one trust domain the first counts: put the own one first, and no federated bundle can take
    /// its place.
    #[must_use]
    pub fn new(bundles: impl IntoIterator<Item = Bundle>, now: SystemTime) -> Self {
        let mut kept = HashMap::new();
        for bundle in bundles {
            kept.entry(bundle.trust_domain.clone())
                .or_insert_with(|| bundle.without_expired(now));
        }
        Self { bundles: kept }
    }

    /// The bundle of a trust domain.
    #[must_use]
    pub fn get(&self, trust_domain: &TrustDomain) -> Option<&Bundle> {
        self.bundles.get(trust_domain)
    }

    /// All bundles, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Bundle> {
        self.bundles.values()
    }

    /// These bundles as a source for verifiers.
    #[must_use]
    pub fn into_source(self) -> TrustSource {
        Arc::new(ArcSwap::from_pointee(self))
    }
}
