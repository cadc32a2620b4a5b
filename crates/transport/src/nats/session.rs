mod acceptor;

use std::{
    error::Error,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    select,
    sync::{Notify, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use super::{
    acceptor::SubscribeError,
    failure::CallFailed,
    idle::Lease,
    incoming::Incoming,
    invoke::Call,
    link::{ConnectError, Link},
    listening::Listening,
    outgoing::Outgoing,
    proof::Proof,
    settings::NatsSettings,
    shared::Lifetime,
};

pub use acceptor::SessionAcceptor;

/// The first pause after an attempt to connect that failed.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// The pause after a connection that did not prove itself: that takes an operator.
const UNPROVED_PAUSE: Duration = Duration::from_secs(5);

/// A [`Link`] that is replaced: when its owner asks for it, because the identity was renewed; when its server says that it
/// will stop; and when the client under it has ended.
///
/// New calls go to the new link from the moment it is there. Acceptors subscribe on it before they retire from the old
/// one. The old one ends when its last call has, or at the end of `drain`. Clones are the same session.
#[derive(Clone, Debug)]
pub struct Session {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    links: Links,
    /// How long calls under way may keep a link that was replaced.
    drain: Duration,
    link: watch::Sender<Link>,
    /// What the links before the present one have lost.
    dropped: AtomicU64,
    /// Why the session cannot move to another link, where it tries.
    problem: Mutex<Option<String>>,
    renew: Notify,
    closing: CancellationToken,
}

/// Where links come from.
#[derive(Debug)]
struct Links {
    settings: NatsSettings,
    proof: Option<Proof>,
    tasks: TaskTracker,
}

impl Links {
    async fn connect(&self) -> Result<Link, ConnectError> {
        let lifetime = if self.proof.is_some() { Lifetime::OneConnection } else { Lifetime::Reconnects };
        let (link, driver) = Link::connect_for(&self.settings, lifetime).await?;
        drop(self.tasks.spawn(driver.run()));
        let Some(proof) = &self.proof else { return Ok(link) };
        let unfinished = link.shared.closing.clone().drop_guard();
        let proved = select! {
            proved = proof.ask(&link) => proved,
            () = link.leaving() => return Err(ConnectError::Lost),
        };
        if !link.is_connected() {
            // Whatever was said is not about the next.
            return Err(ConnectError::Lost);
        }
        proved?;
        let _ = unfinished.disarm();
        Ok(link)
    }
}

impl Session {
    /// Connects. What drives the session runs on `tasks` until [`close`](Self::close).
    ///
    /// # Errors
    ///
    /// [`ConnectError`]
    pub async fn start(settings: NatsSettings, drain: Duration, tasks: TaskTracker) -> Result<Self, ConnectError> {
        Self::start_with(Links { settings, proof: None, tasks }, drain).await
    }

    /// Connects, and uses no connection that has not given `proof`: not the first, and none that follows, which the session
    /// makes itself when one is lost.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]
    pub async fn start_proved(
        settings: NatsSettings,
        drain: Duration,
        tasks: TaskTracker,
        proof: Proof,
    ) -> Result<Self, ConnectError> {
        Self::start_with(Links { settings, proof: Some(proof), tasks }, drain).await
    }

    async fn start_with(links: Links, drain: Duration) -> Result<Self, ConnectError> {
        let link = links.connect().await?;
        let inner = Inner {
            links,
            drain,
            link: watch::Sender::new(link),
            dropped: AtomicU64::new(0),
            problem: Mutex::default(),
            renew: Notify::new(),
            closing: CancellationToken::new(),
        };
        let session = Self { inner: Arc::new(inner) };
        drop(session.inner.links.tasks.spawn(session.clone().keep()));
        Ok(session)
    }

    /// The link of this moment. A call that is begun on it after the session has moved may fail: see
    /// [`invoke`](Self::invoke).
    pub fn link(&self) -> Link {
        self.inner.link.borrow().clone()
    }

    /// The link of this moment, which is not closed before the lease ends.
    fn lease(&self) -> (Link, Lease) {
        // Taken while the session cannot move: who drains the link finds the lease.
        let link = self.inner.link.borrow();
        (link.clone(), Lease::new(&link.shared))
    }

    /// Makes a call over the link of this moment. As [`Link::call`].
    ///
    /// # Errors
    ///
    /// [`CallFailed`]
    pub async fn call(&self, call: Call<'_>, limit: usize) -> Result<Bytes, CallFailed> {
        let (link, _lease) = self.lease();
        link.call(call, limit).await
    }

    /// Begins a call over the link of this moment. As [`Link::invoke`].
    ///
    /// # Errors
    ///
    /// [`CallFailed`]
    pub async fn invoke(&self, call: Call<'_>) -> Result<(Outgoing, Incoming), CallFailed> {
        let (link, _lease) = self.lease();
        link.invoke(call).await
    }

    /// Takes the calls to a component, from link to link.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`]
    pub async fn accept_calls(&self, at: impl Into<Listening>) -> Result<SessionAcceptor, SubscribeError> {
        let at = at.into();
        let changes = self.inner.link.subscribe();
        let (link, _lease) = self.lease();
        let acceptor = link.accept_calls(at.clone()).await?;
        Ok(SessionAcceptor::new(acceptor, at, changes, self.inner.closing.clone()))
    }

    /// Requests that were lost because nobody took them from an acceptor in time, on every link that the session had.
    pub fn dropped_requests(&self) -> u64 {
        // While the session cannot move: no link counts twice.
        let link = self.inner.link.borrow();
        self.inner.dropped.load(Ordering::Relaxed) + link.dropped_requests()
    }

    /// Why the session has not moved to another link yet although it should; `None` where nothing is the matter.
    pub fn problem(&self) -> Option<String> {
        self.inner.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_problem(&self, problem: Option<String>) {
        *self.inner.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    /// Connects anew and drains the link of this moment. TLS presents what the identity's slot holds then, and a
    /// [`Login::Fresh`](super::Login::Fresh) is asked again. Attempts go on until one succeeds; the old link serves
    /// meanwhile.
    pub fn renew(&self) {
        self.inner.renew.notify_one();
    }

    /// Waits until the session has moved to a link other than `link`.
    pub async fn moved_from(&self, link: &Link) {
        let mut links = self.inner.link.subscribe();
        // The sender lives in this very session.
        let _ = links.wait_for(|current| !Arc::ptr_eq(&current.shared, &link.shared)).await;
    }

    /// Ends the session and its link at once. Drain before: see [`SessionAcceptor::retire`] and [`Link::idle`].
    pub fn close(&self) {
        self.inner.closing.cancel();
        self.link().close();
    }

    async fn keep(self) {
        loop {
            let link = self.link();
            select! {
                () = self.inner.closing.cancelled() => return,
                () = self.inner.renew.notified() => {}
                () = link.leaving() => {}
            }
            let new = select! {
                () = self.inner.closing.cancelled() => return,
                connected = self.connect() => connected,
            };
            let mut counted = 0;
            self.inner.link.send_modify(|link| {
                counted = link.dropped_requests();
                self.inner.dropped.fetch_add(counted, Ordering::Relaxed);
                *link = new;
            });
            drop(self.inner.links.tasks.spawn(self.clone().drain(link, counted)));
            if self.inner.closing.is_cancelled() {
                // It was closed between the two.
                self.link().close();
            }
        }
    }

    async fn connect(&self) -> Link {
        let (mut pause, mut attempts) = (FIRST_PAUSE, 0_u32);
        loop {
            match self.inner.links.connect().await {
                Ok(connected) => {
                    self.set_problem(None);
                    return connected;
                }
                Err(error) => {
                    self.set_problem(Some(with_causes(&error)));
                    let unproved = matches!(error, ConnectError::Unproved(_));
                    if unproved {
                        pause = UNPROVED_PAUSE;
                    }
                    attempts = attempts.saturating_add(1);
                    // Ever fewer of them: an outage may last.
                    if unproved || attempts.is_power_of_two() {
                        let (error, again_in_ms) = (with_causes(&error), pause.as_millis());
                        warn!(
                            error,
                            attempts,
                            again_in_ms,
                            "cannot connect anew: the connection there was is used as long as it stands"
                        );
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(self.inner.links.settings.limits.reconnect_pause);
        }
    }

    /// Ends a link that was replaced when its last call has; `counted` is what it had lost by then.
    async fn drain(self, link: Link, counted: u64) {
        link.idle(self.inner.drain).await;
        // The last answers are on their way to the server; with the connection they would be lost.
        let _ = link.shared.settled().await;
        link.close();
        let since = link.dropped_requests().saturating_sub(counted);
        self.inner.dropped.fetch_add(since, Ordering::Relaxed);
    }
}

/// An error with its causes, on one line. Some say theirs themselves.
fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !line.ends_with(&cause) {
            line.push_str(": ");
            line.push_str(&cause);
        }
        source = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let refused = std::io::Error::other("connection refused");
        let error = async_nats::ConnectError::with_source(async_nats::ConnectErrorKind::Io, refused);
        let line = with_causes(&ConnectError::Connect(error));
        assert_eq!(line, "cannot connect to a nats server: IO error: connection refused");
        assert_eq!(with_causes(&ConnectError::NoServer), "no nats server is configured");
    }
}
