use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use portcullis_identity::{PrivateKey, Svid};
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

/// What is wrong with a forged certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    None,
    Expired,
    TwoUris,
    Ca,
    NoKeyUsage,
}

/// A chain, leaf first, and the leaf's key.
pub type Certificate = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Makes certificates that the broker would never make: with the CA key out of its data folder, as a thief could.
#[derive(Debug)]
pub struct Forge {
    issuer: Issuer<'static, KeyPair>,
    chain: Vec<CertificateDer<'static>>,
}

impl Forge {
    /// With the keys of a broker's data folder.
    pub fn stolen_from(data: &Path) -> Self {
        let mut files = std::fs::read_dir(data.join("ca")).unwrap().map(|entry| entry.unwrap().path());
        let signing = files.find(|path| path.to_string_lossy().ends_with("-signing.pem")).unwrap();
        let pem = std::fs::read(signing).unwrap();
        let certificate = CertificateDer::from_pem_slice(&pem).unwrap();
        let key = PrivatePkcs8KeyDer::from_pem_slice(&pem).unwrap();
        let key = KeyPair::try_from(PrivateKeyDer::from(key).secret_der()).unwrap();
        let issuer = Issuer::from_ca_cert_der(&certificate, key).unwrap();
        Self { issuer, chain: vec![certificate] }
    }

    /// Another authority altogether, that claims the same trust domain.
    pub fn stranger(trust_domain: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://{trust_domain}").try_into().unwrap())];
        params.self_signed(&key).unwrap();
        Self { issuer: Issuer::new(params, key), chain: Vec::new() }
    }

    /// Certificate chain and key for `id`, with one flaw.
    pub fn certificate(&self, id: &str, flaw: Flaw) -> Certificate {
        let key = KeyPair::generate().unwrap();
        let now = OffsetDateTime::from(SystemTime::now());
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = now - Duration::seconds(60);
        params.not_after = now + Duration::seconds(3600);
        match flaw {
            Flaw::None => {}
            Flaw::Expired => params.not_after = now - Duration::seconds(30),
            Flaw::TwoUris => params.subject_alt_names.push(SanType::URI(format!("{id}2").try_into().unwrap())),
            Flaw::Ca => params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained),
            Flaw::NoKeyUsage => params.key_usages.clear(),
        }
        let leaf = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let mut chain = vec![leaf];
        chain.extend(self.chain.iter().cloned());
        (chain, PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())))
    }

    /// A flawless SVID for any id: what only a thief of the CA could have.
    pub fn svid(&self, id: &str) -> Arc<Svid> {
        let (chain, key) = self.certificate(id, Flaw::None);
        Arc::new(Svid::new(chain, PrivateKey::from_pkcs8(key.secret_der()).unwrap()).unwrap())
    }
}
