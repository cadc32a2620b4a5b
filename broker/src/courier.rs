//! One node's stream: carries what the node may see down to it, and its requests up.
//!
//! The courier remembers the view it sent last, and on a new version sends what changed since. A node that reads slowly thus never has
//! more than one message waiting for it: it sees fewer, larger changes, and is let go when it reads nothing at all.

mod desk;
mod met;

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use portcullis_api::v1::{self, watch_reply, watch_request};
use portcullis_identity::NodeName;
use tokio::sync::{mpsc, watch};
use tonic::{Status, Streaming};
use tracing::Instrument as _;

use self::desk::{Answer, Audited, Desk};
use crate::broker::Broker;
use crate::clock;
use crate::listener::Remote;
use crate::presence::{Attendance, Connection, NodeKind};
use crate::registry::{NodeView, Version};
use crate::wire;

/// A node says hello first, and at once.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// A node that reads nothing for so long is let go; it connects anew when it reads again.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// Signatures of one stream that wait to be audited; then the node waits with the next request.
const MAX_WAITING: usize = 64;
/// Bytes of a node's own word about its software.
const MAX_SOFTWARE: usize = 64;

type Outbound = mpsc::Sender<Result<v1::WatchReply, Status>>;

/// Serves one stream until it ends.
pub(crate) struct Courier {
    broker: Arc<Broker>,
    node: NodeName,
    remote: Remote,
    outbound: Outbound,
}

/// Why a stream ends, where somebody has to be told.
struct End(Status);

impl Courier {
    pub(crate) fn new(broker: Arc<Broker>, node: NodeName, remote: Remote, outbound: Outbound) -> Self {
        Self { broker, node, remote, outbound }
    }

    /// Carries messages in both directions until either side or the broker ends the stream.
    pub(crate) async fn run(self, inbound: Streaming<v1::WatchRequest>) {
        let span = tracing::info_span!("watch", node = %self.node, address = %self.remote.address);
        async {
            match self.carry(inbound).await {
                Ok(()) => tracing::info!("stream ended"),
                Err(End(status)) => {
                    tracing::info!(reason = status.message(), "stream ended by the broker");
                    // Where the queue is full the node learns of it by the end of the stream.
                    let _ = self.outbound.try_send(Err(status));
                }
            }
        }
        .instrument(span)
        .await;
    }

    async fn carry(&self, mut inbound: Streaming<v1::WatchRequest>) -> Result<(), End> {
        let attendance = self.greet(&mut inbound).await?;
        let mut versions = self.broker.ledger.versions();
        let mut desk = Desk::new(Arc::clone(&self.broker), self.node.clone(), self.remote.clone());
        let mut heads = self.broker.beacon.heads();
        let mut view = self.deliver_state(&mut versions).await?;
        heads.mark_changed();
        let mut waiting = VecDeque::new();
        // Made once: they take locks that every stream shares.
        let (stopped, killed, closed) =
            (self.broker.stop.cancelled(), self.remote.kill.cancelled(), self.outbound.closed());
        tokio::pin!(stopped, killed, closed);
        loop {
            tokio::select! {
                changed = versions.changed() => {
                    changed.map_err(|_| shutting_down())?;
                    self.deliver_change(&mut versions, &mut view).await?;
                    if let Some(callers) = desk.callers_changed() {
                        self.send(callers).await?;
                    }
                }
                answer = next(&mut waiting) => {
                    self.send(answer).await?;
                    // Those that shared a sync of the audit log are ready together.
                    while let Some(answer) = next_ready(&mut waiting) {
                        self.send(answer).await?;
                    }
                }
                changed = heads.changed() => {
                    changed.map_err(|_| shutting_down())?;
                    let head = heads.borrow_and_update().clone();
                    if let Some(head) = head {
                        self.send(watch_reply::Message::Audit(head)).await?;
                    }
                }
                message = inbound.message(), if waiting.len() < MAX_WAITING => match message {
                    Ok(Some(message)) => waiting.extend(self.receive(message, &mut desk, &attendance).await?),
                    Ok(None) | Err(_) => return Ok(()),
                },
                () = &mut stopped => return Err(shutting_down()),
                () = &mut killed => return Err(removed()),
                () = &mut closed => return Ok(()),
            }
        }
    }

    async fn greet(&self, inbound: &mut Streaming<v1::WatchRequest>) -> Result<Attendance, End> {
        let first = tokio::time::timeout(HELLO_TIMEOUT, inbound.message()).await;
        let late = || End(Status::deadline_exceeded("no hello within 5 seconds"));
        let first = first.map_err(|_| late())?.map_err(End)?;
        let Some(v1::WatchRequest { message: Some(watch_request::Message::Hello(hello)) }) = first else {
            return Err(End(Status::invalid_argument("the first message must be a hello")));
        };
        let kind = match hello.kind() {
            v1::NodeKind::Sidecar => NodeKind::Sidecar,
            v1::NodeKind::Host => NodeKind::Host,
            v1::NodeKind::Shell => NodeKind::Shell,
            v1::NodeKind::Unspecified => return Err(End(Status::invalid_argument("the hello names no kind of node"))),
        };
        let v1::Hello { kind: _, last, software } = hello;
        let last = last.map(Version::from);
        let present = *self.broker.ledger.versions().borrow();
        if last.is_some_and(|last| last > present) {
            tracing::error!(?last, %present, "ALARM: the node has seen a later version: this store was put back from a backup without `portcullis-broker restore`");
        }
        let software: String = software.chars().filter(|c| !c.is_control()).take(MAX_SOFTWARE).collect();
        tracing::info!(kind = kind.name(), software, "node connected");
        let not_after = self.remote.peer.as_ref().map_or_else(clock::now, |peer| peer.not_after());
        Ok(self.broker.presence.attend(Connection {
            node: self.node.clone(),
            address: self.remote.address,
            kind,
            software,
            applied: last,
            since: clock::now(),
            not_after,
            peer: self.remote.peer.clone(),
            kill: self.remote.kill.clone(),
        }))
    }

    async fn deliver_state(&self, versions: &mut watch::Receiver<Version>) -> Result<NodeView, End> {
        versions.borrow_and_update();
        let view = self.broker.ledger.read(|registry| registry.node(&self.node).map(|_| registry.view(&self.node)));
        let view = view.ok_or_else(removed)?;
        let state = wire::state_message(&view, clock::unix_seconds(clock::now()));
        self.send(watch_reply::Message::State(state)).await?;
        Ok(view)
    }

    async fn deliver_change(&self, versions: &mut watch::Receiver<Version>, view: &mut NodeView) -> Result<(), End> {
        versions.borrow_and_update();
        let later = self.broker.ledger.read(|registry| {
            registry.node(&self.node).ok_or_else(removed)?;
            Ok(registry.may_have_changed(view).then(|| registry.view(&self.node)))
        })?;
        let Some(later) = later else { return Ok(()) };
        if let Some(change) = view.change_to(&later) {
            self.send(watch_reply::Message::Change(wire::change_message(&change))).await?;
        }
        *view = later;
        Ok(())
    }

    /// Answers at once, or returns what is to be answered once it is audited.
    async fn receive(
        &self,
        message: v1::WatchRequest,
        desk: &mut Desk,
        attendance: &Attendance,
    ) -> Result<Option<Audited>, End> {
        let reply = match message.message {
            Some(watch_request::Message::Sign(sign)) => match desk.sign(&sign).await {
                Answer::Now(reply) => reply,
                Answer::Audited(answer) => return Ok(Some(answer)),
            },
            Some(watch_request::Message::SignJwts(sign)) => match desk.sign_jwts(sign).await {
                Answer::Now(reply) => reply,
                Answer::Audited(answer) => return Ok(Some(answer)),
            },
            Some(watch_request::Message::Announce(announce)) => match desk.announce(announce).await {
                Some(refused) => refused,
                None => return Ok(None),
            },
            Some(watch_request::Message::Applied(version)) => {
                attendance.applied(version.into());
                return Ok(None);
            }
            Some(watch_request::Message::Meet(meet)) => desk.meet(meet).map_err(End)?,
            Some(watch_request::Message::Hello(_)) => return Err(End(Status::invalid_argument("a second hello"))),
            None => return Err(End(Status::invalid_argument("an empty message"))),
        };
        self.send(reply).await.map(|()| None)
    }

    async fn send(&self, message: watch_reply::Message) -> Result<(), End> {
        let reply = v1::WatchReply { message: Some(message) };
        match self.outbound.send_timeout(Ok(reply), SEND_TIMEOUT).await {
            Ok(()) => Ok(()),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                Err(End(Status::deadline_exceeded("the node reads nothing")))
            }
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(End(Status::cancelled("the node is gone"))),
        }
    }
}

/// The next answer that is audited; never, where none waits.
async fn next(waiting: &mut VecDeque<Audited>) -> watch_reply::Message {
    match waiting.front_mut() {
        Some(first) => {
            let message = first.message().await;
            waiting.pop_front();
            message
        }
        None => std::future::pending().await,
    }
}

/// The same, where it is audited already.
fn next_ready(waiting: &mut VecDeque<Audited>) -> Option<watch_reply::Message> {
    match pin!(next(waiting)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(message) => Some(message),
        Poll::Pending => None,
    }
}

fn shutting_down() -> End {
    End(Status::unavailable("the broker is shutting down"))
}

fn removed() -> End {
    End(Status::permission_denied("the node is not registered: it needs a new join token"))
}
