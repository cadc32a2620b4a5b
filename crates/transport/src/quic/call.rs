use bytes::{Bytes, BytesMut};
use quinn::{RecvStream, SendStream};

use super::{StreamFailed, next_chunk};
use crate::{
    frame::{FrameError, FrameLimits, RootFrames, encode_root_frame_head},
    header::{Header, HeaderLimits, InvalidHeader, Parsed},
    refusal::Refusal,
};

/// Payloads up to this many bytes are copied next to what precedes them, so that the call leaves in one write.
const COPIED: usize = 1024;

/// The beginning of a call.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// What is called.
    pub header: Header,
    /// The header's bytes as they came, to be replayed to an upstream.
    pub raw: Bytes,
    /// What has been read beyond the header: the beginning of the frames, often all of them.
    pub rest: Bytes,
}

/// Why the header or the frames of a call could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallUnread {
    /// The header is malformed or too long.
    #[error(transparent)]
    Header(#[from] InvalidHeader),
    /// A frame is malformed or too large, or the stream ended inside one.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The stream ended inside the header.
    #[error("stream ended inside the header")]
    NoHeader,
    /// The stream or its connection ended.
    #[error(transparent)]
    Stream(#[from] StreamFailed),
}

impl CallUnread {
    /// What to refuse the call with; `None` when the peer gave it up and needs no answer.
    pub const fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Header(error) => Some(error.refusal()),
            Self::Frame(error) => Some(error.refusal()),
            Self::NoHeader => Some(Refusal::MalformedHeader),
            Self::Stream(_) => None,
        }
    }
}

/// Reads the header of a call. Put a deadline on it: a peer may send one byte a minute. Not cancel safe.
///
/// # Errors
///
/// [`CallUnread`], whose `refusal` says what to tell the peer.
pub async fn read_header(recv: &mut RecvStream, limits: &HeaderLimits) -> Result<Invocation, CallUnread> {
    let mut buffer = next_chunk(recv).await?.ok_or(CallUnread::NoHeader)?;
    loop {
        if let Parsed::Complete { header, consumed } = Header::parse(&buffer, limits)? {
            let raw = buffer.split_to(consumed);
            return Ok(Invocation { header, raw, rest: buffer });
        }
        // Rare: a header is short and leaves its sender in one piece.
        let next = next_chunk(recv).await?.ok_or(CallUnread::NoHeader)?;
        let mut joined = BytesMut::with_capacity(buffer.len() + next.len());
        joined.extend_from_slice(&buffer);
        joined.extend_from_slice(&next);
        buffer = joined.freeze();
    }
}

/// Reads root frames until the stream's clean end and joins them. `rest` is what has been read already.
///
/// A callee that gives a call up without a code ends the stream without a frame; [`RootFrames::frames`] tells. Put a
/// deadline on it. Not cancel safe.
///
/// # Errors
///
/// [`CallUnread`], a stream that ended inside a frame included.
pub async fn read_root_frames(
    recv: &mut RecvStream,
    rest: Bytes,
    limits: FrameLimits,
) -> Result<RootFrames, CallUnread> {
    let mut frames = RootFrames::new(limits);
    frames.push(rest)?;
    while let Some(chunk) = next_chunk(recv).await? {
        frames.push(chunk)?;
    }
    if !frames.at_boundary() {
        return Err(FrameError::Truncated.into());
    }
    Ok(frames)
}

/// Writes a whole call that carries `params` in one root frame, and finishes the stream. Large parameters are not
/// copied.
///
/// # Errors
///
/// [`StreamFailed`]: a callee may refuse before it has read everything.
pub async fn write_invocation(send: &mut SendStream, header: &Header, params: Bytes) -> Result<(), StreamFailed> {
    let mut head = BytesMut::with_capacity(COPIED + 512);
    header.encode_into(&mut head);
    write_last_frame(send, head, params).await
}

/// Writes an answer that is `payload` in one root frame, and finishes the stream. A large payload is not copied.
///
/// # Errors
///
/// [`StreamFailed`], when the caller no longer wants it.
pub async fn write_root_frame(send: &mut SendStream, payload: Bytes) -> Result<(), StreamFailed> {
    write_last_frame(send, BytesMut::with_capacity(payload.len().min(COPIED) + 8), payload).await
}

async fn write_last_frame(send: &mut SendStream, mut head: BytesMut, payload: Bytes) -> Result<(), StreamFailed> {
    encode_root_frame_head(payload.len(), &mut head);
    let written = if payload.len() <= COPIED {
        head.extend_from_slice(&payload);
        send.write_chunk(head.freeze()).await
    } else {
        send.write_all_chunks(&mut [head.freeze(), payload]).await
    };
    written.map_err(|error| StreamFailed::from(&error))?;
    send.finish().map_err(|_| StreamFailed::ClosedHere)
}
