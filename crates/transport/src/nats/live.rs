use std::sync::Arc;

use async_nats::{Message, Subject, message::OutboundMessage};
use bytes::Bytes;

use super::{
    buffer::CallBuffer, failure::CallFailed, headers::ended, inbox::Key, router::Role, shared::Shared,
    status::NatsRefusal, subject::ReplySubject,
};
use crate::refusal::Refusal;

/// One end of a call under way: while it lives, what arrives for its key is kept. A caller that drops it before the answer
/// is whole tells the callee.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) shared: Arc<Shared>,
    pub(super) key: Key,
    pub(super) buffer: Arc<CallBuffer>,
    role: Role,
}

impl Live {
    pub(super) const fn new(shared: Arc<Shared>, key: Key, buffer: Arc<CallBuffer>, role: Role) -> Self {
        Self { shared, key, buffer, role }
    }

    /// Sends a message of this call, which is progress.
    pub(super) async fn publish(&self, message: OutboundMessage) -> Result<(), CallFailed> {
        self.sent(self.shared.publish(message)).await
    }

    /// Sends all of its answer, together with those of others.
    pub(super) async fn answer(&self, caller: ReplySubject, bytes: Bytes) -> Result<(), CallFailed> {
        self.sent(self.shared.answer(caller, bytes)).await
    }

    async fn sent(&self, sending: impl Future<Output = Result<(), CallFailed>>) -> Result<(), CallFailed> {
        if let Some(failed) = self.buffer.failed() {
            return Err(failed);
        }
        if let Err(failed) = sending.await {
            // Why the server took nothing may be known by now.
            return Err(self.buffer.failed().unwrap_or(failed));
        }
        self.buffer.sent(self.shared.clock.now());
        Ok(())
    }

    /// Whether the other end would wait for us without need.
    fn is_missed(&self) -> bool {
        match self.buffer.failed() {
            None => !self.buffer.is_complete(),
            Some(
                CallFailed::TimedOut(_)
                | CallFailed::SlowConsumer(_)
                | CallFailed::Malformed(_)
                | CallFailed::TooLarge { .. }
                | CallFailed::NotPermitted { .. }
                | CallFailed::TooManyCalls { .. }
                | CallFailed::NoRandomness(_),
            ) => true,
            Some(CallFailed::NoResponder | CallFailed::Refused(_) | CallFailed::GivenUp | CallFailed::Disconnected) => {
                false
            }
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if self.role == Role::Caller && self.is_missed() {
            match self.buffer.handshake() {
                Some(reply) => drop(self.shared.try_publish(cancelled(&reply))),
                None => {
                    let until = self.shared.clock.now().after(self.shared.limits.connect_timeout);
                    return self.shared.cancel(self.key, until);
                }
            }
        }
        self.shared.forget(self.key);
    }
}

/// Answers a handshake that comes after its caller gave up.
pub(super) fn cancel(shared: &Shared, handshake: &Message) {
    if let Some(reply) = handshake.reply.as_ref().and_then(|reply| ReplySubject::parse(reply.clone())) {
        // Where nothing can be sent at the moment, the callee's own deadline ends the call.
        let _ = shared.try_publish(cancelled(&reply));
    }
}

fn cancelled(reply: &ReplySubject) -> OutboundMessage {
    given_up(reply.below(".params"), &NatsRefusal::new(Refusal::Cancelled, ""))
}

/// The message that ends a path which is not complete.
pub(super) fn given_up(subject: Subject, refusal: &NatsRefusal) -> OutboundMessage {
    OutboundMessage { subject, reply: None, payload: Bytes::new(), headers: Some(ended(refusal)) }
}
