//! Path validation (RFC 5280 §6) and what it leaves open: validity and path length of the authority, the signing
//! profile of intermediates, and that both parsers in use read the same name from the leaf.

use std::{cell::RefCell, iter};

use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use super::{PeerRefused, RefusalReason, Usage};
use crate::{
    Authority, Bundle, InvalidCertificate, Leaf, MAX_CERTIFICATE_BYTES, MAX_INTERMEDIATES, Revocations, tls::provider,
};

/// A chain that is not yet trusted, with its leaf's profile already checked.
pub(super) struct Candidate<'a> {
    pub(super) end_entity: &'a CertificateDer<'a>,
    pub(super) intermediates: &'a [CertificateDer<'a>],
    pub(super) leaf: &'a Leaf,
    pub(super) revocations: &'a Revocations,
}

impl Candidate<'_> {
    /// Returns the path that was found: the SHA-256 of each signer's public key, the leaf's first, the authority's last.
    pub(super) fn verify(&self, bundle: &Bundle, now: UnixTime, usage: Usage) -> Result<Vec<[u8; 32]>, PeerRefused> {
        let id = self.leaf.id();
        if self.intermediates.len() > MAX_INTERMEDIATES {
            let count = self.intermediates.len();
            return Err(RefusalReason::TooManyIntermediates { id: id.clone(), count }.into());
        }
        if let Some(large) = self.intermediates.iter().find(|der| der.len() > MAX_CERTIFICATE_BYTES) {
            let reason = InvalidCertificate::TooLarge { bytes: large.len() }.into();
            return Err(RefusalReason::Intermediate { id: id.clone(), reason }.into());
        }
        let certificate = EndEntityCert::try_from(self.end_entity).map_err(|error| self.explain(&error))?;
        if !certificate.valid_uri_names().eq(iter::once(id.to_string())) {
            return Err(RefusalReason::Chain { id: id.clone(), detail: "ambiguous encoding".to_owned() }.into());
        }
        let usage = match usage {
            Usage::ClientAuth => KeyUsage::client_auth(),
            Usage::ServerAuth => KeyUsage::server_auth(),
        };
        // The path builder goes on to other paths after a refusal here and cannot carry our reason: keep the last.
        let (reason, signers) = (RefCell::new(None), RefCell::new(Vec::new()));
        let check_path = |path: &VerifiedPath<'_>| match self.check_path(path, bundle, now) {
            Ok(found) => {
                signers.replace(found);
                Ok(())
            }
            Err(refusal) => {
                reason.replace(Some(refusal));
                Err(webpki::Error::UnknownIssuer)
            }
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
            .map(|_path| signers.take())
            .map_err(|error| reason.take().unwrap_or_else(|| self.explain(&error)).into())
    }

    fn check_path(
        &self,
        path: &VerifiedPath<'_>,
        bundle: &Bundle,
        now: UnixTime,
    ) -> Result<Vec<[u8; 32]>, RefusalReason> {
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
        let mut signers = Vec::new();
        for intermediate in path.intermediate_certificates() {
            let intermediate = Authority::parse(&intermediate.der(), bundle.trust_domain())
                .map_err(|reason| RefusalReason::Intermediate { id: id(), reason })?;
            if self.revocations.of_serial(intermediate.serial()) {
                return Err(RefusalReason::Revoked { id: id() });
            }
            signers.push(intermediate.public_key_sha256());
        }
        signers.push(authority.public_key_sha256());
        Ok(signers)
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

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
        PKCS_ECDSA_P256_SHA256,
    };

    use spiffe::SpiffeId;

    use super::*;
    use crate::{
        InvalidAuthority, InvalidLeaf, PeerRule, PeerVerifier, PrivateKey, TrustBundles, TrustSource,
        test_ca::{Chain, HOUR, NOW, TestCa, at, date, extension, system, td, trust, uri},
    };

    const BOTH: [Usage; 2] = [Usage::ClientAuth, Usage::ServerAuth];

    fn verify_at(trust: &TrustSource, chain: &Chain, seconds: u64, usage: Usage) -> Result<SpiffeId, PeerRefused> {
        let (leaf, above) = chain.split_first().unwrap();
        PeerVerifier::new(TrustSource::clone(trust), PeerRule::AnyTrusted).verify(leaf, above, at(seconds), usage)
    }

    /// Why the chain is refused, which has to be the same as client and as server.
    fn refused(trust: &TrustSource, chain: &Chain) -> RefusalReason {
        refused_at(trust, chain, NOW)
    }

    fn refused_at(trust: &TrustSource, chain: &Chain, seconds: u64) -> RefusalReason {
        let [client, server] = BOTH.map(|usage| verify_at(trust, chain, seconds, usage).unwrap_err().reason().clone());
        assert_eq!(client, server);
        client
    }

    fn accepted(trust: &TrustSource, chain: &Chain) {
        for usage in BOTH {
            verify_at(trust, chain, NOW, usage).unwrap();
        }
    }

    fn leaf_with(ca: &TestCa, change: impl FnOnce(&mut CertificateParams)) -> Chain {
        ca.leaf_with("/x", &PrivateKey::generate().unwrap(), change)
    }

    #[test]
    fn a_chain_to_the_bundle_is_accepted_in_both_directions() {
        let root = TestCa::root("a.test");
        let trust = trust([&root]);
        accepted(&trust, &root.leaf("/x"));
        accepted(&trust, &root.intermediate().leaf("/x"));
        accepted(&trust, &root.intermediate().intermediate().leaf("/x"));
        let id = verify_at(&trust, &root.leaf("/x"), NOW, Usage::ClientAuth).unwrap();
        assert_eq!(id.to_string(), "spiffe://a.test/x");
    }

    #[test]
    fn a_chain_that_includes_its_root_is_accepted() {
        let root = TestCa::root("a.test");
        let mut chain = root.intermediate().leaf("/x");
        chain.push(root.certificate().clone());
        accepted(&trust([&root]), &chain);
    }

    /// X509-SVID §5.2, clause by clause; the leaf profile's own tests have the details.
    #[test]
    fn a_leaf_that_breaks_a_clause_is_refused_although_it_is_signed() {
        type Change = Box<dyn FnOnce(&mut CertificateParams)>;
        let root = TestCa::root("a.test");
        let trust = trust([&root]);
        let changes: Vec<(&str, Change)> = vec![
            ("no URI", Box::new(|params| params.subject_alt_names.clear())),
            ("two URIs", Box::new(|params| params.subject_alt_names.push(uri("spiffe://a.test/y")))),
            ("two URIs, another scheme first", Box::new(|params| params.subject_alt_names.insert(0, uri("urn:x")))),
            ("another scheme", Box::new(|params| params.subject_alt_names = vec![uri("https://a.test/x")])),
            ("no path", Box::new(|params| params.subject_alt_names = vec![uri("spiffe://a.test")])),
            ("cA is true", Box::new(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))),
            ("cA is not said", Box::new(|params| params.is_ca = IsCa::NoCa)),
            ("no KeyUsage", Box::new(|params| params.key_usages.clear())),
            ("no digitalSignature", Box::new(|params| params.key_usages = vec![KeyUsagePurpose::KeyAgreement])),
            ("keyCertSign", Box::new(|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign))),
            ("cRLSign", Box::new(|params| params.key_usages.push(KeyUsagePurpose::CrlSign))),
            (
                "KeyUsage is not critical",
                Box::new(|params| {
                    params.key_usages.clear();
                    params.custom_extensions.push(extension(15, false, &[0x03, 0x02, 0x07, 0x80]));
                }),
            ),
            ("server only", Box::new(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth])),
            ("client only", Box::new(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth])),
            ("too large", Box::new(|params| params.custom_extensions.push(extension(99, false, &[0; 9000])))),
        ];
        for (clause, change) in changes {
            let reason = refused(&trust, &leaf_with(&root, change));
            assert!(matches!(reason, RefusalReason::Leaf(_)), "{clause}: {reason}");
        }
    }

    #[test]
    fn a_signing_certificate_does_not_authenticate() {
        let root = TestCa::root("a.test");
        let intermediate = root.intermediate();
        for chain in [vec![root.certificate().clone()], vec![intermediate.certificate().clone()]] {
            assert!(matches!(refused(&trust([&root]), &chain), RefusalReason::Leaf(InvalidLeaf::NoPath { .. })));
        }
    }

    /// SPIFFE-Federation §7.3: B's authority has no say about A's names, although B is trusted too.
    #[test]
    fn another_trust_domains_authority_cannot_sign_for_this_one() {
        let (a, b) = (TestCa::root("a.test"), TestCa::root("b.test"));
        let trust = trust([&a, &b]);
        accepted(&trust, &b.leaf("/x"));
        let forge = |params: &mut CertificateParams| params.subject_alt_names = vec![uri("spiffe://a.test/x")];
        assert!(matches!(refused(&trust, &leaf_with(&b, forge)), RefusalReason::UnknownIssuer { .. }));
        // An intermediate of B that calls itself one of A's.
        let disguised = b.intermediate_with(|params| params.subject_alt_names = vec![uri("spiffe://a.test")]);
        assert!(matches!(refused(&trust, &leaf_with(&disguised, forge)), RefusalReason::UnknownIssuer { .. }));
        // And an intermediate that A signed for B's domain.
        let other = a.intermediate_with(|params| params.subject_alt_names = vec![uri("spiffe://b.test")]);
        assert!(matches!(
            refused(&trust, &other.leaf("/x")),
            RefusalReason::Intermediate { reason: InvalidAuthority::OtherTrustDomain { .. }, .. }
        ));
    }

    #[test]
    fn an_unknown_trust_domain_and_an_unknown_root_are_refused() {
        let root = TestCa::root("a.test");
        let trust = trust([&root]);
        let reason = refused(&trust, &TestCa::root("b.test").leaf("/x"));
        assert!(matches!(reason, RefusalReason::UnknownTrustDomain { .. }));
        // The same name, another key.
        let reason = refused(&trust, &TestCa::root("a.test").leaf("/x"));
        assert!(matches!(reason, RefusalReason::Chain { .. } | RefusalReason::UnknownIssuer { .. }), "{reason}");
        // The intermediate is missing.
        let chain = vec![root.intermediate().leaf("/x").remove(0)];
        assert!(matches!(refused(&trust, &chain), RefusalReason::UnknownIssuer { .. }));
    }

    #[test]
    fn an_empty_bundle_trusts_nobody() {
        let root = TestCa::root("a.test");
        let empty = Bundle::new(td("a.test"), []).unwrap();
        let trust = TrustBundles::new([empty], system(NOW)).into_source();
        assert!(matches!(refused(&trust, &root.leaf("/x")), RefusalReason::UnknownIssuer { .. }));
    }

    #[test]
    fn a_leaf_is_accepted_from_its_first_to_its_last_second() {
        let root = TestCa::root("a.test");
        let trust = trust([&root]);
        let chain = root.leaf("/x");
        for seconds in [NOW - 60, NOW + HOUR] {
            verify_at(&trust, &chain, seconds, Usage::ServerAuth).unwrap();
        }
        assert!(matches!(refused_at(&trust, &chain, NOW - 61), RefusalReason::NotYetValid { .. }));
        assert!(matches!(refused_at(&trust, &chain, NOW + HOUR + 1), RefusalReason::Expired { .. }));
    }

    #[test]
    fn an_intermediate_has_to_be_valid_too() {
        let root = TestCa::root("a.test");
        let expired = root.intermediate_with(|params| params.not_after = date(NOW - 1));
        assert!(matches!(refused(&trust([&root]), &expired.leaf("/x")), RefusalReason::Expired { .. }));
    }

    /// The path validation below looks at no date of an authority.
    #[test]
    fn an_authority_that_expired_since_the_bundle_came_is_refused() {
        let root = TestCa::root_with("a.test", |params| params.not_after = date(NOW + 10));
        let trust = trust([&root]);
        let chain = root.leaf("/x");
        verify_at(&trust, &chain, NOW + 10, Usage::ClientAuth).unwrap();
        assert!(matches!(refused_at(&trust, &chain, NOW + 11), RefusalReason::AuthorityNotCurrent { .. }));
    }

    #[test]
    fn an_authority_that_is_not_valid_yet_is_refused() {
        let root = TestCa::root_with("a.test", |params| params.not_before = date(NOW + 10));
        assert!(matches!(refused(&trust([&root]), &root.leaf("/x")), RefusalReason::AuthorityNotCurrent { .. }));
    }

    /// A root that was renewed over the same key: one certificate is expired, the other counts.
    #[test]
    fn a_current_authority_counts_beside_an_expired_one_of_the_same_name() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = |not_after| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, "root");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            params.not_before = date(NOW - HOUR);
            params.not_after = date(not_after);
            (params.self_signed(&key).unwrap().der().clone(), params)
        };
        let ((expiring, _), (current, params)) = (certificate(NOW + 10), certificate(NOW + HOUR));
        let bundle = Bundle::new(td("a.test"), [expiring, current]).unwrap();
        let trust = TrustBundles::new([bundle], system(NOW)).into_source();

        let mut leaf = CertificateParams::default();
        leaf.subject_alt_names = vec![uri("spiffe://a.test/x")];
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.not_after = date(NOW + 2 * HOUR);
        let issuer = rcgen::Issuer::new(params, &key);
        let chain = vec![leaf.signed_by(&PrivateKey::generate().unwrap(), &issuer).unwrap().der().clone()];
        verify_at(&trust, &chain, NOW + 20, Usage::ClientAuth).unwrap();
        assert!(matches!(refused_at(&trust, &chain, NOW + HOUR + 1), RefusalReason::AuthorityNotCurrent { .. }));
    }

    /// The path validation below looks at no KeyUsage.
    #[test]
    fn an_intermediate_without_key_cert_sign_is_refused() {
        let root = TestCa::root("a.test");
        for usages in [vec![], vec![KeyUsagePurpose::DigitalSignature], vec![KeyUsagePurpose::CrlSign]] {
            let intermediate = root.intermediate_with(|params| params.key_usages = usages);
            let reason = refused(&trust([&root]), &intermediate.leaf("/x"));
            assert!(
                matches!(reason, RefusalReason::Intermediate { reason: InvalidAuthority::KeyUsage, .. }),
                "{reason}"
            );
        }
    }

    #[test]
    fn an_intermediate_with_the_id_of_a_workload_is_refused() {
        let root = TestCa::root("a.test");
        let intermediate = root.intermediate_with(|params| params.subject_alt_names = vec![uri("spiffe://a.test/ca")]);
        let reason = refused(&trust([&root]), &intermediate.leaf("/x"));
        assert!(
            matches!(reason, RefusalReason::Intermediate { reason: InvalidAuthority::Path { .. }, .. }),
            "{reason}"
        );
    }

    #[test]
    fn a_leaf_cannot_sign() {
        let root = TestCa::root("a.test");
        let leaf = root.intermediate_with(|params| {
            params.is_ca = IsCa::ExplicitNoCa;
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.subject_alt_names = vec![uri("spiffe://a.test/leaf")];
        });
        assert!(matches!(refused(&trust([&root]), &leaf.leaf("/x")), RefusalReason::Chain { .. }));
    }

    #[test]
    fn a_path_length_is_kept_by_the_root_and_by_intermediates() {
        let none_below = |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let root = TestCa::root_with("a.test", none_below);
        accepted(&trust([&root]), &root.leaf("/x"));
        let reason = refused(&trust([&root]), &root.intermediate().leaf("/x"));
        assert!(matches!(reason, RefusalReason::PathTooLong { .. }), "{reason}");

        let root = TestCa::root("a.test");
        let last = root.intermediate_with(none_below);
        accepted(&trust([&root]), &last.leaf("/x"));
        assert!(matches!(refused(&trust([&root]), &last.intermediate().leaf("/x")), RefusalReason::Chain { .. }));
    }

    #[test]
    fn a_chain_has_at_most_four_intermediates() {
        let root = TestCa::root("a.test");
        let trust = trust([&root]);
        let four = root.intermediate().intermediate().intermediate().intermediate();
        accepted(&trust, &four.leaf("/x"));
        let reason = refused(&trust, &four.intermediate().leaf("/x"));
        assert!(matches!(reason, RefusalReason::TooManyIntermediates { count: 5, .. }), "{reason}");
    }

    #[test]
    fn an_intermediate_has_at_most_8_kib() {
        let root = TestCa::root("a.test");
        let large = root.intermediate_with(|params| params.custom_extensions.push(extension(99, false, &[0; 9000])));
        let reason = refused(&trust([&root]), &large.leaf("/x"));
        let RefusalReason::Intermediate { reason: InvalidAuthority::Certificate(reason), .. } = reason else {
            panic!("{reason}");
        };
        assert!(matches!(reason, InvalidCertificate::TooLarge { .. }));
    }

    #[test]
    fn an_unknown_critical_extension_is_refused() {
        let root = TestCa::root("a.test");
        let trust = trust([&root]);
        let unknown = |critical| {
            move |params: &mut CertificateParams| params.custom_extensions.push(extension(99, critical, &[0x05, 0x00]))
        };
        accepted(&trust, &leaf_with(&root, unknown(false)));
        assert!(matches!(refused(&trust, &leaf_with(&root, unknown(true))), RefusalReason::Chain { .. }));
        assert!(verify_at(&trust, &root.intermediate_with(unknown(true)).leaf("/x"), NOW, Usage::ClientAuth).is_err());
    }

    /// SPIFFE-ID §3.3: ID and key lie inside what is signed.
    #[test]
    fn no_changed_bit_of_a_leaf_goes_unnoticed() {
        let root = TestCa::root("a.test");
        let trust = trust([&root]);
        let chain = root.leaf("/x");
        accepted(&trust, &chain);
        for at in 0..chain[0].len() {
            let mut changed = chain[0].to_vec();
            changed[at] ^= 0x04;
            let result = verify_at(&trust, &vec![CertificateDer::from(changed)], NOW, Usage::ClientAuth);
            assert!(result.is_err(), "byte {at}");
        }
    }
}
