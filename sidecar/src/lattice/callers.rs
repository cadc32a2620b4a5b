//! Who calls over NATS, and what was decided for them: as a connection is for QUIC, these live as long as the component is served.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use portcullis_client::lattice::inboxes;
use portcullis_client::node::{MeetError, Node};
use portcullis_identity::{Lattice as LatticeName, SpiffeId, Target};
use portcullis_policy::ANONYMOUS;
use portcullis_transport::Refusal;
use portcullis_transport::nats::{CallerToken, IncomingCall, VirtualAddress};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::gate::{Caller, Gate, Refused};

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

/// Who calls over NATS: as a connection is for QUIC, these live as long as the component is served.
#[derive(Debug)]
pub(super) struct Callers {
    node: Node,
    lattice: LatticeName,
    /// Before the names in the inboxes of identities.
    inboxes: String,
    named: Mutex<HashMap<String, Named>>,
    hosted: Mutex<HashMap<String, Arc<Caller>>>,
    anonymous: OnceLock<Arc<Caller>>,
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
pub(super) enum Who {
    Known(Arc<Caller>),
    /// The broker has to be asked, while few others wait for its word.
    Stranger(Target, OwnedSemaphorePermit),
}

impl Callers {
    pub(super) fn new(node: Node, lattice: LatticeName, address: &VirtualAddress) -> Self {
        Self {
            node,
            lattice,
            inboxes: inboxes(&address.lattice),
            named: Mutex::default(),
            hosted: Mutex::default(),
            anonymous: OnceLock::new(),
            strangers: Arc::new(Semaphore::new(MAX_STRANGERS)),
        }
    }

    pub(super) fn of(&self, call: &IncomingCall, gate: &Gate) -> Result<Who, Refused> {
        if !self.answers_its_caller(call) {
            let reason = "the answer is wanted elsewhere than in the caller's own inbox";
            return Err(Refused::new(Refusal::MalformedHeader, reason));
        }
        match &call.caller {
            None => Ok(Who::Known(self.anonymous(gate))),
            Some(CallerToken::Registered(token)) => self.named(token.as_str(), gate),
            Some(CallerToken::Host) => {
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
            // Nobody has a sidecar publish elsewhere.
            None | Some(CallerToken::Host) => call.reply().starts_with(HOST_INBOX),
            Some(CallerToken::Registered(token)) => {
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
    pub(super) async fn meet(&self, name: Target, gate: &Gate) -> Result<Arc<Caller>, Refused> {
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

    fn anonymous(&self, gate: &Gate) -> Arc<Caller> {
        Arc::clone(self.anonymous.get_or_init(|| Arc::new(Caller::anonymous(&gate.quota))))
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
    let short = !source.is_empty() && source.len() <= MAX_SOURCE;
    short && source != ANONYMOUS && source.bytes().all(|byte| byte.is_ascii_graphic())
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
        for bad in ["", "two words", "line\nbreak", "ümlaut", ANONYMOUS, &long] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
