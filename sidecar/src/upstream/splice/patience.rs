//! How long a spliced call may take: one clock for the whole call, none for its parts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use portcullis_transport::Refusal;
use tokio::time::{Instant, sleep};

use crate::gate::Refused;

/// When a call has lasted too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// A call of values: this long in all.
    InAll(Duration),
    /// A call with streams: this long without a byte in either direction.
    InSilence(Duration),
}

/// When bytes last passed.
#[derive(Debug)]
pub(crate) struct Progress {
    began: Instant,
    /// Milliseconds after the beginning.
    last: AtomicU64,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), last: AtomicU64::new(0) }
    }

    /// Bytes pass now.
    pub(super) fn made(&self) {
        self.last.store(millis(self.began.elapsed()), Ordering::Relaxed);
    }

    fn silent_for(&self) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.began.elapsed().saturating_sub(last)
    }
}

impl Patience {
    /// Waits until it is over.
    pub(crate) async fn end(self, progress: &Progress) -> Refused {
        let reason = match self {
            Self::InAll(limit) => {
                sleep(limit).await;
                format!("the call took longer than {} ms", limit.as_millis())
            }
            Self::InSilence(limit) => {
                let mut left = limit;
                while !left.is_zero() {
                    sleep(left).await;
                    left = limit.saturating_sub(progress.silent_for());
                }
                format!("the service was silent for {} ms", limit.as_millis())
            }
        };
        Refused::new(Refusal::DeadlineExceeded, reason)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_call_with_streams_ends_by_silence_alone() {
        let progress = Progress::new();
        let patience = Patience::InSilence(STEP * 3);
        let bytes = async {
            for _ in 0..5 {
                sleep(STEP).await;
                progress.made();
            }
        };
        let (refused, ()) = tokio::join!(patience.end(&progress), bytes);
        assert_eq!(refused.refusal, Refusal::DeadlineExceeded);
        assert!(progress.began.elapsed() >= STEP * 8, "{:?}", progress.began.elapsed());
    }

    #[tokio::test]
    async fn a_call_of_values_ends_by_its_length() {
        let progress = Progress::new();
        let bytes = async {
            loop {
                sleep(STEP / 4).await;
                progress.made();
            }
        };
        tokio::select! {
            refused = Patience::InAll(STEP * 3).end(&progress) => assert_eq!(refused.refusal, Refusal::DeadlineExceeded),
            () = bytes => {}
        }
        assert!(progress.began.elapsed() >= STEP * 3);
    }
}
