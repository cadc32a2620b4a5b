//! Nodes as the broker sees them, without what a real one does with its answers.

use std::sync::Arc;

use e2e::Lab;
use portcullis_api::connect_node;
use portcullis_api::v1::{self, node_client::NodeClient, watch_reply, watch_request};
use portcullis_identity::{
    JoinToken, PeerRule, PeerVerifier, PrivateKey, Svid, SvidSlot, TrustDomain, broker_id, client_config,
    joining_client_config, key_request,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

/// How many ask at the same time.
pub const NODES: usize = 16;

/// The nodes that ask.
pub struct Nodes(pub Vec<AskingNode>);

/// A joined node with its entries, and a CSR for each of them.
#[derive(Clone)]
pub struct AskingNode {
    pub client: NodeClient<Channel>,
    /// Entry and CSR.
    pub wanted: Arc<Vec<(String, Vec<u8>)>>,
}

impl Nodes {
    pub fn join(lab: &Lab, entries: &[Vec<String>]) -> Self {
        let asking = |(number, entries): (usize, &Vec<String>)| {
            let token = std::fs::read_to_string(lab.token(&format!("node-{number}"))).unwrap();
            let csr = || key_request(&PrivateKey::generate().unwrap()).unwrap();
            AskingNode {
                client: lab.block_on(join(lab, &token.trim().parse().unwrap())),
                wanted: Arc::new(entries.iter().map(|entry| (entry.clone(), csr())).collect()),
            }
        };
        Self(entries.iter().enumerate().map(asking).collect())
    }
}

async fn join(lab: &Lab, token: &JoinToken) -> NodeClient<Channel> {
    let stranger = joining_client_config(token.root_spki_sha256, &token.trust_domain).unwrap();
    let mut client = NodeClient::new(connect_node(&token.broker, &stranger).await.unwrap());
    let key = PrivateKey::generate().unwrap();
    let csr = key_request(&key).unwrap();
    let request = v1::JoinRequest { node: token.node.to_string(), secret: token.secret().to_vec(), csr };
    let chain = client.join(request).await.unwrap().into_inner().chain;
    let svid = Svid::new(chain.into_iter().map(Into::into).collect(), key).unwrap();
    let broker = broker_id(&TrustDomain::new("test.example").unwrap());
    let config = client_config(PeerVerifier::new(lab.trust(), PeerRule::Exactly(broker)), SvidSlot::new(svid)).unwrap();
    NodeClient::new(connect_node(&lab.control().to_string(), &config).await.unwrap())
        .max_decoding_message_size(portcullis_api::MAX_MESSAGE_BYTES)
}

/// A node's open stream.
pub struct Stream {
    up: mpsc::Sender<v1::WatchRequest>,
    down: Streaming<v1::WatchReply>,
}

impl Stream {
    /// Opens the stream and reads the state.
    pub async fn open(node: &AskingNode) -> Self {
        let (up, queue) = mpsc::channel(64);
        let hello = v1::Hello { kind: v1::NodeKind::Host.into(), last: None, software: "bench".to_owned() };
        up.send(v1::WatchRequest { message: Some(watch_request::Message::Hello(hello)) }).await.unwrap();
        let down = node.client.clone().watch(ReceiverStream::new(queue)).await.unwrap().into_inner();
        let mut stream = Self { up, down };
        while !matches!(stream.next().await, watch_reply::Message::State(_)) {}
        stream
    }

    pub async fn say(&self, message: watch_request::Message) {
        self.up.send(v1::WatchRequest { message: Some(message) }).await.expect("the stream is open");
    }

    /// How many SVIDs the next answer holds; other news is skipped.
    pub async fn answer(&mut self) -> usize {
        loop {
            match self.next().await {
                watch_reply::Message::Signed(signed) => {
                    assert!(!signed.chain.is_empty());
                    return 1;
                }
                watch_reply::Message::SignedJwts(signed) => return signed.results.iter().map(token).sum(),
                watch_reply::Message::SignRefused(refused) => panic!("{refused:?}"),
                _ => {}
            }
        }
    }

    async fn next(&mut self) -> watch_reply::Message {
        self.down.message().await.expect("the stream is whole").expect("the stream is open").message.unwrap()
    }
}

/// One, for a token that was signed.
pub fn token(result: &v1::JwtResult) -> usize {
    match &result.result {
        Some(v1::jwt_result::Result::Token(_)) => 1,
        other => panic!("{other:?}"),
    }
}
