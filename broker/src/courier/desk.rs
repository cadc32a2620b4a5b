//! Answers what a node asks on its stream: signatures, and announcements of where it serves.

use std::sync::Arc;
use std::time::Duration;

use portcullis_api::v1::{self, watch_reply};
use portcullis_identity::NodeName;
use tonic::Status;

use crate::audit::{Actor, Pending};
use crate::broker::Broker;
use crate::clock;
use crate::ledger::CommandError;
use crate::listener::Remote;
use crate::registry::{Announcement, Command};
use crate::throttle::{Admission, Rate, Throttle};
use crate::wire::{self, InvalidMessage};

use super::met::{Met, News, TooMany};

/// Announcements of one node, each of which is written to disk.
const ANNOUNCEMENTS: Rate = Rate { burst: 256, every: Duration::from_millis(200) };

/// What a node asked for on its stream.
pub(super) struct Desk {
    broker: Arc<Broker>,
    node: NodeName,
    remote: Remote,
    announcements: Throttle<()>,
    met: Met,
}

/// What a node is told, and when.
pub(super) enum Answer {
    /// At once.
    Now(watch_reply::Message),
    /// Signatures, as soon as they are audited.
    Audited(Audited),
}

/// Signatures that are not handed out before the audit log tells of them.
pub(super) struct Audited {
    request: u64,
    record: Pending,
    signed: Option<watch_reply::Message>,
}

impl Audited {
    /// The signatures, or that there are none. To be asked until it answers, and then never again.
    pub(super) async fn message(&mut self) -> watch_reply::Message {
        let audited = self.record.on_disk().await.inspect_err(|error| tracing::warn!(%error, "signature withheld"));
        self.signed.take().filter(|_| audited.is_ok()).unwrap_or_else(|| {
            let reason = "the broker cannot write its audit log".to_owned();
            watch_reply::Message::SignRefused(v1::SignRefused { request: self.request, reason })
        })
    }
}

impl Desk {
    pub(super) fn new(broker: Arc<Broker>, node: NodeName, remote: Remote) -> Self {
        Self { broker, node, remote, announcements: Throttle::new(ANNOUNCEMENTS, 1), met: Met::default() }
    }

    /// Signs, or says why not.
    pub(super) async fn sign(&self, message: &v1::Sign) -> Answer {
        let request = message.request;
        match self.broker.sign_x509(&self.remote, message).await {
            Ok((chain, record)) => {
                let signed = Some(watch_reply::Message::Signed(v1::Signed { request, chain }));
                Answer::Audited(Audited { request, record, signed })
            }
            Err(refusal) => {
                tracing::warn!(entry = message.entry, %refusal, "signature refused");
                let reason = refusal.to_string();
                Answer::Now(watch_reply::Message::SignRefused(v1::SignRefused { request, reason }))
            }
        }
    }

    /// Signs tokens, or says why not.
    pub(super) async fn sign_jwts(&self, message: v1::SignJwts) -> Answer {
        let v1::SignJwts { request, wanted } = message;
        match self.broker.sign_jwts(&self.remote, wanted).await {
            Ok((results, record)) => {
                let signed = Some(watch_reply::Message::SignedJwts(v1::SignedJwts { request, results }));
                Answer::Audited(Audited { request, record, signed })
            }
            Err(refusal) => {
                tracing::warn!(%refusal, "tokens refused");
                let reason = refusal.to_string();
                Answer::Now(watch_reply::Message::SignRefused(v1::SignRefused { request, reason }))
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

    /// Says whose the names are that the node met.
    pub(super) fn meet(&mut self, message: v1::Meet) -> Result<watch_reply::Message, Status> {
        let names = message.names.into_iter().map(|name| wire::target(Some(name))).collect::<Result<_, _>>();
        let names = names.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let news = self.broker.ledger.read(|registry| self.met.meet(registry, &self.node, names));
        news.map(told).map_err(|TooMany| Status::resource_exhausted("the node met too many names of callers"))
    }

    /// Whose they are now, where that has changed.
    pub(super) fn callers_changed(&mut self) -> Option<watch_reply::Message> {
        self.broker.ledger.read(|registry| self.met.changed(registry, &self.node)).map(told)
    }

    async fn try_announce(&mut self, message: v1::Announce) -> Result<(), String> {
        if self.announcements.admit((), clock::now()) == Admission::Throttled {
            return Err("too many requests: wait a moment".to_owned());
        }
        let announcement = parse_announcement(self.node.clone(), message).map_err(|error| error.to_string())?;
        let by = Actor::Node { node: self.node.to_string() };
        match self.broker.ledger.execute(by, Command::Announce(announcement)).await {
            Ok(_) => Ok(()),
            Err(CommandError::Refused(refusal)) => Err(refusal.to_string()),
            // The reason is the operator's, and logged where it happened.
            Err(CommandError::Store(_) | CommandError::Unaudited(_)) => Err("the broker cannot store it".to_owned()),
            Err(CommandError::Closed) => Err("the broker is shutting down".to_owned()),
        }
    }
}

fn told(News { version, callers }: News) -> watch_reply::Message {
    watch_reply::Message::Callers(wire::callers_message(version, &callers))
}

fn parse_announcement(node: NodeName, message: v1::Announce) -> Result<Announcement, InvalidMessage> {
    let v1::Announce { target, addresses } = message;
    let addresses = addresses.iter().map(|address| wire::parse(address)).collect::<Result<_, _>>()?;
    Ok(Announcement { node, target: wire::target(target)?, addresses })
}
