use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

use super::{buffer::Piece, failure::CallFailed, live::Live, path::Path};

/// What the other end of a call sends: the plain values, and streams and futures within them, each complete for itself.
///
/// Read path by path, each in a task of its own if need be ([`path`](Self::path)); or all of them as they come
/// ([`next`](Self::next)), for a bridge to a framed stream, where each piece is a frame. One path is read one way only.
#[derive(Debug)]
pub struct Incoming {
    live: Arc<Live>,
}

impl Incoming {
    pub(super) const fn new(live: Arc<Live>) -> Self {
        Self { live }
    }

    /// The next piece of any path, or the end of one. Waits for ever once all are complete, until the call's deadline:
    /// [`is_complete`](Self::is_complete) tells, but not whether another path will begin. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`CallFailed`]
    pub async fn next(&mut self) -> Result<Piece, CallFailed> {
        poll_fn(|cx| self.live.buffer.poll_any(cx)).await
    }

    /// Whether every path that has begun has ended, the plain values among them.
    pub fn is_complete(&self) -> bool {
        self.live.buffer.is_complete()
    }

    /// The plain values alone, to their end, joined. Cancel safe only where the call is given up then.
    ///
    /// # Errors
    ///
    /// [`CallFailed`]; [`CallFailed::TooLarge`] when they are longer than `limit` bytes.
    pub async fn read_root(&mut self, limit: usize) -> Result<Bytes, CallFailed> {
        self.path(Path::root()).read_to_end(limit).await
    }

    /// A reader of one path, which may not have begun yet.
    pub fn path(&self, path: Path) -> PathReader {
        PathReader { live: Arc::clone(&self.live), path, rest: Bytes::new() }
    }
}

/// Reads one path of a call to its end. As [`AsyncRead`] its errors hold the [`CallFailed`].
#[derive(Debug)]
pub struct PathReader {
    live: Arc<Live>,
    path: Path,
    /// What a reader by bytes has left of a piece.
    rest: Bytes,
}

impl PathReader {
    /// The next bytes, not copied; `None` when the path is complete. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`CallFailed`]
    pub async fn next(&mut self) -> Result<Option<Bytes>, CallFailed> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`next`](Self::next).
    ///
    /// # Errors
    ///
    /// [`CallFailed`]
    pub fn poll_next(&mut self, cx: &Context<'_>) -> Poll<Result<Option<Bytes>, CallFailed>> {
        if self.rest.is_empty() {
            self.live.buffer.poll_piece(&self.path, cx)
        } else {
            Poll::Ready(Ok(Some(std::mem::take(&mut self.rest))))
        }
    }

    /// All bytes to the end, joined; what came in one piece is not copied.
    ///
    /// # Errors
    ///
    /// [`CallFailed`]; [`CallFailed::TooLarge`] when they are more than `limit`.
    pub async fn read_to_end(mut self, limit: usize) -> Result<Bytes, CallFailed> {
        let mut first: Option<Bytes> = None;
        let mut joined = BytesMut::new();
        while let Some(piece) = self.next().await? {
            let before = joined.len() + first.as_ref().map_or(0, Bytes::len);
            if before + piece.len() > limit {
                let failed = CallFailed::TooLarge { limit };
                self.live.buffer.fail(failed.clone());
                return Err(failed);
            }
            if let Some(first) = first.take() {
                joined.extend_from_slice(&first);
            }
            if joined.is_empty() {
                first = Some(piece);
            } else {
                joined.extend_from_slice(&piece);
            }
        }
        Ok(first.unwrap_or_else(|| joined.freeze()))
    }
}

impl AsyncRead for PathReader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let Some(mut piece) = ready!(self.poll_next(cx)).map_err(io::Error::other)? else {
            return Poll::Ready(Ok(()));
        };
        let fits = piece.len().min(buf.remaining());
        buf.put_slice(piece.get(..fits).unwrap_or_default());
        piece.advance(fits);
        self.rest = piece;
        Poll::Ready(Ok(()))
    }
}
