//! The leaf profile: what makes a certificate an X.509-SVID that may authenticate (X509-SVID §2 to §4, §5.2).

use std::time::SystemTime;

use spiffe::SpiffeId;
use thiserror::Error;

use crate::{InvalidCertificate, certificate::Certificate, request::sha256, validity::ValidityPeriod};

/// Why a certificate may not authenticate anybody.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum InvalidLeaf {
    /// There is no certificate.
    #[error("no certificate was presented")]
    Missing,
    /// It cannot be read.
    #[error(transparent)]
    Certificate(#[from] InvalidCertificate),
    /// X509-SVID §2: it carries no SPIFFE ID.
    #[error("certificate carries no SPIFFE ID")]
    NoSpiffeId,
    /// X509-SVID §3.1: the ID of a trust domain itself belongs to its authority.
    #[error("`{id}` names a trust domain, not a workload: the ID needs a path")]
    NoPath {
        /// The ID.
        id: SpiffeId,
    },
    /// X509-SVID §4.1: `cA` must be false, and said to be.
    #[error("certificate of `{id}` does not say that it is no certificate authority")]
    NotEndEntity {
        /// The ID it claims.
        id: SpiffeId,
    },
    /// X509-SVID §4.3: KeyUsage must be present and critical.
    #[error("certificate of `{id}` has no critical KeyUsage")]
    NoKeyUsage {
        /// The ID it claims.
        id: SpiffeId,
    },
    /// X509-SVID §4.3: `digitalSignature`, and neither `keyCertSign` nor `cRLSign`.
    #[error("key usage of `{id}` is not that of a leaf: digitalSignature without keyCertSign and cRLSign")]
    KeyUsage {
        /// The ID it claims.
        id: SpiffeId,
    },
    /// X509-SVID §4.4: where there is an extended key usage, it allows both directions.
    #[error("extended key usage of `{id}` does not allow both serverAuth and clientAuth")]
    ExtendedKeyUsage {
        /// The ID it claims.
        id: SpiffeId,
    },
}

/// An X.509-SVID's leaf whose profile was checked. That says nothing about who signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    id: SpiffeId,
    validity: ValidityPeriod,
    serial: Vec<u8>,
    public_key_sha256: [u8; 32],
}

impl Leaf {
    /// Reads a certificate and checks the leaf profile.
    ///
    /// # Errors
    /// [`InvalidLeaf`] names the clause that is broken.
    pub fn parse(der: &[u8]) -> Result<Self, InvalidLeaf> {
        let Certificate { x509, validity, id } = Certificate::parse(der)?;
        let id = id.ok_or(InvalidLeaf::NoSpiffeId)?;
        if id.path().is_empty() {
            return Err(InvalidLeaf::NoPath { id });
        }
        let malformed = |extension| InvalidCertificate::Extension { extension };
        match x509.basic_constraints().map_err(|_| malformed("basicConstraints"))? {
            Some(constraints) if !constraints.value.ca => {}
            Some(_) | None => return Err(InvalidLeaf::NotEndEntity { id }),
        }
        match x509.key_usage().map_err(|_| malformed("keyUsage"))? {
            Some(usage) if usage.critical => {
                let usage = usage.value;
                if !usage.digital_signature() || usage.key_cert_sign() || usage.crl_sign() {
                    return Err(InvalidLeaf::KeyUsage { id });
                }
            }
            Some(_) | None => return Err(InvalidLeaf::NoKeyUsage { id }),
        }
        if let Some(usage) = x509.extended_key_usage().map_err(|_| malformed("extendedKeyUsage"))?
            && !(usage.value.server_auth && usage.value.client_auth)
        {
            return Err(InvalidLeaf::ExtendedKeyUsage { id });
        }
        Ok(Self { id, validity, serial: x509.raw_serial().to_vec(), public_key_sha256: sha256(x509.public_key().raw) })
    }

    /// Whose certificate it claims to be.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The first moment at which it is valid.
    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        self.validity.not_before
    }

    /// The last moment at which it is valid.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.validity.not_after
    }

    /// The serial number: the content bytes of its DER integer, big-endian.
    #[must_use]
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// The SHA-256 of its SubjectPublicKeyInfo.
    #[must_use]
    pub fn public_key_sha256(&self) -> [u8; 32] {
        self.public_key_sha256
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};

    use super::*;
    use crate::{
        PrivateKey,
        test_ca::{HOUR, NOW, TestCa, extension, system, uri},
    };

    fn parse(change: impl FnOnce(&mut CertificateParams)) -> Result<Leaf, InvalidLeaf> {
        let key = PrivateKey::generate().unwrap();
        Leaf::parse(&TestCa::root("a.test").leaf_with("/x", &key, change)[0])
    }

    fn refused(change: impl FnOnce(&mut CertificateParams)) -> InvalidLeaf {
        parse(change).unwrap_err()
    }

    #[test]
    fn a_leaf_tells_what_it_holds() {
        let key = PrivateKey::generate().unwrap();
        let chain = TestCa::root("a.test").leaf_with("/x", &key, |params| {
            params.serial_number = Some(vec![0x45, 1, 2].into());
        });
        let leaf = Leaf::parse(&chain[0]).unwrap();
        assert_eq!(leaf.id().to_string(), "spiffe://a.test/x");
        assert_eq!((leaf.not_before(), leaf.not_after()), (system(NOW - 60), system(NOW + HOUR)));
        assert_eq!(leaf.serial(), [0x45, 1, 2]);
        assert_eq!(leaf.public_key_sha256(), key.public_key_sha256());
    }

    #[test]
    fn other_names_and_no_extended_key_usage_are_allowed() {
        let leaf = parse(|params| {
            params.subject_alt_names.insert(0, SanType::DnsName("x.a.test".try_into().unwrap()));
            params.extended_key_usages.clear();
        });
        assert_eq!(leaf.unwrap().id().path(), "/x");
    }

    #[test]
    fn a_leaf_carries_exactly_one_uri() {
        assert_eq!(refused(|params| params.subject_alt_names.clear()), InvalidLeaf::NoSpiffeId);
        let two = InvalidLeaf::Certificate(InvalidCertificate::UriNames { count: 2 });
        assert_eq!(refused(|params| params.subject_alt_names.push(uri("spiffe://a.test/y"))), two);
        assert_eq!(refused(|params| params.subject_alt_names.push(uri("https://a.test/y"))), two);
        assert_eq!(refused(|params| params.subject_alt_names.insert(0, uri("https://a.test/y"))), two);
    }

    #[test]
    fn a_name_that_cannot_be_read_is_refused() {
        // SEQUENCE { [6] "spiffe://a.test/x", [6] with a byte that is no IA5String }
        let mut names = vec![0x30, 22, 0x86, 17];
        names.extend_from_slice(b"spiffe://a.test/x");
        names.extend_from_slice(&[0x86, 1, 0xff]);
        let error = refused(|params| {
            params.subject_alt_names.clear();
            params.custom_extensions.push(extension(17, true, &names));
        });
        assert_eq!(error, InvalidCertificate::Extension { extension: "subjectAltName" }.into());
    }

    #[test]
    fn the_uri_is_a_spiffe_id_with_a_path() {
        for id in ["https://a.test/x", "spiffe://A.test/x", "spiffe://a.test/x/", "spiffe://a.test/x?y"] {
            let error = refused(|params| params.subject_alt_names = vec![uri(id)]);
            assert!(matches!(error, InvalidLeaf::Certificate(InvalidCertificate::SpiffeId(_))), "{id}: {error}");
        }
        let error = refused(|params| params.subject_alt_names = vec![uri("spiffe://a.test")]);
        assert!(matches!(error, InvalidLeaf::NoPath { .. }));
    }

    #[test]
    fn a_leaf_says_that_it_is_no_authority() {
        assert!(matches!(refused(|params| params.is_ca = IsCa::NoCa), InvalidLeaf::NotEndEntity { .. }));
        let authority = refused(|params| params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
        assert!(matches!(authority, InvalidLeaf::NotEndEntity { .. }));
        let malformed = refused(|params| {
            params.is_ca = IsCa::NoCa;
            params.custom_extensions.push(extension(19, true, &[0x05, 0x00]));
        });
        assert!(matches!(malformed, InvalidLeaf::NotEndEntity { .. }));
    }

    #[test]
    fn key_usage_is_present_and_critical() {
        assert!(matches!(refused(|params| params.key_usages.clear()), InvalidLeaf::NoKeyUsage { .. }));
        let not_critical = refused(|params| {
            params.key_usages.clear();
            params.custom_extensions.push(extension(15, false, &[0x03, 0x02, 0x07, 0x80]));
        });
        assert!(matches!(not_critical, InvalidLeaf::NoKeyUsage { .. }));
    }

    #[test]
    fn key_usage_is_to_sign_handshakes_and_nothing_above() {
        use KeyUsagePurpose::{CrlSign, DigitalSignature, KeyAgreement, KeyCertSign};
        for usages in [vec![KeyAgreement], vec![DigitalSignature, KeyCertSign], vec![DigitalSignature, CrlSign]] {
            let error = refused(|params| params.key_usages = usages.clone());
            assert!(matches!(error, InvalidLeaf::KeyUsage { .. }), "{usages:?}");
        }
        parse(|params| params.key_usages = vec![DigitalSignature, KeyAgreement]).unwrap();
    }

    #[test]
    fn an_extended_key_usage_allows_both_directions() {
        use ExtendedKeyUsagePurpose::{Any, ClientAuth, CodeSigning, ServerAuth};
        for usages in [vec![ServerAuth], vec![ClientAuth], vec![CodeSigning], vec![Any]] {
            let error = refused(|params| params.extended_key_usages = usages.clone());
            assert!(matches!(error, InvalidLeaf::ExtendedKeyUsage { .. }), "{usages:?}");
        }
        parse(|params| params.extended_key_usages = vec![ServerAuth, ClientAuth, CodeSigning]).unwrap();
    }

    /// The first of two would count here and the second elsewhere.
    #[test]
    fn an_extension_is_present_once() {
        let twice = |arc, content: &'static [u8]| {
            refused(move |params| params.custom_extensions.push(extension(arc, true, content)))
        };
        assert_eq!(
            twice(15, &[0x03, 0x02, 0x07, 0x80]),
            InvalidCertificate::Extension { extension: "keyUsage" }.into()
        );
        assert_eq!(twice(19, &[0x30, 0x00]), InvalidCertificate::Extension { extension: "basicConstraints" }.into());
        assert_eq!(
            twice(17, b"\x30\x13\x86\x11spiffe://a.test/y"),
            InvalidCertificate::Extension { extension: "subjectAltName" }.into()
        );
        assert_eq!(twice(37, &[0x30, 0x00]), InvalidCertificate::Extension { extension: "extendedKeyUsage" }.into());
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let leaf = TestCa::root("a.test").leaf("/x").remove(0);
        assert_eq!(Leaf::parse(&[]), Err(InvalidCertificate::Malformed.into()));
        assert_eq!(Leaf::parse(&leaf[..leaf.len() - 1]), Err(InvalidCertificate::Malformed.into()));
        assert_eq!(
            Leaf::parse(&[&leaf[..], &[0]].concat()),
            Err(InvalidCertificate::TrailingBytes { bytes: 1 }.into())
        );
    }

    #[test]
    fn a_certificate_has_at_most_8_kib() {
        let error = refused(|params| params.custom_extensions.push(extension(99, false, &[0; 8192])));
        assert!(matches!(error, InvalidLeaf::Certificate(InvalidCertificate::TooLarge { .. })), "{error}");
        parse(|params| params.custom_extensions.push(extension(99, false, &[0; 7000]))).unwrap();
    }

    /// SPIFFE-ID §2.3.
    #[test]
    fn an_id_of_2048_bytes_is_read() {
        let id = format!("spiffe://a.test/{}", "a".repeat(2048 - 16));
        let leaf = parse(|params| params.subject_alt_names = vec![uri(&id)]).unwrap();
        assert_eq!(leaf.id().to_string(), id);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(at in 0..300_usize, bytes in proptest::collection::vec(any::<u8>(), 1..6)) {
            let mut der = TestCa::root("a.test").leaf("/x").remove(0).to_vec();
            der.splice(at..at + bytes.len(), bytes.iter().copied());
            if let Ok(leaf) = Leaf::parse(&der) {
                prop_assert!(!leaf.id().path().is_empty());
            }
            prop_assert!(Leaf::parse(&bytes).is_err());
        }
    }
}
