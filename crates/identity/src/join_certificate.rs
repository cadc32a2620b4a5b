//! Certificates of other authorities by which a node may join: what a broker names the node by.
//!
//! They need no SPIFFE ID. Whether an accepted authority signed them is for the caller's path validation, over the same bytes.

use thiserror::Error;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

use crate::{
    InvalidRequest, MAX_CERTIFICATE_BYTES,
    request::{check_key, sha256},
};

/// The longest chain that is looked at, the leaf included: verifying longer ones or larger keys costs the verifier, not their owner.
pub const MAX_JOIN_CHAIN: usize = 4;

/// Why a certificate is not looked at further.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InvalidJoinCertificate {
    /// It is longer than [`MAX_CERTIFICATE_BYTES`].
    #[error("certificate of {bytes} bytes is longer than {MAX_CERTIFICATE_BYTES}")]
    TooLarge {
        /// How long it is.
        bytes: usize,
    },
    /// It is not one X.509 certificate in DER.
    #[error("not a certificate in DER")]
    Malformed,
    /// Its key is of a kind or size that is not verified here.
    #[error("certificate has an unsupported key: {0}")]
    Key(#[from] InvalidRequest),
    /// There is none, or more than [`MAX_JOIN_CHAIN`].
    #[error("a chain of {count} certificates: present 1 to {MAX_JOIN_CHAIN}, leaf first")]
    Chain {
        /// How many there are.
        count: usize,
    },
}

/// What a certificate says of its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinCertificate {
    common_names: Vec<String>,
    dns_names: Vec<String>,
    public_key_sha256: [u8; 32],
}

impl JoinCertificate {
    /// Reads the leaf of a chain, leaf first, and checks size and key of every certificate in it.
    ///
    /// # Errors
    /// [`InvalidJoinCertificate`] names the first that is not looked at.
    pub fn parse_chain<T: AsRef<[u8]>>(chain: &[T]) -> Result<Self, InvalidJoinCertificate> {
        if chain.len() > MAX_JOIN_CHAIN {
            return Err(InvalidJoinCertificate::Chain { count: chain.len() });
        }
        let mut certificates = chain.iter().map(|der| Self::parse(der.as_ref())).collect::<Result<Vec<_>, _>>()?;
        if certificates.is_empty() {
            return Err(InvalidJoinCertificate::Chain { count: 0 });
        }
        Ok(certificates.swap_remove(0))
    }

    fn parse(der: &[u8]) -> Result<Self, InvalidJoinCertificate> {
        let malformed = InvalidJoinCertificate::Malformed;
        if der.len() > MAX_CERTIFICATE_BYTES {
            return Err(InvalidJoinCertificate::TooLarge { bytes: der.len() });
        }
        let (rest, x509) = X509Certificate::from_der(der).map_err(|_parse| malformed.clone())?;
        if !rest.is_empty() {
            return Err(malformed);
        }
        check_key(x509.public_key())?;
        let common_names = x509
            .subject()
            .iter_common_name()
            .map(|name| name.as_str().map(str::to_owned))
            .collect::<Result<_, _>>()
            .map_err(|_text| malformed.clone())?;
        let mut dns_names = Vec::new();
        if let Some(names) = x509.subject_alternative_name().map_err(|_twice| malformed.clone())? {
            for name in &names.value.general_names {
                match name {
                    GeneralName::DNSName(name) => dns_names.push((*name).to_owned()),
                    GeneralName::Invalid(..) => return Err(malformed),
                    GeneralName::URI(_)
                    | GeneralName::OtherName(..)
                    | GeneralName::RFC822Name(_)
                    | GeneralName::X400Address(_)
                    | GeneralName::DirectoryName(_)
                    | GeneralName::EDIPartyName(_)
                    | GeneralName::IPAddress(_)
                    | GeneralName::RegisteredID(_) => {}
                }
            }
        }
        Ok(Self { common_names, dns_names, public_key_sha256: sha256(x509.public_key().raw) })
    }

    /// The common name of its subject, where there is exactly one.
    #[must_use]
    pub fn common_name(&self) -> Option<&str> {
        one(&self.common_names)
    }

    /// Its DNS name, where there is exactly one.
    #[must_use]
    pub fn dns_name(&self) -> Option<&str> {
        one(&self.dns_names)
    }

    /// The SHA-256 of its SubjectPublicKeyInfo.
    #[must_use]
    pub fn public_key_sha256(&self) -> [u8; 32] {
        self.public_key_sha256
    }
}

fn one(names: &[String]) -> Option<&str> {
    match names {
        [name] => Some(name),
        [] | [_, ..] => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ED25519};

    use super::*;

    fn certificate(dns_names: &[&str], common_names: &[&str]) -> Vec<u8> {
        let mut params =
            CertificateParams::new(dns_names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for name in common_names {
            params.distinguished_name.push(DnType::CommonName, *name);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn a_leaf_is_named_by_what_it_says_once() {
        let read = |der: Vec<u8>| JoinCertificate::parse_chain(&[der]).unwrap();
        let both = read(certificate(&["edge-1.acme.test"], &["edge-1"]));
        assert_eq!((both.common_name(), both.dns_name()), (Some("edge-1"), Some("edge-1.acme.test")));
        let none = read(certificate(&["a.test", "b.test"], &[]));
        assert_eq!((none.common_name(), none.dns_name()), (None, None));
    }

    #[test]
    fn chains_and_keys_are_bounded() {
        let der = certificate(&[], &["x"]);
        JoinCertificate::parse_chain(&vec![der.clone(); 4]).unwrap();
        for count in [0, 5] {
            let refused = JoinCertificate::parse_chain(&vec![der.clone(); count]);
            assert_eq!(refused, Err(InvalidJoinCertificate::Chain { count }));
        }
        assert_eq!(
            JoinCertificate::parse_chain(&[vec![0x30; 8193]]),
            Err(InvalidJoinCertificate::TooLarge { bytes: 8193 })
        );
        let longer = [der.as_slice(), &[0]].concat();
        for bad in [vec![], vec![0x30, 0], longer] {
            assert_eq!(JoinCertificate::parse_chain(&[bad]), Err(InvalidJoinCertificate::Malformed));
        }
        let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let odd = CertificateParams::new(Vec::new()).unwrap().self_signed(&pair).unwrap().der().to_vec();
        // Above the leaf too: it is verified with that key.
        for chain in [vec![odd.clone()], vec![der, odd]] {
            assert!(matches!(JoinCertificate::parse_chain(&chain), Err(InvalidJoinCertificate::Key(_))));
        }
    }
}
