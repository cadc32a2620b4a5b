//! A certificate authority of one trust domain, and what goes wrong with its certificates.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use portcullis_identity::{
    Bundle, PeerRule, PeerVerifier, PrivateKey, Svid, SvidSlot, TrustBundles, TrustDomain, TrustSource,
    parse_trust_domain,
};
use portcullis_transport::quic::{Dialer, QuicLimits};
use quinn::crypto::rustls::QuicClientConfig;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

pub(crate) struct Ca {
    pub(crate) td: TrustDomain,
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

pub(crate) struct Leaf {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKey,
}

#[expect(clippy::disallowed_methods, reason = "handshakes are verified at the real time")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let td = parse_trust_domain(name).unwrap();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = vec![uri(&format!("spiffe://{name}"))];
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = (now() - Duration::from_secs(86_400)).into();
        params.not_after = (now() + Duration::from_secs(86_400)).into();
        let root = params.self_signed(&key).unwrap().der().clone();
        Self { td, issuer: Issuer::new(params, key), root }
    }

    /// A leaf whose parameters are changed before it is signed.
    pub(crate) fn leaf_with(&self, path: &str, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let key = PrivateKey::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![uri(&format!("spiffe://{}{path}", self.td))];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = (now() - Duration::from_secs(3600)).into();
        params.not_after = (now() + Duration::from_secs(3600)).into();
        change(&mut params);
        let public = KeyPair::try_from(key.pkcs8()).unwrap();
        let cert = params.signed_by(&public, &self.issuer).unwrap().der().clone();
        Leaf { chain: vec![cert], key }
    }

    pub(crate) fn leaf(&self, path: &str) -> Leaf {
        self.leaf_with(path, |_| {})
    }

    pub(crate) fn expired_leaf(&self, path: &str) -> Leaf {
        self.leaf_with(path, |params| params.not_after = (now() - Duration::from_secs(60)).into())
    }

    pub(crate) fn slot(&self, path: &str) -> Arc<SvidSlot> {
        SvidSlot::new(self.leaf(path).svid())
    }

    pub(crate) fn trust(&self) -> TrustSource {
        trust(&[self])
    }

    /// A dialer that presents a new SVID with this path and trusts this CA alone.
    pub(crate) fn dialer(&self, path: &str) -> Dialer {
        Dialer::new(self.trust(), self.slot(path), QuicLimits::default())
    }
}

impl Leaf {
    pub(crate) fn svid(self) -> Svid {
        Svid::new(self.chain, self.key).unwrap()
    }

    /// A plain rustls client, for certificates that no SVID slot would hold.
    pub(crate) fn raw_client(&self, trust: TrustSource) -> rustls::ClientConfig {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.pkcs8().to_vec()));
        raw_builder(trust).with_client_auth_cert(self.chain.clone(), key).unwrap()
    }
}

pub(crate) fn trust(cas: &[&Ca]) -> TrustSource {
    let bundles = cas.iter().map(|ca| Bundle::new(ca.td.clone(), [ca.root.clone()]).unwrap());
    TrustBundles::new(bundles, now()).into_source()
}

pub(crate) fn uri(id: &str) -> SanType {
    SanType::URI(id.try_into().unwrap())
}

pub(crate) fn raw_client_without_certificate(trust: TrustSource) -> rustls::ClientConfig {
    raw_builder(trust).with_no_client_auth()
}

fn raw_builder(trust: TrustSource) -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert> {
    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(PeerVerifier::new(trust, PeerRule::AnyTrusted))
}

/// Connects by quinn alone, with none of this crate's client code.
pub(crate) async fn raw_connect(
    config: rustls::ClientConfig,
    server: std::net::SocketAddr,
) -> Result<quinn::Connection, quinn::ConnectionError> {
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    endpoint.connect_with(config, server, "peer.invalid").unwrap().await
}
