//! The ways of a call, each with a callee that is ready.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use e2e::nats::{NatsServer, fresh_address, request_subject};
use portcullis_transport::nats::{
    Arrival, Call, Deadlines, Headers, IncomingCall, Link, Path, RequestSubject, VirtualAddress,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;
use tokio_stream::StreamExt as _;
use wrpc_transport::{Invoke, InvokeExt as _, Serve as _};

use crate::scene::Scene;

const INSTANCE: &str = "test:shop/items@1.0.0";
/// What a `list<u8>` of 16 bytes is on the wire.
const PARAMS: &[u8; 17] = b"\x10sixteen bytes ok";
const NO_PATHS: [[Option<usize>; 0]; 0] = [];

pub struct Way {
    pub letter: char,
    pub name: &'static str,
    pub caller: Caller,
}

#[derive(Clone)]
pub enum Caller {
    Stock(wrpc_transport_nats::Client),
    Ours(Link, Arc<RequestSubject>),
    InSteps(Link, Arc<RequestSubject>),
    Plain(async_nats::Client),
    Quic(wrpc_transport_quic::Client),
    Unix(wrpc_transport::unix::Client<PathBuf>),
}

impl Caller {
    /// Makes one call; it must succeed.
    pub async fn call(&self) {
        match self {
            Self::Stock(client) => {
                let params = Bytes::from_static(PARAMS);
                let (mut outgoing, mut incoming) =
                    client.invoke(None, INSTANCE, "echo", params, NO_PATHS).await.expect("the call begins");
                outgoing.shutdown().await.expect("the callee shakes hands");
                let mut answer = [0; PARAMS.len()];
                incoming.read_exact(&mut answer).await.expect("the call is answered");
                assert_eq!(&answer, PARAMS);
            }
            Self::Ours(link, subject) => {
                let params = Bytes::from_static(PARAMS);
                let headers = Headers::new();
                let call = Call { subject, headers: &headers, params, deadlines: Deadlines::default() };
                assert_eq!(link.call(call, 100).await.expect("the call is answered"), &PARAMS[..]);
            }
            Self::InSteps(link, subject) => {
                let params = Bytes::from_static(PARAMS);
                let headers = Headers::new();
                let call = Call { subject, headers: &headers, params, deadlines: Deadlines::default() };
                let (params, mut results) = link.invoke(call).await.expect("the callee shakes hands");
                params.finish().await.expect("the end goes");
                assert_eq!(results.read_root(100).await.expect("the call is answered"), &PARAMS[..]);
            }
            Self::Plain(client) => {
                let answer = client.request("plain.echo", Bytes::from_static(PARAMS)).await.expect("an answer");
                assert_eq!(answer.payload, &PARAMS[..]);
            }
            Self::Quic(client) => echo(client).await,
            Self::Unix(client) => echo(client).await,
        }
    }
}

async fn echo(client: &impl Invoke<Context = ()>) {
    let params = (Bytes::from_static(&PARAMS[1..]),);
    let (answer,): (Bytes,) =
        client.invoke_values_blocking((), INSTANCE, "echo", params, NO_PATHS).await.expect("the call is answered");
    assert_eq!(answer, &PARAMS[1..]);
}

pub async fn all(server: &NatsServer) -> Vec<Way> {
    let (link, subject) = ours(server).await;
    vec![
        Way { letter: 's', name: "wrpc-transport-nats 0.31", caller: stock(server).await },
        Way {
            letter: 'f',
            name: "ours, as with stock ends",
            caller: Caller::InSteps(link.clone(), Arc::clone(&subject)),
        },
        Way { letter: 'o', name: "ours", caller: Caller::Ours(link, subject) },
        Way { letter: 'r', name: "plain request and reply", caller: plain(server).await },
    ]
}

/// What has to do with the sidecar: the leg behind it, and the ways through it.
pub fn through_the_sidecar(runtime: &Runtime, server: &NatsServer, scene: &mut Scene) -> anyhow::Result<Vec<Way>> {
    let address = VirtualAddress { lattice: "demo".parse()?, id: "shop".parse()? };
    let subject = request_subject(&address, "caller", INSTANCE, "echo");
    let ours = Caller::Ours(scene.on_lattice(runtime, server)?, Arc::new(subject));
    Ok(vec![
        Way { letter: 'u', name: "Unix socket", caller: Caller::Unix(scene.socket.clone().into()) },
        Way { letter: 'b', name: "sidecar to that socket", caller: ours },
        Way { letter: 'q', name: "QUIC, sidecar, that socket", caller: Caller::Quic(scene.quic(runtime)?) },
    ])
}

async fn stock(server: &NatsServer) -> Caller {
    let client = |group: Option<&'static str>| async move {
        let nats = server.stock().await;
        wrpc_transport_nats::Client::new(nats, "lattice.stock", group.map(Arc::from)).await.unwrap()
    };
    let callee = client(Some("lattice.stock")).await;
    let calls = callee.serve(INSTANCE, "echo", Vec::new()).await.unwrap();
    tokio::spawn(async move {
        let _callee = callee;
        let mut calls = Box::pin(calls);
        while let Some(Ok((_, mut outgoing, mut incoming))) = calls.next().await {
            tokio::spawn(async move {
                let mut params = [0; PARAMS.len()];
                incoming.read_exact(&mut params).await.unwrap();
                outgoing.write_all(&params).await.unwrap();
                outgoing.shutdown().await.unwrap();
            });
        }
    });
    Caller::Stock(client(None).await)
}

async fn ours(server: &NatsServer) -> (Link, Arc<RequestSubject>) {
    let callee = server.link("_INBOX_callee").await;
    let address = fresh_address();
    let mut acceptor = callee.accept_calls(address.clone()).await.unwrap();
    tokio::spawn(async move {
        while let Some(Arrival::Call(call)) = acceptor.next().await {
            tokio::spawn(answer(call));
        }
    });
    let subject = request_subject(&address, "caller", INSTANCE, "echo");
    (server.link("_INBOX_caller").await, Arc::new(subject))
}

async fn answer(call: IncomingCall) {
    let (params, results) = call.accept(Deadlines::default()).await.unwrap();
    // Nobody cuts so little.
    let params = params.path(Path::root()).next().await.unwrap().unwrap();
    assert_eq!(params.len(), PARAMS.len());
    results.finish_with(params).await.unwrap();
}

async fn plain(server: &NatsServer) -> Caller {
    let callee = server.stock().await;
    let mut requests = callee.queue_subscribe("plain.echo", "plain".to_owned()).await.unwrap();
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let callee = callee.clone();
            tokio::spawn(async move { callee.publish(request.reply.unwrap(), request.payload).await.unwrap() });
        }
    });
    Caller::Plain(server.stock().await)
}
