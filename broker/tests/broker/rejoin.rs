//! Coming back after expiry: D4, threats T3 and T4.

use std::time::{Duration, SystemTime};

use portcullis_api::v1::node_client::NodeClient;
use portcullis_api::{connect_node_exporting, v1};
use portcullis_broker::ttl::Ttl;
use portcullis_identity::{
    CHANNEL_BINDING_LABEL, PeerRule, PeerVerifier, Possession, PrivateKey, Purpose, Svid, anonymous_client_config,
    broker_id, key_request,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::lab::{Lab, Watch, join, svid, trust_domain};

/// A connection as nobody, and what belongs to it alone.
async fn nobody(lab: &Lab) -> (NodeClient<Channel>, [u8; 32]) {
    let verifier = PeerVerifier::new(lab.trust(), PeerRule::Exactly(broker_id(&trust_domain())));
    let config = anonymous_client_config(verifier).unwrap();
    let address = lab.control.to_string();
    let (channel, exported) = connect_node_exporting(&address, &config, CHANNEL_BINDING_LABEL).await.unwrap();
    (NodeClient::new(channel), exported)
}

fn request(old: &Svid, next: &PrivateKey, exported: [u8; 32]) -> v1::RejoinRequest {
    let next_key_sha256 = next.public_key_sha256();
    let possession = Possession { channel: exported.into(), purpose: Purpose::Rejoin, next_key_sha256 };
    v1::RejoinRequest {
        chain: old.chain().iter().map(|der| der.to_vec()).collect(),
        csr: key_request(next).unwrap(),
        proof: possession.prove(old.key()).unwrap(),
    }
}

async fn rejoin(lab: &Lab, old: &Svid, next: PrivateKey) -> Result<Svid, Status> {
    let (mut client, exported) = nobody(lab).await;
    let reply = client.rejoin(request(old, &next, exported)).await?.into_inner();
    Ok(svid(reply.chain, next))
}

fn key() -> PrivateKey {
    PrivateKey::generate().unwrap()
}

fn same(key: &PrivateKey) -> PrivateKey {
    PrivateKey::from_pkcs8(key.pkcs8()).unwrap()
}

/// A node whose certificate expired.
async fn expired(lab: &Lab) -> Svid {
    let old = join(&lab.token("n1").await, key()).await.unwrap();
    Watch::open(&mut lab.node(svid_of(&old)).await).await.unwrap().state().await;
    while old.not_after() > SystemTime::now() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    old
}

fn svid_of(svid: &Svid) -> Svid {
    Svid::new(svid.chain().to_vec(), same(svid.key())).unwrap()
}

async fn short_lived() -> Lab {
    Lab::start_with(|config| config.node_ttl = Ttl::try_from(5).unwrap()).await
}

#[tokio::test]
async fn a_node_whose_certificate_expired_comes_back_by_proving_it() {
    let lab = short_lived().await;
    let old = expired(&lab).await;
    let next = key();
    let new = rejoin(&lab, &old, same(&next)).await.unwrap();
    assert_eq!(new.id().to_string(), "spiffe://acme.test/portcullis/node/n1");
    // The answer was lost: the same key may ask again.
    rejoin(&lab, &old, next).await.unwrap();
    Watch::open(&mut lab.node(new).await).await.unwrap().state().await;
}

#[tokio::test]
async fn a_second_holder_of_an_expired_certificate_shuts_out_both() {
    let lab = short_lived().await;
    let old = expired(&lab).await;
    let new = rejoin(&lab, &old, key()).await.unwrap();
    let mut watch = Watch::open(&mut lab.node(svid_of(&new)).await).await.unwrap();
    watch.state().await;
    let refused = rejoin(&lab, &old, key()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("quarantined"), "{refused}");
    watch.hear().await.unwrap_err();
    let refused = Watch::open(&mut lab.node(new).await).await.err().unwrap();
    assert!(refused.message().contains("quarantined"), "{refused}");
    // A new token makes it a node again, and what came before stays out.
    let fresh = join(&lab.token("n1").await, key()).await.unwrap();
    Watch::open(&mut lab.node(fresh).await).await.unwrap().state().await;
    let refused = rejoin(&lab, &old, key()).await.unwrap_err();
    assert!(refused.message().contains("not the node's last"), "{refused}");
}

#[tokio::test]
async fn a_removed_node_stays_out() {
    let lab = short_lived().await;
    let old = expired(&lab).await;
    lab.operator().await.remove_node(v1::RemoveNodeRequest { name: "n1".to_owned() }).await.unwrap();
    let refused = rejoin(&lab, &old, key()).await.unwrap_err();
    assert!(refused.message().contains("not registered"), "{refused}");
}

#[tokio::test]
async fn nobody_comes_in_without_the_key_of_a_node_of_this_trust_domain() {
    let lab = short_lived().await;
    let old = expired(&lab).await;
    let next = key();
    let (mut client, exported) = nobody(&lab).await;
    let good = request(&old, &next, exported);

    // A proof of another connection, for another purpose, for another key, by another key.
    let (_, elsewhere) = nobody(&lab).await;
    let mut bad = vec![request(&old, &next, elsewhere)];
    let joining = Possession {
        channel: exported.into(),
        purpose: Purpose::JoinByCertificate,
        next_key_sha256: next.public_key_sha256(),
    };
    bad.push(v1::RejoinRequest { proof: joining.prove(old.key()).unwrap(), ..good.clone() });
    bad.push(v1::RejoinRequest { csr: key_request(&key()).unwrap(), ..good.clone() });
    let rejoining = Possession { purpose: Purpose::Rejoin, ..joining };
    bad.push(v1::RejoinRequest { proof: rejoining.prove(&key()).unwrap(), ..good.clone() });
    // Another trust domain, no chain, a leaf without what is above it, a workload of a node.
    let other = short_lived().await;
    bad.push(request(&expired(&other).await, &next, exported));
    bad.push(v1::RejoinRequest { chain: Vec::new(), ..good.clone() });
    bad.push(v1::RejoinRequest { chain: good.chain[..1].to_vec(), ..good.clone() });
    let reply = lab.operator().await.create_entry(crate::lab::entry("n2", "prod/x")).await.unwrap().into_inner();
    let workload = lab.watching("n2").await.0.sign(&reply.entry.unwrap().id).await.unwrap();
    bad.push(request(&workload, &next, exported));
    for bad in bad {
        let refused = client.rejoin(bad).await.unwrap_err();
        assert_eq!(
            (refused.code(), refused.message()),
            (Code::Unauthenticated, "this proves no node of this trust domain")
        );
    }
    for bad in [
        v1::RejoinRequest { chain: vec![good.chain[0].clone(); 6], ..good.clone() },
        v1::RejoinRequest { chain: vec![vec![0x30; 9000]], ..good.clone() },
        v1::RejoinRequest { csr: Vec::new(), ..good.clone() },
        request(&old, old.key(), exported),
    ] {
        assert_eq!(client.rejoin(bad).await.unwrap_err().code(), Code::InvalidArgument);
    }
    client.rejoin(good).await.expect("none of this used up the certificate");
}

#[tokio::test]
async fn what_was_used_up_stays_so_over_a_restart() {
    let lab = short_lived().await;
    let old = expired(&lab).await;
    rejoin(&lab, &old, key()).await.unwrap();
    let folder = lab.stop().await;
    let data = folder.path().join("data");
    let again =
        Lab::start_with(|config| *config = portcullis_broker::config::Config::new("acme.test", &data).unwrap()).await;
    let verifier = PeerVerifier::new(trust_in(&data), PeerRule::Exactly(broker_id(&trust_domain())));
    let config = anonymous_client_config(verifier).unwrap();
    let address = again.control.to_string();
    let (channel, exported) = connect_node_exporting(&address, &config, CHANNEL_BINDING_LABEL).await.unwrap();
    let refused = NodeClient::new(channel).rejoin(request(&old, &key(), exported)).await.unwrap_err();
    assert!(refused.message().contains("quarantined"), "{refused}");
    again.stop().await;
}

fn trust_in(data: &std::path::Path) -> portcullis_identity::TrustSource {
    use rustls::pki_types::pem::PemObject as _;
    let root = rustls::pki_types::CertificateDer::from_pem_file(data.join("bundle.pem")).unwrap();
    let bundle = portcullis_identity::Bundle::new(trust_domain(), [root]).unwrap();
    portcullis_identity::TrustBundles::new([bundle], SystemTime::now()).into_source()
}

#[tokio::test]
async fn a_certificate_from_before_a_new_token_opens_nothing() {
    let lab = Lab::start().await;
    let old = join(&lab.token("n1").await, key()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    join(&lab.token("n1").await, key()).await.unwrap();
    let refused = Watch::open(&mut lab.node(old).await).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("joined anew"), "{refused}");
}
