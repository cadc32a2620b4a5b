//! An authenticated connection: who calls, what it may do, what it was refused.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use portcullis_identity::SpiffeId;
use portcullis_policy::{ANONYMOUS, PeerView, Principal};

use super::Quota;
use super::quota::Counter;
use super::refused::Refusals;
use super::served::Served;

/// The other end of one connection.
#[derive(Debug)]
pub(crate) struct Caller {
    id: String,
    principal: Principal,
    outlook: ArcSwapOption<Outlook>,
    pub(super) underway: Arc<Counter>,
    pub(super) refusals: Refusals,
}

/// What one caller sees of one version of the component: its verdicts, cached.
#[derive(Debug)]
pub(crate) struct Outlook {
    pub(crate) served: Arc<Served>,
    pub(crate) view: PeerView,
}

impl Caller {
    pub(crate) fn new(id: &SpiffeId, quota: &Quota) -> Self {
        let text = id.to_string();
        Self {
            principal: Principal::workload(&text, id.trust_domain_name(), id.path()),
            outlook: ArcSwapOption::empty(),
            underway: quota.peer(&text),
            refusals: Refusals::default(),
            id: text,
        }
    }

    /// A component that a host names: of the host's class, for which host it is on NATS does not say.
    pub(crate) fn hosted(component: &str, quota: &Quota) -> Self {
        // No SPIFFE ID looks like this one.
        let text = format!("host:{component}");
        Self {
            principal: Principal::hosted(component, None),
            outlook: ArcSwapOption::empty(),
            underway: quota.peer(&text),
            refusals: Refusals::default(),
            id: text,
        }
    }

    /// Whoever calls where nothing says who calls.
    pub(crate) fn anonymous(quota: &Quota) -> Self {
        Self {
            principal: Principal::anonymous(),
            outlook: ArcSwapOption::empty(),
            underway: quota.peer(ANONYMOUS),
            refusals: Refusals::default(),
            id: ANONYMOUS.to_owned(),
        }
    }

    /// The SPIFFE ID proved in the handshake or by the subject; `host:ID` for a component that a host names; `anonymous`.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The view of `served`, made once per version.
    pub(crate) fn outlook(&self, served: Arc<Served>) -> Arc<Outlook> {
        if let Some(outlook) = self.outlook.load_full()
            && Arc::ptr_eq(&outlook.served, &served)
        {
            return outlook;
        }
        let view = served.engine.view(&self.principal);
        let outlook = Arc::new(Outlook { served, view });
        self.outlook.store(Some(Arc::clone(&outlook)));
        outlook
    }

    /// The version this caller was last judged by, for the record.
    pub(crate) fn epoch(&self) -> u64 {
        self.outlook.load().as_ref().map_or(0, |outlook| outlook.served.version.epoch)
    }
}
