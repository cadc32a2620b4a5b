use portcullis_identity::JwtKey;

use super::*;

fn jwt_authority() -> v1::JwtAuthority {
    let authority = JwtKey::generate().unwrap().authority(None);
    v1::JwtAuthority {
        kid: authority.kid().as_str().to_owned(),
        public_key: authority.spki_der(),
        not_after: 1_900_000_000,
        algorithm: authority.algorithm().to_string(),
    }
}

fn bundle(trust_domain: &str, jwt_authorities: Vec<v1::JwtAuthority>) -> v1::Bundle {
    v1::Bundle { trust_domain: trust_domain.to_owned(), jwt_authorities, ..v1::Bundle::default() }
}

fn version(epoch: u64) -> Option<v1::Version> {
    Some(v1::Version { incarnation: 1, epoch })
}

fn entry() -> v1::Entry {
    v1::Entry {
        id: "e1-1".to_owned(),
        spiffe_id: "spiffe://acme.test/redis".to_owned(),
        x509_ttl_seconds: 60,
        jwt_ttl_seconds: 30,
        lattice: "prod".to_owned(),
        selectors: vec!["unix:gid:1".to_owned(), "unix:uid:1".to_owned()],
        hint: "primary".to_owned(),
        dns_names: vec!["redis.acme.test".to_owned()],
        federates_with: vec!["other.test".to_owned()],
        admin: true,
        created_at: 7,
        ..v1::Entry::default()
    }
}

fn state(bundles: Vec<v1::Bundle>) -> NodeState {
    let message = v1::State { version: version(1), bundles, entries: vec![entry()], ..v1::State::default() };
    NodeState::from_message(message, Version::default()).unwrap()
}

#[test]
fn entries_and_jwt_bundles_survive_the_cache() {
    let message = v1::State {
        version: version(1),
        bundles: vec![bundle("acme.test", vec![jwt_authority(), jwt_authority()])],
        entries: vec![entry()],
        ..v1::State::default()
    };
    let state = NodeState::from_message(message.clone(), Version::default()).unwrap();
    assert_eq!(state.jwt_bundles.values().next().unwrap().authorities().len(), 2);
    assert_eq!(state.to_message(), message);
}

#[test]
fn a_key_that_cannot_be_used_leaves_the_others() {
    let odd = v1::JwtAuthority { public_key: vec![1, 2, 3], ..jwt_authority() };
    let other = v1::JwtAuthority { algorithm: "HS256".to_owned(), ..jwt_authority() };
    let state = state(vec![bundle("acme.test", vec![odd, jwt_authority(), other])]);
    assert_eq!(state.jwt_bundles.values().next().unwrap().authorities().len(), 1);
}

#[test]
fn a_trust_domain_that_is_not_trusted_any_more_loses_both_bundles() {
    let before = state(vec![bundle("acme.test", vec![jwt_authority()]), bundle("other.test", vec![jwt_authority()])]);
    let change =
        v1::Change { version: version(2), bundles_removed: vec!["other.test".to_owned()], ..v1::Change::default() };
    let after = before.changed(change).unwrap();
    let names = |names: Vec<&TrustDomain>| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(after.bundles.keys().collect()), ["acme.test"]);
    assert_eq!(names(after.jwt_bundles.keys().collect()), ["acme.test"]);
    assert!(!before.trusts_as(&after));
}

#[test]
fn a_new_token_key_alone_is_a_change_of_trust() {
    let (one, other) =
        (state(vec![bundle("a.test", vec![jwt_authority()])]), state(vec![bundle("a.test", Vec::new())]));
    assert!(one.trusts_as(&one.clone()) && !one.trusts_as(&other));
}

#[test]
fn only_what_stands_in_a_certificate_calls_for_a_new_one() {
    let parse = |message: v1::Entry| Entry::from_message(message).unwrap();
    let old = parse(entry());
    for other in [
        v1::Entry { hint: "replica".to_owned(), ..entry() },
        v1::Entry { jwt_ttl_seconds: 7, ..entry() },
        v1::Entry { selectors: vec!["unix:uid:2".to_owned()], ..entry() },
        v1::Entry { federates_with: Vec::new(), ..entry() },
        v1::Entry { admin: false, ..entry() },
    ] {
        assert!(old.certifies_as(&parse(other)));
    }
    for other in [v1::Entry { dns_names: Vec::new(), ..entry() }, v1::Entry { x509_ttl_seconds: 61, ..entry() }] {
        assert!(!old.certifies_as(&parse(other)));
    }
}
