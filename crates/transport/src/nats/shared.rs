use std::{
    future::Future as _,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use async_nats::{
    Client, Event, Message, ServerError, Statistics, Subject, client::traits::Publisher as _, connection::State,
    message::OutboundMessage,
};
use bytes::Bytes;
use ring::rand::SystemRandom;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    buffer::{Budget, CallBuffer},
    clock::Clock,
    failure::{CallFailed, Overflow, Step},
    inbox::{Key, NoRandomness},
    limits::{Deadlines, NatsLimits},
    live::Live,
    router::{CallRoute, Role, Route, Routes},
    verbatim,
};

/// async-nats numbers the subscriptions of a client from here, and the inbox is the first.
pub(super) const INBOX_SID: u64 = 1;

/// What everything that uses one connection has in common.
pub(super) struct Shared {
    client: Client,
    statistics: Arc<Statistics>,
    /// The inbox of this connection, with a dot behind it.
    inbox: Box<str>,
    routes: Mutex<Routes>,
    budget: Arc<Budget>,
    pub(super) clock: Clock,
    pub(super) limits: NatsLimits,
    random: SystemRandom,
    /// How often the client had connected when the routes were last looked at.
    connects: AtomicU64,
    /// Subscriptions made so far. Held while one is made, so that their numbers are known.
    pub(super) subscriptions: tokio::sync::Mutex<u64>,
    /// See [`Lease`].
    leases: AtomicUsize,
    /// Requests that async-nats dropped because nobody took them out in time.
    dropped: AtomicU64,
    /// Wakes who waits for the last call to end.
    idle: Notify,
    pub(super) closing: CancellationToken,
    ended: AtomicBool,
    leaving: CancellationToken,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("inbox", &self.inbox).finish_non_exhaustive()
    }
}

/// What hears the client's events: it is there before the client.
pub(super) type Listener = Arc<OnceLock<Weak<Shared>>>;

/// Tells the connection of an event, once it is there.
pub(super) fn hear(listener: &Listener, event: &Event) {
    if let Some(shared) = listener.get().and_then(Weak::upgrade) {
        shared.heard(event);
    }
}

impl Shared {
    pub(super) fn new(client: Client, inbox: String, limits: NatsLimits) -> Self {
        let statistics = client.statistics();
        let connects = AtomicU64::new(statistics.connects.load(Ordering::Relaxed));
        Self {
            client,
            statistics,
            inbox: inbox.into(),
            routes: Mutex::default(),
            budget: Arc::new(Budget::new(limits.bytes)),
            clock: Clock::new(),
            limits,
            random: SystemRandom::new(),
            connects,
            subscriptions: tokio::sync::Mutex::new(0),
            leases: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            idle: Notify::new(),
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
        !self.ended.load(Ordering::Acquire) && self.client.connection_state() == State::Connected
    }

    /// Calls under way.
    pub(super) fn calls(&self) -> usize {
        self.routes().values().filter(|route| matches!(route, Route::Call(_))).count()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// The server, or the client under us, is about to end the connection: time for another.
    pub(super) const fn leaving(&self) -> &CancellationToken {
        &self.leaving
    }

    /// Begins a call: from here on what arrives for its key is kept.
    pub(super) fn register(
        self: &Arc<Self>,
        role: Role,
        to: Subject,
        deadlines: Deadlines,
    ) -> Result<Live, CallFailed> {
        if !self.is_connected() {
            return Err(CallFailed::Disconnected);
        }
        let connects = self.statistics.connects.load(Ordering::Relaxed);
        let step = match role {
            Role::Caller => Step::Handshake,
            Role::Callee => Step::Whole,
        };
        let buffer = CallBuffer::new(&self.limits, Arc::clone(&self.budget), deadlines, self.clock.now(), step);
        let buffer = Arc::new(buffer);
        let key = Key::random(&self.random)?;
        let mut routes = self.routes();
        if routes.len() >= self.limits.calls {
            return Err(CallFailed::TooManyCalls { limit: self.limits.calls });
        }
        // Two equal keys would need 2^64 calls under way.
        routes.insert(key, Route::Call(CallRoute { buffer: Arc::clone(&buffer), role, to, connects, later: None }));
        drop(routes);
        Ok(Live::new(Arc::clone(self), key, buffer, role))
    }

    /// Shakes hands when the next tick finds the call not answered yet: until then its caller can do without.
    pub(super) fn shake_later(&self, key: Key, handshake: OutboundMessage) {
        let now = self.clock.now();
        if let Some(Route::Call(call)) = self.routes().get_mut(&key) {
            call.later = Some((now, handshake));
        }
    }

    pub(super) fn forget(&self, key: Key, instead: Option<Route>) {
        let mut routes = self.routes();
        match instead {
            Some(route) => routes.insert(key, route),
            None => routes.remove(&key),
        };
        drop(routes);
        self.idle.notify_waiters();
    }

    pub(super) fn new_key(&self) -> Result<Key, NoRandomness> {
        Key::random(&self.random)
    }

    /// The subject of a key, with what stands behind it.
    pub(super) fn subject(&self, key: Key) -> String {
        let mut subject = String::with_capacity(self.inbox.len() + 64);
        subject.push_str(&self.inbox);
        key.write(&mut subject);
        subject
    }

    /// Sends one message. It waits only while the server takes nothing.
    pub(super) async fn publish(&self, message: OutboundMessage) -> Result<(), CallFailed> {
        let mut sending = pin!(self.client.publish_message(message));
        // A timer only where there is something to wait for.
        let first = std::future::poll_fn(|cx| Poll::Ready(sending.as_mut().poll(cx))).await;
        let sent = match first {
            Poll::Ready(sent) => sent,
            Poll::Pending => tokio::time::timeout(self.limits.send_timeout, sending)
                .await
                .map_err(|_| CallFailed::TimedOut(Step::Send))?,
        };
        // What was chunked and parsed fails only with the connection.
        sent.map_err(|_| CallFailed::Disconnected)
    }

    /// Sends one message if it can be sent at once.
    pub(super) fn try_publish(&self, message: OutboundMessage) -> bool {
        let sending = pin!(self.client.publish_message(message));
        matches!(sending.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(())))
    }

    /// Waits until no call is under way and nobody is about to begin one.
    pub(super) async fn wait_idle(&self) {
        loop {
            let mut changed = pin!(self.idle.notified());
            changed.as_mut().enable();
            // In this order: a lease ends when its call has begun, and nobody takes another of a link that was replaced.
            if self.leases.load(Ordering::Acquire) == 0 && self.calls() == 0 {
                return;
            }
            changed.await;
        }
    }

    /// Waits until the server has done everything that was sent to it before, and everything it had sent until then has
    /// arrived: until a message to ourselves comes back. False when it does not in time.
    pub(super) async fn settled(&self) -> Result<bool, NoRandomness> {
        let key = self.new_key()?;
        let (echo, heard) = oneshot::channel();
        self.routes().insert(key, Route::Echo(echo));
        let message = plain(Subject::from(self.subject(key)), Bytes::new());
        let settled = async { self.publish(message).await.is_ok() && heard.await.is_ok() };
        let settled = tokio::time::timeout(self.limits.connect_timeout, settled).await;
        self.forget(key, None);
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
        let rest = message.subject.as_str().strip_prefix(&*self.inbox).and_then(Key::split);
        let Some((key, rest)) = rest else {
            return;
        };
        let mut routes = self.routes();
        match routes.get(&key) {
            Some(Route::Call(call)) => {
                let (buffer, role) = (Arc::clone(&call.buffer), call.role);
                drop(routes);
                role.deliver(&buffer, rest, message, self.clock.now());
            }
            Some(Route::Cancelled { .. }) => {
                routes.remove(&key);
                drop(routes);
                super::live::cancel(self, message);
            }
            Some(Route::Echo(_)) => {
                if let Some(Route::Echo(echo)) = routes.remove(&key) {
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

    /// Looks at every deadline.
    pub(super) fn tick(&self) {
        let now = self.clock.tick();
        self.notice_loss();
        let mut due = Vec::new();
        self.routes().retain(|_, route| match route {
            Route::Call(call) => {
                call.buffer.expire(now);
                if call.later.as_ref().is_some_and(|(since, _)| *since < now) {
                    due.extend(call.later.take());
                }
                true
            }
            Route::Cancelled { until } => now < *until,
            Route::Echo(_) | Route::Answers(_) => true,
        });
        for (_, handshake) in due {
            // Where nothing can be sent at the moment, the caller's own deadline ends the call.
            let _ = self.try_publish(handshake);
        }
    }

    /// What was sent over a connection before this one may be lost: its calls end.
    fn notice_reconnect(&self) {
        let connects = self.statistics.connects.load(Ordering::Relaxed);
        if self.connects.swap(connects, Ordering::Relaxed) != connects {
            self.fail(&CallFailed::Disconnected, |call| call.connects != connects);
        }
    }

    /// Without a connection no call goes on: what is sent meanwhile is lost.
    fn notice_loss(&self) {
        self.notice_reconnect();
        if self.client.connection_state() != State::Connected {
            self.fail(&CallFailed::Disconnected, |_| true);
        }
    }

    fn fail(&self, failed: &CallFailed, which: impl Fn(&CallRoute) -> bool) {
        for route in self.routes().values() {
            if let Route::Call(call) = route
                && which(call)
            {
                call.buffer.fail(failed.clone());
            }
        }
    }

    /// The driver stopped: nothing arrives any more.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.leaving.cancel();
        self.closing.cancel();
        self.fail(&CallFailed::Disconnected, |_| true);
        self.routes().retain(|_, route| matches!(route, Route::Call(_)));
        self.idle.notify_waiters();
    }

    fn heard(&self, event: &Event) {
        match event {
            // The client may not have noted it itself yet: then the next tick does this.
            Event::Disconnected => self.notice_loss(),
            Event::SlowConsumer(INBOX_SID) => {
                self.fail(&CallFailed::SlowConsumer(Overflow::Connection), |_| true);
            }
            Event::SlowConsumer(_) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
            Event::ServerError(ServerError::Other(text)) => self.not_permitted(text),
            Event::LameDuckMode | Event::Closed => self.leaving.cancel(),
            Event::Connected
            | Event::Draining
            | Event::ServerError(ServerError::AuthorizationViolation | ServerError::SlowConsumer(_))
            | Event::ClientError(_) => {}
        }
    }

    /// The server names the subject it does not let us publish to: the calls that did end now, not at their deadline.
    fn not_permitted(&self, text: &str) {
        let subject =
            text.split_once("Permissions Violation for Publish to \"").and_then(|(_, rest)| rest.split_once('"'));
        let Some((subject, _)) = subject else {
            return;
        };
        let failed = CallFailed::NotPermitted { subject: subject.to_owned() };
        self.fail(&failed, |call| {
            let below =
                |to: &str| subject.strip_prefix(to).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
            below(call.to.as_str()) || call.buffer.handshake().is_some_and(|to| below(to.as_str()))
        });
    }
}

/// Keeps a connection that was replaced until its holder is done: an acceptor, a call that nobody has accepted yet, a
/// caller that has not begun its call yet.
#[derive(Debug)]
pub(super) struct Lease(Arc<Shared>);

impl Lease {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        shared.leases.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(shared))
    }

    pub(super) const fn shared(&self) -> &Arc<Shared> {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.leases.fetch_sub(1, Ordering::AcqRel);
        self.0.idle.notify_waiters();
    }
}

/// A message without reply or headers.
pub(super) const fn plain(subject: Subject, payload: Bytes) -> OutboundMessage {
    OutboundMessage { subject, reply: None, payload, headers: None }
}
