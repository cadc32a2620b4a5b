//! wRPC's `Invoke` for generated bindings.
//!
//! The framing and the end of the sending half are those of `wrpc-transport-quic`; the receiving half goes through a reader that enforces
//! limits first, because the decoders of `wrpc-transport` 0.29 allocate whatever length a peer names.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use portcullis_transport::quic::{self, Connection};
use portcullis_transport::{FrameLimits, LimitedReader, Refusal};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::io::{AsyncRead, ReadBuf};
use tracing::debug;
use wrpc_transport::Invoke;
use wrpc_transport::frame::{ConnHandler, Incoming, InvokeBuilder, Outgoing};

use super::route::{self, Route};
use super::{CallError, Inner, call};

/// What `wrpc-transport-quic` stops a stream with that it has read to the end.
const DONE: VarInt = VarInt::from_u32(1);
/// Of a call whose result may hold streams: many frames, each bounded.
const STREAMED: FrameLimits = FrameLimits {
    frame: 1 << 20,
    path: 16,
    total: 64 << 20,
    frames: 1 << 20,
};

/// A virtual component as wRPC bindings see it.
#[derive(Clone, Debug)]
pub struct PeerClient {
    inner: Arc<Inner>,
    route: Arc<Route>,
}

/// The context of one call: afterwards it tells how the peer refused, which wRPC itself cannot.
#[derive(Clone, Debug, Default)]
pub struct CallOutcome {
    refused: Arc<OnceLock<(Refusal, Connection, u64)>>,
}

impl CallOutcome {
    /// The refusal, if the peer refused.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        self.refused.get().map(|(refusal, ..)| *refusal)
    }

    /// Asks the peer why it refused; nothing if it did not refuse or does not say.
    pub async fn explain(&self) -> Option<crate::explanation::Explanation> {
        let (_, connection, stream) = self.refused.get()?;
        call::explain(connection, *stream, super::CallLimits::default().explain).await
    }
}

impl PeerClient {
    pub(super) fn new(inner: Arc<Inner>, route: Arc<Route>) -> Self {
        Self { inner, route }
    }
}

impl Invoke for PeerClient {
    type Context = CallOutcome;
    type Outgoing = Outgoing;
    type Incoming = Incoming;

    async fn invoke<P>(
        &self,
        outcome: CallOutcome,
        instance: &str,
        function: &str,
        params: Bytes,
        paths: impl AsRef<[P]> + Send,
    ) -> anyhow::Result<(Outgoing, Incoming)>
    where
        P: AsRef<[Option<usize>]> + Send + Sync,
    {
        let link = route::link(&self.inner, &self.route).await?;
        let connection = link.connection.clone();
        let (send, recv) = connection.open().await.map_err(|lost| CallError::Unreachable {
            peer: self.route.peer.clone(),
            cause: lost.to_string(),
        })?;
        let stream = send.id().index();
        let recv = Watched {
            recv,
            stream,
            connection,
            outcome: outcome.clone(),
        };
        let invoked = InvokeBuilder::<Ends>::default()
            .invoke(
                send,
                LimitedReader::frames(recv, STREAMED),
                instance,
                function,
                params,
                paths,
            )
            .await;
        invoked.map_err(|error| match outcome.refusal() {
            Some(refusal) => CallError::Refused {
                peer: self.route.peer.clone(),
                refusal,
                explanation: None,
            }
            .into(),
            None => error,
        })
    }
}

impl Invoke for &PeerClient {
    type Context = CallOutcome;
    type Outgoing = Outgoing;
    type Incoming = Incoming;

    async fn invoke<P>(
        &self,
        outcome: CallOutcome,
        instance: &str,
        function: &str,
        params: Bytes,
        paths: impl AsRef<[P]> + Send,
    ) -> anyhow::Result<(Outgoing, Incoming)>
    where
        P: AsRef<[Option<usize>]> + Send + Sync,
    {
        PeerClient::invoke(self, outcome, instance, function, params, paths).await
    }
}

/// The receiving half, which remembers how it was reset.
struct Watched {
    recv: RecvStream,
    stream: u64,
    connection: Connection,
    outcome: CallOutcome,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let result = ready!(AsyncRead::poll_read(Pin::new(&mut self.recv), cx, buffer));
        if let Err(error) = &result
            && let Some(refusal) = refusal_in(error)
        {
            // Set once: the first reset is the reason.
            let _ = self
                .outcome
                .refused
                .set((refusal, self.connection.clone(), self.stream));
        }
        Poll::Ready(result)
    }
}

fn refusal_in(error: &io::Error) -> Option<Refusal> {
    match quic::StreamFailed::find(error)? {
        quic::StreamFailed::Refused(refusal) => Some(refusal),
        quic::StreamFailed::GivenUp { .. } | quic::StreamFailed::Lost(_) | quic::StreamFailed::ClosedHere => None,
    }
}

/// How both halves end.
struct Ends;

impl ConnHandler<LimitedReader<Watched>, SendStream> for Ends {
    async fn on_ingress(reader: LimitedReader<Watched>, result: io::Result<()>) {
        if let Err(error) = result {
            debug!(%error, "receiving half failed");
        }
        let mut recv = reader.into_inner().recv;
        // Fails only where the stream has ended, which is what it is for.
        let _ = recv.stop(DONE);
    }

    async fn on_egress(send: SendStream, result: io::Result<()>) {
        <wrpc_transport_quic::ConnHandler as ConnHandler<RecvStream, SendStream>>::on_egress(send, result).await;
    }
}
