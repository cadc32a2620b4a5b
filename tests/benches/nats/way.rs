//! The ways of a call, each with a callee that is ready.

use std::sync::Arc;

use bytes::Bytes;
use e2e::nats::{NatsServer, fresh_address, request_subject};
use portcullis_transport::nats::{Arrival, Call, Deadlines, Headers, IncomingCall, Link, Path, RequestSubject};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_stream::StreamExt as _;
use wrpc_transport::{Invoke as _, Serve as _};

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
    Plain(async_nats::Client),
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
            Self::Plain(client) => {
                let answer = client.request("plain.echo", Bytes::from_static(PARAMS)).await.expect("an answer");
                assert_eq!(answer.payload, &PARAMS[..]);
            }
        }
    }
}

pub async fn all(server: &NatsServer) -> Vec<Way> {
    vec![
        Way { letter: 's', name: "wrpc-transport-nats 0.31", caller: stock(server).await },
        Way { letter: 'o', name: "ours", caller: ours(server).await },
        Way { letter: 'r', name: "plain request and reply", caller: plain(server).await },
    ]
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

async fn ours(server: &NatsServer) -> Caller {
    let callee = server.link("_INBOX_callee").await;
    let address = fresh_address();
    let mut acceptor = callee.accept_calls(address.clone()).await.unwrap();
    tokio::spawn(async move {
        while let Some(Arrival::Call(call)) = acceptor.next().await {
            tokio::spawn(answer(call));
        }
    });
    let subject = request_subject(&address, "caller", INSTANCE, "echo");
    Caller::Ours(server.link("_INBOX_caller").await, Arc::new(subject))
}

async fn answer(call: IncomingCall) {
    let (params, mut results) = call.accept(Deadlines::default()).await.unwrap();
    // Nobody cuts so little.
    let params = params.path(Path::root()).next().await.unwrap().unwrap();
    assert_eq!(params.len(), PARAMS.len());
    results.write(params).await.unwrap();
    results.finish().await.unwrap();
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
