use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
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
    /// Payloads that async-nats had taken and has written, or lost with its connection.
    written: Arc<AtomicU64>,
}

/// Those before it did not leave.
#[derive(Debug)]
pub(super) struct Stalled;

/// A payload that counts until async-nats drops it, which it does once it is written.
struct Counted {
    payload: Bytes,
    _permit: OwnedSemaphorePermit,
    taken: Taken,
    written: Arc<AtomicU64>,
}

/// Whether async-nats has taken a payload; else its sender gave up.
pub(super) type Taken = Arc<AtomicBool>;

impl Drop for Counted {
    fn drop(&mut self) {
        if self.taken.load(Ordering::Relaxed) {
            self.written.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.payload
    }
}

impl Bulk {
    pub(super) fn new() -> Self {
        Self { free: Arc::new(Semaphore::new(MOST)), written: Arc::default() }
    }

    /// Waits until a payload may be queued, as long as one of those before it is written every `patience`. A short one may at
    /// once.
    pub(super) async fn admit(&self, payload: Bytes, patience: Duration) -> Result<(Bytes, Option<Taken>), Stalled> {
        if payload.len() < SHORT {
            return Ok((payload, None));
        }
        // One that is longer than all may be alone.
        let bytes = u32::try_from(payload.len().min(MOST)).unwrap_or_default();
        let permit = match Arc::clone(&self.free).try_acquire_many_owned(bytes) {
            Ok(permit) => permit,
            Err(_) => self.turn(bytes, patience).await?,
        };
        let taken = Taken::default();
        let counted =
            Counted { payload, _permit: permit, taken: Arc::clone(&taken), written: Arc::clone(&self.written) };
        Ok((Bytes::from_owner(counted), Some(taken)))
    }

    async fn turn(&self, bytes: u32, patience: Duration) -> Result<OwnedSemaphorePermit, Stalled> {
        let mut turn = std::pin::pin!(Arc::clone(&self.free).acquire_many_owned(bytes));
        let began = Instant::now();
        loop {
            let written = self.written.load(Ordering::Relaxed);
            if let Ok(permit) = tokio::time::timeout(patience, turn.as_mut()).await {
                // Nobody closes it.
                return permit.map_err(|_| Stalled);
            }
            if self.written.load(Ordering::Relaxed) == written || began.elapsed() >= LONGEST {
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

    /// `None` where it has to wait; else async-nats has it.
    fn admitted(bulk: &Bulk, length: usize) -> Option<Bytes> {
        let admission = pin!(bulk.admit(Bytes::from(vec![b'x'; length]), LONGEST));
        match admission.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(admitted) => {
                let (payload, taken) = admitted.unwrap();
                if let Some(taken) = taken {
                    taken.store(true, Ordering::Relaxed);
                }
                Some(payload)
            }
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
            }
        };
        let began = Instant::now();
        let (admitted, ()) = tokio::join!(bulk.admit(vec![0; MOST].into(), patience), leaving);
        assert_eq!(admitted.unwrap().0.len(), MOST);
        assert!(began.elapsed() >= patience * 2);
    }
}
