//! Counts what is under way and refuses what goes beyond its limit.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use portcullis_transport::Refusal;

use super::refused::Refused;
use crate::config::LimitsSection;

/// A number under way that never passes its limit.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    taken: AtomicUsize,
}

/// A part of a [`Counter`], given back on drop.
#[derive(Debug)]
pub(crate) struct Share {
    counter: Arc<Counter>,
    amount: usize,
}

impl Counter {
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    fn take(self: &Arc<Self>, amount: usize, limit: usize) -> Option<Share> {
        let taken = self.taken.fetch_add(amount, Ordering::AcqRel);
        if taken.saturating_add(amount) > limit {
            self.taken.fetch_sub(amount, Ordering::AcqRel);
            return None;
        }
        Some(Share { counter: Arc::clone(self), amount })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.counter.taken.fetch_sub(self.amount, Ordering::AcqRel);
    }
}

/// What all calls share.
#[derive(Debug)]
pub(crate) struct Quota {
    limits: LimitsSection,
    calls: Arc<Counter>,
    bytes: Arc<Counter>,
    peers: Mutex<HashMap<String, Weak<Counter>>>,
}

/// Leave to be under way, for one call.
#[derive(Debug)]
pub(crate) struct Underway {
    _shares: [Share; 3],
}

impl Quota {
    pub(crate) fn new(limits: LimitsSection) -> Self {
        Self { limits, calls: Arc::default(), bytes: Arc::default(), peers: Mutex::default() }
    }

    /// Calls under way.
    pub(crate) fn calls(&self) -> usize {
        self.calls.taken()
    }

    /// The counter of a peer, shared by its connections.
    pub(crate) fn peer(&self, id: &str) -> Arc<Counter> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counter) = peers.get(id).and_then(Weak::upgrade) {
            return counter;
        }
        // Peers without connection leave; what stays is bounded by the connections.
        peers.retain(|_, counter| counter.strong_count() > 0);
        let counter = Arc::new(Counter::default());
        peers.insert(id.to_owned(), Arc::downgrade(&counter));
        counter
    }

    /// Lets a call begin.
    pub(crate) fn admit(&self, peer: &Arc<Counter>, function: &Arc<Counter>) -> Result<Underway, Refused> {
        let too_many = |what: &str, limit: usize| {
            Refused::new(Refusal::TooMany, format!("more than {limit} calls {what} are under way"))
        };
        let limits = &self.limits;
        let peer =
            peer.take(1, limits.calls_per_peer).ok_or_else(|| too_many("of this caller", limits.calls_per_peer))?;
        let function = function
            .take(1, limits.calls_per_function)
            .ok_or_else(|| too_many("of this function", limits.calls_per_function))?;
        let all = self.calls.take(1, limits.calls).ok_or_else(|| too_many("in all", limits.calls))?;
        Ok(Underway { _shares: [peer, function, all] })
    }

    /// Lets parameters into memory.
    pub(crate) fn hold(&self, bytes: usize) -> Result<Share, Refused> {
        self.bytes.take(bytes, self.limits.bytes_in_flight).ok_or_else(|| {
            let limit = self.limits.bytes_in_flight;
            Refused::new(Refusal::TooMany, format!("more than {limit} bytes of parameters are under way"))
        })
    }

    /// Lets further bytes of the same parameters in, under the same share.
    pub(crate) fn hold_more(&self, held: &mut Share, bytes: usize) -> Result<(), Refused> {
        let mut more = self.hold(bytes)?;
        held.amount += std::mem::take(&mut more.amount);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_a_limit_is_refused_until_something_ends() {
        let limits = LimitsSection { calls_per_peer: 2, bytes_in_flight: 10, ..LimitsSection::default() };
        let quota = Quota::new(limits);
        let (peer, function) = (quota.peer("a"), Arc::new(Counter::default()));
        let first = quota.admit(&peer, &function).unwrap();
        let _second = quota.admit(&quota.peer("a"), &function).unwrap();
        assert_eq!(quota.admit(&peer, &function).unwrap_err().refusal, Refusal::TooMany);
        assert!(quota.admit(&quota.peer("b"), &function).is_ok());
        drop(first);
        assert!(quota.admit(&peer, &function).is_ok());
        let held = quota.hold(8).unwrap();
        assert!(quota.hold(3).is_err());
        drop(held);
        assert!(quota.hold(10).is_ok());
        assert_eq!(quota.calls(), 1);
    }

    #[test]
    fn parameters_that_come_in_pieces_count_as_they_grow() {
        let quota = Quota::new(LimitsSection { bytes_in_flight: 10, ..LimitsSection::default() });
        let mut held = quota.hold(0).unwrap();
        quota.hold_more(&mut held, 6).unwrap();
        assert_eq!(quota.hold(5).unwrap_err().refusal, Refusal::TooMany);
        assert_eq!(quota.hold_more(&mut held, 5).unwrap_err().refusal, Refusal::TooMany);
        quota.hold_more(&mut held, 4).unwrap();
        assert_eq!(quota.bytes.taken(), 10);
        drop(held);
        assert_eq!(quota.bytes.taken(), 0);
    }
}
