use bytes::{Buf as _, Bytes, BytesMut};

use super::{FrameError, FrameLimits, FrameScanner};
use crate::leb::put_leb;

/// Takes the frames of a call with streams apart: which bytes belong to which path. Where frames begin and end carries no
/// meaning, so that a piece is passed on as soon as it came.
///
/// A pure machine, which holds nothing but one path; no payload is copied.
#[derive(Debug)]
pub struct PathFrames {
    scanner: FrameScanner,
    path: Vec<u32>,
}

impl PathFrames {
    /// No frames yet.
    pub const fn new(limits: FrameLimits) -> Self {
        Self { scanner: FrameScanner::new(limits), path: Vec::new() }
    }

    /// The next piece at the front of `chunk`, which is never empty; [`path`](Self::path) says whose it is. `None` where
    /// the chunk is used up.
    ///
    /// # Errors
    ///
    /// The first rule broken. After an error nothing further can be read.
    pub fn next(&mut self, chunk: &mut Bytes) -> Result<Option<Bytes>, FrameError> {
        while chunk.has_remaining() {
            let run = self.scanner.payload_left().min(chunk.len());
            if run > 0 {
                self.scanner.skip_payload(run);
                return Ok(Some(chunk.split_to(run)));
            }
            if self.scanner.at_boundary() {
                self.path.clear();
            }
            if let Some(index) = self.scanner.head_byte(chunk.get_u8())? {
                self.path.push(index);
            }
        }
        Ok(None)
    }

    /// The path of the frame that was followed last.
    pub fn path(&self) -> &[u32] {
        &self.path
    }

    /// How many frames have begun, empty ones too.
    pub const fn frames(&self) -> u64 {
        self.scanner.frames()
    }

    /// True between two frames, where a stream may end.
    pub const fn at_boundary(&self) -> bool {
        self.scanner.at_boundary()
    }
}

/// Appends what precedes a payload of `length` bytes in a frame of `path`.
pub fn encode_frame_head(path: &[u32], length: usize, out: &mut BytesMut) {
    out.reserve(path.len().saturating_add(2).saturating_mul(5));
    put_leb(path.len() as u64, out);
    for index in path {
        put_leb(u64::from(*index), out);
    }
    put_leb(length as u64, out);
}

#[cfg(test)]
mod tests {
    use bytes::BufMut as _;
    use proptest::prelude::*;

    use super::*;

    /// A path, and bytes of it.
    type Part = (Vec<u32>, Vec<u8>);

    fn apart(wire: &[u8], cut: usize) -> Result<Vec<Part>, FrameError> {
        let mut frames = PathFrames::new(FrameLimits::default());
        let mut pieces: Vec<Part> = Vec::new();
        for chunk in wire.chunks(cut) {
            let mut chunk = Bytes::copy_from_slice(chunk);
            while let Some(piece) = frames.next(&mut chunk)? {
                assert!(!piece.is_empty());
                match pieces.last_mut() {
                    Some((path, bytes)) if path == frames.path() => bytes.extend_from_slice(&piece),
                    Some(_) | None => pieces.push((frames.path().to_vec(), piece.to_vec())),
                }
            }
        }
        assert!(frames.at_boundary());
        Ok(pieces)
    }

    #[test]
    fn a_path_that_is_too_long_goes_no_further() {
        let limits = FrameLimits { path: 2, ..FrameLimits::default() };
        let error = PathFrames::new(limits).next(&mut Bytes::from_static(&[3, 0, 0, 0, 1, 7])).unwrap_err();
        assert_eq!(error, FrameError::PathTooLong { length: 3, limit: 2 });
    }

    proptest! {
        #[test]
        fn what_is_put_together_comes_apart(
            parts in prop::collection::vec((prop::collection::vec(any::<u32>(), 0..5), prop::collection::vec(any::<u8>(), 0..40)), 0..8),
            cut in 1_usize..50,
        ) {
            let mut wire = BytesMut::new();
            let mut expected: Vec<Part> = Vec::new();
            for (path, payload) in parts {
                encode_frame_head(&path, payload.len(), &mut wire);
                wire.put_slice(&payload);
                match expected.last_mut() {
                    _ if payload.is_empty() => {}
                    Some((last, bytes)) if *last == path => bytes.extend_from_slice(&payload),
                    Some(_) | None => expected.push((path, payload)),
                }
            }
            prop_assert_eq!(apart(&wire, cut).unwrap(), expected);
        }
    }
}
