//! What takes an operator to show: entries that change, roots that follow one another, and tokens that only a thief could sign.

use std::collections::BTreeSet;

use e2e::{Agent, Lab, eventually};
use portcullis_api::v1;
use portcullis_api::workload::X509svidResponse;
use portcullis_identity::{
    Bundle, BundleDocument, JwtBundle, JwtKey, PeerRule, PeerVerifier, PrivateKey, Svid, SvidSlot, TrustDomain,
    parse_spiffe_id, server_config,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SanType};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::chain::{openssl_agrees, split};
use crate::handshake::handshake;
use crate::socket::Socket;
use crate::token::{TokenForge, part, unix_now};

const PARTNER: &str = "partner.test";

/// A broker and an agent with one entry, `/web`, that this process meets.
pub(crate) fn scene() -> (Lab, Agent, Socket) {
    let lab = Lab::start();
    let agent = Agent::start(&lab, "agent");
    lab.create(agent.entry("web"));
    let socket = Socket::at(&agent.socket);
    eventually("the first identity", || socket.x509().ok());
    (lab, agent, socket)
}

/// The broker and agent against which every check runs: two identities with hints and names, and a federated trust domain.
pub(crate) fn known_entries() -> (Lab, Agent) {
    let lab = Lab::start();
    let agent = Agent::start(&lab, "agent");
    let partner = Partner::new();
    lab.operator(async |mut operator| operator.add_trust_domain(partner.registration()).await).unwrap();
    for path in ["web", "db"] {
        lab.create(v1::CreateEntryRequest {
            hint: path.to_owned(),
            dns_names: vec![format!("{path}.test.example")],
            federates_with: vec![PARTNER.to_owned()],
            ..agent.entry(path)
        });
    }
    let socket = Socket::at(&agent.socket);
    eventually("both identities", || socket.x509().ok().filter(|message| message.svids.len() == 2));
    (lab, agent)
}

/// Somebody else's trust domain: its authorities and the key of its tokens.
struct Partner {
    root: CertificateDer<'static>,
    key: JwtKey,
}

impl Partner {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://{PARTNER}").try_into().unwrap())];
        let root = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone();
        Self { root, key: JwtKey::generate().unwrap() }
    }

    fn registration(&self) -> v1::AddTrustDomainRequest {
        let name = TrustDomain::new(PARTNER).unwrap();
        let x509 = Bundle::new(name.clone(), [self.root.clone()]).unwrap();
        let jwt = JwtBundle::new(name, [self.key.authority(None)]).unwrap();
        let document = BundleDocument::new(x509, jwt, Some(1), Some(300)).unwrap().to_json().unwrap();
        v1::AddTrustDomainRequest { name: PARTNER.to_owned(), bundle: document.into_bytes(), ..Default::default() }
    }

    fn forge(&self) -> TokenForge {
        TokenForge::with(self.key.pkcs8(), self.key.kid().as_str())
    }
}

fn ids(message: &X509svidResponse) -> Vec<&str> {
    message.svids.iter().map(|svid| svid.spiffe_id.strip_prefix("spiffe://test.example/").unwrap()).collect()
}

fn code<T>(answer: Result<T, Status>) -> Code {
    answer.map_or_else(|status| status.code(), |_| Code::Ok)
}

#[test]
fn every_message_is_the_whole_set_and_the_last_loss_ends_the_stream() {
    let lab = Lab::start();
    let agent = Agent::start(&lab, "agent");
    let hinted = |path: &str, hint: &str| v1::CreateEntryRequest { hint: hint.to_owned(), ..agent.entry(path) };
    let first = lab.create(hinted("first", "main"));
    let socket = Socket::at(&agent.socket);
    let mut stream = eventually("the first identity", || socket.x509_stream().ok());
    assert_eq!(ids(&socket.next(&mut stream).unwrap()), ["first"]);
    let second = lab.create(hinted("second", ""));
    let whole = socket.until(&mut stream, "two identities", |message| message.svids.len() == 2);
    assert_eq!(ids(&whole), ["first", "second"]);
    // A hint names one identity, and the older entry keeps it.
    let third = lab.create(hinted("third", "main"));
    let fourth = lab.create(hinted("fourth", "other"));
    let whole = socket.until(&mut stream, "the fourth", |message| ids(message).contains(&"fourth"));
    assert_eq!(ids(&whole), ["first", "second", "fourth"]);
    assert_eq!(code(socket.jwt(&["a"], "spiffe://test.example/third")), Code::PermissionDenied);
    lab.remove_entry(&first);
    let whole = socket.until(&mut stream, "the third", |message| ids(message).contains(&"third"));
    assert_eq!(ids(&whole), ["second", "third", "fourth"]);
    assert_eq!(whole.svids[1].hint, "main");
    // Every removal is a redaction; the last one leaves nothing to stream.
    for (id, rest) in [(second, vec!["third", "fourth"]), (third, vec!["fourth"])] {
        lab.remove_entry(&id);
        socket.until(&mut stream, "a redaction", |message| ids(message) == rest);
    }
    lab.remove_entry(&fourth);
    let ended = loop {
        if let Err(status) = socket.next(&mut stream) {
            break status;
        }
    };
    assert_eq!(ended.code(), Code::PermissionDenied, "{ended}");
    assert_eq!(code(socket.x509()), Code::PermissionDenied);
}

#[test]
fn the_order_of_identities_outlives_restarts() {
    let (mut lab, mut agent, socket) = scene();
    for path in ["zebra", "ant", "mole"] {
        lab.create(agent.entry(path));
    }
    let all = || socket.x509().ok().filter(|message| message.svids.len() == 4);
    let order = |message: &X509svidResponse| ids(message).join(" ");
    let before = order(&eventually("four identities", all));
    assert_eq!(before, "web zebra ant mole");
    agent.restart(&lab);
    assert_eq!(order(&eventually("four identities", all)), before);
    lab.broker().kill();
    agent.restart(&lab);
    assert_eq!(order(&eventually("four identities out of the cache", all)), before);
    lab.start_broker();
    agent.restart(&lab);
    assert_eq!(order(&eventually("four identities", all)), before);
}

#[test]
fn an_id_of_2048_bytes_is_registered_issued_and_believed() {
    let (lab, agent, socket) = scene();
    let longest = agent.entry(&"x".repeat(2048 - "spiffe://test.example/".len()));
    assert_eq!(longest.spiffe_id.len(), 2048);
    let longer = v1::CreateEntryRequest { spiffe_id: format!("{}x", longest.spiffe_id), ..longest.clone() };
    let refused = lab.operator(async |mut operator| operator.create_entry(longer).await).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let id = longest.spiffe_id.clone();
    lab.create(longest);
    let message = eventually("the identity", || socket.x509().ok().filter(|message| message.svids.len() == 2));
    let svid = message.svids.iter().find(|svid| svid.spiffe_id == id).unwrap();
    openssl_agrees(svid);
    let token = socket.jwt(&["a"], &id).unwrap().svids.remove(0).svid;
    assert_eq!(socket.validate(&token, "a").unwrap().spiffe_id, id);
    // Both ends of a connection.
    let own = || SvidSlot::new(parsed(svid));
    let verifier = || PeerVerifier::new(lab.trust(), PeerRule::Exactly(parse_spiffe_id(&id).unwrap()));
    let client = portcullis_identity::client_config(verifier(), own()).unwrap();
    let server = server_config(verifier(), own(), portcullis_identity::ClientAuth::Required).unwrap();
    handshake(client, server).unwrap();
}

/// An identity of the Workload API as our own TLS takes it.
pub(crate) fn parsed(svid: &portcullis_api::workload::X509svid) -> Svid {
    let chain = split(&svid.x509_svid).into_iter().map(|der| CertificateDer::from(der.to_vec())).collect();
    Svid::new(chain, PrivateKey::from_pkcs8(&svid.x509_svid_key).unwrap()).unwrap()
}

/// Every message on the way is verified by OpenSSL with the bundle in it.
#[test]
fn openssl_accepts_what_is_handed_out_through_renewals_and_roots_that_follow_one_another() {
    let lab = Lab::start();
    let agent = Agent::start(&lab, "agent");
    lab.create(v1::CreateEntryRequest { x509_ttl_seconds: 10, ..agent.entry("web") });
    let socket = Socket::at(&agent.socket);
    let mut stream = eventually("the first identity", || socket.x509_stream().ok());
    let mut seen = 0;
    let mut read_until = |what: &str, wanted: &dyn Fn(&X509svidResponse) -> bool| {
        socket.until(&mut stream, what, |message| {
            message.svids.iter().for_each(openssl_agrees);
            seen += 1;
            wanted(message)
        })
    };
    let leaf = |message: &X509svidResponse| split(&message.svids[0].x509_svid)[0].to_vec();
    let roots = |message: &X509svidResponse| split(&message.svids[0].bundle).len();
    let first = read_until("the first message", &|_| true);
    let renewed = read_until("a renewal", &|message| leaf(message) != leaf(&first));
    let active = |stage: &str| {
        let shown = lab.broker_command(&["ca", "show", "--json"]).ok().json();
        let row = shown["authorities"].as_array().unwrap().iter();
        let row = row.filter(|row| row["kind"] == "x509" && row["stage"] == stage).map(|row| row["id"].clone());
        row.map(|id| id.as_str().unwrap().to_owned()).next().unwrap()
    };
    let old = active("active");
    let new = lab.broker_command(&["ca", "prepare", "--json"]).ok().json()["id"].as_str().unwrap().to_owned();
    // Published, and nothing is signed by it yet.
    let both = read_until("two roots", &|message| roots(message) == 2);
    let signer = |message: &X509svidResponse| split(&message.svids[0].x509_svid)[1].to_vec();
    assert_eq!(signer(&both), signer(&renewed));
    eventually("the activation", || {
        let ran = lab.broker_command(&["ca", "activate", &new]);
        (ran.code == 0).then_some(())
    });
    lab.broker_command(&["ca", "taint", &old]).ok();
    read_until("the new signer", &|message| signer(message) != signer(&first));
    eventually("nobody to need the old root", || (lab.broker_command(&["ca", "revoke", &old]).code == 0).then_some(()));
    let last = read_until("one root", &|message| roots(message) == 1);
    assert_ne!(split(&last.svids[0].bundle), split(&first.svids[0].bundle));
    assert!(seen >= 5, "{seen}");
}

fn lie(forge: &TokenForge, header: &[(&str, Value)], claims: &[(&str, Value)]) -> String {
    let change = |mut object: Value, changes: &[(&str, Value)]| {
        for (name, value) in changes {
            // `"-"` takes the member away.
            match value {
                Value::String(text) if text == "-" => drop(object.as_object_mut().unwrap().remove(*name)),
                value => object[*name] = value.clone(),
            }
        }
        object
    };
    let good = json!({ "sub": "spiffe://test.example/web", "aud": ["a"], "exp": unix_now() + 300, "iat": unix_now() });
    forge.sign(&change(forge.header(), header), &change(good, claims).to_string())
}

/// ValidateJWTSVID, by somebody who has the key: nothing but the rules stands between such a token and who believes it.
#[test]
fn a_token_that_breaks_a_rule_is_refused_although_it_is_signed() {
    let (lab, _agent, socket) = scene();
    let forge = TokenForge::stolen_from(&lab.broker_data(), &socket.token("a"));
    let said = |token: &str| code(socket.validate(token, "a"));
    assert_eq!(said(&lie(&forge, &[], &[])), Code::Ok, "the forge itself works");
    let now = unix_now();
    let claims = [
        ("exp", json!("-")),
        ("exp", json!(null)),
        ("exp", json!((now + 300).to_string())),
        ("exp", json!(-1)),
        ("exp", json!(1e300)),
        ("exp", json!(u64::MAX)),
        ("exp", json!(now - 60)),
        ("aud", json!("-")),
        ("aud", json!([])),
        ("aud", json!("")),
        ("aud", json!(["b"])),
        ("aud", json!(["A"])),
        ("aud", json!({ "a": 1 })),
        ("aud", json!(["a", 1])),
        ("sub", json!("-")),
        ("sub", json!("")),
        ("sub", json!("web")),
        ("sub", json!("spiffe://test.example")),
        ("sub", json!("spiffe://test.example/web/")),
        ("sub", json!("spiffe://TEST.example/web")),
        ("sub", json!("spiffe://other.example/web")),
        ("sub", json!(["spiffe://test.example/web"])),
        ("nbf", json!(now + 600)),
        ("iat", json!(now + 600)),
    ];
    for claim in claims {
        let token = lie(&forge, &[], std::slice::from_ref(&claim));
        assert_eq!(said(&token), Code::InvalidArgument, "{claim:?}");
    }
    let headers = [
        ("alg", json!("none")),
        ("alg", json!("HS256")),
        ("alg", json!("ES384")),
        ("alg", json!("RS256")),
        ("alg", json!("es256")),
        ("alg", json!(["ES256"])),
        ("alg", json!("-")),
        ("kid", json!("-")),
        ("kid", json!("")),
        ("kid", json!("another")),
        ("typ", json!("wit+jwt")),
        ("typ", json!("at+jwt")),
        ("typ", json!("")),
        ("crit", json!(["exp"])),
        ("jwk", json!({ "kty": "EC" })),
        ("x5c", json!([])),
    ];
    for header in headers {
        let token = lie(&forge, std::slice::from_ref(&header), &[]);
        assert_eq!(said(&token), Code::InvalidArgument, "{header:?}");
    }
    let twice = json!({ "sub": "spiffe://test.example/web", "aud": "a", "exp": now + 300 }).to_string();
    let twice = twice.replacen('{', "{\"sub\":\"spiffe://test.example/admin\",", 1);
    assert_eq!(said(&forge.sign(&forge.header(), &twice)), Code::InvalidArgument, "a claim twice");
}

#[test]
fn a_foreign_domain_vouches_for_its_own_names_alone_and_leaves_with_its_bundle() {
    let (lab, agent, socket) = scene();
    let partner = Partner::new();
    let ours = TokenForge::stolen_from(&lab.broker_data(), &socket.token("a"));
    let theirs = partner.forge();
    let sub = |name: &str| [("sub", json!(name))];
    let said = |forge: &TokenForge, name: &str| code(socket.validate(&lie(forge, &[], &sub(name)), "a"));
    let domain = format!("spiffe://{PARTNER}");
    let name = format!("{domain}/x");
    // Known to the broker, and not to who has no entry that federates with it.
    lab.operator(async |mut operator| operator.add_trust_domain(partner.registration()).await).unwrap();
    assert_eq!(said(&theirs, &name), Code::InvalidArgument);
    let federating = v1::CreateEntryRequest { federates_with: vec![PARTNER.to_owned()], ..agent.entry("shop") };
    lab.create(federating);
    let mut stream = socket.bundle_stream();
    let with = socket.until(&mut stream, "the foreign bundle", |message| message.bundles.contains_key(&domain));
    assert_eq!(with.bundles.keys().collect::<Vec<_>>(), [&domain, "spiffe://test.example"]);
    assert_eq!(split(&with.bundles[&domain]), [&partner.root[..]]);
    eventually("the federated bundle beside the identities", || {
        socket.x509().ok().filter(|message| message.federated_bundles.contains_key(&domain))
    });
    eventually("their tokens to be believed", || (said(&theirs, &name) == Code::Ok).then_some(()));
    assert_eq!(socket.jwt_bundles().unwrap().bundles.len(), 2);
    for (forge, name) in [(&theirs, "spiffe://test.example/web"), (&ours, name.as_str())] {
        assert_eq!(said(forge, name), Code::InvalidArgument, "{name}");
    }
    let remove = v1::RemoveTrustDomainRequest { name: PARTNER.to_owned() };
    lab.operator(async |mut operator| operator.remove_trust_domain(remove).await).unwrap();
    socket.until(&mut stream, "the bundle to leave", |message| !message.bundles.contains_key(&domain));
    assert_eq!(said(&theirs, &name), Code::InvalidArgument);
}

#[test]
fn an_agent_listens_to_no_network() {
    let (_lab, agent, _socket) = scene();
    let fds = std::fs::read_dir(format!("/proc/{}/fd", agent.daemon.pid())).unwrap();
    let targets = fds.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
    let inode =
        |target: std::path::PathBuf| Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned());
    let own: BTreeSet<String> = targets.filter_map(inode).collect();
    assert!(!own.is_empty());
    for table in ["tcp", "tcp6"] {
        let table = std::fs::read_to_string(format!("/proc/{}/net/{table}", agent.daemon.pid())).unwrap_or_default();
        for line in table.lines().skip(1) {
            let fields: Vec<_> = line.split_whitespace().collect();
            // 0A: it listens.
            assert!(fields[3] != "0A" || !own.contains(fields[9]), "{line}");
        }
    }
}

/// Federation §4.1: whoever read the published document just before believes what is signed now.
#[test]
fn nothing_is_signed_by_an_authority_that_is_not_published() {
    let (lab, _agent, socket) = scene();
    let own = v1::ListTrustDomainsRequest { name: "test.example".to_owned() };
    let published = || {
        let listed = lab.operator(async |mut operator| operator.list_trust_domains(own.clone()).await).unwrap();
        let document: Value = serde_json::from_slice(&listed.domains[0].document).unwrap();
        let kids = document["keys"].as_array().unwrap().iter().filter_map(|key| key["kid"].as_str());
        kids.map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let kid = |token: &str| part(token, 0)["kid"].as_str().unwrap().to_owned();
    let first = kid(&socket.token("first"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let new = lab.broker_command(&["ca", "prepare", "--kind", "jwt", "--json"]).ok().json();
            lab.broker_command(&["ca", "activate", new["id"].as_str().unwrap()]).ok();
        });
        let mut round = 0;
        eventually("the next key to sign", || {
            round += 1;
            let before = published();
            // Another audience each time, so that each token is a new one.
            let now = kid(&socket.token(&format!("audience-{round}")));
            assert!(before.contains(&now), "`{now}` signs and is not published");
            (now != first).then_some(())
        });
        assert!(round > 2, "nothing was seen of the time before");
    });
}
