use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

use crate::{
    frame::{FrameError, FrameLimits, FrameScanner},
    header::{Header, HeaderLimits, InvalidHeader, Parsed},
};

/// Stands between an untrusted stream and `wrpc_transport` 0.29's decoder, which allocates whatever a length says:
/// 25 bytes cost it 1 GiB.
///
/// Bytes pass unchanged, but the last byte of a number that breaks a limit never does: the reader fails instead, now
/// and ever after, with an [`io::Error`] of kind `InvalidData` that holds the [`FrameError`] or [`InvalidHeader`].
#[derive(Debug)]
pub struct LimitedReader<R> {
    inner: R,
    guard: Guard,
    frames: FrameScanner,
}

#[derive(Debug)]
enum Guard {
    /// Some of the header has passed: it is kept until all of it has.
    Header {
        limits: HeaderLimits,
        passed: Vec<u8>,
    },
    Frames,
    Failed(Broken),
}

#[derive(Clone, Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Header(#[from] InvalidHeader),
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl<R> LimitedReader<R> {
    /// For a stream that begins with frames: the reading half of a client, or of a server whose header is read.
    pub const fn frames(inner: R, limits: FrameLimits) -> Self {
        Self { inner, guard: Guard::Frames, frames: FrameScanner::new(limits) }
    }

    /// For a stream that begins with a header: the reading half of a server.
    pub const fn invocation(inner: R, header: HeaderLimits, frames: FrameLimits) -> Self {
        Self { inner, guard: Guard::Header { limits: header, passed: Vec::new() }, frames: FrameScanner::new(frames) }
    }

    /// Whether what has passed ends with a whole frame, or nothing has passed: false at the end of a stream that was cut.
    pub const fn at_boundary(&self) -> bool {
        self.frames.at_boundary()
    }

    /// The stream itself. What is read from it directly escapes the limits.
    pub const fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// The stream itself, limits dropped.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// Judges bytes that have just been read: how many of them may pass, and why no more.
    fn judge(&mut self, bytes: &[u8]) -> (usize, Option<Broken>) {
        let mut frames = 0;
        if let Guard::Header { limits, passed } = &mut self.guard {
            let before = passed.len();
            // No header is longer, so what is beyond need not be looked at.
            passed.extend(bytes.iter().take(limits.bytes().saturating_sub(before)));
            match Header::parse(passed, limits) {
                Ok(Parsed::Incomplete) => return (bytes.len(), None),
                Ok(Parsed::Complete { consumed, .. }) => frames = consumed.saturating_sub(before),
                Err(error) => return (0, Some(error.into())),
            }
            self.guard = Guard::Frames;
        }
        match self.frames.follow(bytes.get(frames..).unwrap_or_default()) {
            Ok(()) => (bytes.len(), None),
            Err((passed, error)) => (frames + passed, Some(error.into())),
        }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for LimitedReader<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Guard::Failed(broken) = &this.guard {
            return Poll::Ready(Err(io::Error::from(broken)));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        let (passed, broken) = this.judge(buf.filled().get(before..).unwrap_or_default());
        let Some(broken) = broken else {
            return Poll::Ready(Ok(()));
        };
        buf.set_filled(before + passed);
        let error = io::Error::from(&broken);
        this.guard = Guard::Failed(broken);
        // What precedes the broken number belongs to the decoder; the error waits for the next read.
        Poll::Ready(if passed == 0 { Err(error) } else { Ok(()) })
    }
}

impl From<&Broken> for io::Error {
    fn from(broken: &Broken) -> Self {
        match broken {
            Broken::Header(error) => Self::new(io::ErrorKind::InvalidData, error.clone()),
            Broken::Frame(error) => Self::new(io::ErrorKind::InvalidData, *error),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::frame::encode_root_frame;

    const LIMITS: FrameLimits = FrameLimits { frame: 100, path: 4, total: 150, frames: 5 };
    const NAMES: HeaderLimits = HeaderLimits { instance: 16, function: 8 };

    /// Yields its bytes in pieces of the given lengths, over and over.
    struct Pieces {
        bytes: Vec<u8>,
        cuts: Vec<usize>,
        next: usize,
    }

    impl AsyncRead for Pieces {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let cut = self.cuts[self.next % self.cuts.len()].min(self.bytes.len()).min(buf.remaining());
            self.next += 1;
            buf.put_slice(&self.bytes.drain(..cut).collect::<Vec<_>>());
            Poll::Ready(Ok(()))
        }
    }

    async fn read(mut reader: LimitedReader<impl AsyncRead + Unpin>) -> (Vec<u8>, Option<io::Error>) {
        let mut out = Vec::new();
        let error = reader.read_to_end(&mut out).await.err();
        if error.is_some() {
            assert!(reader.read(&mut [0; 8]).await.is_err(), "a failed reader must stay failed");
        }
        (out, error)
    }

    fn frame_error(error: Option<&io::Error>) -> Option<FrameError> {
        error?.get_ref()?.downcast_ref().copied()
    }

    #[tokio::test]
    async fn the_last_byte_of_a_number_over_its_limit_never_passes() {
        let good = b"\x02\x05\x07\x03abc\0\x02de";
        for (bad, error) in [
            (&b"\0\x80\x80\x80\x80\x04"[..], FrameError::FrameTooLarge { length: 1 << 30, limit: 100 }),
            (b"\0\x80\x80\x80\x80\x80", FrameError::Number),
            (b"\x85\x80\x80\x80\x00", FrameError::PathTooLong { length: 5, limit: 4 }),
            (b"\x01\x80\x80\x80\x80\x10", FrameError::Number),
        ] {
            let wire = [good, bad, &[0; 19]].concat();
            let (passed, failed) = read(LimitedReader::frames(&wire[..], LIMITS)).await;
            assert_eq!(frame_error(failed.as_ref()), Some(error), "{bad:x?}");
            assert_eq!(passed, [good, &bad[..bad.len() - 1]].concat(), "{bad:x?}");
        }
    }

    #[tokio::test]
    async fn totals_and_counts_are_limited() {
        for (payloads, error) in [
            (vec![100, 51], FrameError::TotalTooLarge { length: 151, limit: 150 }),
            (vec![0; 6], FrameError::TooManyFrames { limit: 5 }),
        ] {
            let mut wire = BytesMut::new();
            payloads.iter().for_each(|length| encode_root_frame(&vec![7; *length], &mut wire));
            let (_, failed) = read(LimitedReader::frames(&wire[..], LIMITS)).await;
            assert_eq!(frame_error(failed.as_ref()), Some(error));
        }
    }

    #[tokio::test]
    async fn a_header_over_its_limits_never_passes() {
        let wire = b"\0\x11acme:billing/longer\x03get\0\0";
        let (passed, failed) = read(LimitedReader::invocation(&wire[..], NAMES, LIMITS)).await;
        assert_eq!(passed, b"");
        let error = failed.as_ref().and_then(|error| error.get_ref()?.downcast_ref::<InvalidHeader>());
        assert!(matches!(error, Some(InvalidHeader::TooLong { length: 17, limit: 16, .. })), "{failed:?}");
    }

    proptest! {
        #[test]
        fn well_formed_bytes_pass_unchanged_in_any_chunking(
            payloads in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..30), 0_u8..4), 0..5),
            cuts in prop::collection::vec(1_usize..50, 1..20),
            buffer in 1_usize..64,
        ) {
            let mut frames = Vec::new();
            for (payload, depth) in &payloads {
                frames.push(*depth);
                frames.extend((0..*depth).map(|index| index * 40));
                frames.push(u8::try_from(payload.len()).unwrap());
                frames.extend(payload);
            }
            let wire = [b"\0\x06a:b/cd\x03get", &frames[..]].concat();
            let pieces = |bytes: &[u8]| Pieces { bytes: bytes.to_vec(), cuts: cuts.clone(), next: 0 };
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            for (mut reader, expected) in [
                (LimitedReader::invocation(pieces(&wire), NAMES, LIMITS), &wire),
                (LimitedReader::frames(pieces(&frames), LIMITS), &frames),
            ] {
                let mut out = Vec::new();
                let mut chunk = vec![0; buffer];
                while let count @ 1.. = runtime.block_on(reader.read(&mut chunk)).unwrap() {
                    out.extend_from_slice(&chunk[..count]);
                }
                prop_assert_eq!(&out, expected);
            }
        }

        #[test]
        fn what_passes_does_not_depend_on_the_chunking(
            wire: Vec<u8>,
            cuts in prop::collection::vec(1_usize..50, 1..20),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (whole, error) = runtime.block_on(read(LimitedReader::frames(&wire[..], LIMITS)));
            let pieces = Pieces { bytes: wire, cuts, next: 0 };
            let (chunked, chunked_error) = runtime.block_on(read(LimitedReader::frames(pieces, LIMITS)));
            prop_assert_eq!(whole, chunked);
            prop_assert_eq!(frame_error(error.as_ref()), frame_error(chunked_error.as_ref()));
        }
    }
}
