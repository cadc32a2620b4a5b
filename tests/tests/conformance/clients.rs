//! Rust clients that are not ours: the sources of the `spiffe` crate, and the TLS of `spiffe-rustls` against our own.

use std::sync::Arc;

use e2e::{Agent, Forge, Lab, eventually};
use portcullis_api::v1;
use portcullis_identity::{
    ClientAuth, PeerRule, PeerVerifier, SvidSlot, client_config, parse_spiffe_id, server_config,
};
use spiffe::{JwtSource, TrustDomain, WorkloadApiClient, X509Source};
use spiffe_rustls::{exact, mtls_client, mtls_server};

use crate::handshake::{Refused, handshake};
use crate::ours::{parsed, scene};
use crate::socket::Socket;

const WEB: &str = "spiffe://test.example/web";
const DB: &str = "spiffe://test.example/db";

fn trust_domain() -> TrustDomain {
    TrustDomain::new("test.example").unwrap()
}

async fn x509_source(agent: &Agent) -> X509Source {
    X509Source::builder().endpoint(agent.endpoint()).build().await.unwrap()
}

#[test]
fn an_x509_source_follows_renewals_and_authorities() {
    let lab = Lab::start();
    let agent = Agent::start(&lab, "agent");
    let entry = v1::CreateEntryRequest { x509_ttl_seconds: 6, hint: "web".to_owned(), ..agent.entry("web") };
    lab.create(entry);
    let source = lab.block_on(x509_source(&agent));
    let mut updates = source.updated();
    let leaf = || source.svid().unwrap().cert_chain()[0].as_bytes().to_vec();
    let first = source.svid().unwrap();
    assert_eq!((first.spiffe_id().to_string().as_str(), first.hint()), (WEB, Some("web")));
    for _ in 0..2 {
        let before = leaf();
        while leaf() == before {
            lab.block_on(updates.changed()).unwrap();
        }
    }
    let authorities = || source.bundle_set().unwrap().get(&trust_domain()).unwrap().authorities().len();
    assert_eq!(authorities(), 1);
    lab.broker_command(&["ca", "prepare"]).ok();
    while authorities() == 1 {
        lab.block_on(updates.changed()).unwrap();
    }
    assert!(source.is_healthy());
    lab.block_on(source.shutdown());
}

#[test]
fn a_jwt_source_gets_tokens_and_follows_their_keys() {
    let (lab, agent, _socket) = scene();
    let source = lab.block_on(JwtSource::builder().endpoint(agent.endpoint()).build()).unwrap();
    let token = lab.block_on(source.fetch_jwt_svid(["db"])).unwrap();
    assert_eq!((token.spiffe_id().to_string().as_str(), token.audience()), (WEB, &["db".to_owned()][..]));
    let bundle = || source.bundle_set().unwrap().get(&trust_domain()).unwrap();
    assert!(bundle().find_jwt_authority(token.key_id()).is_some());
    let client = lab.block_on(WorkloadApiClient::connect_to(agent.endpoint())).unwrap();
    let valid = lab.block_on(client.validate_jwt_token("db", token.token())).unwrap();
    assert_eq!(valid.spiffe_id().to_string(), WEB);
    lab.block_on(client.validate_jwt_token("web", token.token())).unwrap_err();
    let mut updates = source.updated();
    lab.broker_command(&["ca", "prepare", "--kind", "jwt"]).ok();
    while bundle().jwt_authorities().count() == 1 {
        lab.block_on(updates.changed()).unwrap();
    }
    lab.block_on(source.shutdown());
}

/// Two identities of one agent: theirs is `/web`, the first; ours is `/db`.
fn two_identities() -> (Lab, Agent, Arc<SvidSlot>) {
    let (lab, agent, _) = scene();
    lab.create(agent.entry("db"));
    let socket = Socket::at(&agent.socket);
    let message = eventually("both identities", || socket.x509().ok().filter(|message| message.svids.len() == 2));
    let own = message.svids.iter().find(|svid| svid.spiffe_id == DB).unwrap();
    (lab, agent, SvidSlot::new(parsed(own)))
}

fn only(lab: &Lab, id: &str) -> Arc<PeerVerifier> {
    PeerVerifier::new(lab.trust(), PeerRule::Exactly(parse_spiffe_id(id).unwrap()))
}

#[test]
fn the_tls_of_spiffe_rustls_and_ours_believe_each_other_both_ways() {
    let (lab, agent, own) = two_identities();
    let theirs = |id: &'static str| {
        lab.block_on(async {
            let client = mtls_client(x509_source(&agent).await).authorize(exact([id]).unwrap());
            let server = mtls_server(x509_source(&agent).await).authorize(exact([id]).unwrap());
            (client.build().unwrap(), server.build().unwrap())
        })
    };
    let ours = |id: &str| {
        let server = server_config(only(&lab, id), Arc::clone(&own), ClientAuth::Required).unwrap();
        (client_config(only(&lab, id), Arc::clone(&own)).unwrap(), server)
    };
    handshake(theirs(DB).0, ours(WEB).1).unwrap();
    handshake(ours(WEB).0, theirs(DB).1).unwrap();
    // Each end demands whom it was told to.
    let refused = handshake(theirs("spiffe://test.example/other").0, ours(WEB).1);
    assert!(matches!(refused, Err(Refused::ByClient(_))), "{refused:?}");
    let refused = handshake(ours(WEB).0, theirs("spiffe://test.example/d").1);
    assert!(matches!(refused, Err(Refused::ByServer(_))), "{refused:?}");
    let refused = handshake(theirs(DB).0, ours("spiffe://test.example/we").1);
    assert!(matches!(refused, Err(Refused::ByServer(_))), "{refused:?}");
    // The right name below another root.
    let forged = SvidSlot::new(Forge::stranger("test.example").svid(DB));
    let stranger = server_config(only(&lab, WEB), Arc::clone(&forged), ClientAuth::Required).unwrap();
    let refused = handshake(theirs(DB).0, stranger);
    assert!(matches!(refused, Err(Refused::ByClient(_))), "{refused:?}");
    let refused = handshake(client_config(only(&lab, WEB), forged).unwrap(), theirs(DB).1);
    assert!(matches!(refused, Err(Refused::ByServer(_))), "{refused:?}");
}
