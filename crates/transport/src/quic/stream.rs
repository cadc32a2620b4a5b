use std::io;

use bytes::Bytes;
use quinn::{ConnectionError, ReadError, RecvStream, SendStream, VarInt, WriteError};

use super::{ConnectionLost, classify};
use crate::refusal::Refusal;

/// The most bytes taken from a stream at once: what the network stack hands over in one piece anyway.
const CHUNK: usize = 64 * 1024;

/// Refuses a call so that every client notices at once: what is being read ends with the code and what is being
/// written is no longer wanted. The connection stays usable.
///
/// One without the other would let a stock client wait for an answer, or send all of its parameters first. Do not
/// call it once an answer was written in full: a reader may lose what came before a reset.
pub fn refuse(send: &mut SendStream, recv: &mut RecvStream, refusal: Refusal) {
    let code = VarInt::from_u32(refusal.code());
    // Either fails only where that half has ended, and then there is nothing left to refuse.
    let _ = send.reset(code);
    let _ = recv.stop(code);
}

/// The refusal that ended reading, if it is one.
pub fn read_refusal(error: &ReadError) -> Option<Refusal> {
    match error {
        ReadError::Reset(code) => Refusal::from_code(code.into_inner()),
        ReadError::ConnectionLost(_)
        | ReadError::ClosedStream
        | ReadError::IllegalOrderedRead
        | ReadError::ZeroRttRejected => None,
    }
}

/// The refusal that ended writing, if it is one.
pub fn write_refusal(error: &WriteError) -> Option<Refusal> {
    match error {
        WriteError::Stopped(code) => Refusal::from_code(code.into_inner()),
        WriteError::ConnectionLost(_) | WriteError::ClosedStream | WriteError::ZeroRttRejected => None,
    }
}

/// Why a stream ended other than by its clean end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamFailed {
    /// The peer refused the call.
    #[error("call refused: {0}")]
    Refused(Refusal),
    /// The peer gave the stream up with a code that is not ours; 0 is what dropping a stream sends, 1 is a stock
    /// client that has read enough.
    #[error("peer gave up the stream with code `{code:#x}`")]
    GivenUp {
        /// The QUIC application error code.
        code: u64,
    },
    /// The connection ended.
    #[error(transparent)]
    Lost(#[from] ConnectionLost),
    /// This end had already ended the stream.
    #[error("stream is already closed on this side")]
    ClosedHere,
}

impl StreamFailed {
    /// Finds what ended a stream inside the error of its `AsyncRead` or `AsyncWrite`, through wrappers such as
    /// [`LimitedReader`](crate::LimitedReader). `None` when a stream of ours did not cause the error.
    pub fn find(error: &io::Error) -> Option<Self> {
        let inner = error.get_ref()?;
        if let Some(error) = inner.downcast_ref::<ReadError>() {
            return Some(error.into());
        }
        if let Some(error) = inner.downcast_ref::<WriteError>() {
            return Some(error.into());
        }
        inner.downcast_ref::<io::Error>().and_then(Self::find)
    }

    fn with_code(code: VarInt) -> Self {
        let code = code.into_inner();
        Refusal::from_code(code).map_or(Self::GivenUp { code }, Self::Refused)
    }
}

impl From<&ReadError> for StreamFailed {
    fn from(error: &ReadError) -> Self {
        match error {
            ReadError::Reset(code) => Self::with_code(*code),
            ReadError::ConnectionLost(error) => error.into(),
            ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => Self::ClosedHere,
        }
    }
}

impl From<&WriteError> for StreamFailed {
    fn from(error: &WriteError) -> Self {
        match error {
            WriteError::Stopped(code) => Self::with_code(*code),
            WriteError::ConnectionLost(error) => error.into(),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => Self::ClosedHere,
        }
    }
}

impl From<&ConnectionError> for StreamFailed {
    fn from(error: &ConnectionError) -> Self {
        Self::Lost(classify(error))
    }
}

/// The next bytes of a stream, not copied; `None` at its clean end. Cancel safe.
///
/// # Errors
///
/// [`StreamFailed`] when the stream or its connection was given up.
pub async fn next_chunk(recv: &mut RecvStream) -> Result<Option<Bytes>, StreamFailed> {
    match recv.read_chunk(CHUNK, true).await {
        Ok(chunk) => Ok(chunk.map(|chunk| chunk.bytes)),
        Err(error) => Err(StreamFailed::from(&error)),
    }
}
