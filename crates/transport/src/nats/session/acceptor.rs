use std::{
    fmt,
    future::{Future, pending, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::sync::watch;
use tokio_stream::{Stream as _, wrappers::WatchStream};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tracing::warn;

use crate::nats::{
    acceptor::{Acceptor, Arrival, SubscribeError},
    link::Link,
    listening::Listening,
};

/// How long both links take calls: until every server of a cluster has heard of the new subscription.
const OVERLAP: Duration = Duration::from_secs(1);
/// Before another attempt to subscribe.
const PAUSE: Duration = Duration::from_millis(200);
/// The same after the server has refused: that takes an operator.
const LONG_PAUSE: Duration = Duration::from_secs(5);

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Takes the calls to one component from whichever link the session has, and loses none when it moves.
pub struct SessionAcceptor {
    at: Listening,
    links: WatchStream<Link>,
    /// Nothing once it is retiring for good.
    current: Option<Acceptor>,
    moving: Option<Boxed<Acceptor>>,
    old: Vec<Old>,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// An acceptor on its way out: it still gives what the server had sent.
struct Old {
    acceptor: Acceptor,
    retirement: Option<Boxed<()>>,
}

impl fmt::Debug for SessionAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionAcceptor").field("at", &self.at).finish_non_exhaustive()
    }
}

impl SessionAcceptor {
    pub(super) fn new(
        acceptor: Acceptor,
        at: Listening,
        links: watch::Receiver<Link>,
        closing: CancellationToken,
    ) -> Self {
        Self {
            at,
            links: WatchStream::from_changes(links),
            current: Some(acceptor),
            moving: None,
            old: Vec::new(),
            closed: Box::pin(closing.cancelled_owned()),
        }
    }

    /// The next arrival; `None` when the session is closed, or the acceptor retired and everything was taken. Cancel safe.
    /// Take each at once: what waits here waits for all.
    pub async fn next(&mut self) -> Option<Arrival> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Takes no further calls; what was sent before can still be taken with [`next`](Self::next), which then ends.
    pub fn retire(&mut self) {
        self.moving = None;
        self.old.extend(self.current.take().map(|acceptor| Old::new(acceptor, Duration::ZERO)));
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Arrival>> {
        if self.current.is_some() {
            self.poll_move(cx);
        }
        let mut at = 0;
        while let Some(old) = self.old.get_mut(at) {
            match old.poll_next(cx) {
                Poll::Ready(Some(arrival)) => return Poll::Ready(Some(arrival)),
                Poll::Ready(None) => drop(self.old.swap_remove(at)),
                Poll::Pending => at += 1,
            }
        }
        let Some(current) = &mut self.current else {
            return if self.old.is_empty() { Poll::Ready(None) } else { Poll::Pending };
        };
        match current.poll_next(cx) {
            Poll::Ready(Some(arrival)) => return Poll::Ready(Some(arrival)),
            Poll::Ready(None) if self.moving.is_none() && current.refused().is_some() => {
                warn!(at = self.at.prefix(), "the nats server has refused a subscription: no calls come, asking again");
                let link = Link { shared: Arc::clone(current.shared()) };
                self.moving = Some(subscribed(link, self.at.clone()));
                // For what is to be waited for now.
                cx.waker().wake_by_ref();
            }
            // One that has ended with its link waits for the next.
            Poll::Ready(None) | Poll::Pending => {}
        }
        self.closed.as_mut().poll(cx).map(|()| None)
    }

    fn poll_move(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(link)) = Pin::new(&mut self.links).poll_next(cx) {
            let known = self.current.as_ref().is_some_and(|current| current.is_on(&link));
            self.moving = (!known).then(|| subscribed(link, self.at.clone()));
        }
        let moved = self.moving.as_mut().map_or(Poll::Pending, |moving| moving.as_mut().poll(cx));
        if let Poll::Ready(acceptor) = moved {
            self.moving = None;
            self.old.extend(self.current.replace(acceptor).map(|old| Old::new(old, OVERLAP)));
        }
    }
}

/// Subscribes on a link, however long it takes. One that has ended is followed by another.
fn subscribed(link: Link, at: Listening) -> Boxed<Acceptor> {
    Box::pin(async move {
        let mut attempts = 0_u32;
        loop {
            let error = match link.accept_calls(at.clone()).await {
                Ok(acceptor) => return acceptor,
                Err(error) => error,
            };
            if link.shared.closing.is_cancelled() {
                return pending().await;
            }
            let pause = match error {
                SubscribeError::NotPermitted { .. } => LONG_PAUSE,
                SubscribeError::Disconnected
                | SubscribeError::NotConfirmed { .. }
                | SubscribeError::NoRandomness(_) => PAUSE,
            };
            attempts = attempts.saturating_add(1);
            // Ever fewer of them: an outage may last.
            if attempts.is_power_of_two() {
                let (at, again_in_ms) = (at.prefix(), pause.as_millis());
                warn!(at, %error, attempts, again_in_ms, "cannot subscribe to calls");
            }
            tokio::time::sleep(pause).await;
        }
    })
}

impl Old {
    fn new(acceptor: Acceptor, overlap: Duration) -> Self {
        let retirement = acceptor.retirement();
        let retirement: Boxed<()> = Box::pin(async move {
            tokio::time::sleep(overlap).await;
            // One whose connection is lost gets nothing more anyway.
            let _ = retirement.await;
        });
        Self { acceptor, retirement: Some(retirement) }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Arrival>> {
        if let Some(retirement) = &mut self.retirement
            && retirement.as_mut().poll(cx).is_ready()
        {
            self.retirement = None;
        }
        // Not by the runtime's share: it would say that nothing is there when the task had its turn, and what is there would be lost.
        let next = pin!(tokio::task::unconstrained(poll_fn(|cx| self.acceptor.poll_next(cx))));
        match next.poll(cx) {
            // Once the server has confirmed, what is not here will not come.
            Poll::Pending if self.retirement.is_none() => Poll::Ready(None),
            // One that was refused may be permitted since async-nats connected again.
            Poll::Ready(None) if self.retirement.is_some() => Poll::Pending,
            polled @ (Poll::Ready(_) | Poll::Pending) => polled,
        }
    }
}

impl Acceptor {
    /// Whether this acceptor takes calls of that link.
    fn is_on(&self, link: &Link) -> bool {
        Arc::ptr_eq(self.shared(), &link.shared)
    }
}
