//! The one stream to the broker: state comes down, signing requests and announcements go up.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use portcullis_api::v1::{self, watch_reply, watch_request};
use portcullis_identity::{PeerRule, PeerVerifier, TrustBundles, broker_id, client_config};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Streaming};
use tracing::{debug, error, info, warn};

use super::audit::AuditHead;
use super::rejoin::{self, RejoinError};
use super::state::{NodeState, Version, target_message};
use super::{Connectivity, NodeKind, Request, Shared, SignError, lock};
use crate::clock;

/// The first wait after a lost stream.
const RETRY_FLOOR: Duration = Duration::from_millis(50);
/// The longest: a node must be back within a second of the broker's return, and a busy machine takes half of that for a rejoin.
const RETRY_CEILING: Duration = Duration::from_millis(350);
/// Messages that may wait to be sent.
const UPLINK_QUEUE: usize = 64;
/// Signing requests that may wait for an answer.
const MAX_PENDING: usize = 256;

/// The first wait after the broker said that this node may not come in: only an operator changes that, so that it doubles.
const REFUSED_FLOOR: Duration = Duration::from_secs(1);
/// The longest.
const REFUSED_CEILING: Duration = Duration::from_secs(30);
/// Within which nodes connect anew that heard at the same moment that an authority is gone.
const RECONNECT_SPREAD: Duration = Duration::from_millis(300);

/// Who waits for an answer.
enum Pending {
    Certificate(oneshot::Sender<Result<Vec<Vec<u8>>, SignError>>),
    Tokens(oneshot::Sender<Result<Vec<v1::JwtResult>, SignError>>),
}

impl Pending {
    fn is_closed(&self) -> bool {
        match self {
            Self::Certificate(reply) => reply.is_closed(),
            Self::Tokens(reply) => reply.is_closed(),
        }
    }

    /// Nobody may wait any more: the deadline passed.
    fn fail(self, error: SignError) {
        match self {
            Self::Certificate(reply) => drop(reply.send(Err(error))),
            Self::Tokens(reply) => drop(reply.send(Err(error))),
        }
    }
}

/// Why a session ended.
enum End {
    /// The node stops.
    Stopped,
    /// The node's own certificate was renewed: connect anew.
    Renewed,
    /// An authority that may have vouched for the broker is gone: connect anew, as every other node does now.
    Withdrawn,
    /// The stream broke, or the broker said something unbelievable.
    Lost(String),
    /// The broker says that this node is none: it was removed, or its certificate expired and is not taken for a new one.
    Refused(String),
}

/// Keeps a session up until `stop`.
pub(super) async fn keep_connected(
    shared: Arc<Shared>,
    mut requests: mpsc::Receiver<Request>,
    stop: CancellationToken,
) {
    let mut wait = RETRY_FLOOR;
    let mut refusals = 0_u32;
    loop {
        let end = tokio::select! {
            end = session(&shared, &mut requests, &mut wait) => end,
            () = stop.cancelled() => End::Stopped,
        };
        *lock(&shared.client) = None;
        if !matches!(end, End::Refused(_)) {
            refusals = 0;
        }
        let pause = match end {
            End::Stopped => return,
            End::Renewed => {
                debug!("connecting anew");
                continue;
            }
            End::Withdrawn => {
                debug!("connecting anew");
                RECONNECT_SPREAD.mul_f64(clock::jitter())
            }
            End::Lost(cause) => {
                if *shared.connectivity.borrow() == Connectivity::Connected {
                    shared.confirm(clock::now());
                    warn!(cause, "lost the broker");
                } else {
                    debug!(cause, "the broker cannot be reached");
                }
                shared.connectivity.send_replace(Connectivity::Disconnected(cause));
                let pause = jittered(wait, clock::jitter());
                wait = (wait * 2).min(RETRY_CEILING);
                pause
            }
            End::Refused(cause) => {
                if *shared.connectivity.borrow() == Connectivity::Connected {
                    shared.confirm(clock::now());
                }
                let pause = jittered(refused_wait(refusals), clock::jitter());
                refusals = refusals.saturating_add(1);
                error!(cause, again_in_ms = pause.as_millis(), "the broker does not let this node back in");
                shared.connectivity.send_replace(Connectivity::Disconnected(cause));
                pause
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Between half of `wait` and all of it.
fn jittered(wait: Duration, jitter: f64) -> Duration {
    wait.mul_f64(0.5 + jitter / 2.0)
}

/// How long to wait after so many refusals in a row before this one.
fn refused_wait(refusals: u32) -> Duration {
    REFUSED_FLOOR.saturating_mul(1_u32.checked_shl(refusals).unwrap_or(u32::MAX)).min(REFUSED_CEILING)
}

async fn session(shared: &Shared, requests: &mut mpsc::Receiver<Request>, wait: &mut Duration) -> End {
    if shared.own.svid().not_after() <= clock::now() {
        match rejoin::rejoin(shared).await {
            Ok(()) => {}
            Err(RejoinError::Lost(cause)) => return End::Lost(cause),
            Err(RejoinError::Refused(cause)) => return End::Refused(cause),
        }
    }
    let mut renewals = shared.own.renewals();
    renewals.mark_unchanged();
    let trusted = shared.trust.load_full();
    let (mut stream, mut uplink) = match open(shared).await {
        Ok(opened) => opened,
        Err(end) => return end,
    };
    loop {
        let step = tokio::select! {
            message = stream.message() => match message {
                Ok(Some(message)) => uplink.receive(shared, message).await.inspect(|()| *wait = RETRY_FLOOR),
                Ok(None) => Err("the broker ended the stream".to_owned()),
                Err(status) => Err(status.message().to_owned()),
            },
            Some(request) = requests.recv() => uplink.ask(shared, request).await,
            _ = renewals.changed() => return End::Renewed,
        };
        if let Err(cause) = step {
            return End::Lost(cause);
        }
        if lost_authority(shared, &trusted) {
            return End::Withdrawn;
        }
    }
}

/// A new incarnation is news for people: the broker may have forgotten what it said before.
fn note_restoration(known: Version, version: Version) {
    if known.incarnation > 0 && version.incarnation > known.incarnation {
        warn!(%known, %version, "the broker's store was restored from a backup: what was changed since that backup may be undone");
    }
}

/// Whether an authority of the trust domain that was trusted before is trusted no longer.
fn lost_authority(shared: &Shared, before: &TrustBundles) -> bool {
    let now = shared.trust.load();
    let (Some(before), Some(now)) = (before.get(&shared.trust_domain), now.get(&shared.trust_domain)) else {
        return false;
    };
    before.authorities().iter().any(|authority| !now.authorities().contains(authority))
}

async fn open(shared: &Shared) -> Result<(Streaming<v1::WatchReply>, Uplink), End> {
    let verifier = PeerVerifier::new(Arc::clone(&shared.trust), PeerRule::Exactly(broker_id(&shared.trust_domain)));
    let lost = |error: &dyn std::fmt::Display| End::Lost(error.to_string());
    let config = client_config(verifier, Arc::clone(shared.own.slot())).map_err(|error| lost(&error))?;
    let channel = portcullis_api::connect_node(&shared.broker, &config).await.map_err(|error| lost(&error))?;
    let mut client =
        v1::node_client::NodeClient::new(channel).max_decoding_message_size(portcullis_api::MAX_MESSAGE_BYTES);
    let (messages, queue) = mpsc::channel(UPLINK_QUEUE);
    let uplink = Uplink { messages, pending: HashMap::new(), next: 1 };
    uplink.send(hello(shared)).await.map_err(End::Lost)?;
    let stream = client.watch(ReceiverStream::new(queue)).await.map_err(|status| {
        let end = if status.code() == Code::PermissionDenied { End::Refused } else { End::Lost };
        end(status.message().to_owned())
    })?;
    let announced: Vec<_> = lock(&shared.announced).keys().cloned().collect();
    for target in announced {
        uplink.announce(shared, &target).await.map_err(End::Lost)?;
    }
    let met: Vec<_> = lock(&shared.met).iter().map(target_message).collect();
    if !met.is_empty() {
        uplink.send(watch_request::Message::Meet(v1::Meet { names: met })).await.map_err(End::Lost)?;
    }
    *lock(&shared.client) = Some(client);
    Ok((stream.into_inner(), uplink))
}

fn hello(shared: &Shared) -> watch_request::Message {
    let kind = match shared.kind {
        NodeKind::Sidecar => v1::NodeKind::Sidecar,
        NodeKind::Host => v1::NodeKind::Host,
        NodeKind::Shell => v1::NodeKind::Shell,
    };
    watch_request::Message::Hello(v1::Hello {
        kind: kind.into(),
        last: Some(shared.state.borrow().version.into()),
        software: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// The sending half of the stream, and who waits for an answer to what was sent.
struct Uplink {
    messages: mpsc::Sender<v1::WatchRequest>,
    pending: HashMap<u64, Pending>,
    next: u64,
}

impl Uplink {
    async fn send(&self, message: watch_request::Message) -> Result<(), String> {
        let message = v1::WatchRequest { message: Some(message) };
        self.messages.send(message).await.map_err(|_| "the broker ended the stream".to_owned())
    }

    async fn announce(&self, shared: &Shared, target: &portcullis_identity::Target) -> Result<(), String> {
        let addresses = lock(&shared.announced).get(target).cloned().unwrap_or_default();
        let target = Some(target_message(target));
        self.send(watch_request::Message::Announce(v1::Announce { target, addresses })).await
    }

    async fn ask(&mut self, shared: &Shared, request: Request) -> Result<(), String> {
        match request {
            Request::Sign { entry, digest, csr, reply } => {
                let Some(request) = self.expect_answer(Pending::Certificate(reply)) else { return Ok(()) };
                let sign = v1::Sign { request, entry, csr, component_digest: digest };
                self.send(watch_request::Message::Sign(sign)).await
            }
            Request::SignJwts { wanted, reply } => {
                let Some(request) = self.expect_answer(Pending::Tokens(reply)) else { return Ok(()) };
                self.send(watch_request::Message::SignJwts(v1::SignJwts { request, wanted })).await
            }
            Request::Announce(target) => self.announce(shared, &target).await,
            Request::Meet(name) => {
                self.send(watch_request::Message::Meet(v1::Meet { names: vec![target_message(&name)] })).await
            }
            Request::Applied(version) => self.send(watch_request::Message::Applied(version.into())).await,
        }
    }

    /// The number of a request that `pending` waits for; `None` where nobody does any more, or too many do.
    fn expect_answer(&mut self, pending: Pending) -> Option<u64> {
        self.pending.retain(|_, pending| !pending.is_closed());
        if pending.is_closed() {
            return None;
        }
        if self.pending.len() >= MAX_PENDING {
            pending.fail(SignError::Offline);
            return None;
        }
        let request = self.next;
        self.next += 1;
        self.pending.insert(request, pending);
        Some(request)
    }

    async fn receive(&mut self, shared: &Shared, message: v1::WatchReply) -> Result<(), String> {
        let known = shared.state.borrow().version;
        let state = match message.message {
            Some(watch_reply::Message::State(state)) => {
                warn_of_skew(state.now_seconds);
                NodeState::from_message(state, known).map(|mut state| {
                    note_restoration(known, state.version);
                    let before = shared.state.borrow();
                    state.keep_revocations(&before, clock::now());
                    state.keep_callers(&before);
                    drop(before);
                    state
                })
            }
            Some(watch_reply::Message::Change(change)) => {
                let before = Arc::clone(&shared.state.borrow());
                before.changed(change)
            }
            Some(watch_reply::Message::Callers(callers)) => {
                let before = Arc::clone(&shared.state.borrow());
                before.told(callers)
            }
            Some(watch_reply::Message::Signed(v1::Signed { request, chain })) => {
                self.answer_certificate(request, chain);
                return Ok(());
            }
            Some(watch_reply::Message::SignRefused(v1::SignRefused { request, reason })) => {
                if let Some(pending) = self.pending.remove(&request) {
                    pending.fail(SignError::Refused(reason));
                }
                return Ok(());
            }
            Some(watch_reply::Message::AnnounceRefused(v1::AnnounceRefused { target, reason })) => {
                let target = target.map(|target| format!("{}/{}", target.lattice, target.id)).unwrap_or_default();
                warn!(target, reason, "the broker refuses an announcement");
                return Ok(());
            }
            Some(watch_reply::Message::Audit(head)) => {
                let head = AuditHead::from_message(head).map_err(|error| error.to_string())?;
                shared.remember(head).await;
                return Ok(());
            }
            Some(watch_reply::Message::SignedJwts(v1::SignedJwts { request, results })) => {
                self.answer_tokens(request, results);
                return Ok(());
            }
            None => return Err("the broker sent an empty message".to_owned()),
        };
        let state = state.map_err(|error| {
            error!(%error, "refusing what the broker says");
            error.to_string()
        })?;
        let version = state.version;
        shared.enforce(state);
        if *shared.connectivity.borrow() != Connectivity::Connected {
            info!(%version, "connected to the broker");
            shared.connectivity.send_replace(Connectivity::Connected);
        }
        match shared.kind {
            NodeKind::Sidecar => Ok(()),
            NodeKind::Host | NodeKind::Shell => self.send(watch_request::Message::Applied(version.into())).await,
        }
    }

    fn answer_certificate(&mut self, request: u64, chain: Vec<Vec<u8>>) {
        match self.pending.remove(&request) {
            Some(Pending::Certificate(reply)) => drop(reply.send(Ok(chain))),
            Some(pending @ Pending::Tokens(_)) => pending.fail(mismatched()),
            None => {}
        }
    }

    fn answer_tokens(&mut self, request: u64, results: Vec<v1::JwtResult>) {
        match self.pending.remove(&request) {
            Some(Pending::Tokens(reply)) => drop(reply.send(Ok(results))),
            Some(pending @ Pending::Certificate(_)) => pending.fail(mismatched()),
            None => {}
        }
    }
}

fn mismatched() -> SignError {
    SignError::Unusable("the answer is to another question".to_owned())
}

/// Certificates are backdated by ten seconds; beyond that a skewed clock makes them look not yet valid.
fn warn_of_skew(broker_seconds: u64) {
    const TOLERATED_SECONDS: u64 = 5;
    let here = super::seconds(clock::now());
    if broker_seconds != 0 && here.abs_diff(broker_seconds) > TOLERATED_SECONDS {
        warn!(seconds = here.abs_diff(broker_seconds), "this machine's clock differs from the broker's");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_refused_asks_less_and_less_often() {
        let seconds: Vec<_> = (0..7).map(|refusals| refused_wait(refusals).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(refused_wait(u32::MAX), REFUSED_CEILING);
        let pauses = [0.0, 0.5, 1.0].map(|jitter| jittered(REFUSED_CEILING, jitter).as_secs_f64());
        assert_eq!(pauses, [15.0, 22.5, 30.0]);
    }
}
