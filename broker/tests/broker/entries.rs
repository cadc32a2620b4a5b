//! Entries with terms, their X.509-SVIDs and JWT-SVIDs, over the stream and by single calls.

use std::time::{Duration, SystemTime};

use portcullis_api::v1::{self, jwt_result, watch_reply, watch_request};
use portcullis_identity::{JwtAuthority, JwtBundle, JwtBundles, PrivateKey, key_request, validate_jwt};
use tonic::Code;

use crate::lab::{Lab, Watch, entry, join_request, stranger, svid, trust_domain};

fn attested(node: &str) -> v1::CreateEntryRequest {
    v1::CreateEntryRequest {
        node: node.to_owned(),
        spiffe_id: "spiffe://acme.test/redis".to_owned(),
        selectors: vec!["unix:uid:999".to_owned(), "unix:gid:999".to_owned()],
        jwt_ttl_seconds: 60,
        hint: "primary".to_owned(),
        dns_names: vec!["redis.acme.test".to_owned(), "cache.acme.test".to_owned()],
        federates_with: vec!["other.test".to_owned()],
        admin: true,
        ..v1::CreateEntryRequest::default()
    }
}

fn wanted(entry: &str, audience: &[&str]) -> v1::WantedJwt {
    let audience = audience.iter().map(|text| (*text).to_owned()).collect();
    v1::WantedJwt { entry: entry.to_owned(), audience, ..Default::default() }
}

fn sign(entry: &str, key: &PrivateKey) -> v1::Sign {
    v1::Sign { request: 9, entry: entry.to_owned(), csr: key_request(key).unwrap(), component_digest: String::new() }
}

fn jwt_bundles(bundle: &v1::Bundle) -> JwtBundles {
    let keys = bundle.jwt_authorities.iter().map(|key| {
        JwtAuthority::from_spki(key.kid.parse().unwrap(), &key.public_key, Some(key.algorithm.parse().unwrap()), None)
            .unwrap()
    });
    JwtBundles::new([JwtBundle::new(trust_domain(), keys).unwrap()])
}

fn token(result: &v1::JwtResult) -> &str {
    match &result.result {
        Some(jwt_result::Result::Token(token)) => token,
        other => panic!("not a token: {other:?}"),
    }
}

fn refusal(result: &v1::JwtResult) -> &str {
    match &result.result {
        Some(jwt_result::Result::Refused(reason)) => reason,
        other => panic!("not a refusal: {other:?}"),
    }
}

/// The DNS names of a certificate, as another parser reads them.
fn dns_names(der: &[u8]) -> Vec<String> {
    let der = rustls::pki_types::CertificateDer::from(der.to_vec());
    let certificate = webpki_names(&der);
    certificate.into_iter().map(str::to_owned).collect::<Vec<_>>()
}

fn webpki_names<'a>(der: &'a rustls::pki_types::CertificateDer<'a>) -> Vec<&'a str> {
    // SubjectAltName's dNSName is context tag 2, an IA5String; the profile has no other such tag.
    let mut names = Vec::new();
    for (at, window) in der.windows(2).enumerate() {
        let end = at + 2 + usize::from(window[1]);
        if window[0] == 0x82
            && let Some(Ok(text)) = der.get(at + 2..end).map(std::str::from_utf8)
            && text.ends_with(".acme.test")
        {
            names.push(text);
        }
    }
    names
}

#[tokio::test]
async fn an_entry_is_pushed_with_its_terms_and_altered_for_its_node_alone() {
    let lab = Lab::start().await;
    let mut operator = lab.operator().await;
    let made = operator.create_entry(attested("db")).await.unwrap().into_inner().entry.unwrap();
    assert_eq!(made.selectors, ["unix:gid:999", "unix:uid:999"]);
    assert!(made.created_at > 1_700_000_000);
    let (mut watch, state) = lab.watching("db").await;
    let (mut other, _) = lab.watching("other").await;
    assert_eq!(state.entries, std::slice::from_ref(&made));

    let began = std::time::Instant::now();
    let update = v1::UpdateEntryRequest {
        id: made.id.clone(),
        hint: Some("replica".to_owned()),
        dns_names: Some(v1::Texts::default()),
        ..v1::UpdateEntryRequest::default()
    };
    let altered = operator.update_entry(update.clone()).await.unwrap().into_inner();
    let expected = v1::Entry { hint: "replica".to_owned(), dns_names: Vec::new(), ..made.clone() };
    assert_eq!(altered.entry, Some(expected.clone()));
    let change = watch.change().await;
    assert!(began.elapsed() < Duration::from_millis(500));
    assert_eq!((change.entries, change.version), (vec![expected.clone()], altered.version));
    assert_eq!(operator.update_entry(update).await.unwrap().into_inner().version, altered.version, "nothing changed");

    let listed = operator.list_entries(v1::ListEntriesRequest { id: made.id.clone(), node: String::new() }).await;
    assert_eq!(listed.unwrap().into_inner().entries, [expected]);
    let of_node = v1::ListEntriesRequest { id: String::new(), node: "other".to_owned() };
    assert!(operator.list_entries(of_node).await.unwrap().into_inner().entries.is_empty());
    let missing = v1::ListEntriesRequest { id: "e1-999".to_owned(), node: String::new() };
    assert_eq!(operator.list_entries(missing).await.unwrap_err().code(), Code::NotFound);

    // The first thing the other node hears is about itself.
    operator.create_entry(entry("other", "prod/x")).await.unwrap();
    assert_eq!(other.change().await.entries[0].node, "other");
}

#[tokio::test]
async fn what_an_entry_cannot_say_is_refused_with_its_reason() {
    let lab = Lab::start().await;
    let mut operator = lab.operator().await;
    let texts = |text: &str, count: usize| vec![text.to_owned(); count];
    for (request, reason) in [
        (v1::CreateEntryRequest { selectors: texts("unix", 1), ..attested("n") }, "not a selector"),
        (v1::CreateEntryRequest { selectors: texts("unix:uid:1", 33), ..attested("n") }, "more than 32"),
        (v1::CreateEntryRequest { dns_names: texts("*.acme.test", 1), ..attested("n") }, "not a DNS name"),
        (v1::CreateEntryRequest { hint: "x".repeat(1025), ..attested("n") }, "longer than 1024"),
        (v1::CreateEntryRequest { jwt_ttl_seconds: 3601, ..attested("n") }, "1 hour"),
        (v1::CreateEntryRequest { federates_with: texts("acme.test", 1), ..attested("n") }, "own trust domain"),
        (v1::CreateEntryRequest { federates_with: texts("Other", 1), ..attested("n") }, "not a trust domain"),
        (v1::CreateEntryRequest { spiffe_id: "spiffe://acme.test".to_owned(), ..attested("n") }, "no path"),
        (v1::CreateEntryRequest { spiffe_id: "spiffe://b.test/x".to_owned(), ..attested("n") }, "trust domain"),
    ] {
        let refused = operator.create_entry(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains(reason), "{refused}");
    }
    let reserved =
        v1::CreateEntryRequest { spiffe_id: "spiffe://acme.test/portcullis/broker".to_owned(), ..attested("n") };
    assert_eq!(operator.create_entry(reserved).await.unwrap_err().code(), Code::PermissionDenied);
    let unknown = v1::UpdateEntryRequest { id: "e9-9".to_owned(), ..v1::UpdateEntryRequest::default() };
    assert_eq!(operator.update_entry(unknown).await.unwrap_err().code(), Code::NotFound);
    assert!(operator.list_entries(v1::ListEntriesRequest::default()).await.unwrap().into_inner().entries.is_empty());
}

#[tokio::test]
async fn certificates_carry_the_names_of_the_entry_by_stream_and_by_call() {
    let lab = Lab::start().await;
    let made = lab.operator().await.create_entry(attested("db")).await.unwrap().into_inner().entry.unwrap();
    let mut client = lab.joined("db").await;
    let mut watch = Watch::open(&mut client).await.unwrap();
    watch.state().await;
    let key = PrivateKey::generate().unwrap();
    let by_stream = watch.sign_request(sign(&made.id, &key)).await.unwrap();
    let by_call = client.sign_x509(sign(&made.id, &key)).await.unwrap().into_inner();
    assert_eq!(by_call.request, 9);
    for chain in [by_stream, by_call.chain] {
        assert_eq!(dns_names(&chain[0]), ["cache.acme.test", "redis.acme.test"]);
        let svid = svid(chain, PrivateKey::from_pkcs8(key.pkcs8()).unwrap());
        assert_eq!(svid.id().to_string(), "spiffe://acme.test/redis");
    }
    let other = lab.operator().await.create_entry(entry("db", "prod/x")).await.unwrap().into_inner().entry.unwrap();
    let refused = client.sign_x509(sign(&other.id, &key)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "a key that serves another identity: {refused}");
    assert_eq!(
        client.sign_x509(sign("e1-999", &PrivateKey::generate().unwrap())).await.unwrap_err().code(),
        Code::NotFound
    );
    let malformed = v1::Sign { csr: vec![1, 2, 3], ..sign(&made.id, &key) };
    assert_eq!(client.sign_x509(malformed).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn tokens_are_signed_for_the_entries_of_the_node_and_their_audience() {
    let lab = Lab::start().await;
    let mut operator = lab.operator().await;
    let made = operator.create_entry(attested("db")).await.unwrap().into_inner().entry.unwrap();
    let others = operator.create_entry(entry("other", "prod/x")).await.unwrap().into_inner().entry.unwrap();
    let mut client = lab.joined("db").await;
    let mut watch = Watch::open(&mut client).await.unwrap();
    let bundles = jwt_bundles(&watch.state().await.bundles[0]);

    let long = "x".repeat(1025);
    let many = ["a"; 17];
    let request = v1::SignJwts {
        request: 5,
        wanted: vec![
            wanted(&made.id, &["billing"]),
            wanted(&others.id, &["billing"]),
            wanted("e1-999", &["billing"]),
            wanted(&made.id, &[]),
            wanted(&made.id, &[""]),
            wanted(&made.id, &[&long]),
            wanted(&made.id, &many),
            wanted(&made.id, &["a", "b"]),
        ],
    };
    watch.say(watch_request::Message::SignJwts(request.clone())).await;
    let by_stream = match watch.hear().await.unwrap() {
        watch_reply::Message::SignedJwts(signed) => signed,
        other => panic!("not tokens: {other:?}"),
    };
    let by_call = client.sign_jwts(request).await.unwrap().into_inner();
    for signed in [by_stream, by_call] {
        assert_eq!((signed.request, signed.results.len()), (5, 8));
        let now = SystemTime::now();
        let claims =
            validate_jwt(token(&signed.results[0]), &"billing".parse().unwrap(), &bundles, now, Duration::ZERO)
                .unwrap();
        assert_eq!(claims.id().to_string(), "spiffe://acme.test/redis");
        let left = claims.expires_at().duration_since(now).unwrap();
        assert!(left <= Duration::from_secs(60) && left > Duration::from_secs(50), "{left:?}");
        let seconds = claims.expires_at().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(signed.results[0].expires_at, seconds);
        let other = "other".parse().unwrap();
        validate_jwt(token(&signed.results[0]), &other, &bundles, now, Duration::ZERO).unwrap_err();
        // Another node's entry is as unknown as none.
        assert_eq!(refusal(&signed.results[1]).replace(&others.id, "e1-999"), refusal(&signed.results[2]));
        for refused in &signed.results[3..7] {
            assert!(refusal(refused).contains("audience"), "{refused:?}");
        }
        validate_jwt(token(&signed.results[7]), &"b".parse().unwrap(), &bundles, now, Duration::ZERO).unwrap();
    }
}

#[tokio::test]
async fn a_batch_of_tokens_has_a_limit_and_a_node_has_a_rate() {
    let lab = Lab::start().await;
    let made = lab.operator().await.create_entry(attested("db")).await.unwrap().into_inner().entry.unwrap();
    let mut client = lab.joined("db").await;
    let batch = |count: usize| v1::SignJwts { request: 1, wanted: vec![wanted(&made.id, &["a"]); count] };
    for count in [0, 65] {
        assert_eq!(client.sign_jwts(batch(count)).await.unwrap_err().code(), Code::InvalidArgument);
    }
    let mut watch = Watch::open(&mut client).await.unwrap();
    watch.state().await;
    watch.say(watch_request::Message::SignJwts(batch(65))).await;
    assert!(matches!(watch.hear().await.unwrap(), watch_reply::Message::SignRefused(_)));
    let mut refused = 0;
    for _ in 0..200 {
        let results = client.sign_jwts(batch(64)).await.unwrap().into_inner().results;
        let throttled = |result: &&v1::JwtResult| matches!(&result.result, Some(jwt_result::Result::Refused(reason)) if reason.contains("too many"));
        refused = results.iter().filter(throttled).count();
        if refused > 0 {
            break;
        }
    }
    assert!(refused > 0, "a node got all it asked for");
    // Another one is not slowed down by it.
    let made = lab.operator().await.create_entry(entry("host", "prod/x")).await.unwrap().into_inner().entry.unwrap();
    let request = v1::SignJwts { request: 1, wanted: vec![wanted(&made.id, &["a"])] };
    token(&lab.joined("host").await.sign_jwts(request).await.unwrap().into_inner().results[0]);
}

#[tokio::test]
async fn only_nodes_have_anything_signed() {
    let lab = Lab::start().await;
    let token = lab.token("n1").await;
    let mut anonymous = stranger(&token).await;
    let key = PrivateKey::generate().unwrap();
    assert_eq!(anonymous.sign_x509(sign("", &key)).await.unwrap_err().code(), Code::Unauthenticated);
    let request = v1::SignJwts { request: 1, wanted: vec![wanted("e1-1", &["a"])] };
    assert_eq!(anonymous.sign_jwts(request.clone()).await.unwrap_err().code(), Code::Unauthenticated);
    let mut client = lab.joined("n2").await;
    lab.operator().await.remove_node(v1::RemoveNodeRequest { name: "n2".to_owned() }).await.unwrap();
    assert_eq!(client.sign_jwts(request).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(client.sign_x509(sign("", &key)).await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn the_token_key_outlives_the_broker_and_nobody_else_can_read_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let lab = Lab::start().await;
    let keys = async |lab: &Lab| {
        let token = lab.token("n1").await;
        let request = join_request(&token, &PrivateKey::generate().unwrap());
        stranger(&token).await.join(request).await.unwrap().into_inner().bundles[0].jwt_authorities.clone()
    };
    let before = keys(&lab).await;
    let mut files = std::fs::read_dir(lab.data().join("ca")).unwrap().map(|entry| entry.unwrap().path());
    let path = files.find(|path| path.to_string_lossy().ends_with(".key")).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let folder = lab.stop().await;
    let data = folder.path().join("data");
    let again =
        Lab::start_with(|config| *config = portcullis_broker::config::Config::new("acme.test", &data).unwrap()).await;
    assert_eq!(before.len(), 1);
    assert_eq!(keys(&again).await, before);
    again.stop().await;
}
