//! Path validation (RFC 5280 §6) and what it leaves open: validity and path length of the authority, the signing
//! profile of intermediates, and that both parsers in use read the same name from the leaf.

use std::{cell::RefCell, iter};

use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use super::{PeerRefused, RefusalReason, Usage};
use crate::{Authority, Bundle, Leaf, MAX_INTERMEDIATES, tls::provider};

/// A chain that is not yet trusted, with its leaf's profile already checked.
pub(super) struct Candidate<'a> {
    pub(super) end_entity: &'a CertificateDer<'a>,
    pub(super) intermediates: &'a [CertificateDer<'a>],
    pub(super) leaf: &'a Leaf,
}

impl Candidate<'_> {
    pub(super) fn verify(&self, bundle: &Bundle, now: UnixTime, usage: Usage) -> Result<(), PeerRefused> {
        let id = self.leaf.id();
        if self.intermediates.len() > MAX_INTERMEDIATES {
            let count = self.intermediates.len();
            return Err(RefusalReason::TooManyIntermediates { id: id.clone(), count }.into());
        }
        let certificate = EndEntityCert::try_from(self.end_entity).map_err(|error| self.explain(&error))?;
        if !certificate.valid_uri_names().eq(iter::once(id.to_string())) {
            return Err(RefusalReason::Chain {
                id: id.clone(),
                detail: "ambiguous encoding".to_owned(),
            }
            .into());
        }
        let usage = match usage {
            Usage::ClientAuth => KeyUsage::client_auth(),
            Usage::ServerAuth => KeyUsage::server_auth(),
        };
        // The path builder goes on to other paths after a refusal here and cannot carry our reason: keep the last.
        let reason = RefCell::new(None);
        let check_path = |path: &VerifiedPath<'_>| {
            self.check_path(path, bundle, now).map_err(|refusal| {
                reason.replace(Some(refusal));
                webpki::Error::UnknownIssuer
            })
        };
        certificate
            .verify_for_usage(
                provider().signature_verification_algorithms.all,
                bundle.anchors(),
                self.intermediates,
                now,
                usage,
                None,
                Some(&check_path),
            )
            .map(|_path| ())
            .map_err(|error| reason.take().unwrap_or_else(|| self.explain(&error)).into())
    }

    fn check_path(&self, path: &VerifiedPath<'_>, bundle: &Bundle, now: UnixTime) -> Result<(), RefusalReason> {
        let id = || self.leaf.id().clone();
        let Some(authority) = bundle.authority_of(path.anchor()) else {
            return Err(RefusalReason::UnknownIssuer { id: id() });
        };
        if !authority.is_valid_at(now) {
            return Err(RefusalReason::AuthorityNotCurrent { id: id() });
        }
        if !authority.allows_intermediates(path.intermediate_certificates().count()) {
            return Err(RefusalReason::PathTooLong { id: id() });
        }
        for intermediate in path.intermediate_certificates() {
            Authority::parse(&intermediate.der(), bundle.trust_domain())
                .map_err(|reason| RefusalReason::Intermediate { id: id(), reason })?;
        }
        Ok(())
    }

    fn explain(&self, error: &webpki::Error) -> RefusalReason {
        let id = self.leaf.id().clone();
        if *error == webpki::Error::UnknownIssuer {
            return RefusalReason::UnknownIssuer { id };
        }
        let detail = error.to_string();
        if matches!(error, webpki::Error::CertExpired { .. }) {
            return RefusalReason::Expired { id, detail };
        }
        if matches!(error, webpki::Error::CertNotValidYet { .. }) {
            return RefusalReason::NotYetValid { id, detail };
        }
        RefusalReason::Chain { id, detail }
    }
}
