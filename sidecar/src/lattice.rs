//! The component on its lattice: called over NATS, as it is over QUIC.
//!
//! Who calls is in the subject, where the server lets nobody write another's name. A host speaks for the components it runs, so its word
//! for which of them calls is taken there, and there alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portcullis_client::lattice::{LatticeError, LatticeSettings, address, inboxes};
use portcullis_client::node::{Identity, MeetError, Node};
use portcullis_identity::{Lattice as LatticeName, SpiffeId, Target};
use portcullis_transport::Refusal;
use portcullis_transport::nats::{
    Arrival, CallerToken, IncomingCall, Link, NatsLimits, NatsSettings, Session, SessionAcceptor, VirtualAddress,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::component::Component;
use crate::gate::{Caller, Gate, Refused};
use crate::links::{self, Linked, Links};

/// The header in which a host names its component.
const SOURCE_ID: &str = "source-id";
/// Bytes of a component's name that a host says.
const MAX_SOURCE: usize = 128;
/// Components of hosts whose verdicts are kept. Of more, all are forgotten: a host that makes names up costs no memory.
const MAX_HOSTED: usize = 1024;
/// Calls under new names that wait for the broker's word at a time.
const MAX_STRANGERS: usize = 64;
/// Where hosts are answered; they cannot have another inbox.
const HOST_INBOX: &str = "_INBOX.";
/// The first wait after an attempt to join the lattice failed; it doubles.
const RETRY_FLOOR: Duration = Duration::from_millis(100);
/// The longest.
const RETRY_CEILING: Duration = Duration::from_secs(5);

/// How the component stands on its lattice.
#[derive(Debug, Default)]
pub(crate) struct Lattice {
    session: Mutex<Option<Session>>,
    links: Links,
}

/// One reading of it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LatticeStatus {
    /// Whether its server is reached.
    pub connected: bool,
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
        LatticeStatus {
            connected: link.as_ref().is_some_and(Link::is_connected),
            calls: link.as_ref().map_or(0, Link::calls),
            dropped_requests: link.as_ref().map_or(0, Link::dropped_requests),
            links: self.links.all(),
        }
    }
}

/// What listens on the lattice.
#[derive(Debug)]
pub(crate) struct LatticeListener {
    settings: NatsSettings,
    address: VirtualAddress,
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
            address,
            gate: Arc::clone(&component.gate),
            identity: Arc::clone(&component.identity),
            lattice,
            drain: component.config.limits.drain_timeout,
        })
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
        let joining = Box::pin(draining.clone().run_until_cancelled_owned(this.join(&tasks)));
        let joined = joining.await;
        let Some((session, mut acceptor)) = joined else { return };
        info!(address = this.address.subscription(), "listening on the lattice");
        let following = {
            let (this, session) = (Arc::clone(&this), session.clone());
            async move { links::follow(session, this.address.clone(), &this.lattice.links).await }
        };
        drop(tasks.spawn(draining.clone().run_until_cancelled_owned(following)));
        let mut renewals = this.identity.renewals();
        renewals.mark_unchanged();
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
                () = draining.cancelled() => {
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
                    warn!(error = %Causes(&*error), again_in_ms = pause.as_millis(), "cannot join the lattice");
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
        let session = Session::start(self.settings.clone(), self.drain, tasks.clone()).await?;
        match session.accept_calls(self.address.clone()).await {
            Ok(acceptor) => {
                *self.lattice.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(session.clone());
                Ok((session, acceptor))
            }
            Err(error) => {
                session.close();
                Err(error.into())
            }
        }
    }

    fn take(self: &Arc<Self>, arrival: Arrival, calls: &TaskTracker) {
        let call = match arrival {
            Arrival::Call(call) => call,
            Arrival::Rejected { subject, why } => {
                info!(target: "decision", subject, %why, "refused");
                self.gate.meters.refused(Refusal::MalformedHeader);
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
        info!(target: "decision", caller = %call.caller, function = %call.name, reason = refused.reason, code = refused.refusal.name(), "refused");
        self.gate.meters.refused(refused.refusal);
        call.refuse(refused.refusal, &refused.reason);
    }
}

/// An error and what caused it, on one line.
pub(crate) struct Causes<'a>(pub(crate) &'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Who calls over NATS: as a connection is for QUIC, these live as long as the component is served.
#[derive(Debug)]
struct Callers {
    node: Node,
    lattice: LatticeName,
    /// Before the names in the inboxes of identities.
    inboxes: String,
    named: Mutex<HashMap<String, Named>>,
    hosted: Mutex<HashMap<String, Arc<Caller>>>,
    strangers: Arc<Semaphore>,
}

/// The holder of a name, who called before.
#[derive(Debug)]
struct Named {
    name: Target,
    id: SpiffeId,
    caller: Arc<Caller>,
}

/// Who a caller is, as far as that can be said at once.
#[derive(Debug)]
enum Who {
    Known(Arc<Caller>),
    /// The broker has to be asked, while few others wait for its word.
    Stranger(Target, OwnedSemaphorePermit),
}

impl Callers {
    fn new(node: Node, lattice: LatticeName, address: &VirtualAddress) -> Self {
        Self {
            node,
            lattice,
            inboxes: inboxes(&address.lattice),
            named: Mutex::default(),
            hosted: Mutex::default(),
            strangers: Arc::new(Semaphore::new(MAX_STRANGERS)),
        }
    }

    fn of(&self, call: &IncomingCall, gate: &Gate) -> Result<Who, Refused> {
        if !self.answers_its_caller(call) {
            let reason = "the answer is wanted elsewhere than in the caller's own inbox";
            return Err(Refused::new(Refusal::MalformedHeader, reason));
        }
        match &call.caller {
            CallerToken::Registered(token) => self.named(token.as_str(), gate),
            CallerToken::Host => {
                let source = call.headers.only(SOURCE_ID).filter(|source| is_name(source)).ok_or_else(|| {
                    Refused::new(Refusal::MalformedHeader, "the host does not say which of its components calls")
                })?;
                Ok(Who::Known(self.hosted(source, gate)))
            }
        }
    }

    /// A stream of JetStream can deliver to any subject, whoever may publish there; but it answers to nobody's inbox, and what is made to
    /// look so reaches only the caller whose name is in the subject.
    fn answers_its_caller(&self, call: &IncomingCall) -> bool {
        match &call.caller {
            CallerToken::Host => call.reply().starts_with(HOST_INBOX),
            CallerToken::Registered(token) => {
                let behind =
                    call.reply().strip_prefix(&*self.inboxes).and_then(|rest| rest.strip_prefix(token.as_str()));
                behind.is_some_and(|rest| rest.starts_with('.'))
            }
        }
    }

    fn named(&self, name: &str, gate: &Gate) -> Result<Who, Refused> {
        let known = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(named) = known.get(name).filter(|named| self.node.is_caller(&named.name, &named.id)) {
            return Ok(Who::Known(Arc::clone(&named.caller)));
        }
        drop(known);
        let id = name.parse().map_err(|_| nobody())?;
        let name = Target { lattice: self.lattice.clone(), id };
        match self.node.caller(&name) {
            Some(holder) => self.holder(name, holder, gate).map(Who::Known),
            None => match Arc::clone(&self.strangers).try_acquire_owned() {
                Ok(leave) => Ok(Who::Stranger(name, leave)),
                Err(_) => Err(Refused::new(Refusal::TooMany, "too many new callers at once")),
            },
        }
    }

    /// Asks the broker who a stranger is.
    async fn meet(&self, name: Target, gate: &Gate) -> Result<Arc<Caller>, Refused> {
        let holder = self.node.meet(&name).await.map_err(|error| {
            let refusal = match error {
                MeetError::Offline => Refusal::NotReady,
                MeetError::TooMany => Refusal::TooMany,
            };
            Refused::new(refusal, error.to_string())
        })?;
        self.holder(name, holder, gate)
    }

    fn holder(&self, name: Target, holder: Option<SpiffeId>, gate: &Gate) -> Result<Arc<Caller>, Refused> {
        let id = holder.ok_or_else(nobody)?;
        let caller = Arc::new(Caller::new(&id, &gate.quota));
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        // There are no more than the node may meet.
        named.insert(name.id.to_string(), Named { name, id, caller: Arc::clone(&caller) });
        Ok(caller)
    }

    fn hosted(&self, source: &str, gate: &Gate) -> Arc<Caller> {
        let mut callers = self.hosted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(caller) = callers.get(source) {
            return Arc::clone(caller);
        }
        if callers.len() >= MAX_HOSTED {
            callers.clear();
        }
        let caller = Arc::new(Caller::hosted(source, &gate.quota));
        callers.insert(source.to_owned(), Arc::clone(&caller));
        caller
    }
}

/// What a name gets that is nobody's: as everybody without a right.
fn nobody() -> Refused {
    Refused::new(Refusal::Denied, "no policy permits it").detailed("nobody has that name")
}

/// Whether a host's word can be a component's id: it ends in logs, and in an entity's name.
fn is_name(source: &str) -> bool {
    !source.is_empty() && source.len() <= MAX_SOURCE && source.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_names_components_and_not_whatever_it_likes() {
        for good in ["app", "my_component-1", "acme.shop/cart"] {
            assert!(is_name(good), "{good}");
        }
        let long = "x".repeat(MAX_SOURCE + 1);
        for bad in ["", "two words", "line\nbreak", "ümlaut", &long] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
