use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
};

use super::link::Link;

/// No connection: async-nats counts them from one.
const NONE: u64 = 0;
/// Every one.
const ANY: u64 = u64::MAX;

type Judgement = Pin<Box<dyn Future<Output = Result<(), Unproved>> + Send>>;

/// What a connection has to show before calls are taken from it. A [`Session`](super::Session) asks it of every link it
/// makes, and of a link again whenever async-nats has connected it anew, perhaps to another server.
#[derive(Clone)]
pub struct Proof(Arc<dyn Fn(Link) -> Judgement + Send + Sync>);

/// Why a connection is of no use.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Unproved(#[from] Box<dyn std::error::Error + Send + Sync>);

impl Proof {
    /// `judge` looks at a link; it may call over it, and has to end in its own time.
    pub fn new<F, E>(judge: impl Fn(Link) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        Self(Arc::new(move |link| {
            let judged = judge(link);
            Box::pin(async move { judged.await.map_err(|error| Unproved(error.into())) })
        }))
    }

    /// Has `link` prove itself on the connection it has.
    pub(super) async fn ask(&self, link: &Link) -> Result<(), Unproved> {
        let shared = &link.shared;
        loop {
            let connects = shared.connects();
            if let Err(error) = (self.0)(link.clone()).await {
                shared.proved.fail(connects);
                return Err(error);
            }
            // What was shown in part by another connection is nothing.
            if shared.connects() == connects {
                shared.proved.pass(connects);
                return Ok(());
            }
        }
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proof").finish_non_exhaustive()
    }
}

/// What is known of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Calls are taken from it.
    Passed,
    /// It has yet to prove itself.
    Waits,
    /// It did not.
    Failed,
}

/// Which connections of a link's client, counted from one, have proved themselves.
#[derive(Debug)]
pub(super) struct Proved {
    passed: AtomicU64,
    failed: AtomicU64,
    waiting: Mutex<Vec<Waker>>,
}

impl Default for Proved {
    /// Nothing has to be proved.
    fn default() -> Self {
        Self { passed: AtomicU64::new(ANY), failed: AtomicU64::new(NONE), waiting: Mutex::default() }
    }
}

impl Proved {
    /// From here on every connection has to prove itself.
    pub(super) fn require(&self) {
        self.passed.store(NONE, Ordering::Release);
    }

    pub(super) fn standing(&self, connects: u64) -> Standing {
        let passed = self.passed.load(Ordering::Acquire);
        if passed == ANY || passed == connects {
            Standing::Passed
        } else if self.failed.load(Ordering::Acquire) == connects {
            Standing::Failed
        } else {
            Standing::Waits
        }
    }

    /// Has `waker` woken when a connection has passed or failed.
    pub(super) fn wait(&self, waker: &Waker) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.iter().any(|known| known.will_wake(waker)) {
            waiting.push(waker.clone());
        }
    }

    fn pass(&self, connects: u64) {
        self.passed.store(connects, Ordering::Release);
        self.wake();
    }

    fn fail(&self, connects: u64) {
        self.failed.store(connects, Ordering::Release);
        self.wake();
    }

    fn wake(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        for waker in waiting {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_stands_for_itself_alone() {
        let proved = Proved::default();
        assert_eq!([1, 2].map(|connects| proved.standing(connects)), [Standing::Passed; 2]);
        proved.require();
        assert_eq!(proved.standing(1), Standing::Waits);
        proved.pass(1);
        assert_eq!([1, 2].map(|connects| proved.standing(connects)), [Standing::Passed, Standing::Waits]);
        proved.fail(2);
        assert_eq!(
            [1, 2, 3].map(|connects| proved.standing(connects)),
            [Standing::Passed, Standing::Failed, Standing::Waits]
        );
        proved.pass(2);
        assert_eq!(proved.standing(2), Standing::Passed);
    }
}
