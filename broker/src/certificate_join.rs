//! A node joins by a certificate of an accepted authority ([`x509pop`](crate::x509pop)): chain, proof on this connection, name, and the
//! registry's word.

use portcullis_api::v1;
use portcullis_identity::{Possession, Purpose, RequestedKey};
use rustls::pki_types::CertificateDer;
use tonic::{Code, Status};

use crate::audit::Actor;
use crate::authority::Issued;
use crate::broker::Broker;
use crate::clock;
use crate::ledger::CommandError;
use crate::listener::Remote;
use crate::registry::{CertificateJoin, Command, JoinRefusal, Refusal};

impl Broker {
    /// Makes a node of whoever proves the leaf of an accepted chain.
    pub(crate) async fn join_by_certificate(
        &self,
        remote: &Remote,
        message: v1::JoinByCertificateRequest,
    ) -> Result<Issued, Status> {
        let v1::JoinByCertificateRequest { chain, csr, proof } = message;
        let attestor = self
            .attestor
            .as_ref()
            .ok_or_else(|| Status::unimplemented("this broker accepts no certificates for joining"))?;
        let address = remote.address;
        let unproved = |reason: String| {
            tracing::warn!(%address, reason, "joining by certificate refused");
            Status::unauthenticated("no accepted authority vouches for this, or its key is not proved to be held")
        };
        let turn = self.signing.turn().await.map_err(Status::from)?;
        let key = RequestedKey::parse(&csr)
            .map_err(|error| Status::invalid_argument(format!("the certificate request is refused: {error}")))?;
        let chain: Vec<_> = chain.into_iter().map(CertificateDer::from).collect();
        let node = attestor.attest(&chain, clock::now()).map_err(unproved)?;
        let next_key_sha256 = key.sha256();
        let leaf = chain.first().ok_or_else(|| unproved("no certificate".to_owned()))?;
        Possession { channel: remote.channel, purpose: Purpose::JoinByCertificate, next_key_sha256 }
            .verify(leaf, &proof)
            .map_err(|error| unproved(error.to_string()))?;
        drop(turn);
        let join = CertificateJoin { node: node.clone(), key_sha256: next_key_sha256 };
        let by = Actor::Joining { node: node.to_string(), address };
        match self.ledger.execute(by, Command::JoinByCertificate(join)).await {
            Ok(_) => {}
            Err(CommandError::Refused(Refusal::Join(refusal))) => {
                tracing::error!(%node, %address, %refusal, "ALARM: joining by certificate refused");
                return Err(refused(refusal));
            }
            Err(CommandError::Refused(refusal)) => return Err(Status::failed_precondition(refusal.to_string())),
            Err(CommandError::Store(_) | CommandError::Unaudited(_)) => {
                return Err(Status::unavailable("the broker cannot store the change"));
            }
            Err(CommandError::Closed) => return Err(Status::unavailable("the broker is shutting down")),
        }
        let issued = self.issue_node(&node, &key).map_err(|error| Status::internal(error.to_string()))?;
        let event = self.node_issued(&node, &key, &issued);
        self.audit.record(event).await.map_err(|error| Status::unavailable(error.to_string()))?;
        tracing::info!(%node, %address, "node joined by certificate");
        Ok(issued)
    }
}

fn refused(refusal: JoinRefusal) -> Status {
    match refusal {
        JoinRefusal::OtherWay | JoinRefusal::Quarantined | JoinRefusal::Barred => {
            Status::new(Code::PermissionDenied, refusal.to_string())
        }
    }
}
