use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

/// How often deadlines are looked at.
pub(super) const TICK: Duration = Duration::from_millis(50);

/// A clock that is read on every message and costs nothing: it shows the time of the last tick.
#[derive(Debug)]
pub(super) struct Clock {
    began: Instant,
    millis: AtomicU64,
}

/// Milliseconds since a clock began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

impl Clock {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), millis: AtomicU64::new(0) }
    }

    /// Shows the present time until the next tick.
    pub(super) fn tick(&self) -> Moment {
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.millis.store(millis, Ordering::Relaxed);
        Moment(millis)
    }

    /// The time of the last tick.
    pub(super) fn now(&self) -> Moment {
        Moment(self.millis.load(Ordering::Relaxed))
    }
}

impl Moment {
    /// At the earliest after `duration`: the clock may be a tick behind.
    pub(super) fn after(self, duration: Duration) -> Self {
        let millis = u64::try_from((duration + TICK).as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }
}
