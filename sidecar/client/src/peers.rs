//! Calls to virtual components over QUIC: connections made before they are needed anew, typed refusals, and wRPC's own `Invoke`.

mod call;
mod invoke;
mod route;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use portcullis_identity::{SpiffeId, TrustSource};
use portcullis_transport::quic::{Dialer, QuicLimits};
use portcullis_transport::{FrameLimits, Refusal};
use tokio_util::task::TaskTracker;

pub use invoke::{Answer, CallOutcome, PeerClient};

use crate::explanation::Explanation;
use crate::node::{Identity, PeerRecord};
use route::Route;

/// What a callee may make us hold, and how long we wait for it.
#[derive(Clone, Copy, Debug)]
pub struct CallLimits {
    /// How long dialling one address may take.
    pub connect: Duration,
    /// How long the peer may take to say why it refused.
    pub explain: Duration,
    /// Of an answer.
    pub answer: FrameLimits,
}

impl Default for CallLimits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), explain: Duration::from_secs(1), answer: FrameLimits::default() }
    }
}

/// Why a call has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// The peer's sidecar refused the call.
    #[error("{peer} refused the call ({refusal}){}", .explanation.as_ref().map(|explanation| format!(": {explanation}")).unwrap_or_default())]
    Refused {
        /// Who.
        peer: String,
        /// How.
        refusal: Refusal,
        /// Why, where it could be asked.
        explanation: Option<Explanation>,
    },
    /// No sidecar of the component can be reached, or none proves to be the registered one, or it does not accept our certificate, or
    /// we have none to show.
    #[error("cannot connect to {peer}: {cause}")]
    Unreachable {
        /// Who.
        peer: String,
        /// The last address's failure.
        cause: String,
    },
    /// The answer did not come in time.
    #[error("{peer} did not answer within {} ms", .after.as_millis())]
    DeadlineExceeded {
        /// Who.
        peer: String,
        /// The deadline.
        after: Duration,
    },
    /// The connection broke while the call was under way: it may or may not have been carried out.
    #[error("lost {peer} during the call: {cause}")]
    Lost {
        /// Who.
        peer: String,
        /// Why.
        cause: String,
    },
    /// The answer is not wRPC, or larger than the limits allow.
    #[error("{peer} answered nonsense: {cause}")]
    Malformed {
        /// Who.
        peer: String,
        /// What is wrong.
        cause: String,
    },
}

/// Callers of virtual components under one identity. Clones share connections.
#[derive(Clone, Debug)]
pub struct Peers {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dialer: Dialer,
    trust: TrustSource,
    identity: Arc<Identity>,
    limits: CallLimits,
    routes: Mutex<HashMap<SpiffeId, Arc<Route>>>,
    tasks: TaskTracker,
}

impl Peers {
    /// Calls as `identity`, and whom its entry lets it see.
    #[must_use]
    pub fn new(identity: Arc<Identity>, limits: CallLimits, tasks: TaskTracker) -> Self {
        let trust = identity.trust();
        let dialer = Dialer::new(Arc::clone(&trust), Arc::clone(identity.slot()), QuicLimits::default());
        let inner = Inner { dialer, trust, identity, limits, routes: Mutex::default(), tasks };
        Self { inner: Arc::new(inner) }
    }

    /// Calls `function` of `instance` with encoded parameters and returns the encoded result.
    ///
    /// A call that the peer certainly did not begin (its connection was gone, or it is draining) is tried once more on a new connection.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call(
        &self,
        record: &PeerRecord,
        function: FunctionName<'_>,
        params: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, CallError> {
        let route = self.route(record);
        let calling = call::call(&self.inner, &route, function, params);
        tokio::time::timeout(deadline, calling)
            .await
            .unwrap_or_else(|_| Err(CallError::DeadlineExceeded { peer: record.target.to_string(), after: deadline }))
    }

    /// A client for generated wRPC bindings.
    #[must_use]
    pub fn client(&self, record: &PeerRecord) -> PeerClient {
        PeerClient::new(Arc::clone(&self.inner), self.route(record))
    }

    /// Connects to a component now, so that its first call need not wait.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn connect(&self, record: &PeerRecord) -> Result<(), CallError> {
        let route = self.route(record);
        route::link(&self.inner, &route).await.map(drop)
    }

    fn route(&self, record: &PeerRecord) -> Arc<Route> {
        let mut routes = self.inner.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let route = routes.entry(record.spiffe_id.clone()).or_insert_with(|| Arc::new(Route::new(record)));
        route.update(record);
        Arc::clone(route)
    }
}

/// Which function: the wRPC instance and the name in it.
#[derive(Clone, Copy, Debug)]
pub struct FunctionName<'a> {
    /// `namespace:package/interface@version`.
    pub instance: &'a str,
    /// The bare function name.
    pub function: &'a str,
}
