//! Who gets a connection and who does not, and what each side learns.

use std::{
    net::{Ipv6Addr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use portcullis_identity::{PeerRule, PeerVerifier, RefusalReason, SpiffeId, SvidSlot, TrustBundles};
use portcullis_transport::{
    CloseReason,
    quic::{
        ConnectError, Connection, ConnectionLost, Dialer, HandshakeRefused, Listener, QuicLimits, StreamFailed,
        classify,
    },
};
use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use crate::{
    ca::{Ca, Leaf, now, raw_client_without_certificate, raw_connect, trust, uri},
    server::{SERVER, Server, call, soon},
};

/// What a dialer learns when the server did not accept it: nothing at first, then the alert at its first use.
async fn refused_at_first_use(connected: Result<Connection, ConnectError>) -> u8 {
    let connection = match connected {
        Ok(connection) => connection,
        Err(ConnectError::RefusedUs { alert, .. }) => return alert,
        Err(error) => panic!("{error}"),
    };
    match call(&connection, "echo", Bytes::new()).await {
        Err(StreamFailed::Lost(ConnectionLost::RefusedUs { alert })) => alert,
        other => panic!("{other:?}"),
    }
}

/// The same for a client of quinn alone.
async fn raw_refused(config: rustls::ClientConfig, server: &Server) -> u8 {
    let error = match raw_connect(config, server.address).await {
        Ok(connection) => soon(connection.closed()).await,
        Err(error) => error,
    };
    let lost = classify(&error);
    let ConnectionLost::RefusedUs { alert } = lost else { panic!("{lost}") };
    alert
}

async fn assert_handshake_refused(server: &Server) {
    let outcome = server.outcome().await;
    assert!(matches!(outcome, Err(HandshakeRefused::Failed(ConnectionLost::Handshake { .. }))), "{outcome:?}");
}

#[tokio::test]
async fn an_svid_opens_a_connection_and_each_end_knows_the_other() {
    let ca = Ca::new("shop.example");
    let server = Server::start(&ca);
    let slot = ca.slot("/component/shop/cart");
    let dialer = Dialer::new(ca.trust(), Arc::clone(&slot), QuicLimits::default());
    let client = dialer.connect(server.address, &server.id).await.unwrap();
    let accepted = server.serve_next().await;
    assert_eq!(client.peer().id(), &server.id);
    assert_eq!(accepted.peer().id().to_string(), "spiffe://shop.example/component/shop/cart");
    assert_eq!(accepted.expires_at(), slot.load().not_after());
    assert_eq!(call(&client, "echo", Bytes::from_static(b"hello")).await.unwrap(), "hello");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let ca = Ca::new("shop.example");
    let server = Server::start(&ca);
    assert_eq!(raw_refused(raw_client_without_certificate(ca.trust()), &server).await, 116);
    assert_handshake_refused(&server).await;
}

#[tokio::test]
async fn an_expired_client_is_refused() {
    let ca = Ca::new("shop.example");
    let server = Server::start(&ca);
    let slot = SvidSlot::new(ca.expired_leaf("/component/shop/cart").svid());
    let dialer = Dialer::new(ca.trust(), slot, QuicLimits::default());
    refused_at_first_use(dialer.connect(server.address, &server.id).await).await;
    assert_handshake_refused(&server).await;
}

#[tokio::test]
async fn a_client_of_a_trust_domain_without_a_bundle_is_refused() {
    let (ca, stranger) = (Ca::new("shop.example"), Ca::new("other.example"));
    let server = Server::start(&ca);
    let dialer = Dialer::new(ca.trust(), stranger.slot("/component/shop/cart"), QuicLimits::default());
    refused_at_first_use(dialer.connect(server.address, &server.id).await).await;
    assert_handshake_refused(&server).await;
}

#[tokio::test]
async fn a_client_signed_by_another_domains_authority_is_refused() {
    let (ca, other) = (Ca::new("shop.example"), Ca::new("other.example"));
    let server =
        Server::start_with(trust(&[&ca, &other]), PeerRule::AnyTrusted, ca.slot(SERVER), QuicLimits::default());
    let forged = other.leaf_with("/x", |params| {
        params.subject_alt_names = vec![uri("spiffe://shop.example/component/shop/cart")];
    });
    let dialer = Dialer::new(ca.trust(), SvidSlot::new(forged.svid()), QuicLimits::default());
    refused_at_first_use(dialer.connect(server.address, &server.id).await).await;
    assert_handshake_refused(&server).await;
}

#[tokio::test]
async fn an_id_that_begins_with_the_expected_one_is_refused() {
    let ca = Ca::new("shop.example");
    let rule = PeerRule::Exactly("spiffe://shop.example/component/shop/cart".parse().unwrap());
    let server = Server::start_with(ca.trust(), rule, ca.slot(SERVER), QuicLimits::default());
    for path in ["/component/shop/cart-2", "/component/shop/cart/2", "/component/shop"] {
        refused_at_first_use(ca.dialer(path).connect(server.address, &server.id).await).await;
        assert_handshake_refused(&server).await;
    }
    let expected = ca.dialer("/component/shop/cart").connect(server.address, &server.id).await.unwrap();
    server.serve_next().await;
    assert!(call(&expected, "echo", Bytes::new()).await.is_ok());
}

#[tokio::test]
async fn a_client_with_two_uri_names_is_refused() {
    let ca = Ca::new("shop.example");
    let server = Server::start(&ca);
    let two: Leaf = ca.leaf_with("/component/shop/cart", |params| {
        params.subject_alt_names.push(uri("spiffe://shop.example/component/shop/admin"));
    });
    raw_refused(two.raw_client(ca.trust()), &server).await;
    assert_handshake_refused(&server).await;
}

#[tokio::test]
async fn a_server_with_another_id_is_refused_and_the_reason_is_known() {
    let ca = Ca::new("shop.example");
    let server = Server::start(&ca);
    for path in ["/virtual/shop/order", "/virtual/shop/orders-2", "/virtual/shop"] {
        let expected: SpiffeId = format!("spiffe://shop.example{path}").parse().unwrap();
        let error = ca.dialer("/component/shop/cart").connect(server.address, &expected).await.unwrap_err();
        let ConnectError::WrongPeer { source, .. } = &error else { panic!("{error}") };
        assert_eq!(
            **source,
            RefusalReason::NotExpected { id: server.id.clone(), expected: PeerRule::Exactly(expected) }
        );
        assert!(matches!(server.outcome().await, Err(HandshakeRefused::Failed(ConnectionLost::RefusedUs { .. }))));
    }
}

#[tokio::test]
async fn an_expired_server_is_refused() {
    let ca = Ca::new("shop.example");
    let slot = SvidSlot::new(ca.expired_leaf(SERVER).svid());
    let server = Server::start_with(ca.trust(), PeerRule::AnyTrusted, slot, QuicLimits::default());
    let error = ca.dialer("/component/shop/cart").connect(server.address, &server.id).await.unwrap_err();
    let ConnectError::WrongPeer { source, .. } = &error else { panic!("{error}") };
    assert!(matches!(**source, RefusalReason::Expired { .. }), "{source}");
}

#[tokio::test]
async fn a_client_that_offers_alpn_is_told_to_offer_none() {
    let ca = Ca::new("shop.example");
    let server = Server::start(&ca);
    let mut config = ca.leaf("/component/shop/cart").raw_client(ca.trust());
    config.alpn_protocols = vec![b"wrpc".to_vec()];
    assert_eq!(raw_refused(config, &server).await, 120);
}

#[tokio::test]
async fn a_renewed_svid_is_presented_from_the_next_handshake_on() {
    let ca = Ca::new("shop.example");
    let server = Server::start(&ca);
    let slot = ca.slot("/component/shop/cart");
    let dialer = Dialer::new(ca.trust(), Arc::clone(&slot), QuicLimits::default());
    let _first = dialer.connect(server.address, &server.id).await.unwrap();
    let before = server.connection().await;
    slot.store(ca.leaf("/component/shop/cart").svid());
    let _second = dialer.connect(server.address, &server.id).await.unwrap();
    let after = server.connection().await;
    assert_eq!(after.peer().serial(), slot.load().leaf().serial());
    assert_ne!(after.peer().serial(), before.peer().serial());
    assert_eq!(before.lost(), None);
}

#[tokio::test]
async fn a_connection_fails_its_recheck_once_trust_is_withdrawn() {
    let ca = Ca::new("shop.example");
    let trust = ca.trust();
    let verifier = PeerVerifier::new(Arc::clone(&trust), PeerRule::AnyTrusted);
    let server = Server::start(&ca);
    let client = ca.dialer("/component/shop/cart").connect(server.address, &server.id).await.unwrap();
    let accepted = server.connection().await;
    accepted.recheck(&verifier, now()).unwrap();
    client.recheck(&verifier, now()).unwrap();
    assert!(accepted.recheck(&verifier, accepted.expires_at() + Duration::from_secs(2)).is_err());
    trust.store(Arc::new(TrustBundles::new([], now())));
    assert!(client.recheck(&verifier, now()).is_err());
    assert!(accepted.recheck(&verifier, now()).is_err());
    accepted.close(CloseReason::TrustWithdrawn);
    assert_eq!(soon(client.closed()).await, ConnectionLost::Closed(CloseReason::TrustWithdrawn));
}

/// Counts how often a server's certificate is looked at, which a resumed session would spare.
#[derive(Debug)]
struct Counting(Arc<PeerVerifier>, AtomicUsize);

impl ServerCertVerifier for Counting {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.verify_server_cert(end_entity, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ServerCertVerifier::verify_tls12_signature(&*self.0, message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ServerCertVerifier::verify_tls13_signature(&*self.0, message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ServerCertVerifier::supported_verify_schemes(&*self.0)
    }
}

#[tokio::test]
async fn no_session_is_resumed_even_for_a_client_that_would() {
    let ca = Ca::new("shop.example");
    let server = Server::start(&ca);
    let verifier = PeerVerifier::new(ca.trust(), PeerRule::AnyTrusted);
    let counting = Arc::new(Counting(verifier, AtomicUsize::new(0)));
    let mut config = ca.leaf("/component/shop/cart").raw_client(ca.trust());
    config.resumption = Resumption::in_memory_sessions(8);
    config.enable_early_data = true;
    config.dangerous().set_certificate_verifier(Arc::clone(&counting) as Arc<dyn ServerCertVerifier>);
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    for round in 1..=2 {
        let connecting = endpoint.connect_with(config.clone(), server.address, "peer.invalid").unwrap();
        let connection = match connecting.into_0rtt() {
            Ok(_) => panic!("0-RTT in round {round}"),
            Err(connecting) => connecting.await.unwrap(),
        };
        server.serve_next().await;
        // A round trip later any ticket would have come.
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        send.write_all(b"\0\x01i\x04echo\0\x02hi").await.unwrap();
        send.finish().unwrap();
        assert_eq!(recv.read_to_end(100).await.unwrap(), b"\0\x02hi");
        assert_eq!(counting.1.load(Ordering::Relaxed), round);
    }
}

#[tokio::test]
async fn a_silent_address_times_out_and_a_senseless_one_is_unreachable() {
    let ca = Ca::new("shop.example");
    let limits = QuicLimits { handshake_timeout: Duration::from_millis(50), ..QuicLimits::default() };
    let dialer = Dialer::new(ca.trust(), ca.slot("/component/shop/cart"), limits);
    let id: SpiffeId = format!("spiffe://shop.example{SERVER}").parse().unwrap();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let error = dialer.connect(silent.local_addr().unwrap(), &id).await.unwrap_err();
    assert!(matches!(error, ConnectError::Timeout { .. }), "{error}");
    let error = dialer.connect("127.0.0.1:0".parse().unwrap(), &id).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_dual_stack_listener_serves_both_families() {
    let ca = Ca::new("shop.example");
    let verifier = PeerVerifier::new(ca.trust(), PeerRule::AnyTrusted);
    let any = (Ipv6Addr::UNSPECIFIED, 0).into();
    let Ok(listener) = Listener::bind(any, verifier, ca.slot(SERVER), QuicLimits::default()) else {
        // The machine has no IPv6.
        return;
    };
    let port = listener.local_addr().unwrap().port();
    let id: SpiffeId = format!("spiffe://shop.example{SERVER}").parse().unwrap();
    let dialer = ca.dialer("/component/shop/cart");
    for ip in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
        let address = (ip.parse::<std::net::IpAddr>().unwrap(), port).into();
        let accept = async { listener.accept().await.unwrap().handshake().await };
        let (client, accepted) = tokio::join!(dialer.connect(address, &id), accept);
        assert_eq!(client.unwrap().peer().id(), &id, "{ip}");
        accepted.unwrap();
    }
}
