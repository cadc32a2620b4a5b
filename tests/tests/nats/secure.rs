//! TLS to the NATS server with X.509-SVIDs at both ends, and what logs in.

use std::fmt::Write as _;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use e2e::nats::{NatsServer, connect, echo, fresh_address, request_subject};
use portcullis_identity::{
    Bundle, PeerRule, PeerVerifier, PrivateKey, Svid, SvidSlot, TrustBundles, TrustSource, client_config,
    parse_trust_domain,
};
use portcullis_transport::nats::{ConnectError, Headers, Link, Login, NatsSettings, NatsTls, TokenSource};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::pki_types::CertificateDer;

use crate::calls::{INSTANCE, call};

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

fn times(params: &mut CertificateParams) {
    params.not_before = (SystemTime::now() - Duration::from_secs(3600)).into();
    params.not_after = (SystemTime::now() + Duration::from_secs(3600)).into();
}

fn uri(id: &str) -> Vec<SanType> {
    vec![SanType::URI(id.try_into().unwrap())]
}

impl Ca {
    fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = uri("spiffe://test.example");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        times(&mut params);
        let root = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), root }
    }

    fn leaf(&self, path: &str) -> (CertificateDer<'static>, PrivateKey) {
        let key = PrivateKey::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = uri(&format!("spiffe://test.example{path}"));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        times(&mut params);
        let public = KeyPair::try_from(key.pkcs8()).unwrap();
        (params.signed_by(&public, &self.issuer).unwrap().der().clone(), key)
    }

    fn trust(&self) -> TrustSource {
        let domain = parse_trust_domain("test.example").unwrap();
        TrustBundles::new([Bundle::new(domain, [self.root.clone()]).unwrap()], SystemTime::now()).into_source()
    }

    /// What an identity connects with; it expects the server to be `server`.
    fn client(&self, path: &str, server: &str) -> Arc<rustls::ClientConfig> {
        let (leaf, key) = self.leaf(path);
        let slot = SvidSlot::new(Svid::new(vec![leaf], key).unwrap());
        let expected = format!("spiffe://test.example{server}").parse().unwrap();
        Arc::new(client_config(PeerVerifier::new(self.trust(), PeerRule::Exactly(expected)), slot).unwrap())
    }

    /// Writes what a NATS server with an SVID needs, and the lines that name it.
    fn server(&self, folder: &std::path::Path, more: &str) -> String {
        let (leaf, key) = self.leaf("/nats/server");
        let file = |name: &str, label: &str, der: &[u8]| -> PathBuf {
            let mut pem = format!("-----BEGIN {label}-----\n");
            for line in BASE64_STANDARD.encode(der).as_bytes().chunks(64) {
                writeln!(pem, "{}", str::from_utf8(line).unwrap()).unwrap();
            }
            writeln!(pem, "-----END {label}-----").unwrap();
            let path = folder.join(name);
            std::fs::write(&path, pem).unwrap();
            path
        };
        format!(
            "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: true, timeout: 5{more} }}\n",
            file("leaf.pem", "CERTIFICATE", &leaf),
            file("key.pem", "PRIVATE KEY", key.pkcs8()),
            file("root.pem", "CERTIFICATE", &self.root),
        )
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_svid_is_presented_and_the_servers_is_verified() {
    let (ca, folder) = (Ca::new(), tempfile::tempdir().unwrap());
    for (more, first) in [("", false), (", handshake_first: true", true)] {
        let server = NatsServer::with(&ca.server(folder.path(), more));
        let tls = |config| if first { NatsTls::First(config) } else { NatsTls::Upgrade(config) };
        let settings = |inbox: &str, tls| NatsSettings { tls, ..server.settings(inbox) };
        let callee = connect(&settings("_INBOX_callee", tls(ca.client("/callee", "/nats/server")))).await;
        let caller = connect(&settings("_INBOX_caller", tls(ca.client("/caller", "/nats/server")))).await;
        let address = fresh_address();
        tokio::spawn(echo(callee.accept_calls(address.clone()).await.unwrap()));
        let subject = request_subject(&address, "shop", INSTANCE, "echo");
        assert_eq!(caller.call(call(&subject, &Headers::new(), b"p"), 100).await.unwrap(), "p");
        // Another server than the one we expect; and a client of another authority.
        let stranger = Ca::new();
        for config in [ca.client("/caller", "/nats/other"), stranger.client("/caller", "/nats/server")] {
            let refused = Link::connect(&settings("_INBOX_caller", tls(config))).await;
            assert!(matches!(refused, Err(ConnectError::Connect(_))), "{refused:?}");
        }
        let plain = Link::connect(&settings("_INBOX_caller", NatsTls::DangerPlain)).await;
        assert!(plain.is_err(), "{plain:?}");
    }
}

/// Gives the token that the server knows from the second attempt on.
struct Tokens(AtomicUsize);

impl TokenSource for Tokens {
    fn token(&self) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send + Sync>> {
        let attempt = self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::ready(Ok(if attempt == 0 { "stale".to_owned() } else { "fresh".to_owned() })))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_asked_for_at_each_attempt() {
    let server = NatsServer::with("authorization { token: fresh }");
    let login = |login| NatsSettings { login, ..server.settings("_INBOX_a") };
    assert!(Link::connect(&login(Login::Certificate)).await.is_err());
    assert!(Link::connect(&login(Login::Token("stale".into()))).await.is_err());
    assert!(Link::connect(&login(Login::Token("fresh".into()))).await.is_ok());
    let source = Arc::new(Tokens(AtomicUsize::new(0)));
    let settings = login(Login::Fresh(Arc::<Tokens>::clone(&source)));
    assert!(Link::connect(&settings).await.is_err());
    assert!(connect(&settings).await.is_connected());
    assert_eq!(source.0.load(Ordering::Relaxed), 2);
}
