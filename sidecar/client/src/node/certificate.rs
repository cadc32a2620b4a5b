//! Joining by a certificate that another authority gave this machine.

use std::sync::Arc;
use std::time::Duration;

use portcullis_api::{ConnectError, connect_node_exporting, v1};
use portcullis_identity::{
    Bundle, CHANNEL_BINDING_LABEL, PeerRule, PeerVerifier, Possession, PrivateKey, Purpose, TrustBundles,
    anonymous_client_config, broker_id, key_request, node_name,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Code;
use tracing::{info, warn};

use super::cache::{Access, Cache, CachedSvid, Identities};
use super::{JoinError, Node, NodeConfig, StartError, identity, state};
use crate::clock;

/// How long a joining node looks for a broker that does not answer yet.
const PATIENCE: Duration = Duration::from_secs(30);
/// The wait between two attempts.
const PAUSE: Duration = Duration::from_millis(500);
/// How long the broker may take for one attempt.
const DEADLINE: Duration = Duration::from_secs(10);

/// A certificate by which a node joins, and whom it joins.
#[derive(Debug)]
pub struct JoinCertificate {
    /// `host:port` of the broker.
    pub broker: String,
    /// The authorities of the broker's trust domain: a broker below none of them is not spoken to.
    pub bundle: Bundle,
    /// The certificate and what is above it, leaf first, at most four.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key: P-256, P-384 or RSA.
    pub key: PrivateKeyDer<'static>,
}

impl Node {
    /// As [`Node::start`], for a node that has no join token but a certificate of an authority that the broker accepts for joining.
    ///
    /// # Errors
    /// As for [`Node::start`].
    pub async fn start_with_certificate(
        mut config: NodeConfig,
        certificate: &JoinCertificate,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, StartError> {
        let cache = Arc::new(Cache::open(&config.state_dir, Access::Own, config.seal_key.take())?);
        let identities = resume_or_join(&cache, &config, certificate).await?;
        Self::serve(config.kind, (cache, identities), tasks, stop)
    }
}

/// The identities of the cache while they are good, else new ones.
///
/// For an expired identity the certificate is tried first: it proves more. Where it does not do, because roots followed one another and the
/// configured bundle is that of long ago, the expired one is left to the session, which redeems it below what the broker said last.
async fn resume_or_join(
    cache: &Cache,
    config: &NodeConfig,
    certificate: &JoinCertificate,
) -> Result<Identities, StartError> {
    let broker = config.broker.clone().unwrap_or_else(|| certificate.broker.clone());
    let mut cached = cache.identities()?;
    if let Some(identities) = &mut cached {
        identities.broker.clone_from(&broker);
        let own = identities.svids.iter().find(|svid| svid.entry.is_empty());
        if own.is_some_and(|own| own.svid.not_after() > clock::now()) {
            return cached.ok_or(StartError::NoToken);
        }
    }
    let identities = match (join(certificate, broker).await, cached) {
        (Ok(identities), _) => identities,
        (Err(error), Some(cached)) => {
            warn!(%error, "the certificate is of no use: going on with the identity of an earlier join");
            return Ok(cached);
        }
        (Err(error), None) => return Err(error.into()),
    };
    cache.store_identities(&identities)?;
    info!(trust_domain = %certificate.bundle.trust_domain(), "joined by certificate");
    Ok(identities)
}

/// One key is used for every attempt, so that a lost reply can be asked for again.
async fn join(certificate: &JoinCertificate, broker: String) -> Result<Identities, JoinError> {
    let key = PrivateKey::generate().map_err(|error| unusable(&error))?;
    let patience = clock::instant() + PATIENCE;
    let reply = loop {
        match attempt(certificate, &broker, &key).await {
            Ok(reply) => break reply,
            Err(JoinError::Unreachable(cause)) if clock::instant() < patience => {
                warn!(cause, "the broker does not answer; trying again");
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    };
    let v1::JoinReply { chain, bundles } = reply;
    for bundle in &bundles {
        state::parse_bundle(bundle.clone()).map_err(|error| unusable(&error))?;
    }
    let svid = identity::svid(chain, key)?;
    if !svid.id().is_member_of(certificate.bundle.trust_domain()) || node_name(svid.id()).is_none() {
        return Err(JoinError::Unusable(format!("the certificate is for `{}`, which is no node", svid.id())));
    }
    let own = CachedSvid { entry: String::new(), digest: String::new(), svid };
    Ok(Identities { broker, token: Vec::new(), bundles, svids: vec![own], next_key: None })
}

async fn attempt(certificate: &JoinCertificate, broker: &str, key: &PrivateKey) -> Result<v1::JoinReply, JoinError> {
    let trust_domain = certificate.bundle.trust_domain();
    let trust = TrustBundles::new([certificate.bundle.clone()], clock::now()).into_source();
    let verifier = PeerVerifier::new(Arc::clone(&trust), PeerRule::Exactly(broker_id(trust_domain)));
    let config = anonymous_client_config(verifier).map_err(|error| unusable(&error))?;
    let (channel, exported) =
        connect_node_exporting(broker, &config, CHANNEL_BINDING_LABEL).await.map_err(|error| match error {
            ConnectError::Unreachable { .. } => JoinError::Unreachable(error.to_string()),
            ConnectError::NotTheBroker { .. } => JoinError::OtherBroker(error.to_string()),
        })?;
    let possession = Possession {
        channel: exported.into(),
        purpose: Purpose::JoinByCertificate,
        next_key_sha256: key.public_key_sha256(),
    };
    let request = v1::JoinByCertificateRequest {
        chain: certificate.chain.iter().map(|der| der.to_vec()).collect(),
        csr: key_request(key).map_err(|error| unusable(&error))?,
        proof: possession.prove_with(&certificate.key).map_err(|error| unusable(&error))?,
    };
    let mut client = v1::node_client::NodeClient::new(channel);
    let reply = tokio::time::timeout(DEADLINE, client.join_by_certificate(request))
        .await
        .map_err(|_| JoinError::Unreachable("the broker does not answer".to_owned()))?;
    match reply {
        Ok(reply) => Ok(reply.into_inner()),
        Err(status) if matches!(status.code(), Code::Unavailable | Code::ResourceExhausted | Code::Unknown) => {
            Err(JoinError::Unreachable(status.message().to_owned()))
        }
        Err(status) => Err(JoinError::RefusedCertificate(status.message().to_owned())),
    }
}

fn unusable(error: &impl ToString) -> JoinError {
    JoinError::Unusable(error.to_string())
}
