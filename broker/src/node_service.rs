//! The gRPC service that nodes speak to. Only [`Join`](v1::node_server::Node::join) and [`Rejoin`](v1::node_server::Node::rejoin) are open
//! to a peer without a node's identity.

use std::sync::Arc;

use portcullis_api::v1;
use portcullis_identity::{NodeName, RequestedKey};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::audit::{Actor, Unaudited};
use crate::authority::Issued;
use crate::broker::Broker;
use crate::courier::Courier;
use crate::ledger::CommandError;
use crate::listener::Remote;
use crate::registry::{Command, Redemption, Refusal, TokenRefusal};
use crate::throttle::Admission;
use crate::wire;

/// Messages that wait for the network; a courier waits with the next. Signatures are small, and cheaper to send by the dozen.
const QUEUE: usize = 16;

/// Serves nodes.
#[derive(Debug)]
pub(crate) struct NodeService(pub(crate) Arc<Broker>);

#[tonic::async_trait]
impl v1::node_server::Node for NodeService {
    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinReply>, Status> {
        let remote = remote(&request)?;
        self.admit_attempt(&remote)?;
        let reply = self.redeem(request.into_inner(), &remote).await?;
        Ok(Response::new(reply))
    }

    type WatchStream = ReceiverStream<Result<v1::WatchReply, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<v1::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let remote = remote(&request)?;
        let node = self.0.admit(&remote)?;
        self.0.sight(&node, &remote).await;
        let (outbound, stream) = mpsc::channel(QUEUE);
        let courier = Courier::new(Arc::clone(&self.0), node, remote, outbound);
        self.0.tracker.spawn(courier.run(request.into_inner()));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn describe(&self, request: Request<v1::DescribeRequest>) -> Result<Response<v1::DescribeReply>, Status> {
        let node = self.0.admit(&remote(&request)?)?;
        let target = wire::target(request.into_inner().target).map_err(|error| invalid(&error))?;
        // What lies in a lattice the node may not see does not exist for it.
        let served = self
            .0
            .ledger
            .read(|registry| registry.served(&target).filter(|_| registry.may_see(&node, &target.lattice)).cloned());
        let served = served.ok_or_else(|| {
            Status::not_found(format!("no virtual component `{target}` in the lattices of this node"))
        })?;
        Ok(Response::new(v1::DescribeReply {
            record: Some(wire::record_message(&served.record)),
            wit: wire::wit_messages(&served.component.wit),
        }))
    }

    async fn rejoin(&self, request: Request<v1::RejoinRequest>) -> Result<Response<v1::JoinReply>, Status> {
        let remote = remote(&request)?;
        self.admit_attempt(&remote)?;
        let issued = self.0.rejoin(&remote, request.into_inner()).await?;
        Ok(Response::new(self.join_reply(&issued)))
    }

    async fn join_by_certificate(
        &self,
        request: Request<v1::JoinByCertificateRequest>,
    ) -> Result<Response<v1::JoinReply>, Status> {
        let remote = remote(&request)?;
        self.admit_attempt(&remote)?;
        let issued = self.0.join_by_certificate(&remote, request.into_inner()).await?;
        Ok(Response::new(self.join_reply(&issued)))
    }

    async fn sign_x509(&self, request: Request<v1::Sign>) -> Result<Response<v1::Signed>, Status> {
        let remote = remote(&request)?;
        let message = request.into_inner();
        let (chain, mut record) = self.0.sign_x509(&remote, &message).await?;
        record.on_disk().await.map_err(|error| unaudited(&error))?;
        Ok(Response::new(v1::Signed { request: message.request, chain }))
    }

    async fn sign_jwts(&self, request: Request<v1::SignJwts>) -> Result<Response<v1::SignedJwts>, Status> {
        let remote = remote(&request)?;
        let v1::SignJwts { request, wanted } = request.into_inner();
        let (results, mut record) = self.0.sign_jwts(&remote, wanted).await?;
        record.on_disk().await.map_err(|error| unaudited(&error))?;
        Ok(Response::new(v1::SignedJwts { request, results }))
    }

    async fn fill(&self, request: Request<v1::FillRequest>) -> Result<Response<v1::FillReply>, Status> {
        let remote = remote(&request)?;
        let node = self.0.admit(&remote)?;
        self.0.signing.admit_filling(&node)?;
        let filling = wire::template::filling(node.clone(), request.into_inner()).map_err(|error| invalid(&error))?;
        let by = Actor::Node { node: node.to_string() };
        let outcome = self.0.ledger.execute(by, Command::Fill(filling)).await.map_err(|error| failed(&error))?;
        Ok(Response::new(v1::FillReply { entry: outcome.entries.first().map(ToString::to_string).unwrap_or_default() }))
    }
}

impl NodeService {
    async fn redeem(&self, message: v1::JoinRequest, remote: &Remote) -> Result<v1::JoinReply, Status> {
        let v1::JoinRequest { node, secret, csr } = message;
        let node: NodeName = wire::parse(&node).map_err(|error| invalid(&error))?;
        let secret: [u8; 16] =
            secret.as_slice().try_into().map_err(|_| Status::invalid_argument("a token's secret has 16 bytes"))?;
        let key = RequestedKey::parse(&csr)
            .map_err(|error| Status::invalid_argument(format!("the certificate request is refused: {error}")))?;
        let redemption = Redemption { node: node.clone(), secret_sha256: sha256(&secret), key_sha256: key.sha256() };
        let by = Actor::Joining { node: node.to_string(), address: remote.address };
        match self.0.ledger.execute(by, Command::Redeem(redemption)).await {
            Ok(_) => {}
            Err(CommandError::Refused(Refusal::Token(refusal))) => return Err(refused(refusal, &node, remote)),
            Err(error) => return Err(failed(&error)),
        }
        let issued = self.0.issue_node(&node, &key).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let event = self.0.node_issued(&node, &key, &issued);
        self.0.audit.record(event).await.map_err(|error| unaudited(&error))?;
        tracing::info!(%node, address = %remote.address, "node joined");
        Ok(self.join_reply(&issued))
    }

    fn join_reply(&self, issued: &Issued) -> v1::JoinReply {
        v1::JoinReply {
            chain: issued.chain.iter().map(|der| der.to_vec()).collect(),
            bundles: vec![wire::bundle_message(&self.0.authority.bundle())],
        }
    }

    fn admit_attempt(&self, remote: &Remote) -> Result<(), Status> {
        match self.0.joins.admit(remote.address) {
            Admission::Admitted => Ok(()),
            Admission::Throttled => {
                tracing::warn!(address = %remote.address, "too many attempts to join");
                Err(Status::resource_exhausted("too many attempts to join from this address: wait a moment"))
            }
        }
    }
}

fn remote<T>(request: &Request<T>) -> Result<Remote, Status> {
    request.extensions().get::<Remote>().cloned().ok_or_else(|| Status::internal("the connection has no peer"))
}

fn refused(refusal: TokenRefusal, node: &NodeName, remote: &Remote) -> Status {
    let address = remote.address;
    match refusal {
        TokenRefusal::Spent => {
            tracing::error!(%node, %address, "ALARM: a spent join token came back with another key");
        }
        TokenRefusal::Unknown | TokenRefusal::OtherNode | TokenRefusal::Expired => {
            tracing::warn!(%node, %address, %refusal, "join refused");
        }
    }
    let code = match refusal {
        TokenRefusal::Unknown => tonic::Code::Unauthenticated,
        TokenRefusal::OtherNode | TokenRefusal::Spent => tonic::Code::PermissionDenied,
        TokenRefusal::Expired => tonic::Code::FailedPrecondition,
    };
    Status::new(code, refusal.to_string())
}

fn failed(error: &CommandError) -> Status {
    match error {
        CommandError::Refused(refusal) => Status::failed_precondition(refusal.to_string()),
        CommandError::Store(_) | CommandError::Unaudited(_) => {
            Status::unavailable("the broker cannot store the change")
        }
        CommandError::Closed => Status::unavailable("the broker is shutting down"),
    }
}

/// Why is for the operator, who reads it in the log.
fn unaudited(error: &Unaudited) -> Status {
    tracing::warn!(%error, "signature withheld");
    Status::unavailable("the broker cannot write its audit log")
}

fn invalid(error: &wire::InvalidMessage) -> Status {
    Status::invalid_argument(error.to_string())
}

fn sha256(secret: &[u8; 16]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, secret).as_ref());
    hash
}
