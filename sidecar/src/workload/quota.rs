//! What the callers of one user may take, so that none of them keeps the others from their identities.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Users who are remembered without a connection: a new connection must not bring a new allowance.
const REMEMBERED: usize = 1024;
/// An allowance is full again after this.
const FULL_AFTER: Duration = Duration::from_secs(2);

/// What callers may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkloadLimits {
    /// Connections in all.
    pub connections: usize,
    /// Connections of one user.
    pub connections_per_uid: usize,
    /// Open streams of one user.
    pub streams_per_uid: usize,
    /// Requests a second of one user; twice as many at once.
    pub requests_per_second: u32,
}

impl Default for WorkloadLimits {
    fn default() -> Self {
        Self { connections: 1024, connections_per_uid: 256, streams_per_uid: 512, requests_per_second: 200 }
    }
}

/// What is taken.
#[derive(Debug)]
pub(crate) struct Quota {
    limits: WorkloadLimits,
    users: Mutex<HashMap<u32, User>>,
}

/// What the callers of one user have taken.
#[derive(Debug)]
struct User {
    connections: usize,
    streams: usize,
    /// Requests that may come at once.
    allowance: f64,
    refilled: Instant,
}

impl User {
    fn is_busy(&self) -> bool {
        self.connections > 0 || self.streams > 0
    }
}

/// What a permit gives back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Share {
    Connection,
    Stream,
}

/// One share of one user, given back on drop.
#[derive(Debug)]
pub(crate) struct Permit {
    quota: Arc<Quota>,
    uid: u32,
    share: Share,
}

/// A limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many {0} of this user")]
pub(crate) struct TooMany(&'static str);

impl Quota {
    pub(crate) fn new(limits: WorkloadLimits) -> Self {
        Self { limits, users: Mutex::default() }
    }

    pub(crate) fn connections(&self) -> usize {
        self.users().values().map(|user| user.connections).sum()
    }

    pub(crate) fn streams(&self) -> usize {
        self.users().values().map(|user| user.streams).sum()
    }

    /// Room for one more connection of a user.
    pub(crate) fn connection(self: &Arc<Self>, uid: u32, now: Instant) -> Result<Permit, TooMany> {
        let mut users = self.users();
        if users.values().map(|user| user.connections).sum::<usize>() >= self.limits.connections {
            return Err(TooMany("connections, beside those of others,"));
        }
        if users.len() >= REMEMBERED {
            users.retain(|_, user| user.is_busy() || now.duration_since(user.refilled) < FULL_AFTER);
        }
        let full = self.burst();
        let user = users.entry(uid).or_insert(User { connections: 0, streams: 0, allowance: full, refilled: now });
        if user.connections >= self.limits.connections_per_uid {
            return Err(TooMany("connections"));
        }
        user.connections += 1;
        Ok(Permit { quota: Arc::clone(self), uid, share: Share::Connection })
    }

    /// Room for one more stream of a user who has a connection.
    pub(crate) fn stream(self: &Arc<Self>, uid: u32) -> Result<Permit, TooMany> {
        let mut users = self.users();
        let user = users.get_mut(&uid).filter(|user| user.streams < self.limits.streams_per_uid);
        user.ok_or(TooMany("streams"))?.streams += 1;
        Ok(Permit { quota: Arc::clone(self), uid, share: Share::Stream })
    }

    /// Counts one request of a user who has a connection.
    pub(crate) fn request(&self, uid: u32, now: Instant) -> Result<(), TooMany> {
        let (rate, burst) = (f64::from(self.limits.requests_per_second), self.burst());
        let mut users = self.users();
        let user = users.get_mut(&uid).ok_or(TooMany("requests"))?;
        let passed = now.checked_duration_since(user.refilled).unwrap_or(Duration::ZERO);
        user.allowance = (user.allowance + passed.as_secs_f64() * rate).min(burst);
        user.refilled = now;
        if user.allowance < 1.0 {
            return Err(TooMany("requests"));
        }
        user.allowance -= 1.0;
        Ok(())
    }

    fn burst(&self) -> f64 {
        f64::from(self.limits.requests_per_second) * 2.0
    }

    fn users(&self) -> MutexGuard<'_, HashMap<u32, User>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut users = self.quota.users();
        let Some(user) = users.get_mut(&self.uid) else { return };
        match self.share {
            Share::Connection => user.connections = user.connections.saturating_sub(1),
            Share::Stream => user.streams = user.streams.saturating_sub(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota() -> Arc<Quota> {
        Arc::new(Quota::new(WorkloadLimits {
            connections: 3,
            connections_per_uid: 2,
            streams_per_uid: 1,
            requests_per_second: 2,
        }))
    }

    #[test]
    fn a_user_has_so_many_connections_and_others_have_theirs() {
        let (quota, now) = (quota(), crate::clock::instant());
        let first = quota.connection(1, now).unwrap();
        let _second = quota.connection(1, now).unwrap();
        assert!(quota.connection(1, now).is_err());
        let _other = quota.connection(2, now).unwrap();
        assert!(quota.connection(3, now).is_err(), "beyond the limit for all");
        drop(first);
        assert!(quota.connection(1, now).is_ok());
        assert_eq!(quota.connections(), 2);
    }

    #[test]
    fn streams_are_counted_per_user_and_given_back() {
        let (quota, now) = (quota(), crate::clock::instant());
        let connection = quota.connection(1, now).unwrap();
        let stream = quota.stream(1).unwrap();
        assert!(quota.stream(1).is_err());
        assert!(quota.stream(2).is_err(), "no connection, no stream");
        drop(stream);
        drop(quota.stream(1).unwrap());
        drop(connection);
        assert!(!quota.users().get(&1).unwrap().is_busy());
    }

    #[test]
    fn a_new_connection_brings_no_new_allowance() {
        let (quota, now) = (quota(), crate::clock::instant());
        let first = quota.connection(1, now).unwrap();
        while quota.request(1, now).is_ok() {}
        drop(first);
        let _second = quota.connection(1, now).unwrap();
        assert!(quota.request(1, now).is_err());
        for uid in 0..10_000 {
            drop(quota.connection(uid, now + Duration::from_secs(u64::from(uid) * 3)).unwrap());
        }
        assert!(quota.users().len() <= REMEMBERED + 1);
    }

    #[test]
    fn requests_come_at_a_rate_with_some_at_once() {
        let (quota, now) = (quota(), crate::clock::instant());
        let _connection = quota.connection(1, now).unwrap();
        for _ in 0..4 {
            quota.request(1, now).unwrap();
        }
        assert!(quota.request(1, now).is_err());
        let later = now + Duration::from_millis(500);
        quota.request(1, later).unwrap();
        assert!(quota.request(1, later).is_err());
        assert!(quota.request(1, now).is_err(), "a clock that went back gives nothing");
    }
}
