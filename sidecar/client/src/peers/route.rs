//! The connection to one virtual component: found, checked, and made anew before the old one must go.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use portcullis_identity::{PeerRule, PeerVerifier, RefusalReason, SigningPath, SpiffeId, TrustBundles};
use portcullis_transport::CloseReason;
use portcullis_transport::quic::Connection;
use tokio::sync::Mutex;
use tracing::{debug, info};

use super::{CallError, Inner};
use crate::clock;
use crate::node::PeerRecord;

/// From hearing that an authority is about to be withdrawn to the first try of a connection on which the peer shows a certificate of another.
/// It needs some seconds to get one, so the wait doubles with each try.
const FIRST_TRY: Duration = Duration::from_secs(1);
/// And the last: who does not replace its certificate will be cut.
const LAST_TRY: Duration = Duration::from_secs(60);

/// How long calls under way may go on after the authority behind the callee left the bundle. The callee's next certificate has another, but
/// a foreign trust domain does not say beforehand when it drops one.
const PARTING: Duration = Duration::from_millis(500);

/// Where one SPIFFE ID is reached.
#[derive(Debug)]
pub(super) struct Route {
    /// What messages call it: its target.
    pub(super) peer: String,
    expected: SpiffeId,
    addresses: RwLock<Vec<String>>,
    current: ArcSwapOption<Link>,
    /// Held while dialling: one caller dials, the others wait for what it gets.
    dialling: Mutex<()>,
    refreshing: AtomicBool,
}

/// A connection and when a younger one should take its place.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) connection: Connection,
    /// As the registry names it.
    address: String,
    renewal: u64,
    refresh_at: ArcSwap<SystemTime>,
    /// How long to wait for another certificate of the peer, where the one that it showed is about to be withdrawn.
    patience: Duration,
    /// The trust by which the peer was accepted last.
    judged: ArcSwap<TrustBundles>,
}

impl Route {
    pub(super) fn new(record: &PeerRecord) -> Self {
        Self {
            peer: record.target.to_string(),
            expected: record.spiffe_id.clone(),
            addresses: RwLock::new(record.addresses.clone()),
            current: ArcSwapOption::empty(),
            dialling: Mutex::new(()),
            refreshing: AtomicBool::new(false),
        }
    }

    /// Takes over the addresses of a newer record.
    pub(super) fn update(&self, record: &PeerRecord) {
        let known = *self.addresses.read().unwrap_or_else(PoisonError::into_inner) == record.addresses;
        if !known {
            self.addresses.write().unwrap_or_else(PoisonError::into_inner).clone_from(&record.addresses);
            self.leave_old_address(&record.addresses);
        }
    }

    /// A sidecar that started anew elsewhere does not answer where it was, nor say that it will not.
    fn leave_old_address(&self, addresses: &[String]) {
        let moved = self.current.load_full();
        let moved = moved.filter(|link| !addresses.is_empty() && !addresses.contains(&link.address));
        if let Some(link) = moved {
            self.forget(&link);
        }
    }

    /// Drops a link that failed, unless another took its place already.
    pub(super) fn forget(&self, link: &Arc<Link>) {
        let current = self.current.load();
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, link)) {
            self.current.compare_and_swap(&current, None);
        }
    }
}

/// A live connection. Past its refresh time it is still used while a younger one is made beside it.
pub(super) async fn link(inner: &Arc<Inner>, route: &Arc<Route>) -> Result<Arc<Link>, CallError> {
    if let Some(why) = inner.identity.lost() {
        return Err(CallError::Unreachable {
            peer: route.peer.clone(),
            cause: format!("no identity to call with: {why}"),
        });
    }
    if let Some(link) = usable(inner, route) {
        let renewal = *inner.identity.renewals().borrow();
        let stale = link.renewal != renewal || **link.refresh_at.load() <= clock::now();
        if stale {
            refresh(inner, route, None);
        }
        return Ok(link);
    }
    let _one_dials = route.dialling.lock().await;
    if let Some(link) = usable(inner, route) {
        return Ok(link);
    }
    let link = dial(inner, route, None).await?;
    route.current.store(Some(Arc::clone(&link)));
    Ok(link)
}

/// A connection on which nothing comes back: if a younger one can be made, who served the old one is gone, and with it every call on it.
pub(super) fn doubt(inner: &Arc<Inner>, route: &Arc<Route>, link: &Arc<Link>) {
    info!(peer = route.peer, "the peer is silent; connecting anew");
    refresh(inner, route, Some(Arc::clone(link)));
}

/// Makes a younger connection, one at a time; `doubted` is closed once there is one.
fn refresh(inner: &Arc<Inner>, route: &Arc<Route>, doubted: Option<Arc<Link>>) {
    if route.refreshing.swap(true, Ordering::AcqRel) {
        return;
    }
    let (inner, route) = (Arc::clone(inner), Arc::clone(route));
    inner.tasks.clone().spawn(async move {
        let before = route.current.load_full();
        match dial(&inner, &route, before.as_deref()).await {
            Ok(link) => {
                debug!(peer = route.peer, "connected anew");
                route.current.store(Some(link));
                if let Some(doubted) = doubted {
                    doubted.connection.close(CloseReason::Draining);
                }
            }
            Err(error) => info!(peer = route.peer, %error, "cannot connect anew; the old connection stays"),
        }
        route.refreshing.store(false, Ordering::Release);
    });
}

/// The connection, if it stands and its peer would be accepted today: no new call goes to somebody who was revoked meanwhile.
fn usable(inner: &Inner, route: &Route) -> Option<Arc<Link>> {
    let link = route.current.load_full().filter(|link| link.connection.lost().is_none())?;
    let trust = inner.trust.load_full();
    if !Arc::ptr_eq(&link.judged.load(), &trust) {
        let verifier = PeerVerifier::new(Arc::clone(&inner.trust), PeerRule::Exactly(route.expected.clone()));
        if let Err(refused) = link.connection.recheck(&verifier, clock::now()) {
            info!(peer = route.peer, reason = %refused.reason(), "a callee is trusted no longer");
            route.forget(&link);
            if matches!(refused.reason(), RefusalReason::UnknownIssuer { .. }) {
                inner.tasks.spawn(async move {
                    tokio::time::sleep(PARTING).await;
                    link.connection.close(CloseReason::TrustWithdrawn);
                });
            } else {
                link.connection.close(CloseReason::TrustWithdrawn);
            }
            return None;
        }
        link.outlive(&trust);
        link.judged.store(trust);
    }
    Some(link)
}

async fn dial(inner: &Inner, route: &Route, before: Option<&Link>) -> Result<Arc<Link>, CallError> {
    let renewal = *inner.identity.renewals().borrow();
    // Before the handshake, so that no change between it and the next look is missed.
    let judged = inner.trust.load_full();
    let addresses = route.addresses.read().unwrap_or_else(PoisonError::into_inner).clone();
    let unreachable = |cause: String| CallError::Unreachable { peer: route.peer.clone(), cause };
    let mut last = "no sidecar has announced an address".to_owned();
    for address in addresses {
        let resolved = match tokio::net::lookup_host(&address).await {
            Ok(resolved) => resolved,
            Err(error) => {
                last = format!("`{address}`: {error}");
                continue;
            }
        };
        for resolved in resolved {
            let dialled = inner.dialer.connect(resolved, &route.expected);
            match tokio::time::timeout(inner.limits.connect, dialled).await {
                Ok(Ok(connection)) => {
                    let patience = before.map_or(FIRST_TRY, Link::longer_patience);
                    return Ok(Arc::new(Link::new(connection, address.clone(), (renewal, judged), patience)));
                }
                Ok(Err(error)) => last = format!("`{address}`: {error}"),
                Err(_) => last = format!("`{address}`: no answer within {} ms", inner.limits.connect.as_millis()),
            }
        }
    }
    Err(unreachable(last))
}

impl Link {
    /// A younger connection is due at half of what is left of the peer's certificate.
    fn new(
        connection: Connection,
        address: String,
        (renewal, judged): (u64, Arc<TrustBundles>),
        patience: Duration,
    ) -> Self {
        let now = clock::now();
        let left = connection.peer().not_after().duration_since(now).unwrap_or_default();
        let refresh_at = ArcSwap::from_pointee(now + left / 2);
        let link =
            Self { connection, address, renewal, refresh_at, patience, judged: ArcSwap::new(Arc::clone(&judged)) };
        link.outlive(&judged);
        link
    }

    /// Has a younger connection made soon, if the peer's certificate is about to be withdrawn: it is getting another.
    fn outlive(&self, trust: &TrustBundles) {
        let now = clock::now();
        if !self.is_doomed(trust, now) {
            return;
        }
        let soon = now + self.patience;
        if soon < **self.refresh_at.load() {
            self.refresh_at.store(Arc::new(soon));
        }
    }

    fn is_doomed(&self, trust: &TrustBundles, now: SystemTime) -> bool {
        let tainted = trust.tainted();
        let through = |path: SigningPath| path.goes_through(tainted);
        !tainted.is_empty() && SigningPath::of_peer(self.connection.peer(), trust, now).is_ok_and(through)
    }

    /// That of the connection after this one: where it is still doomed, the next try may wait longer.
    fn longer_patience(&self) -> Duration {
        if self.is_doomed(&self.judged.load(), clock::now()) { LAST_TRY.min(self.patience * 2) } else { FIRST_TRY }
    }
}
