//! How a node gets its first identity: from the cache of an earlier run, or for a join token.

use std::time::Duration;

use portcullis_api::{ConnectError, v1};
use portcullis_identity::{JoinToken, PrivateKey, joining_client_config, key_request};
use tonic::Code;
use tracing::{info, warn};

use super::cache::{Cache, CachedSvid, Identities};
use super::{NodeConfig, NodeKind, SignError, StartError, identity, state};
use crate::clock;

/// How long a joining node looks for a broker that does not answer yet.
const PATIENCE: Duration = Duration::from_secs(30);
/// The wait between two attempts.
const PAUSE: Duration = Duration::from_millis(500);
/// How long the broker may take for one attempt.
const DEADLINE: Duration = Duration::from_secs(10);

/// Why a node could not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The broker was not found in time.
    #[error("cannot join: {0}")]
    Unreachable(String),
    /// Who answers is not the broker that made the token.
    #[error("cannot join: {0} (hint: the token may be another broker's)")]
    NotTheBroker(String),
    /// Who answers is below none of the configured authorities.
    #[error("cannot join: {0} (hint: `node.bundle` must hold this broker's root, `bundle.pem` of its data folder)")]
    OtherBroker(String),
    /// The broker refuses the token.
    #[error("the broker refuses the join token: {0}")]
    Refused(String),
    /// The broker refuses the certificate.
    #[error("the broker refuses the join certificate: {0}")]
    RefusedCertificate(String),
    /// The reply cannot be used.
    #[error("the broker's answer cannot be used: {0}")]
    Unusable(String),
}

impl From<SignError> for JoinError {
    fn from(error: SignError) -> Self {
        Self::Unusable(error.to_string())
    }
}

/// The identities to start with: those of the cache while they are good, unless the operator gives a token that was not used yet.
pub(super) async fn resume_or_join(cache: &Cache, config: &NodeConfig) -> Result<Identities, StartError> {
    let mut cached = cache.identities()?;
    if let (Some(identities), Some(broker)) = (&mut cached, &config.broker) {
        identities.broker.clone_from(broker);
    }
    let Some(cached) = cached else {
        let token = config.join_token.as_ref().ok_or(StartError::NoToken)?;
        return joined(cache, config, token, PATIENCE).await;
    };
    let own = cached.svids.iter().find(|svid| svid.entry.is_empty());
    let good = own.is_some_and(|own| own.svid.not_after() > clock::now());
    // An expired identity is of use to its owner: the session redeems it for a new one.
    if !good && config.kind == NodeKind::Shell {
        return Err(StartError::Expired);
    }
    let Some(token) = config.join_token.as_ref().filter(|token| token.secret_sha256() != cached.token[..]) else {
        return Ok(cached);
    };
    let patience = if good { Duration::ZERO } else { PATIENCE };
    match joined(cache, config, token, patience).await {
        Err(StartError::Join(error @ (JoinError::Refused(_) | JoinError::Unreachable(_)))) => {
            // Most often it is the token of long ago.
            warn!(%error, "the join token is of no use: going on with the identity of an earlier join");
            Ok(cached)
        }
        outcome => outcome,
    }
}

/// Joins, and keeps the identity.
async fn joined(
    cache: &Cache,
    config: &NodeConfig,
    token: &JoinToken,
    patience: Duration,
) -> Result<Identities, StartError> {
    let broker = config.broker.clone().unwrap_or_else(|| token.broker.clone());
    let identities = join(token, broker, patience).await?;
    cache.store_identities(&identities)?;
    info!(node = %token.node, trust_domain = %token.trust_domain, "joined");
    Ok(identities)
}

/// Redeems the token. One key is used for every attempt, so that a lost reply can be asked for again.
async fn join(token: &JoinToken, broker: String, patience: Duration) -> Result<Identities, JoinError> {
    let key = PrivateKey::generate().map_err(|error| JoinError::Unusable(error.to_string()))?;
    let csr = key_request(&key).map_err(|error| JoinError::Unusable(error.to_string()))?;
    let until = clock::instant() + patience;
    let reply = loop {
        match attempt(token, &broker, &csr).await {
            Ok(reply) => break reply,
            Err(JoinError::Unreachable(cause)) if clock::instant() < until => {
                warn!(cause, "the broker does not answer; trying again");
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    };
    let v1::JoinReply { chain, bundles } = reply;
    for bundle in &bundles {
        state::parse_bundle(bundle.clone()).map_err(|error| JoinError::Unusable(error.to_string()))?;
    }
    let svid = identity::svid(chain, key)?;
    let expected = portcullis_identity::node_id(&token.trust_domain, &token.node);
    if svid.id() != &expected {
        return Err(JoinError::Unusable(format!("the certificate is for `{}`, not for `{expected}`", svid.id())));
    }
    let own = CachedSvid { entry: String::new(), digest: String::new(), svid };
    let token = token.secret_sha256().to_vec();
    Ok(Identities { broker, token, bundles, svids: vec![own], next_key: None })
}

async fn attempt(token: &JoinToken, broker: &str, csr: &[u8]) -> Result<v1::JoinReply, JoinError> {
    let config = joining_client_config(token.root_spki_sha256, &token.trust_domain)
        .map_err(|error| JoinError::Unusable(error.to_string()))?;
    let channel = portcullis_api::connect_node(broker, &config).await.map_err(|error| match error {
        ConnectError::Unreachable { .. } => JoinError::Unreachable(error.to_string()),
        ConnectError::NotTheBroker { .. } => JoinError::NotTheBroker(error.to_string()),
    })?;
    let request = v1::JoinRequest { node: token.node.to_string(), secret: token.secret().to_vec(), csr: csr.to_vec() };
    let mut client = v1::node_client::NodeClient::new(channel);
    let reply = tokio::time::timeout(DEADLINE, client.join(request))
        .await
        .map_err(|_| JoinError::Unreachable("the broker does not answer".to_owned()))?;
    match reply {
        Ok(reply) => Ok(reply.into_inner()),
        Err(status) if matches!(status.code(), Code::Unavailable | Code::ResourceExhausted | Code::Unknown) => {
            Err(JoinError::Unreachable(status.message().to_owned()))
        }
        Err(status) => Err(JoinError::Refused(status.message().to_owned())),
    }
}
