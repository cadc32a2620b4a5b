//! The broker's own certificate, which nodes know it by.

use std::sync::Arc;
use std::time::Duration;

use portcullis_identity::RenewalSchedule;

use crate::broker::Broker;
use crate::clock;

/// How often it is held against the clock, at the least: clocks are set, and machines sleep.
const LOOK: Duration = Duration::from_secs(5);
/// The wait after a renewal that failed.
const RENEWAL_PAUSE: Duration = Duration::from_secs(1);

/// Renews it at half of its life, until the broker stops.
pub(crate) async fn keep_own_svid_fresh(broker: Arc<Broker>) {
    /// Nobody renews at the same time as the one broker, so the exact half-life will do.
    const NO_JITTER: f64 = 0.5;
    loop {
        // It came just now; its notBefore is backdated, by more than half of the shortest lifetimes.
        let (since, held) = (clock::now(), broker.own.load());
        let schedule = RenewalSchedule::new(since, held.not_after(), NO_JITTER);
        loop {
            let wait = schedule.wait(clock::now()).clamp(RENEWAL_PAUSE, LOOK);
            if !sleep_unless_stopped(&broker, wait).await {
                return;
            }
            // A clock that was set, ahead or back, must not leave the broker with a certificate that nobody accepts.
            let now = clock::now();
            if schedule.wait(now).is_zero() || now < since {
                break;
            }
        }
        // Another authority may have brought another one meanwhile.
        if Arc::ptr_eq(&held, &broker.own.load()) {
            broker.renew_own_svid();
        }
    }
}

/// `false` once the broker stops.
async fn sleep_unless_stopped(broker: &Broker, wait: Duration) -> bool {
    tokio::select! {
        () = tokio::time::sleep(wait) => true,
        () = broker.stop.cancelled() => false,
    }
}
