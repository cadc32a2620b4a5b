//! Identities that no entry names: templates fill them in, operators mint them. What clients get is what entries would have given.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use e2e::{audit_events, eventually};
use portcullis_api::v1;
use portcullis_identity::{
    ClientAuth, PeerRule, PeerVerifier, PrivateKey, Svid, SvidSlot, client_config, parse_spiffe_id, server_config,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tonic::Code;

use crate::chain::openssl_agrees;
use crate::handshake::handshake;
use crate::ours::{parsed, scene};

const PROBE: &str = "spiffe://test.example/probe";

#[test]
fn a_template_gives_a_workload_the_id_that_is_attested_of_it() {
    let (lab, agent, socket) = scene();
    let uid = rustix::process::getuid().as_raw();
    let pattern = "spiffe://test.example/user/{unix:uid}/{unix:gid}";
    let made = ["entry", "create", "--node", "agent", "--spiffe-id", pattern, "--selector", &format!("unix:uid:{uid}")];
    let template = lab.broker_command(&[&made[..], &["--json"]].concat()).ok().json();
    let template = template["id"].as_str().unwrap();
    // One that another user would fill in earns this one nothing.
    let others =
        v1::CreateEntryRequest { selectors: vec!["unix:uid:4242".to_owned()], ..agent.entry("other/{unix:uid}") };
    lab.create(others);

    let id = format!("spiffe://test.example/user/{uid}/{}", rustix::process::getgid().as_raw());
    let message = eventually("the identity of the template", || {
        let message = socket.x509().unwrap();
        message.svids.iter().any(|svid| svid.spiffe_id == id).then_some(message)
    });
    assert_eq!(message.svids.len(), 2, "{:?}", message.svids.iter().map(|svid| &svid.spiffe_id).collect::<Vec<_>>());
    message.svids.iter().for_each(openssl_agrees);
    let token = socket.jwt(&["a"], &id).unwrap().svids.remove(0).svid;
    assert_eq!(socket.validate(&token, "a").unwrap().spiffe_id, id);
    let listed = lab.broker_command(&["entry", "list", "--json"]).ok().json();
    let of_template = |row: &&serde_json::Value| row["template"] == template;
    let entry = listed.as_array().unwrap().iter().find(of_template).unwrap_or_else(|| panic!("{listed}")).clone();
    assert_eq!(entry["spiffe_id"], id);

    // The template goes, and what it made with it.
    lab.broker_command(&["entry", "remove", template]).ok();
    eventually("the identity to be gone", || {
        let left = socket.x509().unwrap();
        (left.svids.len() == 1 && left.svids[0].spiffe_id != id).then_some(())
    });
    let gone = socket.jwt(&["a"], &id).unwrap_err();
    assert_eq!(gone.code(), Code::PermissionDenied, "{gone}");
}

fn private(path: &Path) -> String {
    assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
    std::fs::read_to_string(path).unwrap()
}

fn openssl(arguments: &[&str]) -> Output {
    Command::new("openssl").args(arguments).output().unwrap()
}

#[test]
fn what_an_operator_mints_is_believed_and_on_record() {
    let (lab, _agent, socket) = scene();
    let out = lab.path().join("minted");
    std::fs::create_dir(&out).unwrap();
    let folder = out.to_str().unwrap();
    let minted = ["x509", "mint", "--spiffe-id", PROBE, "--ttl", "10m", "--dns", "probe.test.example", "--out", folder];
    let shown = lab.broker_command(&minted).ok();
    assert!(shown.out.contains(PROBE) && !shown.out.contains("PRIVATE KEY"), "{shown:?}");
    let (chain, key) = (private(&out.join("svid.pem")), private(&out.join("svid_key.pem")));
    private(&out.join("bundle.pem"));
    // OpenSSL believes it, and names who it is.
    let path = |name: &str| out.join(name).to_str().unwrap().to_owned();
    let (svid, bundle) = (path("svid.pem"), path("bundle.pem"));
    let verified = openssl(&["verify", "-CAfile", &bundle, "-untrusted", &svid, &svid]);
    assert!(verified.status.success(), "{verified:?}");
    let named = openssl(&["x509", "-in", &svid, "-noout", "-ext", "subjectAltName"]);
    let names = String::from_utf8(named.stdout).unwrap();
    assert!(names.contains(&format!("URI:{PROBE}")) && names.contains("DNS:probe.test.example"), "{names}");
    let lives = |seconds| openssl(&["x509", "-in", &svid, "-noout", "-checkend", seconds]).status.success();
    assert!(lives("540") && !lives("620"));
    // And so do our own ends.
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let minted = Svid::new(chain, PrivateKey::from_pkcs8(key.secret_pkcs8_der()).unwrap()).unwrap();
    let theirs = parsed(&socket.x509().unwrap().svids[0]);
    let rule = |id: &str| PeerVerifier::new(lab.trust(), PeerRule::Exactly(parse_spiffe_id(id).unwrap()));
    let client = client_config(rule("spiffe://test.example/web"), SvidSlot::new(minted)).unwrap();
    let server = server_config(rule(PROBE), SvidSlot::new(theirs), ClientAuth::Required).unwrap();
    handshake(client, server).unwrap();

    let file = path("probe.jwt");
    let shown = lab.broker_command(&["jwt", "mint", "--spiffe-id", PROBE, "--audience", "a", "--out", &file]).ok();
    let token = private(Path::new(&file)).trim_end().to_owned();
    assert!(!shown.out.contains(&token), "{shown:?}");
    let believed = eventually("the key of the token to be known", || socket.validate(&token, "a").ok());
    assert_eq!(believed.spiffe_id, PROBE);
    assert_eq!(socket.validate(&token, "b").unwrap_err().code(), Code::InvalidArgument);

    // Names that nobody may have, and a life that nothing may have.
    for refused in ["spiffe://test.example/portcullis/broker", "spiffe://other.example/probe", "spiffe://test.example"]
    {
        let ran = lab.broker_command(&["x509", "mint", "--spiffe-id", refused, "--json"]);
        assert!(ran.code != 0 && ran.out.is_empty(), "{ran:?}");
        let ran = lab.broker_command(&["jwt", "mint", "--spiffe-id", refused, "--audience", "a"]);
        assert!(ran.code != 0 && ran.out.is_empty(), "{ran:?}");
    }
    assert_ne!(lab.broker_command(&["x509", "mint", "--spiffe-id", PROBE, "--ttl", "25h", "--json"]).code, 0);
    let uid = rustix::process::getuid().as_raw();
    for kind in ["x509-minted", "jwt-minted"] {
        let told: Vec<_> = audit_events(&lab.broker_data()).into_iter().filter(|event| event["what"] == kind).collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0]["spiffe_id"] == PROBE && told[0]["by"].to_string().contains(&uid.to_string()), "{told:?}");
    }
}
