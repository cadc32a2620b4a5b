use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis_identity::{PeerRule, PeerVerifier, Svid, SvidSlot, TrustSource};
use portcullis_transport::quic::{Connection, Listener, QuicLimits};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Lab;

/// What a fake callee sends back on every stream.
#[derive(Clone, Debug)]
pub enum Answer {
    /// These bytes, then a clean end.
    Whole(Vec<u8>),
    /// These bytes, and then nothing more.
    Begun(Vec<u8>),
    /// These bytes, over and over, until the caller has had enough.
    Endless(Vec<u8>),
}

/// What became of the callers of a fake callee.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Visits {
    /// Handshakes that succeeded on the callee's side.
    pub accepted: usize,
    /// Handshakes that did not.
    pub refused: usize,
    /// Streams that were opened.
    pub calls: usize,
    /// Bytes that were sent in answers.
    pub sent: usize,
}

/// A callee that is not a sidecar: a QUIC listener with any SVID that answers as told.
#[derive(Debug)]
pub struct FakeCallee {
    pub address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    visits: Arc<Mutex<Visits>>,
    stop: CancellationToken,
}

impl FakeCallee {
    pub fn start(lab: &Lab, trust: &TrustSource, svid: Arc<Svid>, answer: Answer) -> Self {
        let verifier = PeerVerifier::new(Arc::clone(trust), PeerRule::AnyTrusted);
        let bind = || {
            let any = ([127, 0, 0, 1], 0).into();
            Listener::bind(any, verifier, SvidSlot::new(svid), QuicLimits::default()).unwrap()
        };
        let listener = lab.block_on(async { bind() });
        let address = listener.local_addr().unwrap();
        let (visits, stop) = (Arc::default(), CancellationToken::new());
        let answer = Arc::new(Mutex::new(answer));
        let serving = serve(listener, Arc::clone(&answer), Arc::clone(&visits), lab.tasks().clone(), stop.clone());
        lab.spawn(stop.clone().run_until_cancelled_owned(serving));
        Self { address, answer, visits, stop }
    }

    /// What calls get from now on.
    pub fn answer(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    pub fn visits(&self) -> Visits {
        *self.visits.lock().unwrap()
    }
}

impl Drop for FakeCallee {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(
    listener: Listener,
    answer: Arc<Mutex<Answer>>,
    visits: Arc<Mutex<Visits>>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    while let Some(incoming) = listener.accept().await {
        let (answer, visits) = (Arc::clone(&answer), Arc::clone(&visits));
        let (tasks_too, stop_too) = (tasks.clone(), stop.clone());
        tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
            match incoming.handshake().await {
                Ok(connection) => {
                    visits.lock().unwrap().accepted += 1;
                    streams(connection, answer, visits, tasks_too, stop_too).await;
                }
                Err(_) => visits.lock().unwrap().refused += 1,
            }
        }));
    }
}

async fn streams(
    connection: Connection,
    answer: Arc<Mutex<Answer>>,
    visits: Arc<Mutex<Visits>>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    while let Ok((mut send, recv)) = connection.accept().await {
        visits.lock().unwrap().calls += 1;
        let answer = answer.lock().unwrap().clone();
        let visits = Arc::clone(&visits);
        tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
            // Kept open: a stopped stream would tell the caller something.
            let _recv = recv;
            let sent = |bytes: usize| visits.lock().unwrap().sent += bytes;
            match answer {
                Answer::Whole(bytes) => {
                    let _ = send.write_all(&bytes).await;
                    sent(bytes.len());
                    let _ = send.finish();
                    let _ = send.stopped().await;
                }
                Answer::Begun(bytes) => {
                    let _ = send.write_all(&bytes).await;
                    sent(bytes.len());
                    let _ = send.stopped().await;
                }
                Answer::Endless(bytes) => {
                    while send.write_all(&bytes).await.is_ok() {
                        sent(bytes.len());
                        // Lets the caller's side have a turn on a machine with one free core.
                        tokio::time::sleep(Duration::ZERO).await;
                    }
                }
            }
        }));
    }
}
