use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

use super::shared::Shared;

/// Tells when a connection has nothing more to do.
#[derive(Debug, Default)]
pub(super) struct Idle {
    /// See [`Lease`].
    leases: AtomicUsize,
    /// Somebody has waited. Until then nobody is told, which would cost every call a lock.
    watched: AtomicBool,
    changed: Notify,
}

impl Idle {
    /// Something has ended that may have been the last. Where that shows has to be changed before.
    pub(super) fn tell(&self) {
        if self.watched.load(Ordering::SeqCst) {
            self.changed.notify_waiters();
        }
    }

    /// Waits until `calls` are none and nobody is about to begin one.
    pub(super) async fn wait(&self, calls: impl Fn() -> usize) {
        // Before it looks: whoever does not see this yet is seen to have ended. Hence one order for all of it.
        self.watched.store(true, Ordering::SeqCst);
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            // In this order: a lease ends when its call has begun, and nobody takes another of a link that was replaced.
            if self.leases.load(Ordering::SeqCst) == 0 && calls() == 0 {
                return;
            }
            changed.await;
        }
    }
}

/// Keeps a connection that was replaced until its holder is done: an acceptor, a call that nobody has accepted yet, a
/// caller that has not begun its call yet.
#[derive(Debug)]
pub(super) struct Lease(Arc<Shared>);

impl Lease {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        shared.idle.leases.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(shared))
    }

    pub(super) const fn shared(&self) -> &Arc<Shared> {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.idle.leases.fetch_sub(1, Ordering::SeqCst);
        self.0.idle.tell();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future as _,
        task::{Context, Waker},
    };

    use super::*;

    #[test]
    fn who_waits_is_told_of_the_last_lease_and_the_last_call() {
        let (idle, calls) = (Idle::default(), AtomicUsize::new(1));
        idle.leases.store(1, Ordering::SeqCst);
        // Nobody waits yet.
        idle.tell();
        let mut waiting = pin!(idle.wait(|| calls.load(Ordering::SeqCst)));
        let mut is_over = || waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        assert!(!is_over());
        calls.store(0, Ordering::SeqCst);
        idle.tell();
        assert!(!is_over());
        idle.leases.store(0, Ordering::SeqCst);
        assert!(!is_over(), "nobody has told");
        idle.tell();
        assert!(is_over());
    }

    #[test]
    fn who_comes_late_does_not_wait() {
        let idle = Idle::default();
        let mut waiting = pin!(idle.wait(|| 0));
        assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
    }
}
