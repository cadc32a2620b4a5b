//! Coming back after the node's own certificate expired: it is redeemed, once, for a new one.

use std::sync::Arc;
use std::time::Duration;

use portcullis_api::{connect_node_exporting, v1};
use portcullis_identity::{
    CHANNEL_BINDING_LABEL, PeerRule, PeerVerifier, Possession, PrivateKey, Purpose, anonymous_client_config, broker_id,
    key_request,
};
use tonic::Code;
use tracing::{info, warn};

use super::{NodeKind, Shared, identity, lock};

/// How long the broker may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Why the node is not back.
pub(super) enum RejoinError {
    /// It may be on the next attempt.
    Lost(String),
    /// The broker says no.
    Refused(String),
}

/// Gets a new certificate for the expired one, and puts it in force.
///
/// The broker takes an expired certificate for one new key and no other: a second key looks like a second holder, and shuts out both. So the
/// key is on disk before it is asked for, and stays the same until an answer came.
pub(super) async fn rejoin(shared: &Shared) -> Result<(), RejoinError> {
    if shared.kind == NodeKind::Shell {
        return Err(RejoinError::Lost("the node's certificate expired".to_owned()));
    }
    let key = next_key(shared).await?;
    let old = shared.own.svid();
    let chain = ask(shared, &old, &key).await?;
    let own = PrivateKey::from_pkcs8(key.pkcs8()).map_err(|error| lost(&error))?;
    let svid = identity::svid(chain, own).map_err(|error| lost(&error))?;
    if svid.id() != old.id() {
        return Err(RejoinError::Lost(format!("the certificate is for `{}`, not for `{}`", svid.id(), old.id())));
    }
    shared.own.replace(svid);
    lock(&shared.next_key).take();
    info!(id = %old.id(), "rejoined");
    if let Err(error) = shared.store_identities().await {
        warn!(%error, "cannot write the identity cache");
    }
    Ok(())
}

async fn next_key(shared: &Shared) -> Result<Arc<PrivateKey>, RejoinError> {
    let known = lock(&shared.next_key).clone();
    if let Some(key) = known {
        return Ok(key);
    }
    let key = Arc::new(PrivateKey::generate().map_err(|error| lost(&error))?);
    *lock(&shared.next_key) = Some(Arc::clone(&key));
    if let Err(error) = shared.store_identities().await {
        // Asked for and then forgotten, it would make the next one look like a thief's.
        lock(&shared.next_key).take();
        return Err(lost(&error));
    }
    Ok(key)
}

async fn ask(shared: &Shared, old: &portcullis_identity::Svid, key: &PrivateKey) -> Result<Vec<Vec<u8>>, RejoinError> {
    let verifier = PeerVerifier::new(Arc::clone(&shared.trust), PeerRule::Exactly(broker_id(&shared.trust_domain)));
    let config = anonymous_client_config(verifier).map_err(|error| lost(&error))?;
    let (channel, exported) =
        connect_node_exporting(&shared.broker, &config, CHANNEL_BINDING_LABEL).await.map_err(|error| lost(&error))?;
    let possession =
        Possession { channel: exported.into(), purpose: Purpose::Rejoin, next_key_sha256: key.public_key_sha256() };
    let request = v1::RejoinRequest {
        chain: old.chain().iter().map(|certificate| certificate.to_vec()).collect(),
        csr: key_request(key).map_err(|error| lost(&error))?,
        proof: possession.prove(old.key()).map_err(|error| lost(&error))?,
    };
    let mut client = v1::node_client::NodeClient::new(channel);
    let reply = tokio::time::timeout(DEADLINE, client.rejoin(request))
        .await
        .map_err(|_| RejoinError::Lost("the broker does not answer".to_owned()))?;
    match reply {
        Ok(reply) => Ok(reply.into_inner().chain),
        Err(status) if matches!(status.code(), Code::PermissionDenied | Code::FailedPrecondition) => {
            Err(RejoinError::Refused(status.message().to_owned()))
        }
        Err(status) => Err(RejoinError::Lost(status.message().to_owned())),
    }
}

fn lost(error: &impl ToString) -> RejoinError {
    RejoinError::Lost(error.to_string())
}
