//! wRPC's `Invoke` for generated bindings.
//!
//! The framing and the end of the sending half are those of `wrpc-transport-quic`; the receiving half goes through a reader that enforces
//! limits first, because the decoders of `wrpc-transport` 0.29 allocate whatever length a peer names. And 0.29 takes a stream that broke for
//! one that ended, so that a cut answer could look like a whole one: what broke is remembered here, and told at the end.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use portcullis_transport::quic::{self, Connection};
use portcullis_transport::{FrameError, FrameLimits, LimitedReader, Refusal};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::io::{AsyncRead, ReadBuf};
use tracing::debug;
use wrpc_transport::frame::{ConnHandler, Incoming, InvokeBuilder, Outgoing};
use wrpc_transport::{Index, Invoke};

use super::route::{self, Route};
use super::{CallError, Inner, call};

/// What `wrpc-transport-quic` stops a stream with that it has read to the end.
const DONE: VarInt = VarInt::from_u32(1);
/// Of a call whose result may hold streams: many frames, each bounded.
const STREAMED: FrameLimits = FrameLimits { frame: 1 << 20, path: 16, total: 64 << 20, frames: 1 << 20 };

/// A virtual component as wRPC bindings see it.
#[derive(Clone, Debug)]
pub struct PeerClient {
    inner: Arc<Inner>,
    route: Arc<Route>,
}

/// The context of one call: afterwards it tells how the peer refused, which wRPC itself cannot.
#[derive(Clone, Debug, Default)]
pub struct CallOutcome {
    broken: Arc<OnceLock<Broken>>,
}

/// How the answer's stream broke.
#[derive(Debug)]
struct Broken {
    cause: String,
    refused: Option<Refused>,
}

/// By whom, and where to ask why.
#[derive(Debug)]
struct Refused {
    refusal: Refusal,
    connection: Connection,
    stream: u64,
}

impl CallOutcome {
    /// The refusal, if the peer refused.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        self.refused().map(|refused| refused.refusal)
    }

    /// Asks the peer why it refused; nothing if it did not refuse or does not say.
    pub async fn explain(&self) -> Option<crate::explanation::Explanation> {
        let Refused { connection, stream, .. } = self.refused()?;
        call::explain(connection, *stream, super::CallLimits::default().explain).await
    }

    fn refused(&self) -> Option<&Refused> {
        self.broken.get()?.refused.as_ref()
    }

    /// Remembers the first break: what follows it follows from it.
    fn broke(&self, cause: String, refused: Option<Refused>) {
        drop(self.broken.set(Broken { cause, refused }));
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
    type Incoming = Answer;

    async fn invoke<P>(
        &self,
        outcome: CallOutcome,
        instance: &str,
        function: &str,
        params: Bytes,
        paths: impl AsRef<[P]> + Send,
    ) -> anyhow::Result<(Outgoing, Answer)>
    where
        P: AsRef<[Option<usize>]> + Send + Sync,
    {
        let link = route::link(&self.inner, &self.route).await?;
        let connection = link.connection.clone();
        let (send, recv) = connection
            .open()
            .await
            .map_err(|lost| CallError::Unreachable { peer: self.route.peer.clone(), cause: lost.to_string() })?;
        let stream = send.id().index();
        let recv =
            Watched { reader: LimitedReader::frames(recv, STREAMED), stream, connection, outcome: outcome.clone() };
        let invoked = InvokeBuilder::<Ends>::default().invoke(send, recv, instance, function, params, paths).await;
        match (invoked, outcome.refusal()) {
            (Ok((outgoing, inner)), _) => Ok((outgoing, Answer { inner, outcome })),
            (Err(_), Some(refusal)) => {
                Err(CallError::Refused { peer: self.route.peer.clone(), refusal, explanation: None }.into())
            }
            (Err(error), None) => Err(error),
        }
    }
}

impl Invoke for &PeerClient {
    type Context = CallOutcome;
    type Outgoing = Outgoing;
    type Incoming = Answer;

    async fn invoke<P>(
        &self,
        outcome: CallOutcome,
        instance: &str,
        function: &str,
        params: Bytes,
        paths: impl AsRef<[P]> + Send,
    ) -> anyhow::Result<(Outgoing, Answer)>
    where
        P: AsRef<[Option<usize>]> + Send + Sync,
    {
        PeerClient::invoke(self, outcome, instance, function, params, paths).await
    }
}

/// The bytes of an answer, or of one of the streams in it. A clean end means that everything came.
pub struct Answer {
    inner: Incoming,
    outcome: CallOutcome,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("outcome", &self.outcome).finish_non_exhaustive()
    }
}

impl AsyncRead for Answer {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        let ended = buffer.filled().len() == before && buffer.remaining() > 0;
        Poll::Ready(match self.outcome.broken.get() {
            Some(Broken { cause, .. }) if ended => Err(io::Error::other(cause.as_str())),
            Some(_) | None => Ok(()),
        })
    }
}

impl Index<Self> for Answer {
    fn index(&self, path: &[usize]) -> anyhow::Result<Self> {
        Ok(Self { inner: self.inner.index(path)?, outcome: self.outcome.clone() })
    }
}

/// The receiving half, which remembers how it broke.
struct Watched {
    reader: LimitedReader<RecvStream>,
    stream: u64,
    connection: Connection,
    outcome: CallOutcome,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut self.reader).poll_read(cx, buffer));
        match &result {
            Ok(()) => {
                let ended = buffer.filled().len() == before && buffer.remaining() > 0;
                if ended && !self.reader.at_boundary() {
                    self.outcome.broke(FrameError::Truncated.to_string(), None);
                }
            }
            Err(error) => {
                let refused = refusal_in(error).map(|refusal| Refused {
                    refusal,
                    connection: self.connection.clone(),
                    stream: self.stream,
                });
                let cause = match &refused {
                    Some(refused) => format!("the peer refused the call: {}", refused.refusal),
                    None => error.to_string(),
                };
                self.outcome.broke(cause, refused);
            }
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

impl ConnHandler<Watched, SendStream> for Ends {
    async fn on_ingress(watched: Watched, result: io::Result<()>) {
        if let Err(error) = result {
            debug!(%error, "receiving half failed");
        }
        let mut recv = watched.reader.into_inner();
        // Fails only where the stream has ended, which is what it is for.
        let _ = recv.stop(DONE);
    }

    async fn on_egress(send: SendStream, result: io::Result<()>) {
        <wrpc_transport_quic::ConnHandler as ConnHandler<RecvStream, SendStream>>::on_egress(send, result).await;
    }
}
