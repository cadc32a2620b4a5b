//! A listener with its accept loop: what a daemon does, and no more.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use portcullis_identity::{PeerRule, PeerVerifier, SpiffeId, SvidSlot, TrustSource};
use portcullis_transport::{
    FrameLimits, Header, HeaderLimits, Refusal,
    quic::{
        self, Connection, HandshakeRefused, Listener, QuicLimits, RecvStream, SendStream, StreamFailed, next_chunk,
        read_header, read_root_frames, write_invocation, write_root_frame,
    },
};
use tokio::sync::{Mutex, mpsc};
use tokio_util::task::TaskTracker;

use crate::ca::Ca;

pub(crate) const SERVER: &str = "/virtual/shop/orders";

pub(crate) struct Server {
    pub(crate) listener: Arc<Listener>,
    pub(crate) address: SocketAddr,
    pub(crate) id: SpiffeId,
    outcomes: Mutex<mpsc::Receiver<Result<Connection, HandshakeRefused>>>,
    tasks: TaskTracker,
}

impl Server {
    pub(crate) fn start(ca: &Ca) -> Self {
        Self::start_with(ca.trust(), PeerRule::AnyTrusted, ca.slot(SERVER), QuicLimits::default())
    }

    pub(crate) fn start_limited(ca: &Ca, limits: QuicLimits) -> Self {
        Self::start_with(ca.trust(), PeerRule::AnyTrusted, ca.slot(SERVER), limits)
    }

    pub(crate) fn start_with(trust: TrustSource, rule: PeerRule, slot: Arc<SvidSlot>, limits: QuicLimits) -> Self {
        let id = slot.load().id().clone();
        let verifier = PeerVerifier::new(trust, rule);
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), verifier, slot, limits).unwrap();
        let listener = Arc::new(listener);
        let address = listener.local_addr().unwrap();
        let (sender, outcomes) = mpsc::channel(64);
        let tasks = TaskTracker::new();
        tasks.spawn({
            let (listener, tasks) = (Arc::clone(&listener), tasks.clone());
            async move {
                while let Some(incoming) = listener.accept().await {
                    let sender = sender.clone();
                    tasks.spawn(async move { sender.send(incoming.handshake().await).await });
                }
            }
        });
        Self { listener, address, id, outcomes: Mutex::new(outcomes), tasks }
    }

    /// The next handshake's outcome.
    pub(crate) async fn outcome(&self) -> Result<Connection, HandshakeRefused> {
        soon(async { self.outcomes.lock().await.recv().await }).await.unwrap()
    }

    pub(crate) async fn connection(&self) -> Connection {
        self.outcome().await.unwrap()
    }

    /// Answers every call on the next connection: `echo` with its parameters, a function with the name of a refusal
    /// with that refusal.
    pub(crate) async fn serve_next(&self) -> Connection {
        let connection = self.connection().await;
        let (served, tasks) = (connection.clone(), self.tasks.clone());
        self.tasks.spawn(async move {
            while let Ok((send, recv)) = served.accept().await {
                tasks.spawn(answer(send, recv));
            }
        });
        connection
    }
}

async fn answer(mut send: SendStream, mut recv: RecvStream) {
    let call = read_header(&mut recv, &HeaderLimits::default()).await.unwrap();
    let named = |refusal: &Refusal| refusal.name() == call.header.function;
    if let Some(refusal) = Refusal::ALL.into_iter().find(named) {
        quic::refuse(&mut send, &mut recv, refusal);
        return;
    }
    let frames = match read_root_frames(&mut recv, call.rest, FrameLimits::default()).await {
        Ok(frames) => frames,
        Err(error) => {
            if let Some(refusal) = error.refusal() {
                quic::refuse(&mut send, &mut recv, refusal);
            }
            return;
        }
    };
    write_root_frame(&mut send, frames.into_payload()).await.unwrap();
}

pub(crate) fn header(function: &str) -> Header {
    Header { instance: "acme:shop/orders@1.0.0".into(), function: function.into() }
}

/// Waits for what must happen by itself: without it, a test of something broken would hang.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.unwrap()
}

/// Makes a whole call as our client does.
pub(crate) async fn call(connection: &Connection, function: &str, params: Bytes) -> Result<Bytes, StreamFailed> {
    soon(async {
        let (mut send, mut recv) = connection.open().await?;
        write_invocation(&mut send, &header(function), params).await?;
        let mut frames = portcullis_transport::RootFrames::default();
        while let Some(chunk) = next_chunk(&mut recv).await? {
            frames.push(chunk).unwrap();
        }
        Ok(frames.finish().unwrap())
    })
    .await
}
