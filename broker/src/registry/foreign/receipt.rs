//! Whether a bundle that came is newer than the one that is held, and what about it an operator should hear of.

use portcullis_identity::{BundleDocument, TrustDomain};

use super::HeldBundle;

/// Keys of one trust domain; a publisher has a handful.
const MAX_KEYS: usize = 128;
/// So many new keys at once are a surge.
const SURGE: usize = 8;

/// Why a bundle is not believed. The one that is held stays in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleRefusal {
    /// Nobody would be trusted any more. The standard says to obey; an error page or an attacker would then end all trust, which is for an
    /// operator alone to do.
    #[error("the bundle has no usable key: to end the trust in it, remove the trust domain")]
    Empty,
    /// An older bundle came back: perhaps a replay, with authorities that were since revoked.
    #[error("the bundle has sequence {offered}, after {held} was seen: it is an older one")]
    Rollback {
        /// What is held.
        held: u64,
        /// What came.
        offered: u64,
    },
    /// The publisher counted, and now does not: that hides a rollback.
    #[error("the bundle has no sequence, after {held} was seen")]
    Uncounted {
        /// What is held.
        held: u64,
    },
    /// One number, two contents: one of the two is not the publisher's.
    #[error("the bundle differs from the one that is held, and both have sequence {sequence}")]
    Ambiguous {
        /// Of both.
        sequence: u64,
    },
    /// One key, two trust domains: each could vouch for the other's names.
    #[error("the bundle has an authority that trust domain `{other}` has too: one key serves one trust domain")]
    SharedAuthority {
        /// Whose it is already.
        other: TrustDomain,
    },
    /// More than anybody publishes.
    #[error("the bundle has {0} keys, more than {MAX_KEYS}")]
    TooManyKeys(usize),
}

/// Something about a bundle that is believed which an operator should hear of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Notice {
    /// Not one authority stays: a rotation overlaps.
    #[error("none of the authorities that were trusted is in the new bundle: a rotation would have left one")]
    NoOverlap,
    /// Many new authorities at once.
    #[error("{0} authorities are new at once")]
    Surge(usize),
}

impl BundleRefusal {
    /// Whether somebody should look at once: the publisher, or somebody between, is not honest.
    #[must_use]
    pub fn is_alarming(&self) -> bool {
        match self {
            Self::Rollback { .. } | Self::Uncounted { .. } | Self::Ambiguous { .. } | Self::SharedAuthority { .. } => {
                true
            }
            Self::Empty | Self::TooManyKeys(_) => false,
        }
    }
}

/// Whether `offered` may take the place of `held`.
pub(super) fn judge(held: Option<&HeldBundle>, offered: &HeldBundle) -> Result<(), BundleRefusal> {
    let document = &offered.document;
    if document.is_empty() {
        return Err(BundleRefusal::Empty);
    }
    let keys = document.x509().authorities().len().saturating_add(document.jwt().authorities().len());
    if keys > MAX_KEYS {
        return Err(BundleRefusal::TooManyKeys(keys));
    }
    let Some(held) = held.map(|held| &held.document) else { return Ok(()) };
    match (held.sequence(), document.sequence()) {
        (Some(held), Some(offered)) if offered < held => Err(BundleRefusal::Rollback { held, offered }),
        (Some(sequence), Some(offered)) if offered == sequence && !same_keys(held, document) => {
            Err(BundleRefusal::Ambiguous { sequence })
        }
        (Some(held), None) => Err(BundleRefusal::Uncounted { held }),
        (Some(_), Some(_)) | (None, _) => Ok(()),
    }
}

/// Whether both trust the same keys, in whatever order they stand.
fn same_keys(one: &BundleDocument, other: &BundleDocument) -> bool {
    let x509 = |document: &BundleDocument| {
        let mut certificates: Vec<_> = document.x509().certificates().map(|der| der.to_vec()).collect();
        certificates.sort();
        certificates
    };
    let jwt = |document: &BundleDocument| {
        let keys = document.jwt().authorities().iter();
        let mut keys: Vec<_> = keys.map(|key| (key.kid().as_str().to_owned(), key.spki_der())).collect();
        keys.sort();
        keys
    };
    x509(one) == x509(other) && jwt(one) == jwt(other)
}

impl HeldBundle {
    /// What an operator should hear of where `later` takes this one's place.
    #[must_use]
    pub fn notices(&self, later: &Self) -> Vec<Notice> {
        let known: Vec<_> = self.x509_keys().collect();
        let new: Vec<_> = later.x509_keys().filter(|key| !known.contains(key)).collect();
        let stays = later.x509_keys().any(|key| known.contains(&key));
        let mut notices = Vec::new();
        if !known.is_empty() && !stays {
            notices.push(Notice::NoOverlap);
        }
        if new.len() >= SURGE {
            notices.push(Notice::Surge(new.len()));
        }
        notices
    }
}
