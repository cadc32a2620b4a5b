//! Eight callers, each of whom makes one call after the other.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::task::JoinSet;

pub struct Load {
    stop: Arc<AtomicBool>,
    made: Arc<AtomicUsize>,
    callers: JoinSet<()>,
}

impl Load {
    /// Makes calls by `call`, which panics where one fails.
    pub fn begin<C>(call: impl Fn() -> C + Clone + Send + 'static) -> Self
    where
        C: Future<Output = ()> + Send,
    {
        let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let callers = (0..8).map(|_| {
            let (call, stop, made) = (call.clone(), Arc::clone(&stop), Arc::clone(&made));
            async move {
                while !stop.load(Ordering::Relaxed) {
                    call().await;
                    made.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { callers: callers.collect(), stop, made }
    }

    /// Calls made so far.
    pub fn made(&self) -> usize {
        self.made.load(Ordering::Relaxed)
    }

    /// Ends it; every call made was answered.
    pub async fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.callers.join_all().await;
        self.made.load(Ordering::Relaxed)
    }
}
