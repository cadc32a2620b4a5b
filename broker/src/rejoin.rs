//! A node whose certificate expired while it was away comes back without a new join token (D4).
//!
//! The handshake cannot use an expired certificate, and must not learn to: an exception there would be one for every peer. So the node
//! connects as nobody, to a broker that it verifies as always, and shows in the call what TLS does not ask about:
//!
//! * *its last certificate and what is above it.* They must verify to an authority that is trusted **now**, at the moment the leaf was still
//!   valid: a root that was withdrawn lets nobody back in;
//! * *a signature by that certificate's key*, over what TLS exports on this very connection and over the key to be certified next
//!   ([`Possession`]). A challenge that we choose would prove the same for one round trip more, and a memory of challenges that strangers
//!   could fill; the exported value is chosen by both ends, never comes twice, and cannot be relayed from another connection;
//! * *a request for a new key*: the old one is not certified again, so that two holders of it cannot look like one.
//!
//! What then decides is the registry ([`plan_rejoining`](crate::registry::Registry::plan)): the node must be registered, not quarantined, the
//! certificate its last, not older than the time of grace, and used for this once. The rate is that of joining.

use std::time::SystemTime;

use portcullis_api::v1;
use portcullis_identity::{
    Leaf, MAX_CERTIFICATE_BYTES, MAX_INTERMEDIATES, NodeName, PeerRule, PeerVerifier, Possession, Purpose,
    RequestedKey, Usage, node_name,
};
use rustls::pki_types::{CertificateDer, UnixTime};
use tonic::{Code, Status};

use crate::audit::Actor;
use crate::authority::Issued;
use crate::broker::Broker;
use crate::clock;
use crate::ledger::CommandError;
use crate::listener::Remote;
use crate::registry::{Command, Refusal, RejoinRefusal, Rejoining, Sighting, Standing};

impl Broker {
    /// Redeems an expired certificate for a new one.
    pub(crate) async fn rejoin(&self, remote: &Remote, message: v1::RejoinRequest) -> Result<Issued, Status> {
        let v1::RejoinRequest { chain, csr, proof } = message;
        let turn = self.signing.turn().await.map_err(Status::from)?;
        let key = RequestedKey::parse(&csr)
            .map_err(|error| Status::invalid_argument(format!("the certificate request is refused: {error}")))?;
        let (node, leaf) = self.verify_last(remote, chain, &key, &proof)?;
        drop(turn);
        let rejoining = Rejoining {
            node: node.clone(),
            serial: leaf.serial().to_vec(),
            not_before: leaf.not_before(),
            not_after: leaf.not_after(),
            key_sha256: key.sha256(),
        };
        let address = remote.address;
        let by = Actor::Joining { node: node.to_string(), address };
        match self.ledger.execute(by, Command::Rejoin(Box::new(rejoining))).await {
            Ok(_) if self.is_quarantined(&node) => {
                self.presence.disconnect(&node);
                tracing::error!(%node, %address, "ALARM: a second holder of one certificate: the node is quarantined");
                return Err(refused(RejoinRefusal::Quarantined));
            }
            Ok(_) => {}
            Err(CommandError::Refused(Refusal::Rejoin(refusal))) => {
                match refusal {
                    RejoinRefusal::Superseded => {
                        tracing::error!(%node, %address, "ALARM: an old certificate of the node came back");
                    }
                    RejoinRefusal::NotRegistered | RejoinRefusal::Quarantined | RejoinRefusal::TooLate => {
                        tracing::warn!(%node, %address, %refusal, "rejoining refused");
                    }
                }
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
        tracing::warn!(%node, %address, expired = clock::unix_seconds(leaf.not_after()), "node rejoined");
        Ok(issued)
    }

    /// Notes which certificate a node holds. A store that fails is told of where it fails; the node is served nevertheless.
    pub(crate) async fn sight(&self, node: &NodeName, remote: &Remote) {
        let Some(peer) = &remote.peer else { return };
        let sighting = Sighting { node: node.clone(), not_before: peer.leaf().not_before() };
        // Looked at here first: most often there is nothing new, and the writer has other things to do.
        let is_new = self.ledger.read(|registry| {
            registry.node(node).is_some_and(|node| node.sighted(sighting.not_before, clock::now()) != **node)
        });
        if is_new {
            let _ = self.ledger.execute(Actor::Node { node: node.to_string() }, Command::Sight(sighting)).await;
        }
    }

    fn verify_last(
        &self,
        remote: &Remote,
        chain: Vec<Vec<u8>>,
        key: &RequestedKey,
        proof: &[u8],
    ) -> Result<(NodeName, Leaf), Status> {
        let unproved = || Status::unauthenticated("this proves no node of this trust domain");
        if chain.len() > MAX_INTERMEDIATES.saturating_add(1)
            || chain.iter().any(|der| der.len() > MAX_CERTIFICATE_BYTES)
        {
            return Err(Status::invalid_argument("the certificate chain is too long"));
        }
        let chain: Vec<_> = chain.into_iter().map(CertificateDer::from).collect();
        let (first, above) = chain.split_first().ok_or_else(unproved)?;
        let leaf = Leaf::parse(first).map_err(|_| unproved())?;
        let node = node_name(leaf.id()).ok_or_else(unproved)?;
        if leaf.public_key_sha256() == key.sha256() {
            return Err(Status::invalid_argument("rejoining needs a new key"));
        }
        // While it was valid: that it has expired is why the node is here.
        let then = clock::now().min(leaf.not_after());
        let rule = PeerRule::TrustDomain(self.authority.trust_domain().clone());
        PeerVerifier::new(self.trust.source(), rule).verify(first, above, unix_time(then), Usage::ClientAuth).map_err(
            |refused| {
                tracing::warn!(address = %remote.address, reason = %refused.reason(), "rejoining refused");
                unproved()
            },
        )?;
        Possession { channel: remote.channel, purpose: Purpose::Rejoin, next_key_sha256: key.sha256() }
            .verify(first, proof)
            .map_err(|error| {
                tracing::warn!(%node, address = %remote.address, %error, "rejoining refused");
                unproved()
            })?;
        Ok((node, leaf))
    }

    fn is_quarantined(&self, node: &NodeName) -> bool {
        self.ledger.read(|registry| registry.node(node).is_some_and(|node| node.standing == Standing::Quarantined))
    }
}

fn unix_time(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

fn refused(refusal: RejoinRefusal) -> Status {
    let code = match refusal {
        RejoinRefusal::NotRegistered | RejoinRefusal::Quarantined | RejoinRefusal::Superseded => Code::PermissionDenied,
        RejoinRefusal::TooLate => Code::FailedPrecondition,
    };
    Status::new(code, refusal.to_string())
}
