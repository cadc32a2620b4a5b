mod events;

use std::{
    future::Future as _,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use async_nats::{
    Client, Message, Statistics, Subject, client::traits::Publisher as _, connection::State, message::OutboundMessage,
};
use bytes::Bytes;
use tokio::{
    sync::{Semaphore, oneshot},
    task::unconstrained,
};
use tokio_util::sync::CancellationToken;

use super::{
    buffer::{Budget, CallBuffer},
    bulk::Bulk,
    clock::{Clock, Moment},
    failure::{CallFailed, Step},
    idle::Idle,
    inbox::{KEY_LENGTH, Key, NoRandomness, addressed},
    limits::{Deadlines, NatsLimits},
    live::Live,
    router::{CallRoute, Role, Route},
    routes::Routes,
    subscriptions::Subscriptions,
    together::Together,
    verbatim,
};

pub(super) use events::{Listener, hear};

/// Refusals that wait while the server takes nothing; further ones are tried once.
const WAITING_REFUSALS: usize = 256;

/// How long a link lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lifetime {
    /// async-nats makes its connection anew.
    Reconnects,
    /// As long as its first connection.
    OneConnection,
}

/// What everything that uses one connection has in common.
pub(super) struct Shared {
    client: Client,
    statistics: Arc<Statistics>,
    /// The inbox of this connection, with a dot behind it.
    inbox: Box<str>,
    routes: Mutex<Routes>,
    budget: Arc<Budget>,
    bulk: Bulk,
    pub(super) together: Together,
    /// Places for refusals that wait until they can be sent.
    pub(super) refusals: Semaphore,
    pub(super) clock: Clock,
    pub(super) limits: NatsLimits,
    /// How often the client had connected when the routes were last looked at.
    looked_at: AtomicU64,
    lifetime: Lifetime,
    lost: AtomicBool,
    pub(super) subscriptions: Subscriptions,
    /// Requests that async-nats dropped because nobody took them out in time.
    dropped: AtomicU64,
    pub(super) idle: Idle,
    pub(super) closing: CancellationToken,
    ended: AtomicBool,
    leaving: CancellationToken,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("inbox", &self.inbox).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(client: Client, inbox: String, limits: NatsLimits, lifetime: Lifetime) -> Self {
        let statistics = client.statistics();
        let looked_at = AtomicU64::new(statistics.connects.load(Ordering::Relaxed));
        Self {
            client,
            statistics,
            inbox: inbox.into(),
            routes: Mutex::default(),
            budget: Arc::new(Budget::new(limits.bytes)),
            bulk: Bulk::new(),
            together: Together::default(),
            refusals: Semaphore::new(WAITING_REFUSALS),
            clock: Clock::new(),
            limits,
            looked_at,
            lifetime,
            lost: AtomicBool::new(false),
            subscriptions: Subscriptions::default(),
            dropped: AtomicU64::new(0),
            idle: Idle::default(),
            closing: CancellationToken::new(),
            ended: AtomicBool::new(false),
            leaving: CancellationToken::new(),
        }
    }

    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_connected(&self) -> bool {
        !self.ended.load(Ordering::Acquire) && self.client.connection_state() == State::Connected && !self.is_lost()
    }

    /// Whether this is the end of a link that ends with its connection.
    pub(super) fn is_lost(&self) -> bool {
        match self.lifetime {
            Lifetime::Reconnects => false,
            Lifetime::OneConnection => self.lost.load(Ordering::Acquire) || self.connects() != 1,
        }
    }

    /// Ends a link that ends with its connection.
    fn lose(&self) {
        if self.lifetime == Lifetime::OneConnection && !self.lost.swap(true, Ordering::AcqRel) {
            self.leaving.cancel();
            self.subscriptions.end();
            self.closing.cancel();
        }
    }

    /// How often the client has connected.
    pub(super) fn connects(&self) -> u64 {
        self.statistics.connects.load(Ordering::Relaxed)
    }

    /// Calls under way.
    pub(super) fn calls(&self) -> usize {
        self.routes().calls()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// The server, or the client under us, is about to end the connection: time for another.
    pub(super) const fn leaving(&self) -> &CancellationToken {
        &self.leaving
    }

    /// The inbox of this connection, with a dot behind it.
    pub(super) const fn inbox(&self) -> &str {
        &self.inbox
    }

    /// Begins a call: from here on what arrives for its key is kept. `later` is now, where its callee shakes hands only if
    /// the answer takes 50 to 100 ms: until then its caller can do without.
    pub(super) fn register(
        self: &Arc<Self>,
        role: Role,
        to: Subject,
        deadlines: Deadlines,
        later: Option<Moment>,
    ) -> Result<Live, CallFailed> {
        if !self.is_connected() {
            return Err(CallFailed::Disconnected);
        }
        let connects = self.connects();
        let step = match role {
            Role::Caller => Step::Handshake,
            Role::Callee => Step::Whole,
        };
        let buffer = CallBuffer::new(&self.limits, Arc::clone(&self.budget), deadlines, self.clock.now(), step);
        let buffer = Arc::new(buffer);
        let mut routes = self.routes();
        if routes.calls() >= self.limits.calls {
            return Err(CallFailed::TooManyCalls { limit: self.limits.calls });
        }
        let key = routes.new_key()?;
        routes.insert(key, Route::Call(CallRoute { buffer: Arc::clone(&buffer), role, to, connects, later }));
        drop(routes);
        // Whoever ended it meanwhile has not seen this one, and nobody will look at its deadlines.
        if self.ended.load(Ordering::Acquire) {
            buffer.fail(CallFailed::Disconnected);
        }
        Ok(Live::new(Arc::clone(self), key, buffer, role))
    }

    pub(super) fn insert(&self, key: Key, route: Route) {
        self.routes().insert(key, route);
    }

    pub(super) fn forget(&self, key: Key) {
        self.routes().remove(key);
        self.idle.tell();
    }

    /// Forgets a call that was given up before its handshake, and says so to who comes with it until then.
    pub(super) fn cancel(&self, key: Key, until: Moment) {
        self.routes().cancel(key, until, self.limits.calls);
        self.idle.tell();
    }

    pub(super) fn new_key(&self) -> Result<Key, NoRandomness> {
        self.routes().new_key()
    }

    /// The subject of a key.
    pub(super) fn subject(&self, key: Key) -> String {
        let mut subject = String::with_capacity(self.inbox.len() + KEY_LENGTH);
        subject.push_str(&self.inbox);
        key.write(&mut subject);
        subject
    }

    /// Tells a caller where its parameters go.
    pub(super) fn handshake(&self, key: Key, to: Subject) -> OutboundMessage {
        let rest = Subject::from(self.subject(key));
        OutboundMessage { subject: to, reply: Some(rest), payload: Bytes::new(), headers: None }
    }

    /// Sends one message. It waits only while the server takes nothing, or a long one for those before it.
    pub(super) async fn publish(&self, message: OutboundMessage) -> Result<(), CallFailed> {
        let patience = self.limits.send_timeout;
        let OutboundMessage { subject, reply, payload, headers } = message;
        let admitted = self.bulk.admit(payload, patience).await;
        let (payload, taken) = admitted.map_err(|_| CallFailed::TimedOut(Step::Send))?;
        let mut sending = pin!(self.client.publish_message(OutboundMessage { subject, reply, payload, headers }));
        // A timer only where there is something to wait for.
        let first = std::future::poll_fn(|cx| Poll::Ready(sending.as_mut().poll(cx))).await;
        let sent = match first {
            Poll::Ready(sent) => sent,
            Poll::Pending => {
                tokio::time::timeout(patience, sending).await.map_err(|_| CallFailed::TimedOut(Step::Send))?
            }
        };
        // What was chunked and parsed fails only with the connection.
        sent.map_err(|_| CallFailed::Disconnected)?;
        if let Some(taken) = taken {
            taken.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Sends one message if it can be sent at once.
    pub(super) fn try_publish(&self, message: OutboundMessage) -> bool {
        // Not by the runtime's share: when the task had its turn, nothing could be sent.
        let sending = pin!(unconstrained(self.client.publish_message(message)));
        matches!(sending.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(())))
    }

    /// Waits until no call is under way and nobody is about to begin one.
    pub(super) async fn wait_idle(&self) {
        self.idle.wait(|| self.calls()).await;
    }

    /// Waits until the server has done everything that was sent to it before, and everything it had sent until then has
    /// arrived: until a message to ourselves comes back. False when it does not in time.
    pub(super) async fn settled(&self) -> Result<bool, NoRandomness> {
        let key = self.new_key()?;
        let (echo, heard) = oneshot::channel();
        self.insert(key, Route::Echo(echo));
        let message = plain(Subject::from(self.subject(key)), Bytes::new());
        let settled = async { self.publish(message).await.is_ok() && heard.await.is_ok() };
        let settled = tokio::time::timeout(self.limits.connect_timeout, settled).await;
        self.forget(key);
        Ok(settled.unwrap_or(false))
    }

    /// Ends a subscription on the server, while async-nats goes on to take what is on the way.
    pub(super) async fn unsubscribe(&self, sid: u64) -> Result<(), CallFailed> {
        // Nobody has this key.
        let carrier = self.subject(Key(0));
        self.publish(verbatim::unsubscribe(sid, &carrier)).await
    }

    /// Takes a message to the inbox. Never waits.
    pub(super) fn route(&self, message: &Message) {
        self.notice_reconnect();
        if self.is_lost() {
            return;
        }
        let rest = message.subject.as_str().strip_prefix(&*self.inbox).and_then(addressed);
        let Some((key, rest)) = rest else {
            return;
        };
        let mut routes = self.routes();
        match routes.route(key) {
            Some(Route::Call(call)) => {
                let (buffer, role) = (Arc::clone(&call.buffer), call.role);
                drop(routes);
                role.deliver(&buffer, rest, message, self.clock.now());
            }
            Some(Route::Cancelled { .. }) => {
                routes.remove(key);
                drop(routes);
                super::live::cancel(self, message);
            }
            Some(Route::Echo(_)) => {
                if let Some(Route::Echo(echo)) = routes.remove(key) {
                    // Whoever waited may have stopped.
                    let _ = echo.send(());
                }
            }
            Some(Route::Answers(answers)) => {
                // More than were asked for.
                let _ = answers.try_send(message.clone());
            }
            None => {}
        }
    }

    /// Looks at every deadline, and shakes hands for calls that take their time.
    pub(super) fn tick(&self) {
        let last = self.clock.now();
        let now = self.clock.tick();
        self.notice_loss();
        let mut due = Vec::new();
        self.routes().retain(|key, route| match route {
            Route::Call(call) => {
                call.buffer.expire(now);
                due.extend(call.take_due(last).map(|since| (key, since, call.to.clone())));
                true
            }
            Route::Cancelled { until } => now < *until,
            // Whoever waited may have stopped.
            Route::Echo(echo) => !echo.is_closed(),
            Route::Answers(_) => true,
        });
        for (key, since, to) in due {
            if !self.try_publish(self.handshake(key, to)) {
                // The next tick tries again: without it the caller gives up a call that goes on.
                self.routes().shake_later(key, since);
            }
        }
    }

    /// What was sent over a connection before this one may be lost: its calls end.
    fn notice_reconnect(&self) {
        let connects = self.connects();
        if self.looked_at.swap(connects, Ordering::Relaxed) != connects {
            self.fail(&CallFailed::Disconnected, |call| call.connects != connects);
            self.lose();
        }
    }

    /// Without a connection no call goes on: what is sent meanwhile is lost.
    fn notice_loss(&self) {
        self.notice_reconnect();
        if self.client.connection_state() != State::Connected {
            self.fail(&CallFailed::Disconnected, |_| true);
            self.lose();
        }
    }

    fn fail(&self, failed: &CallFailed, which: impl Fn(&CallRoute) -> bool) {
        for call in self.routes().each_call().filter(|call| which(call)) {
            call.buffer.fail(failed.clone());
        }
    }

    /// The driver stopped: nothing arrives any more.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.leaving.cancel();
        self.closing.cancel();
        self.fail(&CallFailed::Disconnected, |_| true);
        self.routes().retain(|_, route| matches!(route, Route::Call(_)));
        self.idle.tell();
    }
}

/// A message without reply or headers.
pub(super) const fn plain(subject: Subject, payload: Bytes) -> OutboundMessage {
    OutboundMessage { subject, reply: None, payload, headers: None }
}
