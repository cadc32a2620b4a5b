//! One call of values: header and parameters out in one write, one answer back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use portcullis_transport::quic::{self, CallUnread, Connection, RecvStream, SendStream, StreamFailed};
use portcullis_transport::{FrameLimits, Header, Refusal};

use super::route::{self, Link, Route};
use super::{CallError, FunctionName, Inner};
use crate::explanation::{self, Explanation};

/// A call that takes this long makes us ask whether the peer still lives; one that lives says something within as much again.
const SILENCE: Duration = Duration::from_secs(1);

/// How one attempt failed.
enum Failure {
    /// The peer certainly did not begin the call.
    NotBegun(CallError),
    Final(CallError),
}

pub(super) async fn call(
    inner: &Arc<Inner>,
    route: &Arc<Route>,
    function: FunctionName<'_>,
    params: Bytes,
) -> Result<Bytes, CallError> {
    let mut tried = false;
    loop {
        let link = route::link(inner, route).await?;
        match attempt(inner, route, &link, function, params.clone()).await {
            Ok(answer) => return Ok(answer),
            Err(Failure::NotBegun(_)) if !tried => {
                route.forget(&link);
                tried = true;
            }
            Err(Failure::NotBegun(error) | Failure::Final(error)) => return Err(error),
        }
    }
}

async fn attempt(
    inner: &Arc<Inner>,
    route: &Arc<Route>,
    link: &Arc<Link>,
    function: FunctionName<'_>,
    params: Bytes,
) -> Result<Bytes, Failure> {
    let connection = &link.connection;
    let peer = || route.peer.clone();
    let (mut send, mut recv) = connection
        .open()
        .await
        .map_err(|lost| Failure::NotBegun(CallError::Unreachable { peer: peer(), cause: lost.to_string() }))?;
    let stream = send.id().index();
    let header = Header { instance: function.instance.to_owned(), function: function.function.to_owned() };
    let exchanged = {
        let exchange = exchange(&mut send, &mut recv, &header, params, inner.limits.answer);
        tokio::pin!(exchange);
        tokio::select! {
            biased;
            exchanged = &mut exchange => exchanged,
            () = silence(connection, stream) => {
                route::doubt(inner, route, link);
                exchange.await
            }
        }
    };
    match exchanged {
        Ok(answer) => Ok(answer),
        Err(CallUnread::Stream(StreamFailed::Refused(Refusal::Draining))) => {
            Err(Failure::NotBegun(CallError::Refused { peer: peer(), refusal: Refusal::Draining, explanation: None }))
        }
        Err(CallUnread::Stream(StreamFailed::Refused(refusal))) => {
            let explanation = explain(connection, stream, inner.limits.explain).await;
            Err(Failure::Final(CallError::Refused { peer: peer(), refusal, explanation }))
        }
        Err(CallUnread::Stream(lost)) => Err(Failure::Final(CallError::Lost { peer: peer(), cause: lost.to_string() })),
        Err(error @ (CallUnread::Frame(_) | CallUnread::Header(_) | CallUnread::NoHeader)) => {
            // The peer need not send the rest of what is refused here.
            let _ = recv.stop(quinn::VarInt::from_u32(Refusal::TooLarge.code()));
            Err(Failure::Final(CallError::Malformed { peer: peer(), cause: error.to_string() }))
        }
    }
}

/// Ends when nothing at all comes from the peer, not even when it is asked something. A peer that was killed says no goodbye, and QUIC
/// itself waits for its idle timeout.
async fn silence(connection: &Connection, stream: u64) {
    let received = || connection.quinn().stats().udp_rx.datagrams;
    tokio::time::sleep(SILENCE).await;
    let before = received();
    // Whatever it answers: datagrams are what counts.
    drop(explain(connection, stream, SILENCE).await);
    if received() != before {
        std::future::pending().await
    }
}

async fn exchange(
    send: &mut SendStream,
    recv: &mut RecvStream,
    header: &Header,
    params: Bytes,
    limits: FrameLimits,
) -> Result<Bytes, CallUnread> {
    match quic::write_invocation(send, header, params).await {
        // A callee may refuse before it has read everything: how comes with the answer's half.
        Ok(()) | Err(StreamFailed::Refused(_)) => {}
        Err(failed) => return Err(failed.into()),
    }
    let frames = quic::read_root_frames(recv, Bytes::new(), limits).await?;
    Ok(frames.into_payload())
}

/// Asks the peer why; a peer that does not know the question leaves the refusal's name to speak.
pub(super) async fn explain(connection: &Connection, stream: u64, deadline: Duration) -> Option<Explanation> {
    tokio::time::timeout(deadline, ask(connection, stream)).await.ok().flatten()
}

async fn ask(connection: &Connection, stream: u64) -> Option<Explanation> {
    let (mut send, mut recv) = connection.open().await.ok()?;
    let header = Header { instance: explanation::INSTANCE.to_owned(), function: explanation::FUNCTION.to_owned() };
    let question = explanation::encode_question(stream).ok()?;
    let limits = FrameLimits { total: 64 << 10, ..FrameLimits::default() };
    let answer = exchange(&mut send, &mut recv, &header, question.into(), limits).await.ok()?;
    explanation::decode_answer(&answer).ok().flatten()
}
