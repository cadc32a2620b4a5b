//! rustls configurations: TLS 1.3 only, no resumption and no early data, so that every connection is verified against
//! the bundles of its own moment. The crypto provider is passed explicitly; the process default is never asked.

use std::sync::{Arc, LazyLock};

use rustls::{
    ClientConfig, ConfigBuilder, Error, ServerConfig, WantsVerifier,
    client::Resumption,
    crypto::{CryptoProvider, ring::default_provider},
    server::{NoServerSessionStorage, danger::ClientCertVerifier},
    version::TLS13,
};
use spiffe::TrustDomain;

use crate::{
    PeerVerifier, SvidSlot,
    verify::{OptionalClient, PinnedRootVerifier},
};

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(default_provider()));

/// The one crypto provider: ring.
pub(crate) fn provider() -> &'static Arc<CryptoProvider> {
    &PROVIDER
}

/// Whether a listener's clients must present a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Every client proves its SPIFFE ID.
    Required,
    /// A client without a certificate gets in as nobody; one that presents a certificate has to prove it.
    Optional,
}

/// A listener's configuration: TLS 1.3, no tickets, no ALPN.
///
/// # Errors
/// [`rustls::Error`] if the provider lacks TLS 1.3, which ring's does not.
pub fn server_config(
    verifier: Arc<PeerVerifier>,
    slot: Arc<SvidSlot>,
    client_auth: ClientAuth,
) -> Result<ServerConfig, Error> {
    let verifier: Arc<dyn ClientCertVerifier> = match client_auth {
        ClientAuth::Required => verifier,
        ClientAuth::Optional => Arc::new(OptionalClient(verifier)),
    };
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(slot);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// A dialer's configuration: TLS 1.3, no resumption, no SNI, no ALPN.
///
/// # Errors
/// As [`server_config`].
pub fn client_config(verifier: Arc<PeerVerifier>, slot: Arc<SvidSlot>) -> Result<ClientConfig, Error> {
    let config =
        client_builder()?.dangerous().with_custom_certificate_verifier(verifier).with_client_cert_resolver(slot);
    Ok(without_resumption(config))
}

/// The configuration of a dialer that shows no certificate, because it has none that counts, but holds bundles: of a node that rejoins.
///
/// # Errors
/// As [`server_config`].
pub fn anonymous_client_config(verifier: Arc<PeerVerifier>) -> Result<ClientConfig, Error> {
    let config = client_builder()?.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    Ok(without_resumption(config))
}

/// The configuration of a node that joins: it has no certificate, and accepts exactly the broker of `trust_domain`,
/// whose chain has to include a self-signed root with the pinned key.
///
/// `root_spki_sha256` is the SHA-256 of the root's SubjectPublicKeyInfo, from the join token.
///
/// # Errors
/// As [`server_config`].
pub fn joining_client_config(root_spki_sha256: [u8; 32], trust_domain: &TrustDomain) -> Result<ClientConfig, Error> {
    let verifier = Arc::new(PinnedRootVerifier::new(root_spki_sha256, trust_domain));
    let config = client_builder()?.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    Ok(without_resumption(config))
}

fn client_builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, Error> {
    ClientConfig::builder_with_provider(Arc::clone(provider())).with_protocol_versions(&[&TLS13])
}

fn without_resumption(mut config: ClientConfig) -> ClientConfig {
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config
}

#[cfg(test)]
mod tests {
    use rustls::{
        AlertDescription, ClientConnection, HandshakeKind, RootCertStore, ServerConnection,
        pki_types::{ServerName, UnixTime},
        server::{ServerSessionMemoryCache, WebPkiClientVerifier},
        time_provider::TimeProvider,
        version::TLS12,
    };

    use super::*;
    use crate::{
        ChannelBinding, Peer, PeerRefused, PeerRule, PrivateKey, RefusalReason, Svid, TrustBundles, TrustSource,
        parse_spiffe_id,
        test_ca::{NOW, TestCa, at, date, system, td, trust},
    };

    #[derive(Debug)]
    struct Fixed(u64);

    impl TimeProvider for Fixed {
        fn current_time(&self) -> Option<UnixTime> {
            Some(at(self.0))
        }
    }

    /// Both ends of a handshake that succeeded.
    struct Connected {
        client: ClientConnection,
        server: ServerConnection,
    }

    impl Connected {
        fn peer_of_client(&self) -> Peer {
            Peer::from_chain(self.client.peer_certificates().unwrap()).unwrap()
        }

        fn peer_of_server(&self) -> Option<Peer> {
            self.server.peer_certificates().map(|chain| Peer::from_chain(chain).unwrap())
        }
    }

    /// A handshake that failed: the error of the end that refused, and what the other end was told.
    #[derive(Debug)]
    struct Refused {
        by: Side,
        error: Error,
        told: Error,
    }

    #[derive(Debug, PartialEq)]
    enum Side {
        Client,
        Server,
    }

    fn at_now(mut client: ClientConfig, mut server: ServerConfig) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
        client.time_provider = Arc::new(Fixed(NOW));
        server.time_provider = Arc::new(Fixed(NOW));
        (Arc::new(client), Arc::new(server))
    }

    fn handshake(configs: &(Arc<ClientConfig>, Arc<ServerConfig>)) -> Result<Connected, Box<Refused>> {
        let name = ServerName::try_from("peer.invalid").unwrap();
        let mut client = ClientConnection::new(Arc::clone(&configs.0), name).unwrap();
        let mut server = ServerConnection::new(Arc::clone(&configs.1)).unwrap();
        // One flight a round; the last rounds carry what follows the handshake (alerts, tickets).
        for _ in 0..6 {
            if let Err(error) = pass(&mut client, &mut server) {
                let told = pass(&mut server, &mut client).unwrap_err();
                return Err(Box::new(Refused { by: Side::Server, error, told }));
            }
            if let Err(error) = pass(&mut server, &mut client) {
                let told = pass(&mut client, &mut server).unwrap_err();
                return Err(Box::new(Refused { by: Side::Client, error, told }));
            }
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        Ok(Connected { client, server })
    }

    /// Hands what `from` has to say to `to`.
    fn pass<A, B>(
        from: &mut rustls::ConnectionCommon<A>,
        to: &mut impl std::ops::DerefMut<Target = rustls::ConnectionCommon<B>>,
    ) -> Result<(), Error> {
        let mut bytes = Vec::new();
        while from.wants_write() {
            from.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            to.read_tls(&mut rest).unwrap();
            to.process_new_packets()?;
        }
        Ok(())
    }

    fn any(trust: &TrustSource) -> Arc<PeerVerifier> {
        PeerVerifier::new(Arc::clone(trust), PeerRule::AnyTrusted)
    }

    fn only(trust: &TrustSource, id: &str) -> Arc<PeerVerifier> {
        PeerVerifier::new(Arc::clone(trust), PeerRule::Exactly(parse_spiffe_id(id).unwrap()))
    }

    fn reason(error: &Error) -> &RefusalReason {
        PeerRefused::find(error).expect("refused by us").reason()
    }

    fn told_certificate_unknown(refused: &Refused) -> bool {
        refused.told == Error::AlertReceived(AlertDescription::CertificateUnknown)
    }

    /// The client and the server of one trust domain.
    fn pair(root: &TestCa, trust: &TrustSource) -> (ClientConfig, ServerConfig) {
        let client = client_config(only(trust, "spiffe://a.test/server"), SvidSlot::new(root.svid("/client"))).unwrap();
        let server = server_config(any(trust), SvidSlot::new(root.svid("/server")), ClientAuth::Required).unwrap();
        (client, server)
    }

    #[test]
    fn both_ends_learn_who_the_other_is() {
        let root = TestCa::root("a.test");
        let (client, server) = pair(&root, &trust([&root]));
        let connected = handshake(&at_now(client, server)).unwrap();
        assert_eq!(connected.peer_of_client().id().path(), "/server");
        assert_eq!(connected.peer_of_server().unwrap().id().path(), "/client");
        assert_eq!(connected.client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        assert_eq!((connected.client.alpn_protocol(), connected.server.server_name()), (None, None));
    }

    #[test]
    fn a_client_refuses_a_server_of_another_name() {
        let root = TestCa::root("a.test");
        let trust = trust([&root]);
        let (client, _) = pair(&root, &trust);
        let server = server_config(any(&trust), SvidSlot::new(root.svid("/server2")), ClientAuth::Required).unwrap();
        let refused = handshake(&at_now(client, server)).err().unwrap();
        assert_eq!(refused.by, Side::Client);
        assert!(matches!(reason(&refused.error), RefusalReason::NotExpected { .. }));
        assert!(told_certificate_unknown(&refused), "{refused:?}");
    }

    #[test]
    fn a_server_refuses_a_client_of_another_root() {
        let (root, other) = (TestCa::root("a.test"), TestCa::root("b.test"));
        let trust = trust([&root]);
        let (_, server) = pair(&root, &trust);
        let client = client_config(any(&trust), SvidSlot::new(other.svid("/client"))).unwrap();
        let refused = handshake(&at_now(client, server)).err().unwrap();
        assert_eq!(refused.by, Side::Server);
        assert!(matches!(reason(&refused.error), RefusalReason::UnknownTrustDomain { .. }));
        assert!(told_certificate_unknown(&refused), "{refused:?}");
    }

    #[test]
    fn a_server_refuses_an_expired_client() {
        let root = TestCa::root("a.test");
        let trust = trust([&root]);
        let (_, server) = pair(&root, &trust);
        let key = PrivateKey::generate().unwrap();
        let expired = root.leaf_with("/client", &key, |params| params.not_after = date(NOW - 1));
        let client = client_config(any(&trust), SvidSlot::new(Svid::new(expired, key).unwrap())).unwrap();
        let refused = handshake(&at_now(client, server)).err().unwrap();
        assert!(matches!(reason(&refused.error), RefusalReason::Expired { .. }));
    }

    #[test]
    fn a_client_without_a_certificate_gets_in_only_where_that_is_allowed() {
        let root = TestCa::root("a.test");
        let trust = trust([&root]);
        let configs = |client_auth| {
            let server = server_config(any(&trust), SvidSlot::new(root.svid("/server")), client_auth).unwrap();
            let client = client_builder().unwrap().dangerous().with_custom_certificate_verifier(any(&trust));
            at_now(client.with_no_client_auth(), server)
        };
        let refused = handshake(&configs(ClientAuth::Required)).err().unwrap();
        assert_eq!((refused.by, refused.error), (Side::Server, Error::NoCertificatesPresented));
        let connected = handshake(&configs(ClientAuth::Optional)).unwrap();
        assert_eq!(connected.peer_of_server(), None);
    }

    #[test]
    fn where_a_certificate_is_optional_a_bad_one_is_still_refused() {
        let (root, other) = (TestCa::root("a.test"), TestCa::root("a.test"));
        let trust = trust([&root]);
        let with_client = |client: Svid| {
            let server = server_config(any(&trust), SvidSlot::new(root.svid("/server")), ClientAuth::Optional).unwrap();
            handshake(&at_now(client_config(any(&trust), SvidSlot::new(client)).unwrap(), server))
        };
        let connected = with_client(root.svid("/client")).unwrap();
        assert_eq!(connected.peer_of_server().unwrap().id().path(), "/client");
        assert_eq!(with_client(other.svid("/client")).err().unwrap().by, Side::Server);
    }

    #[test]
    fn a_stolen_certificate_without_its_key_is_refused() {
        let root = TestCa::root("a.test");
        let trust = trust([&root]);
        let (_, server) = pair(&root, &trust);
        let thief = PrivateKey::generate().unwrap();
        let stolen = rustls::sign::CertifiedKey::new(root.leaf("/client"), thief.signing_key().unwrap());
        let client = client_builder()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(any(&trust))
            .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(stolen)));
        let refused = handshake(&at_now(client, server)).err().unwrap();
        assert_eq!(refused.by, Side::Server);
        assert!(matches!(refused.error, Error::InvalidCertificate(rustls::CertificateError::BadSignature)));
    }

    #[test]
    fn a_new_svid_is_presented_without_a_new_configuration() {
        let root = TestCa::root("a.test");
        let trust = trust([&root]);
        let (ours, theirs) = (SvidSlot::new(root.svid("/client")), SvidSlot::new(root.svid("/server")));
        let client = client_config(any(&trust), Arc::clone(&ours)).unwrap();
        let server = server_config(any(&trust), Arc::clone(&theirs), ClientAuth::Required).unwrap();
        let configs = at_now(client, server);
        let before = handshake(&configs).unwrap();
        ours.store(root.svid("/client"));
        theirs.store(root.intermediate().svid("/server"));
        let after = handshake(&configs).unwrap();

        let presented = |connected: &Connected| (connected.peer_of_client(), connected.peer_of_server().unwrap());
        let ((server_before, client_before), (server_after, client_after)) = (presented(&before), presented(&after));
        assert_ne!(client_before.leaf().public_key_sha256(), client_after.leaf().public_key_sha256());
        assert_eq!(client_after.leaf(), ours.load().leaf());
        assert_eq!((server_before.chain().len(), server_after.chain().len()), (1, 2));
    }

    #[test]
    fn new_bundles_count_from_the_next_handshake_on() {
        let (old, new) = (TestCa::root("a.test"), TestCa::root("a.test"));
        let (client_trust, server_trust) = (trust([&old]), trust([&old]));
        let client = client_config(any(&client_trust), SvidSlot::new(old.svid("/client"))).unwrap();
        let server =
            server_config(any(&server_trust), SvidSlot::new(old.svid("/server")), ClientAuth::Required).unwrap();
        let configs = at_now(client, server);
        handshake(&configs).unwrap();
        server_trust.store(Arc::new(TrustBundles::new([new.bundle()], system(NOW))));
        assert_eq!(handshake(&configs).err().unwrap().by, Side::Server);
    }

    /// A resumed session would not look at the bundle again.
    #[test]
    fn no_client_resumes_a_session_with_us() {
        let root = TestCa::root("a.test");
        let (mut client, server) = pair(&root, &trust([&root]));
        assert!(server.send_tls13_tickets == 0 && !server.session_storage.can_cache());
        assert_eq!(server.max_early_data_size, 0);
        client.resumption = Resumption::in_memory_sessions(8);
        let configs = at_now(client, server);
        for _ in 0..2 {
            let connected = handshake(&configs).unwrap();
            assert_eq!(connected.client.handshake_kind(), Some(HandshakeKind::Full));
            assert_eq!(connected.client.tls13_tickets_received(), 0);
        }
    }

    #[test]
    fn we_resume_no_session_with_any_server() {
        let root = TestCa::root("a.test");
        let (client, mut server) = pair(&root, &trust([&root]));
        assert!(!client.enable_early_data);
        server.send_tls13_tickets = 2;
        server.session_storage = ServerSessionMemoryCache::new(8);
        let configs = at_now(client, server);
        for _ in 0..2 {
            let connected = handshake(&configs).unwrap();
            assert_eq!(connected.client.handshake_kind(), Some(HandshakeKind::Full));
        }
    }

    #[test]
    fn tls_1_2_is_refused_by_both_ends() {
        let root = TestCa::root("a.test");
        let trust = trust([&root]);
        let tls12 = || ClientConfig::builder_with_provider(Arc::clone(provider())).with_protocol_versions(&[&TLS12]);
        let old_client = tls12()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(any(&trust))
            .with_client_cert_resolver(SvidSlot::new(root.svid("/client")));
        let (client, server) = pair(&root, &trust);
        let refused = handshake(&at_now(old_client, server)).err().unwrap();
        assert_eq!(refused.by, Side::Server);
        assert!(matches!(refused.error, Error::PeerIncompatible(_)), "{refused:?}");

        let mut roots = RootCertStore::empty();
        roots.add(root.certificate().clone()).unwrap();
        let any_client = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider()));
        let old_server = ServerConfig::builder_with_provider(Arc::clone(provider()))
            .with_protocol_versions(&[&TLS12])
            .unwrap()
            .with_client_cert_verifier(any_client.build().unwrap())
            .with_cert_resolver(SvidSlot::new(root.svid("/server")));
        let refused = handshake(&at_now(client, old_server)).err().unwrap();
        assert_eq!(refused.told, Error::AlertReceived(AlertDescription::ProtocolVersion));
    }

    /// The chain of a broker: it presents the root too.
    fn broker(issuer: &TestCa, root: &TestCa, path: &str) -> Svid {
        let key = PrivateKey::generate().unwrap();
        let mut chain = issuer.leaf_with(path, &key, |_| {});
        chain.push(root.certificate().clone());
        Svid::new(chain, key).unwrap()
    }

    fn pin(root: &TestCa) -> [u8; 32] {
        root.bundle().authorities()[0].public_key_sha256()
    }

    fn join(pinned: [u8; 32], broker: Svid) -> Result<Connected, Box<Refused>> {
        let trust = TrustBundles::default().into_source();
        let server = server_config(any(&trust), SvidSlot::new(broker), ClientAuth::Optional).unwrap();
        let client = joining_client_config(pinned, &td("a.test")).unwrap();
        handshake(&at_now(client, server))
    }

    #[test]
    fn a_joining_node_accepts_the_broker_below_the_pinned_root() {
        let root = TestCa::root("a.test");
        let connected = join(pin(&root), broker(&root.intermediate(), &root, "/portcullis/broker")).unwrap();
        assert_eq!(connected.peer_of_client().id().path(), "/portcullis/broker");
        assert_eq!(connected.peer_of_server(), None);
        join(pin(&root), broker(&root, &root, "/portcullis/broker")).unwrap();
    }

    #[test]
    fn both_ends_of_one_connection_know_a_value_that_no_other_connection_has() {
        let root = TestCa::root("a.test");
        let trust = trust([&root]);
        let bindings = || {
            let client = anonymous_client_config(only(&trust, "spiffe://a.test/server")).unwrap();
            let slot = SvidSlot::new(root.svid("/server"));
            let server = server_config(any(&trust), slot, ClientAuth::Optional).unwrap();
            let connected = handshake(&at_now(client, server)).unwrap();
            assert_eq!(connected.peer_of_server(), None);
            (ChannelBinding::of(&connected.client).unwrap(), ChannelBinding::of(&connected.server).unwrap())
        };
        let (one, other) = (bindings(), bindings());
        assert_eq!(one.0, one.1);
        assert_ne!(one.0, other.0);
    }

    #[test]
    fn a_joining_node_refuses_another_root() {
        let (root, other) = (TestCa::root("a.test"), TestCa::root("a.test"));
        let refused = join(pin(&other), broker(&root, &root, "/portcullis/broker")).err().unwrap();
        assert_eq!(refused.by, Side::Client);
        assert!(matches!(reason(&refused.error), RefusalReason::RootNotPresented { .. }));
        // The pinned root is presented, and signed nothing below.
        let refused = join(pin(&other), broker(&root, &other, "/portcullis/broker")).err().unwrap();
        assert!(
            matches!(reason(&refused.error), RefusalReason::UnknownIssuer { .. } | RefusalReason::Chain { .. }),
            "{refused:?}"
        );
    }

    #[test]
    fn a_joining_node_refuses_a_broker_that_does_not_present_its_root() {
        let root = TestCa::root("a.test");
        let refused = join(pin(&root), root.intermediate().svid("/portcullis/broker")).err().unwrap();
        assert!(matches!(reason(&refused.error), RefusalReason::RootNotPresented { .. }));
    }

    #[test]
    fn a_joining_node_refuses_everybody_but_the_broker() {
        let root = TestCa::root("a.test");
        for path in ["/portcullis/node/edge", "/portcullis/broker/x", "/portcullis/brokers", "/broker"] {
            let refused = join(pin(&root), broker(&root, &root, path)).err().unwrap();
            assert!(matches!(reason(&refused.error), RefusalReason::NotExpected { .. }), "{path}");
        }
        let other = TestCa::root("b.test");
        let refused = join(pin(&other), broker(&other, &other, "/portcullis/broker")).err().unwrap();
        assert!(matches!(reason(&refused.error), RefusalReason::NotExpected { .. }));
    }
}
