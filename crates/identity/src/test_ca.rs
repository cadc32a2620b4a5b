//! A certificate authority for this crate's tests, at a fixed moment: [`NOW`].

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::pki_types::{CertificateDer, UnixTime};
use time::OffsetDateTime;

use crate::{Bundle, PrivateKey, Svid, TrustBundles, TrustDomain, TrustSource, parse_trust_domain};

/// 2026-01-01 00:00:00 UTC: the moment of every test.
pub(crate) const NOW: u64 = 1_767_225_600;
pub(crate) const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

pub(crate) type Chain = Vec<CertificateDer<'static>>;

pub(crate) fn now() -> UnixTime {
    at(NOW)
}

pub(crate) fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

pub(crate) fn system(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

pub(crate) fn date(seconds: u64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).unwrap()).unwrap()
}

pub(crate) fn td(name: &str) -> TrustDomain {
    parse_trust_domain(name).unwrap()
}

pub(crate) fn uri(id: &str) -> SanType {
    SanType::URI(id.try_into().unwrap())
}

/// An extension under `2.5.29.{arc}` with these content bytes.
pub(crate) fn extension(arc: u64, critical: bool, content: &[u8]) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, arc], content.to_vec());
    extension.set_criticality(critical);
    extension
}

/// A root or an intermediate of one trust domain.
pub(crate) struct TestCa {
    td: TrustDomain,
    issuer: Issuer<'static, KeyPair>,
    cert: CertificateDer<'static>,
    /// What leaves present after themselves: this certificate, unless it is the root.
    above: Chain,
}

impl TestCa {
    pub(crate) fn root(trust_domain: &str) -> Self {
        Self::root_with(trust_domain, |_| {})
    }

    /// A root whose parameters are changed before it is signed.
    pub(crate) fn root_with(trust_domain: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let td = td(trust_domain);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = authority_params(&td, "root");
        change(&mut params);
        let cert = params.self_signed(&key).unwrap().der().clone();
        Self { td, issuer: Issuer::new(params, key), cert, above: Vec::new() }
    }

    pub(crate) fn intermediate(&self) -> Self {
        self.intermediate_with(|_| {})
    }

    pub(crate) fn intermediate_with(&self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = authority_params(&self.td, &format!("intermediate {}", self.above.len()));
        change(&mut params);
        let cert = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let above = [vec![cert.clone()], self.above.clone()].concat();
        Self { td: self.td.clone(), issuer: Issuer::new(params, key), cert, above }
    }

    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.cert
    }

    pub(crate) fn bundle(&self) -> Bundle {
        Bundle::new(self.td.clone(), [self.cert.clone()]).unwrap()
    }

    /// A leaf with this path, for a new key.
    pub(crate) fn svid(&self, path: &str) -> Svid {
        let key = PrivateKey::generate().unwrap();
        let chain = self.leaf_with(path, &key, |_| {});
        Svid::new(chain, key).unwrap()
    }

    /// The chain of a leaf with this path.
    pub(crate) fn leaf(&self, path: &str) -> Chain {
        self.leaf_with(path, &PrivateKey::generate().unwrap(), |_| {})
    }

    /// The chain of a leaf whose parameters are changed before it is signed.
    pub(crate) fn leaf_with(&self, path: &str, key: &PrivateKey, change: impl FnOnce(&mut CertificateParams)) -> Chain {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![uri(&format!("spiffe://{}{path}", self.td))];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = date(NOW - 60);
        params.not_after = date(NOW + HOUR);
        change(&mut params);
        let cert = params.signed_by(key, &self.issuer).unwrap().der().clone();
        [vec![cert], self.above.clone()].concat()
    }
}

fn authority_params(td: &TrustDomain, name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("{td} {name}"));
    params.subject_alt_names = vec![uri(&td.id_string())];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date(NOW - DAY);
    params.not_after = date(NOW + DAY);
    params
}

/// A source that trusts these roots.
pub(crate) fn trust<'a>(roots: impl IntoIterator<Item = &'a TestCa>) -> TrustSource {
    TrustBundles::new(roots.into_iter().map(TestCa::bundle), system(NOW)).into_source()
}
