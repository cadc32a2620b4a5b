use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A payload shorter than this is not counted: as many as async-nats queues are 8 MiB.
const SHORT: usize = 16 << 10;
/// Bytes of longer ones that are on their way to the socket. Each call waits behind them, 8 ms at 1 Gbit/s; fewer would let
/// the socket run dry.
const MOST: usize = 1 << 20;

/// Holds back long payloads, in their senders' turn: async-nats queues messages by number alone, and one fast stream would
/// fill that queue with as many megabytes, behind which the short messages of other calls wait.
#[derive(Debug)]
pub(super) struct Bulk(Arc<Semaphore>);

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
        Self(Arc::new(Semaphore::new(MOST)))
    }

    /// Waits until a payload may be queued. A short one may at once.
    pub(super) async fn admit(&self, payload: Bytes) -> Bytes {
        if payload.len() < SHORT {
            return payload;
        }
        // One that is longer than all may be alone.
        let bytes = u32::try_from(payload.len().min(MOST)).unwrap_or_default();
        match Arc::clone(&self.0).acquire_many_owned(bytes).await {
            Ok(permit) => Bytes::from_owner(Counted { payload, _permit: permit }),
            // Nobody closes it.
            Err(_) => payload,
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

    fn admitted(bulk: &Bulk, length: usize) -> Poll<Bytes> {
        pin!(bulk.admit(Bytes::from(vec![b'x'; length]))).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn long_payloads_wait_for_those_before_them_and_short_ones_do_not() {
        let bulk = Bulk::new();
        let mut held: Vec<_> = (0..8).map(|_| admitted(&bulk, 128 << 10)).collect();
        assert!(held.iter().all(|payload| matches!(payload, Poll::Ready(payload) if payload.len() == 128 << 10)));
        assert!(admitted(&bulk, 128 << 10).is_pending());
        assert!(admitted(&bulk, SHORT).is_pending());
        assert!(admitted(&bulk, SHORT - 1).is_ready());
        assert!(admitted(&bulk, 0).is_ready());
        // What is left of a payload counts as all of it.
        let Some(Poll::Ready(mut first)) = held.pop() else { panic!("none") };
        let rest = first.split_off(100);
        drop(first);
        assert!(admitted(&bulk, SHORT).is_pending());
        drop(rest);
        assert!(admitted(&bulk, 128 << 10).is_ready());
    }

    #[test]
    fn one_longer_than_all_is_sent_alone() {
        let bulk = Bulk::new();
        let long = admitted(&bulk, 3 << 20);
        assert!(matches!(&long, Poll::Ready(payload) if payload.len() == 3 << 20));
        assert!(admitted(&bulk, SHORT).is_pending());
        drop(long);
        assert!(admitted(&bulk, SHORT).is_ready());
    }
}
