//! Keeps the bundles of foreign trust domains fresh: one task for each that has an endpoint.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use portcullis_identity::{Bundle, InvalidDocument, TrustDomain};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::fetch::{self, FetchError, Fetched};
use super::roots::WebRoots;
use super::schedule::{self, Bounds};
use crate::audit::{Actor, Event, Unaudited};
use crate::broker::Broker;
use crate::clock;
use crate::ledger::CommandError;
use crate::registry::{Command, Endpoint, ForeignDomain, HeldBundle, Profile, Receipt, Refusal, Registry};

/// Fetches bundles, and remembers how that went.
#[derive(Debug)]
pub(crate) struct Refresher {
    roots: WebRoots,
    bounds: Bounds,
    standings: Mutex<BTreeMap<TrustDomain, Standing>>,
    /// One fetch of a trust domain at a time.
    turns: Mutex<BTreeMap<TrustDomain, Arc<tokio::sync::Mutex<()>>>>,
    attempted: Notify,
}

/// How the fetches of one trust domain's bundle go. It is not kept on disk: the bundle is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standing {
    /// How many fetches there were.
    pub(crate) attempts: u64,
    /// The last fetch that brought a bundle which is believed.
    pub(crate) fetched_at: Option<SystemTime>,
    /// What is wrong since; `None` while nothing is.
    pub(crate) problem: Option<String>,
    /// Whether that is no mere outage.
    pub(crate) alarm: bool,
    /// When the next one is due.
    pub(crate) due_at: Option<SystemTime>,
}

/// What a fetch did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refreshed {
    /// Another bundle is in force.
    Changed,
    /// The one in force is the latest.
    Unchanged,
}

/// Why a fetch did nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RefreshError {
    /// There is nowhere to fetch it.
    #[error("trust domain `{0}` has no bundle endpoint")]
    NoEndpoint(TrustDomain),
    /// There is no document.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// It is no bundle.
    #[error(transparent)]
    Document(#[from] InvalidDocument),
    /// It is one, and not believed; or the change cannot be made.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The fetch cannot be told of.
    #[error(transparent)]
    Unaudited(#[from] Unaudited),
}

impl RefreshError {
    fn is_alarming(&self) -> bool {
        match self {
            Self::Fetch(error) => error.is_alarming(),
            Self::Command(CommandError::Refused(Refusal::Bundle(refusal))) => refusal.is_alarming(),
            Self::NoEndpoint(_) | Self::Document(_) | Self::Command(_) | Self::Unaudited(_) => false,
        }
    }
}

impl Refresher {
    pub(crate) fn new(roots: WebRoots, bounds: Bounds) -> Self {
        Self { roots, bounds, standings: Mutex::default(), turns: Mutex::default(), attempted: Notify::new() }
    }

    /// How the fetches of `name`'s bundle go.
    pub(crate) fn standing(&self, name: &TrustDomain) -> Standing {
        self.standings.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned().unwrap_or_default()
    }

    /// Keeps every bundle fresh until the broker stops.
    pub(crate) async fn run(broker: Arc<Broker>) {
        let mut versions = broker.ledger.versions();
        let mut kept: BTreeMap<TrustDomain, (Endpoint, CancellationToken)> = BTreeMap::new();
        loop {
            versions.borrow_and_update();
            let wanted = broker.ledger.read(endpoints);
            kept.retain(|name, (endpoint, end)| {
                let stays = wanted.get(name) == Some(endpoint);
                if !stays {
                    end.cancel();
                    broker.refresher.forget(name);
                }
                stays
            });
            for (name, endpoint) in wanted {
                kept.entry(name.clone()).or_insert_with(|| {
                    let end = broker.stop.child_token();
                    let task = keep_fresh(Arc::clone(&broker), name);
                    broker.tracker.spawn(end.clone().run_until_cancelled_owned(task));
                    (endpoint, end)
                });
            }
            tokio::select! {
                changed = versions.changed() => if changed.is_err() { return },
                () = broker.stop.cancelled() => return,
            }
        }
    }

    /// Fetches the bundle of `name` now, judges it, and puts it in force.
    ///
    /// # Errors
    /// When there is none, or it is not believed; what is held stays in force.
    pub(crate) async fn refresh(&self, broker: &Broker, name: &TrustDomain) -> Result<Refreshed, RefreshError> {
        let turn = self.turn(name);
        let _turn = turn.lock().await;
        let domain = broker.ledger.read(|registry| registry.domain(name).cloned());
        let domain = domain.ok_or_else(|| CommandError::from(Refusal::NoDomain(name.clone())))?;
        let endpoint = domain.endpoint.clone().ok_or_else(|| RefreshError::NoEndpoint(name.clone()))?;
        let result = self.attempt(broker, &domain, &endpoint).await;
        if let Err(error) = &result {
            report(broker, name, &endpoint, error);
        }
        self.note(name, &result);
        result
    }

    async fn attempt(
        &self,
        broker: &Broker,
        domain: &ForeignDomain,
        endpoint: &Endpoint,
    ) -> Result<Refreshed, RefreshError> {
        let name = &domain.name;
        let verifier = verifier(broker, endpoint);
        let fetched = fetch::fetch(endpoint, verifier, &self.roots, self.bounds.timeout).await?;
        let (bundle, ignored) = HeldBundle::read(&fetched.json, name, clock::now())?;
        for key in ignored {
            tracing::warn!(trust_domain = %name, key, "a key of the bundle was passed over");
        }
        for notice in domain.bundle.iter().flat_map(|held| held.notices(&bundle)) {
            tracing::error!(trust_domain = %name, %notice, "ALARM: an unusual bundle");
        }
        let event = told(name, &fetched, &bundle);
        let command = Command::Receive(Receipt {
            name: name.clone(),
            endpoint: Some(endpoint.clone()),
            bundle: Arc::new(bundle),
        });
        let before = broker.ledger.read(Registry::version);
        let outcome = broker.ledger.execute(Actor::Broker, command).await?;
        // Row by row: who answered, with what (Federation §7.6).
        broker.audit.record(event).await?;
        Ok(if outcome.version > before { Refreshed::Changed } else { Refreshed::Unchanged })
    }

    fn note(&self, name: &TrustDomain, result: &Result<Refreshed, RefreshError>) {
        let mut standings = self.standings.lock().unwrap_or_else(PoisonError::into_inner);
        let standing = standings.entry(name.clone()).or_default();
        match result {
            Ok(_) => {
                (standing.fetched_at, standing.problem, standing.alarm) = (Some(clock::now()), None, false);
            }
            Err(error) => {
                standing.problem = Some(error.to_string());
                standing.alarm = error.is_alarming();
            }
        }
        standing.attempts = standing.attempts.saturating_add(1);
        drop(standings);
        self.attempted.notify_waiters();
    }

    /// Returns once a bundle of `name` was fetched, or was not to be had.
    pub(crate) async fn first_attempt(&self, name: &TrustDomain) {
        let attempted = async {
            loop {
                let mut next = std::pin::pin!(self.attempted.notified());
                // From here on no notification is missed.
                next.as_mut().enable();
                if self.standing(name).attempts > 0 {
                    return;
                }
                next.await;
            }
        };
        // The fetch has a deadline of its own; a trust domain that was removed meanwhile has no fetch.
        let _ = tokio::time::timeout(self.bounds.timeout.saturating_mul(2), attempted).await;
    }

    fn due(&self, name: &TrustDomain, at: SystemTime) {
        let mut standings = self.standings.lock().unwrap_or_else(PoisonError::into_inner);
        standings.entry(name.clone()).or_default().due_at = Some(at);
    }

    fn forget(&self, name: &TrustDomain) {
        self.standings.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        self.turns.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    fn turn(&self, name: &TrustDomain) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(name.clone()).or_default())
    }
}

/// Fetches at once, and then as often as the publisher wishes, within bounds.
async fn keep_fresh(broker: Arc<Broker>, name: TrustDomain) {
    loop {
        // What went wrong was told where it happened.
        let _ = broker.refresher.refresh(&broker, &name).await;
        let hint = broker.ledger.read(|registry| {
            let bundle = registry.domain(&name).and_then(|domain| domain.bundle.clone());
            bundle.and_then(|bundle| bundle.document.refresh_hint_seconds())
        });
        let wait = schedule::wait(hint, broker.refresher.bounds, jitter());
        if let Some(at) = clock::now().checked_add(wait) {
            broker.refresher.due(&name, at);
        }
        tokio::time::sleep(wait).await;
    }
}

/// The bundle by which an endpoint proves itself: of its own trust domain, as it is now (Federation §5.2.2.4).
fn verifier(broker: &Broker, endpoint: &Endpoint) -> Option<Bundle> {
    let Profile::HttpsSpiffe(id) = &endpoint.profile else { return None };
    if broker.authority.trust_domain() == id.trust_domain() {
        return Some(broker.authority.bundle().x509.clone());
    }
    broker.ledger.read(|registry| {
        let bundle = registry.domain(id.trust_domain())?.bundle.as_ref()?;
        Some(bundle.document.x509().clone())
    })
}

fn endpoints(registry: &Registry) -> BTreeMap<TrustDomain, Endpoint> {
    let of = |domain: &Arc<ForeignDomain>| Some((domain.name.clone(), domain.endpoint.clone()?));
    registry.domains().filter_map(of).collect()
}

fn told(name: &TrustDomain, fetched: &Fetched, bundle: &HeldBundle) -> Event {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let sha256 = ring::digest::digest(&ring::digest::SHA256, &fetched.json);
    Event::BundleFetched {
        trust_domain: name.to_string(),
        url: fetched.url.to_string(),
        server_sha256: hex(&fetched.server_sha256),
        sequence: bundle.document.sequence(),
        sha256: hex(sha256.as_ref()),
    }
}

fn report(broker: &Broker, name: &TrustDomain, endpoint: &Endpoint, error: &RefreshError) {
    let alarm = error.is_alarming();
    if alarm {
        tracing::error!(trust_domain = %name, %error, "ALARM: a bundle is not believed; the one that is held stays in force");
    } else {
        tracing::warn!(trust_domain = %name, %error, "a bundle was not refreshed; the one that is held stays in force");
    }
    let (trust_domain, url, reason) = (name.to_string(), endpoint.url.to_string(), error.to_string());
    broker.audit.note(Event::BundleRefused { trust_domain, url, reason, alarm });
}

/// Between 0 and 1. Without randomness everybody comes at the same time, which is bearable.
fn jitter() -> f64 {
    let mut byte = [0; 1];
    let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut byte);
    f64::from(byte[0]) / 255.0
}
