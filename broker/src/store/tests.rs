use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, UNIX_EPOCH};

use portcullis_identity::SpiffeId;
use portcullis_value::WitSource;

use super::*;
use crate::registry::{
    Announcement, Command, Digest, GrantChange, GrantDirection, Holder, NewEntry, NewToken, Present, Redemption,
    Registration, Standing, Terms, Upstream,
};
use crate::ttl::{JwtTtl, Ttl};

const WIT: &str = "package a:b;\ninterface i { f: func(x: string); }";

fn trust_domain() -> TrustDomain {
    TrustDomain::new("acme.test").unwrap()
}

fn commands() -> Vec<Command> {
    let digest = format!("sha256:{}", "ab".repeat(32));
    let holder = |digest| Holder::Component { target: "prod/shop".parse().unwrap(), digest };
    let entry = |node: &str, holder| {
        let terms = Terms {
            selectors: vec!["unix:uid:7".to_owned(), "unix:gid:8".to_owned()].try_into().unwrap(),
            jwt_ttl: JwtTtl::try_from(60).unwrap(),
            hint: "which one".parse().unwrap(),
            dns_names: vec!["shop.acme.test".to_owned()].try_into().unwrap(),
            federates_with: vec!["other.test".to_owned()].try_into().unwrap(),
            admin: true,
            ..Terms::new(Ttl::try_from(90).unwrap())
        };
        Command::CreateEntry(Box::new(NewEntry { node: node.parse().unwrap(), holder, terms }))
    };
    let ada = SpiffeId::new("spiffe://acme.test/people/ada").unwrap();
    vec![
        Command::RegisterComponent(Box::new(Registration {
            target: "prod/billing".parse().unwrap(),
            wit: vec![WitSource { path: "a.wit".to_owned(), text: WIT.to_owned() }],
            interfaces: Vec::new(),
            spiffe_id: None,
            addresses: Vec::new(),
            upstream: Upstream::Splice,
            node: Some("sidecar".parse().unwrap()),
            ttl: Ttl::DEFAULT,
            present: Present::Refuse,
        })),
        Command::RegisterComponent(Box::new(Registration {
            target: "prod/abroad".parse().unwrap(),
            wit: vec![WitSource { path: "a.wit".to_owned(), text: WIT.to_owned() }],
            interfaces: Vec::new(),
            spiffe_id: Some(SpiffeId::new("spiffe://other.test/shop").unwrap()),
            addresses: vec!["shop.other.test:7443".parse().unwrap()],
            upstream: Upstream::Splice,
            node: None,
            ttl: Ttl::DEFAULT,
            present: Present::Refuse,
        })),
        entry("host", holder(Digest::Exactly(digest.parse().unwrap()))),
        entry("host", holder(Digest::DangerAny)),
        entry("laptop", Holder::Workload { spiffe_id: ada.clone(), lattice: None, digest: Digest::NotApplicable }),
        Command::CreateToken(NewToken {
            node: "sidecar".parse().unwrap(),
            lifetime: Duration::from_secs(60),
            secret_sha256: [3; 32],
        }),
        Command::Redeem(Redemption { node: "sidecar".parse().unwrap(), secret_sha256: [3; 32], key_sha256: [4; 32] }),
        Command::PutPolicies(vec![PolicyFile {
            name: "a.cedar".to_owned(),
            text: "permit (principal, action, resource);".to_owned(),
        }]),
        Command::PutAdmissions(vec![PolicyFile {
            name: "hosts.cedar".to_owned(),
            text: "@id(\"hosts\") permit (principal, action, resource);".to_owned(),
        }]),
        Command::ChangeGrant(GrantChange {
            target: "prod/billing".parse().unwrap(),
            spiffe_id: ada,
            direction: GrantDirection::Give,
        }),
        Command::Announce(Announcement {
            node: "sidecar".parse().unwrap(),
            target: "prod/billing".parse().unwrap(),
            addresses: vec!["10.0.0.1:7500".parse().unwrap()],
        }),
    ]
}

fn execute(store: &Store, registry: &mut Registry, command: Command) {
    let plan = registry.plan(command, UNIX_EPOCH + Duration::from_secs(1_800_000_000)).unwrap();
    let version = registry.version().next();
    store.commit(&plan.changes, version).unwrap();
    registry.apply(&plan.changes, version, plan.schema);
}

/// Everything a registry knows, in a comparable form; the marks of changes are not kept.
fn content(registry: &Registry) -> String {
    let served: Vec<_> = registry.all_served().collect();
    let policies: Vec<_> = registry.policies().map(|document| (&document.name, &document.text)).collect();
    let hosts: Vec<_> = registry.admission_files().map(|document| (&document.name, &document.text)).collect();
    let entries: Vec<_> = registry.entries().collect();
    let nodes: Vec<_> = registry.nodes().collect();
    format!("{} {served:?} {policies:?} {hosts:?} {entries:?} {nodes:?}", registry.version())
}

#[test]
fn what_was_committed_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let (store, mut registry) = Store::open(&path, &trust_domain()).unwrap();
    for command in commands() {
        execute(&store, &mut registry, command);
        // The database of a killed process is closed by nobody; dropping it here closes it, the process test does not.
    }
    drop(store);
    let (store, mut restored) = Store::open(&path, &trust_domain()).unwrap();
    assert_eq!(content(&restored), content(&registry));
    assert_eq!(restored.admissions().len(), 1);
    for command in [
        Command::RemovePolicies("a.cedar".to_owned()),
        Command::RemovePolicies("hosts.cedar".to_owned()),
        Command::RemoveComponent("prod/billing".parse().unwrap()),
        Command::RemoveComponent("prod/abroad".parse().unwrap()),
        Command::RemoveNode("sidecar".parse().unwrap()),
    ] {
        execute(&store, &mut restored, command);
    }
    drop(store);
    let (_, emptied) = Store::open(&path, &trust_domain()).unwrap();
    assert_eq!(content(&emptied), content(&restored));
    assert_eq!(emptied.component_count(), 0);
    assert_eq!(emptied.entries().len(), 3);
}

#[test]
fn a_redeemed_token_stays_redeemed_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let (store, mut registry) = Store::open(&path, &trust_domain()).unwrap();
    for command in commands() {
        execute(&store, &mut registry, command);
    }
    drop(store);
    let (_, restored) = Store::open(&path, &trust_domain()).unwrap();
    let redeem = |key| {
        let node = "sidecar".parse().unwrap();
        let redemption = Redemption { node, secret_sha256: [3; 32], key_sha256: key };
        restored.plan(Command::Redeem(redemption), UNIX_EPOCH + Duration::from_secs(1_800_000_001))
    };
    assert!(redeem([4; 32]).unwrap().changes.is_empty());
    assert!(redeem([5; 32]).unwrap_err().to_string().contains("spent"));
}

#[test]
fn the_store_is_for_its_owner_alone_and_holds_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let (store, mut registry) = Store::open(&path, &trust_domain()).unwrap();
    for command in commands() {
        execute(&store, &mut registry, command);
    }
    drop(store);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let bytes = std::fs::read(&path).unwrap();
    assert!(!bytes.windows(32).any(|window| window == [3; 32]), "the hash that opens the token is in the store");
}

#[test]
fn the_store_of_another_trust_domain_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    drop(Store::open(&path, &trust_domain()).unwrap());
    let error = Store::open(&path, &TrustDomain::new("other.test").unwrap()).unwrap_err().to_string();
    assert!(error.contains("`acme.test`") && error.contains("`other.test`"), "{error}");
}

#[test]
fn a_store_is_opened_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let _held = Store::open(&path, &trust_domain()).unwrap();
    assert!(matches!(Store::open(&path, &trust_domain()), Err(OpenError::InUse { .. })));
}

#[test]
fn what_is_not_a_store_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    std::fs::write(&path, "not a database, but somebody's data").unwrap();
    let error = Store::open(&path, &trust_domain()).unwrap_err().to_string();
    assert!(error.contains("store.redb"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "not a database, but somebody's data");
}

#[test]
fn a_record_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    for (key, value, problem) in [
        ("entry/e1-1", b"\xff\xff".as_slice(), "entry/e1-1"),
        ("gadget/x", b"".as_slice(), "not a kind of record"),
        ("node/n1", b"".as_slice(), "node name"),
    ] {
        let (store, _) = Store::open(&path, &trust_domain()).unwrap();
        let transaction = store.database.begin_write().unwrap();
        transaction.open_table(RECORDS).unwrap().insert(key, value).unwrap();
        transaction.commit().unwrap();
        drop(store);
        let error = Store::open(&path, &trust_domain()).unwrap_err().to_string();
        assert!(error.contains(key) && error.contains(problem), "{error}");
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn the_store_of_a_newer_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let (store, _) = Store::open(&path, &trust_domain()).unwrap();
    let transaction = store.database.begin_write().unwrap();
    let meta = record::Meta { layout: LAYOUT + 1, ..store.meta(Version::FIRST) }.encode_to_vec();
    transaction.open_table(RECORDS).unwrap().insert(META, meta.as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(store);
    assert!(matches!(Store::open(&path, &trust_domain()), Err(OpenError::Newer { found: 3, .. })));
}

#[test]
fn a_damaged_store_is_an_error_and_never_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let (store, mut registry) = Store::open(&path, &trust_domain()).unwrap();
    for command in commands() {
        execute(&store, &mut registry, command);
    }
    drop(store);
    let good = std::fs::read(&path).unwrap();
    let mut refused = 0;
    for position in (0..good.len()).step_by(good.len() / 200) {
        let mut bad = good.clone();
        bad[position] ^= 0x55;
        std::fs::write(&path, &bad).unwrap();
        match Store::open(&path, &trust_domain()) {
            // What was altered is a page in no use, or one that a second copy makes good.
            Ok((_, restored)) => assert_eq!(content(&restored), content(&registry), "at {position}"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 0);
}

/// What a broker of layout 1 wrote of an entry and a node.
#[derive(Clone, PartialEq, prost::Message)]
struct EntryOfLayout1 {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    spiffe_id: String,
    #[prost(string, tag = "3")]
    node: String,
    #[prost(uint32, tag = "6")]
    ttl_seconds: u32,
}
#[derive(Clone, PartialEq, prost::Message)]
struct NodeOfLayout1 {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "2")]
    joined_at: u64,
    #[prost(bytes = "vec", tag = "3")]
    key_sha256: Vec<u8>,
}

#[test]
fn a_store_of_the_first_layout_is_opened_and_its_nodes_and_entries_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let (store, _) = Store::open(&path, &trust_domain()).unwrap();
    let entry = EntryOfLayout1 {
        id: "e1-1".to_owned(),
        spiffe_id: "spiffe://acme.test/x".to_owned(),
        node: "n".to_owned(),
        ttl_seconds: 60,
    };
    let node = NodeOfLayout1 { name: "n".to_owned(), joined_at: 1_700_000_000, key_sha256: vec![7; 32] };
    let meta = record::Meta { layout: 1, ..store.meta(Version { incarnation: 1, epoch: 1 }) };
    let transaction = store.database.begin_write().unwrap();
    {
        let mut table = transaction.open_table(RECORDS).unwrap();
        table.insert("entry/e1-1", entry.encode_to_vec().as_slice()).unwrap();
        table.insert("node/n", node.encode_to_vec().as_slice()).unwrap();
        table.insert(META, meta.encode_to_vec().as_slice()).unwrap();
    }
    transaction.commit().unwrap();
    drop(store);

    let (store, mut registry) = Store::open(&path, &trust_domain()).unwrap();
    let entry = registry.entry(&"e1-1".parse().unwrap()).unwrap();
    assert_eq!(entry.terms, Terms::new(Ttl::try_from(60).unwrap()));
    let node = registry.node(&"n".parse().unwrap()).unwrap();
    assert_eq!((node.standing, node.since, node.newest), (Standing::Good, UNIX_EPOCH, UNIX_EPOCH));
    // From the first change on it is of the new layout.
    execute(&store, &mut registry, Command::RemoveEntry("e1-1".parse().unwrap()));
    let meta = store.meta_row().unwrap().unwrap();
    assert_eq!(record::Meta::decode(meta.as_slice()).unwrap().layout, LAYOUT);
}
