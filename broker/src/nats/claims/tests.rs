use serde_json::{Value, json};

use super::*;

struct Scene {
    server: SigningKey,
    server_seal: SealingKey,
    account: SigningKey,
    user: SigningKey,
}

impl Scene {
    fn new() -> Self {
        Self {
            server: SigningKey::generate(Owner::Server),
            server_seal: SealingKey::generate(),
            account: SigningKey::generate(Owner::Account),
            user: SigningKey::generate(Owner::User),
        }
    }

    /// What a server 2.15.1 sends for a client with a certificate: no `user`, no `name_tag`, no `nonce`, no `certs`.
    fn nats(&self) -> Value {
        json!({
            "server_id": {"name": "nodes", "host": "0.0.0.0", "id": self.server.public().as_str(), "version": "2.15.1",
                "xkey": self.server_seal.public()},
            "user_nkey": self.user.public().as_str(),
            "client_info": {"host": "127.0.0.1", "id": 6, "kind": "Client", "type": "nats"},
            "connect_opts": {"lang": "rust", "version": "0.49", "protocol": 1},
            "client_tls": {"version": "1.3", "cipher": "TLS_AES_128_GCM_SHA256", "verified_chains": [["leaf", "root"], ["x"]]},
            "type": "authorization_request", "version": 2,
        })
    }

    fn token(&self, nats: Value) -> String {
        let aud = "nats-authorization-request".to_owned();
        let claims = Claims { aud, exp: 102, ..Claims::about(self.account.public().as_str(), 100, nats) };
        token::encode(claims, &self.server).unwrap()
    }

    fn parse(&self, nats: Value) -> Result<LoginRequest, RequestRefused> {
        LoginRequest::parse(&self.token(nats), self.account.public(), &self.server_seal.public(), 101)
    }
}

#[test]
fn a_real_request_is_read() {
    let scene = Scene::new();
    let request = scene.parse(scene.nats()).unwrap();
    assert_eq!((request.client.number, request.client.address.as_str()), (6, "127.0.0.1"));
    assert_eq!(request.client.shown.chain, ["leaf", "root"]);
    assert_eq!(request.user, *scene.user.public());
    let mut without = scene.nats();
    for optional in ["client_tls", "client_info", "connect_opts"] {
        without.as_object_mut().unwrap().remove(optional);
    }
    assert!(scene.parse(without).unwrap().client.shown.chain.is_empty());
}

#[test]
fn what_is_not_a_servers_question_to_us_is_refused() {
    let scene = Scene::new();
    let with = |path: &str, value: Value| {
        let mut nats = scene.nats();
        *nats.pointer_mut(path).unwrap() = value;
        scene.parse(nats).unwrap_err()
    };
    assert_eq!(with("/type", json!("user")), RequestRefused::Kind);
    let other = SigningKey::generate(Owner::Server);
    assert_eq!(with("/server_id/id", json!(other.public().as_str())), RequestRefused::OtherServer);
    assert_eq!(with("/server_id/xkey", json!(SealingKey::generate().public())), RequestRefused::CurveKey);
    assert_eq!(with("/user_nkey", json!(scene.account.public().as_str())), RequestRefused::UserKey);
    assert_eq!(with("/client_tls/verified_chains", json!([vec!["x"; 9]])), RequestRefused::Chain);
    let text = scene.token(scene.nats());
    let seal = scene.server_seal.public();
    let account = scene.account.public();
    assert_eq!(LoginRequest::parse(&text, account, &seal, 103).unwrap_err(), RequestRefused::Expired);
    let stranger = SigningKey::generate(Owner::Account);
    assert_eq!(LoginRequest::parse(&text, stranger.public(), &seal, 101).unwrap_err(), RequestRefused::OtherAccount);
    // A user of the account may sign what it likes: it is no server.
    let forged = token::encode(Claims::about(account.as_str(), 100, scene.nats()), &scene.user).unwrap();
    assert_eq!(
        LoginRequest::parse(&forged, account, &seal, 101).unwrap_err(),
        RequestRefused::Token(TokenRefused::Issuer)
    );
}

#[test]
fn the_answer_is_for_the_server_that_asked() {
    let scene = Scene::new();
    let request = scene.parse(scene.nats()).unwrap();
    let seal = SealingKey::generate();
    let sealed =
        respond(&request, Answer::Refused("no"), (scene.account.public(), &scene.account, &seal), 100).unwrap();
    let text = scene.server_seal.open(&sealed, &seal.public().parse().unwrap()).unwrap();
    let (issuer, claims) = token::decode::<Value>(std::str::from_utf8(&text).unwrap(), Owner::Account).unwrap();
    assert_eq!(issuer, *scene.account.public());
    assert_eq!(
        (claims.aud.as_str(), claims.sub.as_str()),
        (scene.server.public().as_str(), scene.user.public().as_str())
    );
    assert_eq!(claims.nats["error"], "no");
    assert_eq!(claims.nats["type"], "authorization_response");
    assert!(claims.nats.get("jwt").is_none());
}

#[test]
fn a_user_is_written_as_servers_read_it() {
    let scene = Scene::new();
    let user = UserClaims::new(PermissionClaims::nothing(), scene.account.public(), Proof::Bearer);
    let json = serde_json::to_value(&user).unwrap();
    assert_eq!(json["bearer_token"], true);
    assert_eq!(json["sub"], json!({"deny": [">"]}));
    assert_eq!((&json["subs"], &json["type"], &json["version"]), (&json!(-1), &json!("user"), &json!(2)));
}
