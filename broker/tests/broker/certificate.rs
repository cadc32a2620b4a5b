//! Joining by a certificate of another authority: `x509pop`.

use portcullis_api::{connect_node_exporting, v1};
use portcullis_broker::x509pop::X509Pop;
use portcullis_identity::{
    CHANNEL_BINDING_LABEL, PeerRule, PeerVerifier, Possession, PrivateKey, Purpose, Svid, anonymous_client_config,
    broker_id, key_request,
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::PrivateKeyDer;
use tonic::{Code, Status};

use crate::lab::{Lab, Watch, join, svid, trust_domain};

/// An authority of machines, as an operator may have one already.
struct Machines {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A machine's certificate and key.
struct Machine {
    chain: Vec<Vec<u8>>,
    key: KeyPair,
}

impl Machines {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "machines");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn machine(&self, common_name: &str) -> Machine {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        Machine { chain: vec![params.signed_by(&key, &self.issuer).unwrap().der().to_vec()], key }
    }

    async fn lab(&self) -> (Lab, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("machines.pem");
        std::fs::write(&ca, &self.pem).unwrap();
        let x509pop = Some(X509Pop { ca, name: "edge-{cn}".parse().unwrap() });
        (Lab::start_with(|config| config.x509pop = x509pop).await, folder)
    }
}

impl Machine {
    async fn join(&self, lab: &Lab, next: &PrivateKey) -> Result<Svid, Status> {
        self.join_changed(lab, next, |_| {}).await
    }

    async fn join_changed(
        &self,
        lab: &Lab,
        next: &PrivateKey,
        change: impl FnOnce(&mut v1::JoinByCertificateRequest),
    ) -> Result<Svid, Status> {
        let verifier = PeerVerifier::new(lab.trust(), PeerRule::Exactly(broker_id(&trust_domain())));
        let config = anonymous_client_config(verifier).unwrap();
        let address = lab.control.to_string();
        let (channel, exported) = connect_node_exporting(&address, &config, CHANNEL_BINDING_LABEL).await.unwrap();
        let possession = Possession {
            channel: exported.into(),
            purpose: Purpose::JoinByCertificate,
            next_key_sha256: next.public_key_sha256(),
        };
        let key = PrivateKeyDer::try_from(self.key.serialized_der()).unwrap();
        let mut request = v1::JoinByCertificateRequest {
            chain: self.chain.clone(),
            csr: key_request(next).unwrap(),
            proof: possession.prove_with(&key).unwrap(),
        };
        change(&mut request);
        let reply = v1::node_client::NodeClient::new(channel).join_by_certificate(request).await?.into_inner();
        Ok(svid(reply.chain, PrivateKey::from_pkcs8(next.pkcs8()).unwrap()))
    }
}

fn key() -> PrivateKey {
    PrivateKey::generate().unwrap()
}

#[tokio::test]
async fn a_machine_of_an_accepted_authority_becomes_the_node_that_its_certificate_names() {
    let machines = Machines::new();
    let (lab, _folder) = machines.lab().await;
    let machine = machines.machine("host-1");
    let next = key();
    let svid = machine.join(&lab, &next).await.unwrap();
    assert_eq!(svid.id().to_string(), "spiffe://acme.test/portcullis/node/edge-host-1");
    machine.join(&lab, &next).await.expect("a lost reply may be asked for again");
    Watch::open(&mut lab.node(svid).await).await.unwrap().state().await;
    machine.join(&lab, &key()).await.expect("the certificate is good for as long as its authority says");
}

#[tokio::test]
async fn who_is_not_vouched_for_or_proves_nothing_stays_out() {
    let machines = Machines::new();
    let (lab, _folder) = machines.lab().await;
    let good = machines.machine("host-1");
    let stranger = Machines::new().machine("host-1");
    let elsewhere = machines.machine("host-2");
    let refusals = [
        stranger.join(&lab, &key()).await,
        machines.machine("a.b").join(&lab, &key()).await,
        machines.machine("../broker").join(&lab, &key()).await,
        good.join_changed(&lab, &key(), |request| request.chain.clear()).await,
        good.join_changed(&lab, &key(), |request| request.proof.clear()).await,
        good.join_changed(&lab, &key(), |request| request.chain.clone_from(&elsewhere.chain)).await,
        good.join_changed(&lab, &key(), |request| request.csr = key_request(&key()).unwrap()).await,
        good.join_changed(&lab, &key(), |request| request.chain = vec![request.chain[0].clone(); 5]).await,
    ];
    for refused in refusals {
        assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);
    }
    let plain = Lab::start().await;
    assert_eq!(good.join(&plain, &key()).await.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_name_is_joined_under_by_one_way_and_a_removed_machine_stays_out() {
    let machines = Machines::new();
    let (lab, _folder) = machines.lab().await;
    join(&lab.token("edge-host-1").await, key()).await.unwrap();
    let refused = machines.machine("host-1").join(&lab, &key()).await.unwrap_err();
    assert!(refused.message().contains("with a token"), "{refused}");

    let machine = machines.machine("host-2");
    let svid = machine.join(&lab, &key()).await.unwrap();
    let remove = v1::RemoveNodeRequest { name: "edge-host-2".to_owned() };
    lab.operator().await.remove_node(remove.clone()).await.unwrap();
    assert!(machine.join(&lab, &key()).await.unwrap_err().message().contains("removed"));
    assert_eq!(Watch::open(&mut lab.node(svid).await).await.err().unwrap().code(), Code::PermissionDenied);
    let nodes = lab.operator().await.list_nodes(v1::ListNodesRequest {}).await.unwrap().into_inner().nodes;
    let standings: Vec<_> = nodes.iter().map(|node| (node.name.as_str(), node.standing.as_str())).collect();
    assert_eq!(standings, [("edge-host-1", "good"), ("edge-host-2", "barred")]);
    lab.operator().await.remove_node(remove).await.unwrap();
    machine.join(&lab, &key()).await.expect("forgotten, it may join again");
}
