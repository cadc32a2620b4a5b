//! Join tokens: made, printed once, kept as a hash.

use std::time::Duration;

use portcullis_api::v1;
use portcullis_identity::{JoinSecret, JoinToken, NodeName};
use tonic::Status;

use super::OperatorService;
use super::answer::invalid;
use crate::audit::Actor;
use crate::clock;
use crate::registry::{Address, Command, NewToken};
use crate::wire::{self, InvalidMessage};

/// Seconds; ten minutes is enough to carry a token to a node by hand.
const TOKEN_LIFETIME: u32 = 600;

impl OperatorService {
    pub(super) async fn make_token(
        &self,
        by: Actor,
        message: v1::CreateJoinTokenRequest,
    ) -> Result<v1::CreateJoinTokenReply, Status> {
        let v1::CreateJoinTokenRequest { node, ttl_seconds, broker_address } = message;
        let node: NodeName = wire::parse(&node).map_err(|error| invalid(&error))?;
        let broker = if broker_address.is_empty() { self.0.advertised.clone() } else { broker_address };
        let broker: Address = wire::parse(&broker).map_err(|error| {
            invalid(&InvalidMessage::new(format!(
                "{error}; nodes need an address to dial: give one, or start the broker with --advertise"
            )))
        })?;
        let seconds = if ttl_seconds == 0 { TOKEN_LIFETIME } else { ttl_seconds };
        let lifetime = Duration::from_secs(seconds.into());
        let expires_at = clock::now().checked_add(lifetime).ok_or_else(|| Status::invalid_argument("too long"))?;
        let token = JoinToken {
            trust_domain: self.0.authority.trust_domain().clone(),
            node: node.clone(),
            broker: broker.to_string(),
            root_spki_sha256: self.0.authority.root_spki_sha256(),
            secret: JoinSecret::generate().map_err(|error| Status::internal(error.to_string()))?,
            expires_at,
        };
        let secret_sha256 = token.secret_sha256();
        self.execute(by, Command::CreateToken(NewToken { node, lifetime, secret_sha256 })).await?;
        Ok(v1::CreateJoinTokenReply { token: token.reveal(), expires_at: clock::unix_seconds(expires_at) })
    }
}
