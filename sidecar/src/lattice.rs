//! The component on its lattice: called over NATS, as it is over QUIC.
//!
//! Who calls is in the subject, where the server lets nobody write another's name. A host speaks for the components it runs, so its word
//! for which of them calls is taken there, and there alone.

mod callers;
mod proof;

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portcullis_client::lattice::{LatticeError, LatticeSettings, address};
use portcullis_client::node::Identity;
use portcullis_identity::PeerRefused;
use portcullis_policy::ANONYMOUS;
use portcullis_transport::nats::{
    Arrival, CallerToken, IncomingCall, Link, Listening, NatsLimits, NatsSettings, NatsTls, Session, SessionAcceptor,
};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use self::callers::{Callers, Who};
use crate::component::Component;
use crate::gate::{Gate, Refused};
use crate::links::{self, Linked, Links};

/// The first wait after an attempt to join the lattice failed; it doubles.
const RETRY_FLOOR: Duration = Duration::from_millis(100);
/// The longest.
const RETRY_CEILING: Duration = Duration::from_secs(5);

/// How the component stands on its lattice.
#[derive(Debug, Default)]
pub(crate) struct Lattice {
    session: Mutex<Option<Session>>,
    /// Why the last attempt to join failed; nothing once it has joined.
    error: Mutex<Option<String>>,
    links: Links,
}

/// One reading of it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LatticeStatus {
    /// Whether a connection to its server stands; where clients are to be held to their names, one that has shown that.
    pub connected: bool,
    /// Why it could not be joined yet, or a connection not be replaced, where that is so.
    #[serde(default)]
    pub error: Option<String>,
    /// Calls under way.
    pub calls: usize,
    /// Requests that were lost because they came faster than they were taken.
    pub dropped_requests: u64,
    /// Components whose hosts send their calls here.
    #[serde(default)]
    pub links: Vec<Linked>,
}

impl Lattice {
    pub(crate) fn status(&self) -> LatticeStatus {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let link = session.as_ref().map(Session::link);
        let error = self.error.lock().unwrap_or_else(PoisonError::into_inner).clone();
        LatticeStatus {
            connected: link.as_ref().is_some_and(Link::is_connected),
            error: error.or_else(|| session.as_ref().and_then(Session::problem)),
            calls: link.as_ref().map_or(0, Link::calls),
            dropped_requests: session.as_ref().map_or(0, Session::dropped_requests),
            links: self.links.all(),
        }
    }

    fn joined(&self, session: Session) {
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn failed(&self, error: String) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

/// What listens on the lattice.
#[derive(Debug)]
pub(crate) struct LatticeListener {
    settings: NatsSettings,
    at: Listening,
    callers: Callers,
    gate: Arc<Gate>,
    identity: Arc<Identity>,
    lattice: Arc<Lattice>,
    /// How long calls under way may keep a connection that was replaced.
    drain: Duration,
}

impl LatticeListener {
    pub(crate) fn new(
        component: &Component,
        settings: &LatticeSettings,
        lattice: Arc<Lattice>,
    ) -> Result<Self, LatticeError> {
        let limits = NatsLimits { calls: component.config.limits.calls, ..NatsLimits::default() };
        let target = &component.config.component.target;
        let address = address(target)?;
        let settings = settings.of(&component.identity, target, limits)?;
        Ok(Self {
            settings,
            callers: Callers::new(component.node.clone(), target.lattice.clone(), &address),
            at: Listening::Virtual(address),
            gate: Arc::clone(&component.gate),
            identity: Arc::clone(&component.identity),
            lattice,
            drain: component.config.limits.drain_timeout,
        })
    }

    /// Takes calls where a component on a host would: on a lattice whose server lets everybody publish everywhere, an address with callers in it
    /// would only look as if it said who calls.
    pub(crate) fn with_plain_address(self) -> Self {
        Self { at: Listening::Plain(self.at.address().clone()), ..self }
    }

    /// Serves until `draining`; then takes no more calls, and returns when those that were taken have ended, or at `end`. `calls` runs them,
    /// `tasks` what drives the connection.
    pub(crate) async fn run(
        self,
        calls: TaskTracker,
        tasks: TaskTracker,
        draining: CancellationToken,
        end: CancellationToken,
    ) {
        let this = Arc::new(self);
        // Before joining: a renewal in between has its connection made anew, too.
        let mut renewals = this.identity.renewals();
        renewals.mark_unchanged();
        let joining = Box::pin(draining.clone().run_until_cancelled_owned(this.join(&tasks)));
        let joined = joining.await;
        let Some((session, mut acceptor)) = joined else { return };
        info!(address = this.at.subscription(), "listening on the lattice");
        if matches!(this.at, Listening::Plain(_)) {
            warn!(
                principal = "HostedComponent::\"anonymous\"",
                "every caller on the lattice is anonymous, whoever reaches its servers"
            );
        }
        let following = {
            let (this, session) = (Arc::clone(&this), session.clone());
            async move { links::follow(session, this.at.clone(), &this.lattice.links).await }
        };
        drop(tasks.spawn(draining.clone().run_until_cancelled_owned(following)));
        let mut ending = pin!(draining.cancelled());
        loop {
            tokio::select! {
                arrival = acceptor.next() => match arrival {
                    Some(arrival) => this.take(arrival, &calls),
                    None => break,
                },
                changed = renewals.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    debug!("connecting anew to the lattice");
                    session.renew();
                }
                () = &mut ending => {
                    acceptor.retire();
                    break;
                }
            }
        }
        let rest = async {
            // What the server had sent before.
            while let Some(arrival) = acceptor.next().await {
                this.take(arrival, &calls);
            }
            drop(acceptor);
            session.link().idle(this.drain).await;
            // The last answers are on their way to the server; with the connection they would be lost.
            let _ = session.link().settled().await;
        };
        end.run_until_cancelled(rest).await;
        session.close();
    }

    /// Tries until the server lets us in.
    async fn join(&self, tasks: &TaskTracker) -> (Session, SessionAcceptor) {
        let mut pause = RETRY_FLOOR;
        loop {
            match self.attempt(tasks).await {
                Ok(joined) => return joined,
                Err(error) => {
                    let error = Causes(&*error).to_string();
                    warn!(%error, again_in_ms = pause.as_millis(), "cannot join the lattice");
                    self.lattice.failed(error);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_CEILING);
                }
            }
        }
    }

    async fn attempt(
        &self,
        tasks: &TaskTracker,
    ) -> Result<(Session, SessionAcceptor), Box<dyn std::error::Error + Send + Sync>> {
        let (settings, tasks) = (self.settings.clone(), tasks.clone());
        let session = match (&self.at, &self.settings.tls) {
            (Listening::Virtual(address), NatsTls::Upgrade(_) | NatsTls::First(_)) => {
                let proof = proof::names_are_held(address.clone());
                Session::start_proved(settings, self.drain, tasks, proof).await?
            }
            // Whoever says so believes a server that proves nothing; or believes nobody.
            (Listening::Virtual(_), NatsTls::DangerPlain) | (Listening::Plain(_), _) => {
                Session::start(settings, self.drain, tasks).await?
            }
        };
        let mut unfinished = Unfinished(Some(session.clone()));
        let acceptor = session.accept_calls(self.at.clone()).await?;
        unfinished.0 = None;
        self.lattice.joined(session.clone());
        Ok((session, acceptor))
    }

    fn take(self: &Arc<Self>, arrival: Arrival, calls: &TaskTracker) {
        let call = match arrival {
            Arrival::Call(call) => call,
            Arrival::Rejected { subject, why } => {
                info!(target: "decision", subject, %why, "refused");
                self.gate.meters.refused(why.refusal());
                return;
            }
        };
        match self.callers.of(&call, &self.gate) {
            Ok(Who::Known(caller)) => {
                let gate = Arc::clone(&self.gate);
                drop(calls.spawn(async move { gate.serve_nats(&caller, call).await }));
            }
            Ok(Who::Stranger(name, leave)) => {
                let this = Arc::clone(self);
                drop(calls.spawn(async move {
                    let met = this.callers.meet(name, &this.gate).await;
                    drop(leave);
                    match met {
                        Ok(caller) => this.gate.serve_nats(&caller, call).await,
                        Err(refused) => this.refuse(call, &refused),
                    }
                }));
            }
            Err(refused) => self.refuse(call, &refused),
        }
    }

    fn refuse(&self, call: IncomingCall, refused: &Refused) {
        let caller = call.caller.as_ref().map_or(ANONYMOUS, CallerToken::as_str);
        info!(target: "decision", caller, function = %call.name, reason = refused.reason, code = refused.refusal.name(), "refused");
        self.gate.meters.refused(refused.refusal);
        call.refuse(refused.refusal, &refused.reason);
    }
}

/// A session that nobody uses yet: it ends with the attempt to make it, however that ends.
struct Unfinished(Option<Session>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(session) = self.0.take() {
            session.close();
        }
    }
}

/// An error and what caused it, on one line; of a certificate that was refused, why. Some errors say their cause themselves.
pub(crate) struct Causes<'a>(pub(crate) &'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut line = self.0.to_string();
        let mut say = |text: &str| {
            if !line.ends_with(text) {
                line.push_str(": ");
                line.push_str(text);
            }
        };
        let mut cause = self.0.source();
        while let Some(error) = cause {
            say(&error.to_string());
            cause = error.source();
        }
        // What the chain itself says of it is bland.
        if let Some(refused) = PeerRefused::find(self.0) {
            say(&refused.reason().to_string());
        }
        f.write_str(&line)
    }
}

#[cfg(test)]
mod tests {
    use portcullis_identity::{PeerRule, RefusalReason, parse_spiffe_id};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot connect")]
    struct Connect(#[source] Io);

    /// As errors of async-nats do, it says its cause itself.
    #[derive(Debug, thiserror::Error)]
    #[error("IO error: {0}")]
    struct Io(#[source] std::io::Error);

    #[test]
    fn a_cause_is_said_once() {
        let error = Connect(Io(std::io::Error::other("refused")));
        assert_eq!(Causes(&error).to_string(), "cannot connect: IO error: refused");
    }

    #[test]
    fn of_a_certificate_that_is_refused_both_ids_are_said() {
        let id = |name: &str| parse_spiffe_id(&format!("spiffe://test.example/{name}")).unwrap();
        let reason = RefusalReason::NotExpected { id: id("found"), expected: PeerRule::Exactly(id("expected")) };
        let refused = rustls::Error::from(PeerRefused::from(reason));
        let line = Causes(&Connect(Io(std::io::Error::other(refused)))).to_string();
        assert_eq!(line.matches("PeerRefused").count(), 1, "{line}");
        let both = "peer is `spiffe://test.example/found`, expected `spiffe://test.example/expected`";
        assert!(line.ends_with(both), "{line}");
    }
}
