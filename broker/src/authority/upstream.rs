//! An upstream authority's answer: judged before anything relies on it.

use std::time::{Duration, SystemTime};

use portcullis_identity::{
    Authority, Peer, PeerRule, PeerVerifier, PrivateKey, RequestedKey, TrustBundles, TrustDomain, Usage, broker_id,
    key_request,
};
use rcgen::{Issuer, KeyPair, PublicKeyData as _, SubjectPublicKeyInfo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};

use super::ca_file::sha256;
use super::profile::{self, Validity};
use super::{AuthorityError, IssueError};
use crate::registry::NewAuthority;

/// How long the leaf lives by which a chain is tried.
const TRIAL: Duration = Duration::from_secs(60);

/// A chain that an upstream authority gave, split into what we present and what nodes trust.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) below: Vec<CertificateDer<'static>>,
    pub(super) new: NewAuthority,
}

impl Answer {
    /// Judges a chain for `key`, in PEM, the signing certificate first and the self-signed root last: an SVID below it has to be one that
    /// peers accept.
    pub(super) fn judge(
        pem: &[u8],
        key: KeyPair,
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let mut below = chain.map_err(|_| AuthorityError::Chain("a certificate in it is not one".to_owned()))?;
        let root = below.pop().ok_or(AuthorityError::EmptyChain)?;
        let first = below.first().ok_or(AuthorityError::EmptyChain)?;
        let signing = Authority::parse(first, trust_domain).map_err(AuthorityError::Unusable)?;
        if signing.public_key_sha256() != sha256(&key.subject_public_key_info()) {
            return Err(AuthorityError::OtherKey);
        }
        let issuer = Issuer::from_ca_cert_der(signing.der(), key).map_err(IssueError::from)?;
        let not_after = signing.not_after();
        let new = NewAuthority::upstream(trust_domain, root, signing)?;

        let validity = Validity::from_now(now, TRIAL, Some(not_after));
        let request = key_request(&PrivateKey::generate().map_err(IssueError::from)?).map_err(IssueError::from)?;
        let requested = RequestedKey::parse(&request).map_err(IssueError::from)?;
        let spki = SubjectPublicKeyInfo::from_der(requested.spki_der()).map_err(IssueError::from)?;
        let id = broker_id(trust_domain);
        let leaf = profile::leaf((&id).into(), validity)?;
        let leaf = leaf.signed_by(&spki, &issuer).map_err(IssueError::from)?;
        let presented: Vec<_> = std::iter::once(leaf.der().clone()).chain(below.iter().cloned()).collect();
        let peer = Peer::from_chain(&presented).map_err(|error| AuthorityError::Chain(error.to_string()))?;
        let trust = TrustBundles::new(new.material.root().cloned(), now).into_source();
        let verifier = PeerVerifier::new(trust, PeerRule::TrustDomain(trust_domain.clone()));
        let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        verifier.verify_again(&peer, UnixTime::since_unix_epoch(since_1970), Usage::ServerAuth)?;
        Ok(Self { below, new })
    }
}
