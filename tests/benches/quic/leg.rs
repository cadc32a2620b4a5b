//! One way for a call to go.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use e2e::{ITEMS, WIT};
use portcullis_policy::{
    ActionIndex, CallContext, ComponentFacts, Engine, PeerView, PolicyText, Principal, Slice, Transport,
};
use portcullis_sidecar::http::{HttpCall, HttpUpstream, HttpUpstreamConfig, Mapping};
use portcullis_value::{Value, Wit, WitSource};
use wrpc_transport::{Invoke, InvokeExt as _};

/// What is echoed.
pub const PAYLOAD: [u8; 16] = *b"sixteen bytes ok";
const NO_PATHS: [[Option<usize>; 0]; 0] = [];
const CALLER: &str = "spiffe://test.example/component/demo/caller";

/// A client that is ready to call.
#[derive(Clone)]
pub enum Leg {
    Quic(wrpc_transport_quic::Client),
    Unix(wrpc_transport::unix::Client<PathBuf>),
    Http(Arc<Service>),
}

impl Leg {
    /// Makes one call; it must succeed.
    pub async fn call(&self) {
        match self {
            Self::Quic(client) => echo(client).await,
            Self::Unix(client) => echo(client).await,
            Self::Http(service) => service.echo().await,
        }
    }
}

async fn echo(client: &impl Invoke<Context = ()>) {
    let params = (Bytes::from_static(&PAYLOAD),);
    let (answer,): (Bytes,) =
        client.invoke_values_blocking((), ITEMS, "echo", params, NO_PATHS).await.expect("the call is answered");
    assert_eq!(answer, PAYLOAD[..]);
}

/// The HTTP service as the sidecar calls it, with the cached verdict that stands before such a call.
pub struct Service {
    client: HttpUpstream,
    mapping: Mapping,
    view: PeerView,
    action: ActionIndex,
    args: Vec<Value>,
}

impl Service {
    pub fn new(url: String) -> Self {
        let source = WitSource { path: "shop.wit".to_owned(), text: WIT.to_owned() };
        let wit = Wit::parse(&[source]).unwrap();
        let mapping = Mapping::default_for(&wit, &[ITEMS.to_owned()]).unwrap();
        let facts = ComponentFacts {
            lattice: "demo".to_owned(),
            id: "http".to_owned(),
            interfaces: wit.interfaces().map(Into::into).collect(),
            grants: Vec::new(),
        };
        let policy = PolicyText { id: "all".to_owned(), text: "permit (principal, action, resource);".to_owned() };
        let engine = Engine::new(&Slice::parse(&[policy]).unwrap(), &facts, 1).unwrap();
        let config = HttpUpstreamConfig { caller_header: Some("x-caller".to_owned()), ..HttpUpstreamConfig::new(url) };
        Self {
            client: HttpUpstream::new(&config).unwrap(),
            mapping,
            action: engine.action(ITEMS, "echo").unwrap(),
            view: engine.view(&Principal::workload(CALLER, "test.example", "/component/demo/caller")),
            args: vec![Value::Bytes(Bytes::from_static(&PAYLOAD))],
        }
    }

    async fn echo(&self) {
        let verdict = self.view.decide(self.action, &CallContext::over(Transport::Quic));
        let call = HttpCall {
            route: self.mapping.route(ITEMS, "echo").unwrap(),
            caller: Some(CALLER),
            trace: None,
            args: &self.args,
            deadline: None,
        };
        let answer = self.client.call(verdict.permit().unwrap(), call).await;
        assert_eq!(answer.expect("the service answers").as_ref(), self.args.first());
    }
}
