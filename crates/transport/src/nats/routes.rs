use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use super::{
    clock::Moment,
    inbox::{Key, Keys, NoRandomness},
    router::{CallRoute, Route},
};

/// Every key that means something.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// Keys are random, and only we add some: the map needs no hash.
    map: HashMap<Key, Route, BuildHasherDefault<KeyHasher>>,
    /// How many of them are calls under way.
    calls: usize,
    /// How many of them are calls that were given up.
    cancelled: usize,
    keys: Keys,
}

/// Takes the low bits of a key.
#[derive(Debug, Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u128(&mut self, key: u128) {
        let [low, high] = [key, key >> 64].map(|half| u64::try_from(half & u128::from(u64::MAX)).unwrap_or_default());
        self.0 = low ^ high;
    }
}

impl Routes {
    /// A key that nobody has.
    pub(super) fn new_key(&mut self) -> Result<Key, NoRandomness> {
        self.keys.draw()
    }

    /// Calls under way.
    pub(super) const fn calls(&self) -> usize {
        self.calls
    }

    pub(super) fn each_call(&self) -> impl Iterator<Item = &CallRoute> {
        self.map.values().filter_map(|route| match route {
            Route::Call(call) => Some(call),
            Route::Cancelled { .. } | Route::Echo(_) | Route::Answers(_) => None,
        })
    }

    pub(super) fn route(&self, key: Key) -> Option<&Route> {
        self.map.get(&key)
    }

    pub(super) fn insert(&mut self, key: Key, route: Route) {
        // Two equal keys would need 2^64 calls under way.
        self.remove(key);
        if let Some(count) = self.count_of(&route) {
            *count += 1;
        }
        self.map.insert(key, route);
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Route> {
        let route = self.map.remove(&key)?;
        if let Some(count) = self.count_of(&route) {
            *count -= 1;
        }
        Some(route)
    }

    fn count_of(&mut self, route: &Route) -> Option<&mut usize> {
        match route {
            Route::Call(_) => Some(&mut self.calls),
            Route::Cancelled { .. } => Some(&mut self.cancelled),
            Route::Echo(_) | Route::Answers(_) => None,
        }
    }

    /// Keeps in mind until then that a call was given up, unless `most` others are: who comes with its handshake is told,
    /// or else waits for its own deadline.
    pub(super) fn cancel(&mut self, key: Key, until: Moment, most: usize) {
        self.remove(key);
        if self.cancelled < most {
            self.insert(key, Route::Cancelled { until });
        }
    }

    /// A tick shakes hands for a call, if that is there still.
    pub(super) fn shake_later(&mut self, key: Key, since: Moment) {
        if let Some(Route::Call(call)) = self.map.get_mut(&key) {
            call.later = Some(since);
        }
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(Key, &mut Route) -> bool) {
        let (mut calls, mut cancelled) = (0, 0);
        self.map.retain(|key, route| {
            let kept = keep(*key, route);
            match route {
                Route::Call(_) => calls += usize::from(kept),
                Route::Cancelled { .. } => cancelled += usize::from(kept),
                Route::Echo(_) | Route::Answers(_) => {}
            }
            kept
        });
        (self.calls, self.cancelled) = (calls, cancelled);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use async_nats::Subject;
    use tokio::sync::oneshot;

    use super::*;
    use crate::nats::{
        buffer::{Budget, CallBuffer},
        clock::Clock,
        failure::Step,
        limits::{Deadlines, NatsLimits},
        router::Role,
    };

    fn call(later: Option<Moment>) -> Route {
        let (limits, now) = (NatsLimits::default(), Clock::new().now());
        let budget = Arc::new(Budget::new(1));
        let buffer = Arc::new(CallBuffer::new(&limits, budget, Deadlines::default(), now, Step::Whole));
        Route::Call(CallRoute { buffer, role: Role::Callee, to: Subject::from("a.b"), connects: 0, later })
    }

    /// Since when the only call waits, where a tick after `last` finds that it has waited long enough.
    fn due(routes: &mut Routes, last: Moment) -> Option<Moment> {
        let mut due = None;
        routes.retain(|_, route| {
            if let Route::Call(call) = route {
                due = call.take_due(last);
            }
            true
        });
        due
    }

    #[test]
    fn calls_that_were_given_up_do_not_count_as_calls_and_are_bounded_too() {
        let mut routes = Routes::default();
        let until = Clock::new().now();
        for key in 0..5 {
            routes.insert(Key(key), call(None));
            assert_eq!(routes.calls(), 1);
            routes.cancel(Key(key), until, 3);
            assert_eq!(routes.calls(), 0);
        }
        assert_eq!((routes.cancelled, routes.map.len()), (3, 3));
        // Instead of one that is taken for its handshake another is kept.
        assert!(matches!(routes.remove(Key(0)), Some(Route::Cancelled { .. })));
        routes.cancel(Key(9), until, 3);
        assert!(matches!(routes.route(Key(9)), Some(Route::Cancelled { .. })));
    }

    #[test]
    fn the_counts_are_those_of_the_map() {
        let mut routes = Routes::default();
        let (echo, _heard) = oneshot::channel();
        routes.insert(Key(0), Route::Echo(echo));
        for key in 1..9 {
            routes.insert(Key(key), call(None));
        }
        // A key that is there already is replaced.
        routes.insert(Key(1), call(None));
        assert_eq!((routes.calls(), routes.each_call().count()), (8, 8));
        routes.cancel(Key(2), Clock::new().now(), 8);
        assert!(routes.remove(Key(77)).is_none());
        routes.retain(|key, route| key.0 < 4 && !matches!(route, Route::Echo(_)));
        assert_eq!((routes.calls(), routes.cancelled, routes.map.len()), (2, 1, 3));
        assert!(matches!(routes.remove(Key(1)), Some(Route::Call(_))));
        assert_eq!((routes.calls(), routes.each_call().count()), (1, 1));
    }

    #[test]
    fn a_handshake_waits_for_a_whole_tick_and_comes_back_when_it_could_not_be_sent() {
        let mut routes = Routes::default();
        let first = Clock::new().now();
        let second = first.after(Duration::ZERO);
        routes.insert(Key(1), call(Some(first)));
        // The next tick may come at once; the one after it; and then no other.
        assert_eq!(due(&mut routes, first), None);
        assert_eq!(due(&mut routes, second), Some(first));
        assert_eq!(due(&mut routes, second), None);
        routes.shake_later(Key(1), first);
        assert_eq!(due(&mut routes, second), Some(first));
        // A call that is over stays over.
        routes.remove(Key(1));
        routes.shake_later(Key(1), first);
        assert_eq!(routes.calls(), 0);
    }
}
