//! Answers what a node asks on its stream: signatures, and announcements of where it serves.

use std::sync::Arc;
use std::time::Duration;

use portcullis_api::v1::{self, watch_reply};
use portcullis_identity::NodeName;

use crate::broker::Broker;
use crate::clock;
use crate::ledger::CommandError;
use crate::listener::Remote;
use crate::registry::{Announcement, Command};
use crate::throttle::{Admission, Rate, Throttle};
use crate::wire::{self, InvalidMessage};

/// Announcements of one node, each of which is written to disk.
const ANNOUNCEMENTS: Rate = Rate { burst: 256, every: Duration::from_millis(200) };

/// What a node asked for on its stream.
pub(super) struct Desk {
    broker: Arc<Broker>,
    node: NodeName,
    remote: Remote,
    announcements: Throttle<()>,
}

impl Desk {
    pub(super) fn new(broker: Arc<Broker>, node: NodeName, remote: Remote) -> Self {
        Self { broker, node, remote, announcements: Throttle::new(ANNOUNCEMENTS, 1) }
    }

    /// Signs, or says why not.
    pub(super) async fn sign(&self, message: &v1::Sign) -> watch_reply::Message {
        let request = message.request;
        match self.broker.sign_x509(&self.remote, message).await {
            Ok(chain) => watch_reply::Message::Signed(v1::Signed { request, chain }),
            Err(refusal) => {
                tracing::warn!(entry = message.entry, %refusal, "signature refused");
                watch_reply::Message::SignRefused(v1::SignRefused { request, reason: refusal.to_string() })
            }
        }
    }

    /// Signs tokens, or says why not.
    pub(super) async fn sign_jwts(&self, message: v1::SignJwts) -> watch_reply::Message {
        let v1::SignJwts { request, wanted } = message;
        match self.broker.sign_jwts(&self.remote, wanted).await {
            Ok(results) => watch_reply::Message::SignedJwts(v1::SignedJwts { request, results }),
            Err(refusal) => {
                tracing::warn!(%refusal, "tokens refused");
                watch_reply::Message::SignRefused(v1::SignRefused { request, reason: refusal.to_string() })
            }
        }
    }

    /// Notes where the node serves a component; `None` where it is noted.
    pub(super) async fn announce(&mut self, message: v1::Announce) -> Option<watch_reply::Message> {
        let target = message.target.clone();
        let reason = self.try_announce(message).await.err()?;
        tracing::warn!(?target, reason, "announcement refused");
        Some(watch_reply::Message::AnnounceRefused(v1::AnnounceRefused { target, reason }))
    }

    async fn try_announce(&mut self, message: v1::Announce) -> Result<(), String> {
        if self.announcements.admit((), clock::now()) == Admission::Throttled {
            return Err("too many requests: wait a moment".to_owned());
        }
        let announcement = parse_announcement(self.node.clone(), message).map_err(|error| error.to_string())?;
        match self.broker.ledger.execute(Command::Announce(announcement)).await {
            Ok(_) => Ok(()),
            Err(CommandError::Refused(refusal)) => Err(refusal.to_string()),
            // The reason is the operator's, and logged where it happened.
            Err(CommandError::Store(_)) => Err("the broker cannot store it".to_owned()),
            Err(CommandError::Closed) => Err("the broker is shutting down".to_owned()),
        }
    }
}

fn parse_announcement(node: NodeName, message: v1::Announce) -> Result<Announcement, InvalidMessage> {
    let v1::Announce { target, addresses } = message;
    let addresses = addresses.iter().map(|address| wire::parse(address)).collect::<Result<_, _>>()?;
    Ok(Announcement { node, target: wire::target(target)?, addresses })
}
