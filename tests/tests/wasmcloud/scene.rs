//! A lattice with a legacy service, its sidecar, an agent, and an operator; hosts join as a test asks for them.

use std::path::Path;
use std::time::Duration;

use e2e::{Agent, Daemon, Joined, Lab, Lattice, Operator, SidecarSetup, WasmcloudHost, eventually, guest};
use portcullis_api::v1;
use wrpc_transport::InvokeExt as _;

/// What the component offers.
const ORDERS: &str = "acme:checkout/orders@1.0.0";
/// What `acme` owes in the legacy service's books.
pub(crate) const OWED: u64 = 21_900;
/// Within this a call that fails at once has failed. A host waits for silence ten minutes.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(2);
const ALICE: &str = "spiffe://test.example/component/demo/alice";
const POLICY: &str = "@id(\"checkout-may-read\") permit(principal == HostedComponent::\"checkout\", action in \
                      [Action::\"acme:billing/invoices@1.0.0#search\", Action::\"acme:billing/invoices@1.0.0#get\"], resource);\n\
                      @id(\"nobody-cancels\") @advice(\"ask the billing team\") forbid(principal, action == \
                      Action::\"acme:billing/invoices@1.0.0#cancel\", resource);\n";

pub(crate) struct Scene {
    pub(crate) operator: Operator,
    pub(crate) agent: Agent,
    /// The host's.
    pub(crate) entry: String,
    pub(crate) sidecar: Daemon,
    _invoices: Daemon,
    pub(crate) lattice: Lattice,
    // Last: the others' logs lie in its folder.
    pub(crate) lab: Lab,
}

impl Scene {
    /// Everything but a host, with further settings of `[nats]`.
    pub(crate) fn open(more: &str) -> Self {
        let callers =
            format!("component_callers = [\"{ALICE}\", \"spiffe://test.example/virtual/demo/billing\"]\n{more}");
        let holders = [("wash", "class = \"operator\""), ("ledger", "class = \"provider\"\nid = \"ledger\"")];
        let (mut lab, lattice) = Lattice::start_with_tls(&callers, &holders);
        let (invoices, sidecar) = billing(&lab, &nats(&lattice));
        lab.policy("billing.cedar", POLICY);
        lab.create(v1::CreateEntryRequest {
            node: "machine".to_owned(),
            component: Some(v1::Target { lattice: "demo".to_owned(), id: "alice".to_owned() }),
            danger_any_digest: true,
            ..Default::default()
        });
        let agent = Agent::start_delegating(&lab, "agent");
        let entry = lab.create(v1::CreateEntryRequest { lattice: "demo".to_owned(), ..agent.entry("host/one") });
        // A host that comes before them ends: it may not make them.
        lab.broker().logged(&["the lattice's buckets are there"]);
        let on_it = || (lab.status("billing")["nats"]["connected"] == true).then_some(());
        eventually("the sidecar to join the lattice", on_it);
        let operator = Operator::join(&lab, &lattice, "wash");
        Self { operator, agent, entry, sidecar, _invoices: invoices, lattice, lab }
    }

    /// How a sidecar joins.
    pub(crate) fn nats(&self) -> String {
        nats(&self.lattice)
    }

    /// A host that has joined, with further arguments: `--policy-topic portcullis.policy.demo.ask`, for instance.
    pub(crate) fn host(&self, name: &str, arguments: &[&str]) -> WasmcloudHost {
        WasmcloudHost::start(&self.lab, &self.lattice, &self.agent, name, arguments)
    }

    /// A host on which the component runs that asks the legacy service, and may.
    pub(crate) fn host_with_checkout(&self, arguments: &[&str]) -> WasmcloudHost {
        let host = self.host("host", arguments);
        self.operator.link(&self.lab, "checkout", "vc.billing.host");
        self.operator.start(&self.lab, &host, "checkout", &guest("checkout"));
        eventually("an answer", || self.total("checkout").ok().filter(|total| *total == OWED));
        host
    }

    /// What `acme` owes, asked of a component by the operator.
    pub(crate) fn total(&self, component: &str) -> Result<u64, String> {
        self.lab.block_on(total(&self.operator.joined, component))
    }

    /// Makes an invoice void, which nobody may.
    pub(crate) fn cancel(&self, component: &str) -> Result<String, String> {
        self.cancel_by(&self.operator.joined, component, "INV-1001")
    }

    pub(crate) fn cancel_by(&self, by: &Joined, component: &str, invoice: &str) -> Result<String, String> {
        self.lab.block_on(cancel(by, component, invoice))
    }

    /// An identity that may call components on hosts, connected by its SVID.
    pub(crate) fn alice(&self) -> Joined {
        let certificate = self.lab.minted(ALICE);
        self.lab.block_on(self.lattice.by_certificate_at(certificate, "_I.demo.alice")).unwrap()
    }
}

/// By the stock client; a failed call says all of its causes.
pub(crate) async fn total(by: &Joined, component: &str) -> Result<u64, String> {
    let client = stock(by, component).await;
    let none: [[Option<usize>; 0]; 0] = [];
    let customer = ("acme".to_owned(),);
    let answer =
        client.invoke_values_blocking::<_, (String,), (Result<u64, String>,)>(None, ORDERS, "total", customer, none);
    answer.await.map_err(|error| format!("{error:#}"))?.0
}

pub(crate) async fn cancel(by: &Joined, component: &str, invoice: &str) -> Result<String, String> {
    let client = stock(by, component).await;
    let none: [[Option<usize>; 0]; 0] = [];
    let invoice = (invoice.to_owned(),);
    let answer =
        client.invoke_values_blocking::<_, (String,), (Result<String, String>,)>(None, ORDERS, "cancel", invoice, none);
    answer.await.map_err(|error| format!("{error:#}"))?.0
}

/// The token that the host gave a component `badge` for `audience`.
pub(crate) async fn token(by: &Joined, component: &str, audience: &str) -> Result<String, String> {
    let client = stock(by, component).await;
    let none: [[Option<usize>; 0]; 0] = [];
    let asked = (audience.to_owned(),);
    let tokens = "acme:badge/tokens@1.0.0";
    let answer =
        client.invoke_values_blocking::<_, (String,), (Result<String, String>,)>(None, tokens, "token", asked, none);
    answer.await.map_err(|error| format!("{error:#}"))?.0
}

async fn stock(by: &Joined, component: &str) -> wrpc_transport_nats::Client {
    wrpc_transport_nats::Client::new(by.client.clone(), format!("demo.{component}"), None).await.unwrap()
}

fn nats(lattice: &Lattice) -> String {
    let address = lattice.nodes_address;
    format!("[nats]\nservers = [\"tls://{address}\"]\nserver_id = \"spiffe://test.example/nats\"\ntls_first = true\n")
}

const THINGS: &str = "acme:shelf/things@1.0.0";
const NONE: [[Option<usize>; 0]; 0] = [];

/// Has a component `shelf` keep something.
pub(crate) async fn put(by: &Joined, component: &str, key: &str, value: &str) -> Result<(), String> {
    let client = stock(by, component).await;
    let pair = (key.to_owned(), value.to_owned());
    let answer =
        client.invoke_values_blocking::<_, (String, String), (Result<(), String>,)>(None, THINGS, "put", pair, NONE);
    answer.await.map_err(|error| format!("{error:#}"))?.0
}

pub(crate) async fn get(by: &Joined, component: &str, key: &str) -> Result<Option<String>, String> {
    let client = stock(by, component).await;
    let key = (key.to_owned(),);
    let answer = client
        .invoke_values_blocking::<_, (String,), (Result<Option<String>, String>,)>(None, THINGS, "get", key, NONE);
    answer.await.map_err(|error| format!("{error:#}"))?.0
}

/// How many bytes an object has, and their sum.
pub(crate) async fn weigh(by: &Joined, component: &str, object: &str) -> Result<(u64, u64), String> {
    let client = stock(by, component).await;
    let object = (object.to_owned(),);
    let answer = client
        .invoke_values_blocking::<_, (String,), (Result<(u64, u64), String>,)>(None, THINGS, "weigh", object, NONE);
    answer.await.map_err(|error| format!("{error:#}"))?.0
}

/// The legacy service and its sidecar, with these settings of its lattice.
pub(crate) fn billing(lab: &Lab, nats: &str) -> (Daemon, Daemon) {
    let listen = ["--listen".as_ref(), "127.0.0.1:0".as_ref()];
    let invoices = Daemon::start(lab.path(), "invoices", "invoices", &listen);
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let wit = std::fs::read_to_string(examples.join("invoices/wit/invoices.wit")).unwrap();
    let mapping = std::fs::canonicalize(examples.join("quickstart/assets/mapping.toml")).unwrap();
    let mut setup = SidecarSetup::http("billing", invoices.address("address")).wit(&wit);
    setup.upstream.push_str(&format!("mapping = \"{}\"\n", mapping.display()));
    let sidecar = lab.sidecar(&setup.with(nats));
    (invoices, sidecar)
}
