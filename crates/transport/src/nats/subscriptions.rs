use std::{
    collections::HashMap,
    future::{Future as _, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use async_nats::{Message, Subscriber};
use tokio_stream::Stream as _;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{acceptor::SubscribeError, shared::Shared};

/// async-nats numbers the subscriptions of a client from here, and the inbox is the first.
pub(super) const INBOX_SID: u64 = 1;

/// The subscriptions of a connection besides its inbox.
#[derive(Debug)]
pub(super) struct Subscriptions {
    /// The number of the last one. Held while one is made, so that its own is known.
    last: tokio::sync::Mutex<u64>,
    standing: Mutex<HashMap<u64, Standing>>,
}

/// One that the server was asked for.
#[derive(Debug)]
struct Standing {
    subject: Box<str>,
    refused: CancellationToken,
}

impl Default for Subscriptions {
    fn default() -> Self {
        Self { last: tokio::sync::Mutex::new(INBOX_SID), standing: Mutex::default() }
    }
}

impl Subscriptions {
    fn standing(&self) -> MutexGuard<'_, HashMap<u64, Standing>> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server does not permit those to this subject, or does not any more.
    pub(super) fn refuse(&self, subject: &str) {
        for standing in self.standing().values().filter(|standing| &*standing.subject == subject) {
            standing.refused.cancel();
        }
    }

    /// None of them gets anything more.
    pub(super) fn end(&self) {
        for standing in self.standing().values() {
            standing.refused.cancel();
        }
    }

    fn stand(&self, sid: u64, subject: &str) -> CancellationToken {
        let refused = CancellationToken::new();
        let standing = Standing { subject: subject.into(), refused: refused.clone() };
        self.standing().insert(sid, standing);
        refused
    }
}

/// A subscription while it stands.
#[derive(Debug)]
pub(super) struct Subscribed {
    place: Place,
    subscriber: Subscriber,
    until_refused: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// Its place among the others.
#[derive(Debug)]
struct Place {
    shared: Arc<Shared>,
    sid: u64,
    refused: CancellationToken,
}

impl Place {
    /// A refusal comes before the echo, but another task brings it here: a second echo gives it the time. One that is later
    /// still ends what was confirmed.
    async fn confirm(&self, subject: &str) -> Result<(), SubscribeError> {
        for _ in 0..2 {
            if !self.shared.settled().await? {
                return Err(SubscribeError::NotConfirmed { subject: subject.to_owned() });
            }
        }
        if self.shared.is_lost() {
            return Err(SubscribeError::Disconnected);
        }
        if self.refused.is_cancelled() {
            return Err(SubscribeError::NotPermitted { subject: subject.to_owned() });
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.subscriptions.standing().remove(&self.sid);
    }
}

impl Subscribed {
    /// Subscribes, in a queue group or alone, and waits until the server has heard of it and did not refuse it.
    pub(super) async fn begin(
        shared: &Arc<Shared>,
        subject: &str,
        group: Option<String>,
    ) -> Result<Self, SubscribeError> {
        let mut last = shared.subscriptions.last.lock().await;
        // Counted before anything is waited for, as async-nats does: whoever asked may stop to wait.
        *last += 1;
        let sid = *last;
        let place = Place { shared: Arc::clone(shared), sid, refused: shared.subscriptions.stand(sid, subject) };
        let subscribed = match group {
            Some(group) => shared.client().queue_subscribe(subject.to_owned(), group).await,
            None => shared.client().subscribe(subject.to_owned()).await,
        };
        let Ok(subscriber) = subscribed else {
            // It was no subject, and not counted; or the client has ended, and nothing is counted any more.
            *last -= 1;
            return Err(SubscribeError::Disconnected);
        };
        drop(last);
        place.confirm(subject).await?;
        let until_refused = Box::pin(place.refused.clone().cancelled_owned());
        Ok(Self { place, subscriber, until_refused })
    }

    /// Whether the server has refused it, at first or since.
    pub(super) fn is_refused(&self) -> bool {
        self.place.refused.is_cancelled()
    }

    pub(super) const fn sid(&self) -> u64 {
        self.place.sid
    }

    /// The next message; `None` when the connection has ended, or the server refuses the subscription.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        match Pin::new(&mut self.subscriber).poll_next(cx) {
            Poll::Pending => self.until_refused.as_mut().poll(cx).map(|()| None),
            polled @ Poll::Ready(_) => polled,
        }
    }

    /// The same, but of a connection that came after the one that was proved nothing is given.
    pub(super) fn poll_proved(&mut self, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        // Looked at when it is here: it may be the first of another connection.
        let message = self.poll_next(cx);
        if self.place.shared.is_lost() { Poll::Ready(None) } else { message }
    }

    pub(super) async fn next(&mut self) -> Option<Message> {
        poll_fn(|cx| self.poll_proved(cx)).await
    }

    /// Has async-nats forget it at once, with what is on the way.
    pub(super) async fn unsubscribe(&mut self) -> Result<(), SubscribeError> {
        self.subscriber.unsubscribe().await.map_err(|_| SubscribeError::Disconnected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_meets_the_subscriptions_to_its_subject_alone() {
        let subscriptions = Subscriptions::default();
        let [first, again, other] =
            [(2, "a.>"), (3, "a.>"), (4, "b.>")].map(|(sid, subject)| subscriptions.stand(sid, subject));
        subscriptions.refuse("c.>");
        assert!(!first.is_cancelled());
        subscriptions.refuse("a.>");
        assert_eq!([first, again, other].map(|refused| refused.is_cancelled()), [true, true, false]);
    }
}
