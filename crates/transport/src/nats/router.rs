use std::sync::Arc;

use async_nats::{Message, Subject};
use tokio::sync::{mpsc, oneshot};

use super::{
    buffer::CallBuffer,
    clock::Moment,
    failure::{CallFailed, Malformed},
    headers::ended_by,
    path::Path,
    status::NatsRefusal,
    subject::ReplySubject,
};

/// Behind the key in the subject of an answer that is complete with this message.
pub(super) const WHOLE: &str = ".whole";

/// Which end of a call this is, and so what may arrive for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Caller,
    Callee,
}

impl Role {
    /// What stands behind the key in the subjects of values.
    const fn values(self) -> &'static str {
        match self {
            Self::Caller => ".results",
            Self::Callee => ".params",
        }
    }
}

/// What a key stands for.
#[derive(Debug)]
pub(super) enum Route {
    Call(CallRoute),
    /// A caller gave its call up before the handshake: who comes with one is told.
    Cancelled {
        until: Moment,
    },
    /// A message of our own, which comes back when the server has done all that was asked before.
    Echo(oneshot::Sender<()>),
    /// Who asked takes every answer.
    Answers(mpsc::Sender<Message>),
}

#[derive(Debug)]
pub(super) struct CallRoute {
    pub(super) buffer: Arc<CallBuffer>,
    pub(super) role: Role,
    /// Where its first message was sent: what the server names if it does not permit it.
    pub(super) to: Subject,
    /// How often the client had connected when the call began.
    pub(super) connects: u64,
    /// Since when the answer has been awaited, while its handshake was not sent.
    pub(super) later: Option<Moment>,
}

impl CallRoute {
    /// Whether it is time for the handshake, at a tick that follows one at `last`; then, since when the answer has been
    /// awaited: a whole tick at least, for the clock showed the beginning of another.
    pub(super) fn take_due(&mut self, last: Moment) -> Option<Moment> {
        self.later.take_if(|since| *since < last)
    }
}

impl Role {
    /// Takes a message whose subject ends, behind the key, in `rest`.
    pub(super) fn deliver(self, buffer: &CallBuffer, rest: &str, message: &Message, now: Moment) {
        if rest.is_empty() {
            return self.hand_shake(buffer, message, now);
        }
        if self == Self::Caller && rest == WHOLE {
            if !message.payload.is_empty() {
                buffer.push(Path::root(), &message.payload, now);
            }
            return buffer.end(Path::root(), now);
        }
        let Some(path) = rest.strip_prefix(self.values()) else {
            return buffer.fail(CallFailed::Malformed(Malformed::Subject));
        };
        let Ok(path) = Path::parse(path) else {
            return buffer.fail(CallFailed::Malformed(Malformed::Subject));
        };
        if !message.payload.is_empty() {
            return buffer.push(path, &message.payload, now);
        }
        match ended_by(message) {
            Some(refusal) => buffer.fail(refusal),
            None => buffer.end(path, now),
        }
    }

    fn hand_shake(self, buffer: &CallBuffer, message: &Message, now: Moment) {
        let refused = message.status.filter(|status| !status.is_success());
        match (self, refused) {
            (_, Some(status)) => {
                let description = message.description.as_deref().unwrap_or_default();
                buffer.fail(match (self, status.as_u16()) {
                    // The server itself says nothing else.
                    (Self::Caller, 503) if description.is_empty() => CallFailed::NoResponder,
                    (Self::Callee, 503) if description.is_empty() => CallFailed::GivenUp,
                    (_, status) => CallFailed::Refused(NatsRefusal::read(status, description)),
                });
            }
            (Self::Caller, None) => match message.reply.as_ref().and_then(|reply| ReplySubject::parse(reply.clone())) {
                Some(reply) => buffer.hand_shaken(reply, now),
                None => buffer.fail(CallFailed::Malformed(Malformed::NoReply)),
            },
            // Nobody shakes hands with a callee.
            (Self::Callee, None) => {}
        }
    }
}
