//! SVIDs at the operator's word alone.

use std::time::{Duration, SystemTime};

use portcullis_api::v1;
use portcullis_identity::{PrivateKey, key_request};
use tonic::Code;

use crate::lab::{Lab, svid};

fn x509(id: &str, key: &PrivateKey) -> v1::MintX509Request {
    v1::MintX509Request { spiffe_id: id.to_owned(), csr: key_request(key).unwrap(), ..v1::MintX509Request::default() }
}

fn jwt(id: &str) -> v1::MintJwtRequest {
    v1::MintJwtRequest { spiffe_id: id.to_owned(), audience: vec!["vault".to_owned()], ttl_seconds: 0 }
}

#[tokio::test]
async fn an_operator_mints_svids_and_the_log_says_who_did() {
    let lab = Lab::start().await;
    let mut operator = lab.operator().await;
    let key = PrivateKey::generate().unwrap();
    let request = v1::MintX509Request {
        ttl_seconds: 60,
        dns_names: vec!["probe.acme.test".to_owned()],
        ..x509("spiffe://acme.test/probe", &key)
    };
    let minted = operator.mint_x509(request).await.unwrap().into_inner();
    assert!(!minted.bundle.is_empty());
    let svid = svid(minted.chain, key);
    assert_eq!(svid.id().to_string(), "spiffe://acme.test/probe");
    assert!(svid.not_after() <= SystemTime::now() + Duration::from_secs(60));
    let minted = operator.mint_jwt(jwt("spiffe://acme.test/probe")).await.unwrap().into_inner();
    assert_eq!(minted.token.split('.').count(), 3);
    let folder = lab.stop().await;
    let log = std::fs::read_dir(folder.path().join("data/audit")).unwrap();
    let log: String = log.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap_or_default()).collect();
    let uid = format!("\"uid\":{}", rustix::process::geteuid().as_raw());
    for kind in ["x509-minted", "jwt-minted"] {
        let line = log.lines().find(|line| line.contains(kind)).unwrap_or_else(|| panic!("no {kind} in {log}"));
        assert!(line.contains(&uid) && line.contains("spiffe://acme.test/probe"), "{line}");
    }
    assert!(!log.contains(&minted.token));
}

#[tokio::test]
async fn nobody_mints_the_control_plane_s_identities_nor_those_of_others() {
    let lab = Lab::start().await;
    let mut operator = lab.operator().await;
    for (id, code) in [
        ("spiffe://acme.test/portcullis/broker", Code::PermissionDenied),
        ("spiffe://acme.test/portcullis/node/n1", Code::PermissionDenied),
        ("spiffe://other.test/probe", Code::InvalidArgument),
        ("spiffe://acme.test", Code::InvalidArgument),
        ("spiffe://acme.test/%70robe", Code::InvalidArgument),
    ] {
        let key = PrivateKey::generate().unwrap();
        assert_eq!(operator.mint_x509(x509(id, &key)).await.unwrap_err().code(), code, "{id}");
        assert_eq!(operator.mint_jwt(jwt(id)).await.unwrap_err().code(), code, "{id}");
    }
    let key = PrivateKey::generate().unwrap();
    let id = "spiffe://acme.test/probe";
    let long = v1::MintX509Request { ttl_seconds: 86_401, ..x509(id, &key) };
    assert_eq!(operator.mint_x509(long).await.unwrap_err().code(), Code::InvalidArgument);
    let long = v1::MintJwtRequest { ttl_seconds: 3601, ..jwt(id) };
    assert_eq!(operator.mint_jwt(long).await.unwrap_err().code(), Code::InvalidArgument);
    let nobody = v1::MintJwtRequest { audience: Vec::new(), ..jwt(id) };
    operator.mint_jwt(nobody).await.unwrap_err();
    let no_request = v1::MintX509Request { csr: b"x".to_vec(), ..x509(id, &key) };
    assert_eq!(operator.mint_x509(no_request).await.unwrap_err().code(), Code::InvalidArgument);
}
