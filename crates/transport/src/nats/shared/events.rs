//! What async-nats tells of its connection, in a task of its own: after the messages that came behind it, perhaps.

use std::sync::{Arc, OnceLock, Weak, atomic::Ordering};

use async_nats::{Event, ServerError};

use super::Shared;
use crate::nats::{
    failure::{CallFailed, Overflow},
    subscriptions::INBOX_SID,
};

/// What hears the client's events: it is there before the client.
pub(in crate::nats) type Listener = Arc<OnceLock<Weak<Shared>>>;

/// Tells the connection of an event, once it is there.
pub(in crate::nats) fn hear(listener: &Listener, event: &Event) {
    if let Some(shared) = listener.get().and_then(Weak::upgrade) {
        shared.heard(event);
    }
}

/// What the server does not let us do, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Violation<'t> {
    Publish(&'t str),
    Subscription(&'t str),
}

impl<'t> Violation<'t> {
    /// Reads the server's words.
    fn read(text: &'t str) -> Option<Self> {
        let (what, rest) = text.strip_prefix("Permissions Violation for ")?.split_once(" to \"")?;
        let (subject, _) = rest.split_once('"')?;
        match what {
            "Publish" => Some(Self::Publish(subject)),
            "Subscription" => Some(Self::Subscription(subject)),
            _ => None,
        }
    }
}

impl Shared {
    fn heard(&self, event: &Event) {
        match event {
            // The client may not have noted it itself yet: then the next tick does this.
            Event::Disconnected => {
                self.notice_loss();
                self.lose();
            }
            Event::SlowConsumer(INBOX_SID) => {
                self.fail(&CallFailed::SlowConsumer(Overflow::Connection), |_| true);
            }
            Event::SlowConsumer(_) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
            Event::ServerError(ServerError::Other(text)) => match Violation::read(text) {
                Some(Violation::Publish(subject)) => self.not_permitted(subject),
                Some(Violation::Subscription(subject)) => self.subscriptions.refuse(subject),
                None => {}
            },
            Event::LameDuckMode | Event::Closed => self.leaving.cancel(),
            Event::Connected
            | Event::Draining
            | Event::ServerError(ServerError::AuthorizationViolation | ServerError::SlowConsumer(_))
            | Event::ClientError(_) => {}
        }
    }

    /// The server names the subject it does not let us publish to: the calls that did end now, not at their deadline.
    fn not_permitted(&self, subject: &str) {
        let failed = CallFailed::NotPermitted { subject: subject.to_owned() };
        self.fail(&failed, |call| {
            let below =
                |to: &str| subject.strip_prefix(to).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
            below(call.to.as_str()) || call.buffer.handshake().is_some_and(|to| below(to.as_str()))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_says_what_it_does_not_permit() {
        for (text, violation) in [
            ("Permissions Violation for Publish to \"a.b\"", Some(Violation::Publish("a.b"))),
            ("Permissions Violation for Subscription to \"a.>\"", Some(Violation::Subscription("a.>"))),
            (
                "Permissions Violation for Subscription to \"a.>\" using queue \"a\"",
                Some(Violation::Subscription("a.>")),
            ),
            // A peer's reply subject is in it, which may not pass for a subscription.
            ("Permissions Violation for Publish to \"a\\\"Subscription\"", Some(Violation::Publish("a\\"))),
            ("Permissions Violation for Publish with Reply of \"a\"", None),
            ("Permissions Violation for Something to \"a\"", None),
            ("Permissions Violation for Publish to \"a", None),
            ("Maximum Payload Violation", None),
            ("", None),
        ] {
            assert_eq!(Violation::read(text), violation, "{text}");
        }
    }
}
