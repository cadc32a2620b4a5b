use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use portcullis_identity::SpiffeId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::Attempts;
use crate::quic::{
    QuicLimits,
    admission::{Address, Admission, Crowd, Source, Sources},
};

/// What a listener, its handshakes and its connections count together.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) handshakes: Arc<Semaphore>,
    /// Cancelled when nobody may enter any more.
    pub(super) shut: CancellationToken,
    limits: QuicLimits,
    connections: Arc<Semaphore>,
    sources: Mutex<Sources>,
    seats: Mutex<HashMap<SpiffeId, usize>>,
    attempts: AttemptCounters,
}

/// What becomes of an attempt before its handshake.
#[derive(Debug)]
pub(super) enum Verdict {
    Enter { connection: OwnedSemaphorePermit, source: Source },
    Prove,
    Defer,
    Refuse,
}

impl Door {
    pub(super) fn new(limits: QuicLimits) -> Self {
        // Half of the handshakes is open to claimed addresses, so that each proved one must do with a quarter.
        let sources = Sources::new(limits.handshakes_per_second, limits.handshakes.div_ceil(4));
        Self {
            handshakes: Arc::new(Semaphore::new(limits.handshakes)),
            shut: CancellationToken::new(),
            limits,
            connections: Arc::new(Semaphore::new(limits.connections)),
            sources: Mutex::new(sources),
            seats: Mutex::default(),
            attempts: AttemptCounters::default(),
        }
    }

    /// Judges an attempt to connect from `ip`, and counts it.
    pub(super) fn judge(&self, ip: IpAddr, address: Address, now: Instant) -> Verdict {
        let Ok(connection) = Arc::clone(&self.connections).try_acquire_owned() else {
            self.attempts.refused.fetch_add(1, Relaxed);
            return Verdict::Refuse;
        };
        let (verdict, count) = match lock(&self.sources).admit(ip, address, self.crowd(), now) {
            Admission::Enter(source) => (Verdict::Enter { connection, source }, &self.attempts.admitted),
            Admission::Prove => (Verdict::Prove, &self.attempts.asked_for_proof),
            Admission::Defer => (Verdict::Defer, &self.attempts.deferred),
            Admission::Refuse => (Verdict::Refuse, &self.attempts.refused),
        };
        count.fetch_add(1, Relaxed);
        verdict
    }

    pub(super) fn connections(&self) -> usize {
        self.limits.connections.saturating_sub(self.connections.available_permits())
    }

    pub(super) fn attempts(&self) -> Attempts {
        Attempts {
            admitted: self.attempts.admitted.load(Relaxed),
            asked_for_proof: self.attempts.asked_for_proof.load(Relaxed),
            deferred: self.attempts.deferred.load(Relaxed),
            refused: self.attempts.refused.load(Relaxed),
        }
    }

    fn crowd(&self) -> Crowd {
        let dense = |places: &Semaphore, limit: usize| places.available_permits() < limit.div_ceil(2);
        if dense(&self.handshakes, self.limits.handshakes) || dense(&self.connections, self.limits.connections) {
            Crowd::Dense
        } else {
            Crowd::Sparse
        }
    }
}

/// A handshake that counts as under way until this is dropped.
#[derive(Debug)]
pub(super) struct UnderWay {
    door: Arc<Door>,
    source: Source,
    _permit: OwnedSemaphorePermit,
}

impl UnderWay {
    pub(super) const fn new(door: Arc<Door>, source: Source, permit: OwnedSemaphorePermit) -> Self {
        Self { door, source, _permit: permit }
    }

    /// The handshake is over: what its connection takes from now on; `None` when `id` holds too many already.
    pub(super) fn over(self, id: &SpiffeId, connection: OwnedSemaphorePermit) -> Option<Places> {
        let seat = Seat::take(Arc::clone(&self.door), id)?;
        Some(Places { _connection: connection, _seat: seat })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        lock(&self.door.sources).leave(self.source);
    }
}

/// What a connection takes of its listener's limits, given back when it is dropped.
#[derive(Debug)]
pub(in crate::quic) struct Places {
    _connection: OwnedSemaphorePermit,
    _seat: Seat,
}

/// One of the connections that a SPIFFE ID may hold.
#[derive(Debug)]
struct Seat {
    door: Arc<Door>,
    id: SpiffeId,
}

impl Seat {
    fn take(door: Arc<Door>, id: &SpiffeId) -> Option<Self> {
        let mut seats = lock(&door.seats);
        let taken = seats.get(id).copied().unwrap_or(0);
        if taken >= door.limits.connections_per_peer {
            return None;
        }
        seats.insert(id.clone(), taken + 1);
        drop(seats);
        Some(Self { door, id: id.clone() })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = lock(&self.door.seats);
        match seats.get_mut(&self.id) {
            Some(taken) if *taken > 1 => *taken -= 1,
            Some(_) | None => {
                seats.remove(&self.id);
            }
        }
    }
}

#[derive(Debug, Default)]
struct AttemptCounters {
    admitted: AtomicU64,
    asked_for_proof: AtomicU64,
    deferred: AtomicU64,
    refused: AtomicU64,
}

/// None of these locks is held across code that can panic halfway through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
