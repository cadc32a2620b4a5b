//! Two trust domains, each with its own broker: a component of one calls a virtual component of the other, as long as both sides want it.

use std::time::{Duration, Instant};

use e2e::wire::{Ended, frame, header, raw_call, raw_connect};
use e2e::{Behaviour, Caller, Daemon, Flaw, ITEMS, Lab, LegacyService, Load, SidecarSetup, WIT, eventually};
use portcullis_api::v1;
use portcullis_client::CallError;
use portcullis_client::node::PeerRecord;
use portcullis_transport::Refusal;
use portcullis_transport::quic::ConnectionLost;

const ENDPOINT: &str = "[bundle_endpoint]\nlisten = \"127.0.0.1:0\"\nprofile = \"https_spiffe\"\n";

/// Both trust domains; in each a shop before a service, and callers.
struct Pair {
    here: Side,
    there: Side,
}

struct Side {
    name: &'static str,
    shop: Daemon,
    _service: LegacyService,
    endpoint: String,
    lab: Lab,
}

impl Side {
    fn open(name: &'static str, answer: &str) -> Self {
        let mut lab = Lab::start_as(name, ENDPOINT);
        let service = LegacyService::start(Behaviour::Answer(200, answer.to_owned()));
        let shop = lab.sidecar(&SidecarSetup::http("shop", service.address).ttl(60));
        let endpoint = format!("https://{}/", lab.broker().ready["bundle_endpoint"].as_str().unwrap());
        Self { name, shop, _service: service, endpoint, lab }
    }

    fn command(&self, arguments: &[&str]) -> serde_json::Value {
        self.lab.broker_command(&[arguments, &["--json"]].concat()).ok().json()
    }

    /// Trusts `other`, by the bundle that its operator hands over and by its endpoint from then on.
    fn trust(&self, other: &Self) {
        let shown = other.lab.broker_command(&["trust-domain", "show", other.name, "--document"]).ok();
        let first = self.lab.path().join("first.json");
        std::fs::write(&first, &shown.out).unwrap();
        let first = first.to_str().unwrap();
        let add = ["trust-domain", "add", other.name, "--bundle-endpoint", &other.endpoint];
        self.command(&[&add[..], &["--profile", "https_spiffe", "--bundle", first]].concat());
    }

    /// Lets the shop's entry see `other`.
    fn open_shop_to(&self, other: &str) {
        let entries = self.command(&["entry", "list"]);
        let of_shop = |entry: &&serde_json::Value| entry["spiffe_id"].as_str().unwrap().ends_with("/virtual/demo/shop");
        let entry = entries.as_array().unwrap().iter().find(of_shop).unwrap()["id"].as_str().unwrap().to_owned();
        self.command(&["entry", "update", &entry, "--federates-with", other]);
    }

    /// Registers the shop of `other` under a name of this side's lattice.
    fn import_shop(&self, other: &Self, name: &str) {
        let wit = self.lab.path().join("wit");
        std::fs::create_dir_all(&wit).unwrap();
        std::fs::write(wit.join("shop.wit"), WIT).unwrap();
        let (target, id) = (format!("demo/{name}"), format!("spiffe://{}/virtual/demo/shop", other.name));
        let address = other.shop.address("quic").to_string();
        let register = ["component", "register", &target, "--wit", wit.to_str().unwrap()];
        self.command(&[&register[..], &["--spiffe-id", &id, "--address", &address]].concat());
    }

    fn caller(&self, name: &str, sees: &[&str]) -> Caller {
        let federates_with = sees.iter().map(|name| (*name).to_owned()).collect();
        self.lab.caller_as(name, v1::CreateEntryRequest { federates_with, x509_ttl_seconds: 60, ..Default::default() })
    }

    fn count(&self, caller: &Caller, record: &PeerRecord) -> Result<Vec<u8>, CallError> {
        self.lab.call(caller, record, "count", &[]).map(|answer| answer.to_vec())
    }

    /// Another root takes over; `others` look at the bundle before it signs, as they would in time.
    fn change_root(&self, other: &Self) -> String {
        let active = |row: &&serde_json::Value| row["kind"] == "x509" && row["stage"] == "active";
        let shown = self.command(&["ca", "show"]);
        let old =
            shown["authorities"].as_array().unwrap().iter().find(active).unwrap()["id"].as_str().unwrap().to_owned();
        let new = self.command(&["ca", "prepare"])["id"].as_str().unwrap().to_owned();
        other.command(&["trust-domain", "refresh", self.name]);
        self.command(&["ca", "activate", &new]);
        self.command(&["ca", "taint", &old]);
        other.command(&["trust-domain", "refresh", self.name]);
        old
    }

    fn drop_root(&self, old: &str, other: &Self) {
        eventually("nobody to need the old root", || {
            let revoked = self.lab.broker_command(&["ca", "revoke", old]);
            assert!([0, 3].contains(&revoked.code), "{revoked:?}");
            std::thread::sleep(Duration::from_millis(200));
            (revoked.code == 0).then_some(())
        });
        other.command(&["trust-domain", "refresh", self.name]);
        let shown = other.command(&["trust-domain", "show", self.name]);
        assert_eq!(shown["x509_authorities"], 1, "{shown}");
    }
}

impl Pair {
    fn open() -> Self {
        let pair = Self { here: Side::open("here.example", "3"), there: Side::open("there.example", "3") };
        let permit = |side: &Side, caller: &str| {
            let text = format!(
                "@id(\"abroad\")\n@advice(\"ask the shop\")\npermit (principal == Workload::\"{caller}\", action == Action::\"{ITEMS}#count\", resource == VirtualComponent::\"demo/shop\");\n"
            );
            side.lab.policy("shop.cedar", &text);
        };
        permit(&pair.here, "spiffe://there.example/component/demo/dora");
        permit(&pair.there, "spiffe://here.example/component/demo/alice");
        pair.here.import_shop(&pair.there, "abroad");
        pair.there.import_shop(&pair.here, "abroad");
        pair
    }
}

#[test]
fn components_call_abroad_while_both_sides_federate_through_rotations_and_not_after_removal() {
    let Pair { here, there } = Pair::open();
    let alice = here.caller("alice", &["there.example"]);
    let record = here.lab.record(&alice, "abroad");
    assert_eq!(record.spiffe_id.to_string(), "spiffe://there.example/virtual/demo/shop");

    // An entry federates with a domain of which no bundle is known: nobody is trusted yet.
    assert!(matches!(here.count(&alice, &record).unwrap_err(), CallError::Unreachable { .. }));
    here.trust(&there);
    // The callee does not know the caller's domain, and then knows it, but not for this workload.
    assert!(here.count(&alice, &record).is_err());
    there.trust(&here);
    assert!(here.count(&alice, &record).is_err());
    there.open_shop_to("here.example");
    assert_eq!(eventually("the call", || here.count(&alice, &record).ok()), [3]);

    // The other way round, for another pair of workloads.
    here.open_shop_to("there.example");
    let dora = there.caller("dora", &["here.example"]);
    let shop_here = there.lab.record(&dora, "abroad");
    assert_eq!(eventually("the call back", || there.count(&dora, &shop_here).ok()), [3]);

    // Known and not permitted: refused by policy, one function and one caller.
    let refused = here.lab.call(&alice, &record, "get", &[1, b'7']).unwrap_err();
    assert!(matches!(refused, CallError::Refused { refusal: Refusal::Denied, .. }), "{refused}");
    let bob = here.caller("bob", &["there.example"]);
    let refused = here.count(&bob, &record).unwrap_err();
    assert!(matches!(refused, CallError::Refused { refusal: Refusal::Denied, .. }), "{refused}");
    assert!(there.shop.log().contains("spiffe://here.example/component/demo/bob"));
    // Not to be seen by who does not federate, on the same terms otherwise.
    let carol = here.caller("carol", &[]);
    assert!(matches!(here.count(&carol, &record).unwrap_err(), CallError::Unreachable { .. }));

    // Both roots change, under load in both directions.
    let loads = [Load::start(&here.lab, &alice, &record), Load::start(&there.lab, &dora, &shop_here)];
    let old = here.change_root(&there);
    here.drop_root(&old, &there);
    let old = there.change_root(&here);
    there.drop_root(&old, &here);
    let calls = loads.each_ref().map(Load::calls);
    eventually("calls below the new roots", || {
        loads.iter().zip(calls).all(|(load, before)| load.calls() > before + 50).then_some(())
    });
    let [abroad, back] = loads;
    assert!(abroad.end(&here.lab) > 100 && back.end(&there.lab) > 100);

    // One side ends it: the connection goes, and no other comes.
    there.command(&["trust-domain", "remove", "here.example"]);
    let removed = Instant::now();
    let ended =
        || there.shop.log().lines().any(|line| line.contains("disconnected") && line.contains("no bundle is held"));
    eventually("the connection to end", || ended().then_some(()));
    assert!(removed.elapsed() < Duration::from_secs(1), "{:?}", removed.elapsed());
    here.count(&alice, &record).unwrap_err();
    here.count(&bob, &record).unwrap_err();
    // The other direction fell too: who calls must see whom it calls.
    there.count(&dora, &shop_here).unwrap_err();
}

#[test]
fn a_foreign_authority_vouches_for_no_name_but_its_own() {
    let Pair { here, there } = Pair::open();
    here.trust(&there);
    there.trust(&here);
    there.open_shop_to("here.example");
    let address = there.shop.address("quic");
    let trust = there.lab.trust();
    let call = [header(ITEMS, "count"), frame(&[])].concat();
    let connect = |forge: &e2e::Forge, id: &str| {
        let certificate = forge.certificate(id, Flaw::None);
        there.lab.block_on(async {
            let connection = raw_connect(&trust, Some(certificate), address).await?;
            // A refused client learns of it with its first read.
            match raw_call(&connection, &call).await {
                Ended::Lost(lost) => Err(lost),
                _ => Ok(()),
            }
        })
    };
    // Whoever stole the keys of one broker speaks for its domain, and for no other.
    let thief = here.lab.forge();
    eventually("the domain to be known", || connect(&thief, "spiffe://here.example/component/demo/mallory").ok());
    for id in ["spiffe://there.example/component/demo/alice", "spiffe://third.example/x"] {
        let lost = connect(&thief, id).unwrap_err();
        assert!(matches!(lost, ConnectionLost::RefusedUs { .. }), "{id}: {lost}");
    }
    assert!(connect(&there.lab.forge(), "spiffe://here.example/component/demo/alice").is_err());
}

#[test]
fn what_is_said_of_foreign_components_is_checked() {
    let side = Side::open("here.example", "3");
    let wit = side.lab.path().join("wit");
    std::fs::create_dir_all(&wit).unwrap();
    std::fs::write(wit.join("shop.wit"), WIT).unwrap();
    let register = |id: &str, more: &[&str]| {
        let base = ["component", "register", "demo/abroad", "--wit", wit.to_str().unwrap(), "--spiffe-id", id];
        side.lab.broker_command(&[&base[..], more].concat())
    };
    let address = ["--address", "shop.there.example:7443"];
    for (id, more, reason) in [
        ("spiffe://there.example/shop", &[][..], "--address"),
        ("spiffe://there.example/portcullis/broker", &address[..], "reserved"),
        ("spiffe://there.example", &address[..], "no path"),
        ("spiffe://here.example/shop", &address[..], "announces its addresses itself"),
        ("spiffe://there.example/shop", &["--address", "shop.there.example"][..], "port"),
    ] {
        let refused = register(id, more);
        assert_ne!(refused.code, 0, "{id}");
        assert!(refused.err.contains(reason), "{id}: {}", refused.err);
    }
    let with_node = register("spiffe://there.example/shop", &[&address[..], &["--node", "n"]].concat());
    assert_eq!(with_node.code, 2, "{with_node:?}");
    register("spiffe://there.example/shop", &address).ok();
    let listed = side.command(&["component", "list"]);
    let row = listed.as_array().unwrap().iter().find(|row| row["component"] == "demo/abroad").unwrap();
    assert_eq!(row["addresses"], serde_json::json!(["shop.there.example:7443"]));
}
