//! Joining: D4, threats T1, T2 and T6.

use std::time::{Duration, Instant};

use portcullis_api::{connect_node, v1};
use portcullis_broker::config::Config;
use portcullis_identity::{JoinSecret, JoinToken, Leaf, PrivateKey, TrustDomain, joining_client_config, key_request};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, SanType};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tonic::Code;

use crate::lab::{Lab, join, join_request, soon, stranger};

fn key() -> PrivateKey {
    PrivateKey::generate().unwrap()
}

/// The same token but for one thing.
fn altered(token: &JoinToken, change: impl FnOnce(&mut JoinToken)) -> JoinToken {
    let mut other = token.clone();
    change(&mut other);
    other
}

#[tokio::test]
async fn a_token_makes_a_node() {
    let lab = Lab::start().await;
    let token = lab.token("n1").await;
    let mut client = stranger(&token).await;
    let key = key();
    let reply = client.join(join_request(&token, &key)).await.unwrap().into_inner();
    assert_eq!(reply.chain.len(), 2, "leaf and signing certificate, without the root");
    assert_eq!(reply.bundles.len(), 1);
    assert_eq!(reply.bundles[0].trust_domain, "acme.test");
    let svid = crate::lab::svid(reply.chain, key);
    assert_eq!(svid.id().to_string(), "spiffe://acme.test/portcullis/node/n1");
    let nodes = lab.operator().await.list_nodes(v1::ListNodesRequest {}).await.unwrap().into_inner().nodes;
    assert_eq!((nodes.len(), nodes[0].name.as_str(), nodes[0].connected), (1, "n1", false));
}

#[tokio::test]
async fn a_lost_reply_is_asked_for_again_with_the_same_key_and_no_other() {
    let lab = Lab::start().await;
    let token = lab.token("n1").await;
    let key = key();
    for _ in 0..3 {
        stranger(&token).await.join(join_request(&token, &key)).await.unwrap();
    }
    let refused = join(&token, PrivateKey::generate().unwrap()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("spent"), "{refused}");
}

#[tokio::test]
async fn a_redeemed_token_stays_bound_to_its_key_over_a_restart() {
    let lab = Lab::start().await;
    let token = lab.token("n1").await;
    let key = key();
    stranger(&token).await.join(join_request(&token, &key)).await.unwrap();
    let folder = lab.stop().await;
    let again =
        Lab::start_with(|config| *config = Config::new("acme.test", &folder.path().join("data")).unwrap()).await;
    let token = altered(&token, |token| token.broker = again.control.to_string());
    stranger(&token).await.join(join_request(&token, &key)).await.unwrap();
    assert!(join(&token, PrivateKey::generate().unwrap()).await.unwrap_err().message().contains("spent"));
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_who_come_with_one_token_one_gets_in() {
    let lab = Lab::start().await;
    let token = lab.token("n1").await;
    let attempts: Vec<_> = (0..64)
        .map(|_| {
            let token = token.clone();
            tokio::spawn(async move { join(&token, PrivateKey::generate().unwrap()).await })
        })
        .collect();
    let mut joined = 0;
    for attempt in attempts {
        match soon(attempt).await.unwrap() {
            Ok(_) => joined += 1,
            Err(refused) => assert!(refused.message().contains("spent"), "{refused}"),
        }
    }
    assert_eq!(joined, 1);
}

#[tokio::test]
async fn an_expired_token_is_said_to_be() {
    let lab = Lab::start().await;
    let request = v1::CreateJoinTokenRequest { node: "n1".to_owned(), ttl_seconds: 10, broker_address: String::new() };
    let reply = lab.operator().await.create_join_token(request).await.unwrap().into_inner();
    let token: JoinToken = reply.token.parse().unwrap();
    tokio::time::sleep(Duration::from_secs(11)).await;
    let refused = join(&token, key()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("expired"), "{refused}");
    let nodes = lab.operator().await.list_nodes(v1::ListNodesRequest {}).await.unwrap().into_inner().nodes;
    assert!(nodes.is_empty());
}

#[tokio::test]
async fn only_who_holds_a_secret_learns_anything_about_its_token() {
    let lab = Lab::start().await;
    let token = lab.token("n1").await;
    let guess = altered(&token, |token| token.secret = JoinSecret::generate().unwrap());
    let guessed = join(&guess, key()).await.unwrap_err();
    let other_guess = altered(&guess, |token| token.node = "n2".parse().unwrap());
    let other_guessed = join(&other_guess, key()).await.unwrap_err();
    // A token for n1 exists and none for n2: the answers must not tell.
    assert_eq!((guessed.code(), guessed.message()), (other_guessed.code(), other_guessed.message()));
    assert_eq!(guessed.code(), Code::Unauthenticated);
    let misused = altered(&token, |token| token.node = "n2".parse().unwrap());
    let refused = join(&misused, key()).await.unwrap_err();
    assert!(refused.message().contains("another node"), "{refused}");
    join(&token, key()).await.expect("none of this spent the token");
}

#[tokio::test]
async fn a_broker_whose_root_is_not_pinned_is_not_spoken_to() {
    let (lab, impostor) = (Lab::start().await, Lab::start().await);
    let token = lab.token("n1").await;
    let misled = altered(&token, |token| token.broker = impostor.control.to_string());
    let config = joining_client_config(misled.root_spki_sha256, &misled.trust_domain).unwrap();
    connect_node(&misled.broker, &config).await.unwrap_err();
    let other = TrustDomain::new("other.test").unwrap();
    let config = joining_client_config(token.root_spki_sha256, &other).unwrap();
    connect_node(&token.broker, &config).await.unwrap_err();
    connect_node(&token.broker, &joining_client_config(token.root_spki_sha256, &token.trust_domain).unwrap())
        .await
        .expect("the right broker");
}

#[tokio::test]
async fn a_request_for_more_than_a_key_yields_the_nodes_id_and_nothing_else() {
    let lab = Lab::start().await;
    let token = lab.token("n1").await;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.subject_alt_names = vec![
        SanType::URI("spiffe://acme.test/portcullis/broker".try_into().unwrap()),
        SanType::URI("spiffe://acme.test/portcullis/node/n2".try_into().unwrap()),
    ];
    let csr = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
    let request = v1::JoinRequest { node: "n1".to_owned(), secret: token.secret().to_vec(), csr };
    let reply = stranger(&token).await.join(request).await.unwrap().into_inner();
    let leaf = Leaf::parse(&reply.chain[0]).unwrap();
    assert_eq!(leaf.id().to_string(), "spiffe://acme.test/portcullis/node/n1");
}

#[tokio::test]
async fn a_request_that_proves_nothing_spends_nothing() {
    let lab = Lab::start().await;
    let token = lab.token("n1").await;
    let mut client = stranger(&token).await;
    let good = key_request(&key()).unwrap();
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    let long = [good.as_slice(), &[0; 16]].concat();
    for (csr, secret) in [
        (Vec::new(), token.secret().to_vec()),
        (forged, token.secret().to_vec()),
        (long, token.secret().to_vec()),
        (vec![0x30; 20_000], token.secret().to_vec()),
        (good.clone(), vec![0; 15]),
        (good.clone(), Vec::new()),
    ] {
        let request = v1::JoinRequest { node: "n1".to_owned(), secret, csr };
        let refused = client.join(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    let huge = v1::JoinRequest { node: "n".repeat(1 << 20), secret: Vec::new(), csr: Vec::new() };
    client.join(huge).await.unwrap_err();
    join(&token, key()).await.expect("none of this spent the token");
}

#[tokio::test]
async fn a_flood_of_attempts_from_one_source_is_slowed_down() {
    let lab = Lab::start().await;
    let token = lab.token("n1").await;
    let mut client = stranger(&token).await;
    let guess = altered(&token, |token| token.secret = JoinSecret::generate().unwrap());
    let key = key();
    let request = join_request(&guess, &key);
    for _ in 0..1000 {
        if client.join(request.clone()).await.unwrap_err().code() == Code::ResourceExhausted {
            return;
        }
    }
    panic!("a thousand guesses were answered");
}

#[tokio::test]
async fn silent_peers_delay_nobody_and_are_let_go() {
    let lab = Lab::start().await;
    let token = lab.token("n1").await;
    let mut silent = Vec::new();
    for _ in 0..32 {
        silent.push(TcpStream::connect(lab.control).await.unwrap());
    }
    let began = Instant::now();
    join(&token, key()).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(4), "it waited for the silent ones");
    for mut stream in silent {
        assert_eq!(soon(stream.read(&mut [0; 1])).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn one_source_has_some_of_the_places_for_handshakes_and_not_all() {
    let lab = Lab::start().await;
    let mut silent = Vec::new();
    for _ in 0..65 {
        silent.push(TcpStream::connect(lab.control).await.unwrap());
    }
    let mut last = silent.pop().unwrap();
    let began = Instant::now();
    assert_eq!(soon(last.read(&mut [0; 1])).await.unwrap(), 0);
    assert!(began.elapsed() < Duration::from_secs(4), "it was let into a handshake");
}
