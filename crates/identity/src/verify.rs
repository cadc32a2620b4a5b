//! Who is accepted at the other end of a handshake.

mod chain;
mod pinned;
mod refused;
mod rustls_side;

use std::{fmt, sync::Arc};

use rustls::pki_types::{CertificateDer, UnixTime};
use spiffe::{SpiffeId, TrustDomain};

use crate::{Leaf, Peer, TrustSource};

pub use self::refused::{PeerRefused, RefusalReason};
pub(crate) use self::{pinned::PinnedRootVerifier, rustls_side::OptionalClient};

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
        Arc::new(Self {
            trust,
            rule,
            observer: None,
        })
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
        Arc::new(Self {
            trust,
            rule,
            observer: Some(Box::new(observer)),
        })
    }

    /// Verifies a chain at the moment `now`: leaf profile, path to an authority of the leaf's **own** trust domain,
    /// signing profile of everything on that path, then the rule (X509-SVID §5).
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
        let bundle = trust
            .get(trust_domain)
            .ok_or_else(|| RefusalReason::UnknownTrustDomain { id: leaf.id().clone() })?;
        chain::Candidate {
            end_entity,
            intermediates,
            leaf: &leaf,
        }
        .verify(bundle, now, usage)?;
        if !self.rule.accepts(leaf.id()) {
            let expected = self.rule.clone();
            return Err(RefusalReason::NotExpected {
                id: leaf.id().clone(),
                expected,
            }
            .into());
        }
        Ok(leaf.id().clone())
    }

    /// Verifies a peer anew, as after a change of the bundles: its connection has to end if this fails.
    ///
    /// # Errors
    /// [`PeerRefused`] as [`Self::verify`].
    pub fn verify_again(&self, peer: &Peer, now: UnixTime, usage: Usage) -> Result<(), PeerRefused> {
        let (first, intermediates) = peer
            .chain()
            .split_first()
            .ok_or(RefusalReason::Leaf(crate::InvalidLeaf::Missing))?;
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
        f.debug_struct("PeerVerifier")
            .field("rule", &self.rule)
            .finish_non_exhaustive()
    }
}
