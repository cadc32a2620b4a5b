use std::time::{Duration, SystemTime};

use portcullis_identity::{TrustDomain, parse_spiffe_id};
use portcullis_policy::PolicyFile;
use portcullis_value::WitSource;

use super::*;
use crate::config::Settings;
use crate::registry::{
    CertificateJoin, Command, Digest, GrantChange, GrantDirection, Holder, NewEntry, Present, Registration, Terms,
    Upstream,
};
use crate::ttl::Ttl;

const WIT: &str = "package acme:billing@1.0.0;
interface invoices { get: func(customer: string) -> u32; total: func() -> u64; }
world service { export invoices; }";

struct Scene {
    registry: Registry,
    settings: Nats,
    members: Members,
}

impl Scene {
    fn new() -> Self {
        let text = "trust_domain = 'acme.test'\n[nats]\nservers = ['tls://n:1']\nfolder = '/n'\n\
                    hosts = ['spiffe://acme.test/host/*']\ncomponent_callers = ['spiffe://acme.test/component/prod/eve']";
        let config = Settings::parse("b.toml".as_ref(), text).unwrap().check().unwrap();
        Self {
            registry: Registry::empty(TrustDomain::new("acme.test").unwrap()).unwrap(),
            settings: config.nats.unwrap(),
            members: Members::default(),
        }
    }

    fn execute(&mut self, command: Command) {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let plan = self.registry.plan(command, now).unwrap();
        let version = self.registry.version().next().skip(plan.further_epochs);
        self.registry.apply(&plan.changes, version, plan.schema);
    }

    fn register(&mut self, target: &str) {
        self.execute(Command::RegisterComponent(Box::new(Registration {
            target: target.parse().unwrap(),
            wit: vec![WitSource { path: "b.wit".to_owned(), text: WIT.to_owned() }],
            interfaces: Vec::new(),
            spiffe_id: None,
            upstream: Upstream::Typed,
            addresses: Vec::new(),
            node: Some("sidecar".parse().unwrap()),
            ttl: Ttl::DEFAULT,
            present: Present::Refuse,
        })));
    }

    fn entry(&mut self, path: &str, lattice: Option<&str>) {
        let holder = Holder::Workload {
            spiffe_id: id(path),
            lattice: lattice.map(|name| name.parse().unwrap()),
            digest: Digest::NotApplicable,
        };
        let terms = Terms::new(Ttl::DEFAULT);
        self.execute(Command::CreateEntry(Box::new(NewEntry { node: "n".parse().unwrap(), holder, terms })));
    }

    fn component(&mut self, target: &str) {
        let holder = Holder::Component { target: target.parse().unwrap(), digest: Digest::DangerAny };
        let terms = Terms::new(Ttl::DEFAULT);
        self.execute(Command::CreateEntry(Box::new(NewEntry { node: "n".parse().unwrap(), holder, terms })));
    }

    fn policy(&mut self, text: &str) {
        let file = PolicyFile { name: "p.cedar".to_owned(), text: text.to_owned() };
        self.execute(Command::PutPolicies(vec![file]));
    }

    fn grant(&mut self, target: &str, caller: &str, direction: GrantDirection) {
        let change = GrantChange { target: target.parse().unwrap(), spiffe_id: id(caller), direction };
        self.execute(Command::ChangeGrant(change));
    }

    fn of(&mut self, path: &str) -> Result<Membership, NoMember> {
        self.members.of_identity(&self.registry, &self.settings, &id(path))
    }

    fn publishes(&mut self, path: &str, pattern: &str) -> bool {
        self.of(path).unwrap().permissions.published().any(|subject| subject == pattern)
    }
}

fn id(path: &str) -> SpiffeId {
    parse_spiffe_id(&format!("spiffe://acme.test{path}")).unwrap()
}

const GRANTED: &str =
    "@id(\"granted\") permit (principal is Workload, action, resource) when { resource.grants.contains(principal) };";

#[test]
fn a_new_virtual_component_changes_nothing_for_a_host() {
    let mut scene = Scene::new();
    scene.entry("/host/one", Some("prod"));
    let before = scene.of("/host/one").unwrap();
    assert_eq!(before.class, Class::Host);
    scene.register("prod/billing");
    scene.component("prod/shop");
    scene.policy(GRANTED);
    scene.grant("prod/billing", "/component/prod/shop", GrantDirection::Give);
    assert_eq!(scene.of("/host/one").unwrap(), before);
}

#[test]
fn a_host_needs_an_entry_that_names_one_lattice() {
    let mut scene = Scene::new();
    assert_eq!(scene.of("/host/one"), Err(NoMember::NotRegistered));
    scene.entry("/host/one", None);
    assert_eq!(scene.of("/host/one"), Err(NoMember::NoLattice));
    let foreign = parse_spiffe_id("spiffe://evil.test/host/one").unwrap();
    assert_eq!(scene.members.of_identity(&scene.registry, &scene.settings, &foreign), Err(NoMember::Foreign));
    assert_eq!(scene.of("/portcullis/broker"), Err(NoMember::Reserved));
    assert_eq!(scene.of("/portcullis/node/x"), Err(NoMember::NoNode));
}

#[test]
fn whom_policy_could_allow_may_publish_and_is_answered() {
    let mut scene = Scene::new();
    scene.register("prod/billing");
    scene.component("prod/shop");
    scene.policy(GRANTED);
    let call = "prod.vc.billing.shop.wrpc.0.0.1.>";
    let answer = "_I.prod.shop.>";
    assert!(!scene.publishes("/component/prod/shop", call));
    assert!(!scene.publishes("/virtual/prod/billing", answer));
    scene.grant("prod/billing", "/component/prod/shop", GrantDirection::Give);
    assert!(scene.publishes("/component/prod/shop", call));
    assert!(scene.publishes("/virtual/prod/billing", answer));
    scene.grant("prod/billing", "/component/prod/shop", GrantDirection::TakeBack);
    assert!(!scene.publishes("/component/prod/shop", call));
    // A policy that reads a parameter could allow anybody: only the call tells.
    scene.policy(
        "@id(\"x\") permit (principal is Workload, action == Action::\"acme:billing/invoices@1.0.0#get\", resource) \
         when { context has params && context.params has customer && context.params.customer == \"me\" };",
    );
    assert!(scene.publishes("/component/prod/shop", call));
}

#[test]
fn a_name_of_two_is_nobody_s() {
    let mut scene = Scene::new();
    scene.register("prod/billing");
    scene.component("prod/shop");
    scene.policy("@id(\"all\") permit (principal is Workload, action, resource);");
    assert!(scene.publishes("/component/prod/shop", "prod.vc.billing.shop.wrpc.0.0.1.>"));
    // Now a virtual component is called so, too.
    scene.register("prod/shop");
    assert_eq!(scene.of("/component/prod/shop"), Err(NoMember::NoPart));
    assert!(!scene.publishes("/virtual/prod/shop", "prod.vc.billing.shop.wrpc.0.0.1.>"));
    assert!(scene.registry.caller(&"prod/shop".parse().unwrap()).is_none());
    assert!(!scene.publishes("/virtual/prod/billing", "_I.prod.shop.>"));
    // The virtual component is served all the same.
    let all = scene.of("/virtual/prod/shop").unwrap().permissions;
    assert!(all.subscribed().any(|subject| subject == "prod.vc.shop.*.wrpc.0.0.1.> prod.vc.shop"));
}

#[test]
fn components_on_hosts_are_called_by_whom_the_settings_name() {
    let mut scene = Scene::new();
    scene.component("prod/eve");
    scene.component("prod/shop");
    assert!(scene.publishes("/component/prod/eve", "prod.*.wrpc.0.0.1.>"));
    assert!(!scene.publishes("/component/prod/shop", "prod.*.wrpc.0.0.1.>"));
}

#[test]
fn an_identity_without_part_is_no_member() {
    let mut scene = Scene::new();
    scene.entry("/backup", Some("prod"));
    assert_eq!(scene.of("/backup"), Err(NoMember::NoPart));
}

#[test]
fn an_identity_whose_only_node_is_shut_out_is_no_member() {
    let mut scene = Scene::new();
    scene.register("prod/shop");
    let shop = "/virtual/prod/shop";
    let join = || Command::JoinByCertificate(CertificateJoin { node: "sidecar".parse().unwrap(), key_sha256: [1; 32] });
    scene.of(shop).unwrap();
    scene.execute(join());
    scene.of(shop).unwrap();
    scene.execute(Command::RemoveNode("sidecar".parse().unwrap()));
    assert_eq!(scene.of(shop), Err(NoMember::NodeCutOff));
    // Removed once more it is forgotten, and may join again.
    scene.execute(Command::RemoveNode("sidecar".parse().unwrap()));
    scene.execute(join());
    scene.of(shop).unwrap();
}
