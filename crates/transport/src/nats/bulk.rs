use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// A payload shorter than this is not counted: as many as async-nats queues are 8 MiB.
const SHORT: usize = 16 << 10;
/// Bytes of longer ones that are on their way to the socket. Each call waits behind them, 8 ms at 1 Gbit/s; fewer would let
/// the socket run dry.
const MOST: usize = 1 << 20;
/// How long a payload waits for those before it, while they leave.
const LONGEST: Duration = Duration::from_secs(60);

/// Holds back long payloads, in their senders' turn: async-nats queues messages by number alone, and one fast stream would
/// fill that queue with as many megabytes, behind which the short messages of other calls wait.
#[derive(Debug)]
pub(super) struct Bulk {
    free: Arc<Semaphore>,
    /// Payloads that async-nats has taken.
    taken: AtomicU64,
}

/// Those before it did not leave.
#[derive(Debug)]
pub(super) struct Stalled;

/// A payload that counts until async-nats drops it, which it does once it is written.
struct Counted {
    payload: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.payload
    }
}

impl Bulk {
    pub(super) fn new() -> Self {
        Self { free: Arc::new(Semaphore::new(MOST)), taken: AtomicU64::default() }
    }

    /// Whether a payload has to wait for its turn.
    pub(super) const fn counts(payload: &Bytes) -> bool {
        payload.len() >= SHORT
    }

    /// async-nats has taken one.
    pub(super) fn moved(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until a payload may be queued, as long as one of those before it is taken every `patience`. A short one may at
    /// once.
    pub(super) async fn admit(&self, payload: Bytes, patience: Duration) -> Result<Bytes, Stalled> {
        if !Self::counts(&payload) {
            return Ok(payload);
        }
        // One that is longer than all may be alone.
        let bytes = u32::try_from(payload.len().min(MOST)).unwrap_or_default();
        let permit = match Arc::clone(&self.free).try_acquire_many_owned(bytes) {
            Ok(permit) => permit,
            Err(_) => self.turn(bytes, patience).await?,
        };
        Ok(Bytes::from_owner(Counted { payload, _permit: permit }))
    }

    async fn turn(&self, bytes: u32, patience: Duration) -> Result<OwnedSemaphorePermit, Stalled> {
        let mut turn = std::pin::pin!(Arc::clone(&self.free).acquire_many_owned(bytes));
        let began = Instant::now();
        loop {
            let taken = self.taken.load(Ordering::Relaxed);
            if let Ok(permit) = tokio::time::timeout(patience, turn.as_mut()).await {
                // Nobody closes it.
                return permit.map_err(|_| Stalled);
            }
            if self.taken.load(Ordering::Relaxed) == taken || began.elapsed() >= LONGEST {
                return Err(Stalled);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future as _,
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use super::*;

    /// `None` where it has to wait.
    fn admitted(bulk: &Bulk, length: usize) -> Option<Bytes> {
        let admission = pin!(bulk.admit(Bytes::from(vec![b'x'; length]), LONGEST));
        match admission.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(admitted) => Some(admitted.unwrap()),
            Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn long_payloads_wait_for_those_before_them_and_short_ones_do_not() {
        let bulk = Bulk::new();
        let mut held: Vec<_> = (0..8).map(|_| admitted(&bulk, 128 << 10)).collect();
        assert!(held.iter().all(|payload| payload.as_ref().is_some_and(|payload| payload.len() == 128 << 10)));
        assert!(admitted(&bulk, 128 << 10).is_none());
        assert!(admitted(&bulk, SHORT).is_none());
        assert!(admitted(&bulk, SHORT - 1).is_some());
        assert!(admitted(&bulk, 0).is_some());
        // What is left of a payload counts as all of it.
        let Some(Some(mut first)) = held.pop() else { panic!("none") };
        let rest = first.split_off(100);
        drop(first);
        assert!(admitted(&bulk, SHORT).is_none());
        drop(rest);
        assert!(admitted(&bulk, 128 << 10).is_some());
    }

    #[tokio::test]
    async fn one_longer_than_all_is_sent_alone() {
        let bulk = Bulk::new();
        let long = admitted(&bulk, 3 << 20);
        assert!(long.as_ref().is_some_and(|payload| payload.len() == 3 << 20));
        assert!(admitted(&bulk, SHORT).is_none());
        drop(long);
        assert!(admitted(&bulk, SHORT).is_some());
    }

    #[tokio::test]
    async fn one_waits_while_those_before_it_leave_and_no_longer() {
        let bulk = Bulk::new();
        let patience = Duration::from_secs(1);
        let mut held: Vec<_> = (0..8).map(|_| admitted(&bulk, 128 << 10)).collect();
        assert!(bulk.admit(vec![0; SHORT].into(), patience / 4).await.is_err());
        // All of it needs all of their places: it is served last, long after its patience with one of them.
        let leaving = async {
            while let Some(first) = held.pop() {
                tokio::time::sleep(patience / 4).await;
                drop(first);
                bulk.moved();
            }
        };
        let began = Instant::now();
        let (admitted, ()) = tokio::join!(bulk.admit(vec![0; MOST].into(), patience), leaving);
        assert_eq!(admitted.unwrap().len(), MOST);
        assert!(began.elapsed() >= patience * 2);
    }
}
