//! The component on its lattice: called over NATS, as it is over QUIC.
//!
//! Who calls is in the subject, where the server lets nobody write another's name. A host speaks for the components it runs, so its word
//! for which of them calls is taken there, and there alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portcullis_client::lattice::{LatticeError, LatticeSettings, address};
use portcullis_client::node::Identity;
use portcullis_transport::Refusal;
use portcullis_transport::nats::{
    Arrival, CallerToken, IncomingCall, NatsLimits, NatsSettings, Session, SessionAcceptor, VirtualAddress,
};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::component::Component;
use crate::gate::{Caller, Gate, Refused};

/// The header in which a host names its component.
const SOURCE_ID: &str = "source-id";
/// Bytes of a component's name that a host says.
const MAX_SOURCE: usize = 128;
/// Components of hosts whose verdicts are kept. Of more, all are forgotten: a host that makes names up costs no memory.
const MAX_HOSTED: usize = 1024;
/// The first wait after an attempt to join the lattice failed; it doubles.
const RETRY_FLOOR: Duration = Duration::from_millis(100);
/// The longest.
const RETRY_CEILING: Duration = Duration::from_secs(5);

/// How the component stands on its lattice.
#[derive(Debug, Default)]
pub(crate) struct Lattice {
    session: Mutex<Option<Session>>,
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
}

impl Lattice {
    pub(crate) fn status(&self) -> LatticeStatus {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        session.as_ref().map_or(LatticeStatus { connected: false, calls: 0, dropped_requests: 0 }, |session| {
            let link = session.link();
            LatticeStatus {
                connected: link.is_connected(),
                calls: link.calls(),
                dropped_requests: link.dropped_requests(),
            }
        })
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
            address,
            callers: Callers::default(),
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
            Ok(caller) => {
                let gate = Arc::clone(&self.gate);
                drop(calls.spawn(async move { gate.serve_nats(&caller, call).await }));
            }
            Err(refused) => {
                info!(target: "decision", caller = %call.caller, function = %call.name, reason = refused.reason, code = refused.refusal.name(), "refused");
                self.gate.meters.refused(refused.refusal);
                call.refuse(refused.refusal, &refused.reason);
            }
        }
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
#[derive(Debug, Default)]
struct Callers {
    named: Mutex<HashMap<String, Arc<Caller>>>,
    hosted: Mutex<HashMap<String, Arc<Caller>>>,
}

impl Callers {
    fn of(&self, call: &IncomingCall, gate: &Gate) -> Result<Arc<Caller>, Refused> {
        match &call.caller {
            CallerToken::Registered(token) => self.named(token.as_str(), gate),
            CallerToken::Host => {
                let source = call.headers.only(SOURCE_ID).filter(|source| is_name(source)).ok_or_else(|| {
                    Refused::new(Refusal::MalformedHeader, "the host does not say which of its components calls")
                })?;
                Ok(self.hosted(source, gate))
            }
        }
    }

    fn named(&self, name: &str, gate: &Gate) -> Result<Arc<Caller>, Refused> {
        let served =
            gate.served().ok_or_else(|| Refused::new(Refusal::NotReady, "the sidecar cannot decide calls now"))?;
        let id = served
            .nats_caller(name)
            .ok_or_else(|| Refused::new(Refusal::Denied, "no policy permits it").detailed("nobody has that name"))?;
        let text = id.to_string();
        let mut callers = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(caller) = callers.get(name).filter(|caller| caller.id() == text) {
            return Ok(Arc::clone(caller));
        }
        // Names that were taken back leave with the next new one; what stays is bounded by the registry.
        callers.retain(|name, _| served.nats_caller(name).is_some());
        let caller = Arc::new(Caller::new(id, &gate.quota));
        callers.insert(name.to_owned(), Arc::clone(&caller));
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
