mod paths;
mod scanner;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{leb::put_leb, refusal::Refusal};

pub use paths::{PathFrames, encode_frame_head};
pub use scanner::FrameScanner;

/// How much room a payload that comes in several pieces is given beyond what has arrived, in bytes. A peer that only
/// announces a length costs no more than this.
const AHEAD: usize = 16 * 1024;

/// What the frames of one direction of one call may amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// Longest payload of one frame, in bytes.
    pub frame: u32,
    /// Longest path of a frame, in indices: how deep streams and futures may nest. With 0, as [`RootFrames`] has it,
    /// a path is [`FrameError::Nested`].
    pub path: u32,
    /// Sum of all payloads, in bytes.
    pub total: u64,
    /// Number of frames, so that a flood of empty ones ends too.
    pub frames: u64,
}

impl Default for FrameLimits {
    /// 4 MiB per frame and in all (what `portcullis-value` decodes), paths of 16, 16 384 frames (256 bytes each when
    /// they add up to 4 MiB).
    fn default() -> Self {
        Self { frame: 4 << 20, path: 16, total: 4 << 20, frames: 16_384 }
    }
}

/// The peer's frames are malformed or exceed a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A path length, index or payload length does not fit in 32 bits.
    #[error("number in a frame is no 32-bit LEB128 number")]
    Number,
    /// A frame of a nested value where the function has none.
    #[error("frame has a path of {0} indices, but the function has no stream or future")]
    Nested(u32),
    /// A path is longer than its limit.
    #[error("frame path of {length} indices exceeds the limit of {limit}")]
    PathTooLong {
        /// Indices announced.
        length: u32,
        /// The limit, in indices.
        limit: u32,
    },
    /// A frame is longer than its limit.
    #[error("frame of {length} bytes exceeds the limit of {limit}")]
    FrameTooLarge {
        /// Bytes announced.
        length: u32,
        /// The limit, in bytes.
        limit: u32,
    },
    /// All frames together are longer than their limit.
    #[error("frames of {length} bytes exceed the limit of {limit} in all")]
    TotalTooLarge {
        /// Bytes announced by all frames so far.
        length: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// There are more frames than the limit allows.
    #[error("more than {limit} frames")]
    TooManyFrames {
        /// The limit, in frames.
        limit: u64,
    },
    /// The stream ended inside a frame.
    #[error("stream ended inside a frame")]
    Truncated,
}

impl FrameError {
    /// What the peer is told.
    pub const fn refusal(&self) -> Refusal {
        match self {
            Self::FrameTooLarge { .. } | Self::TotalTooLarge { .. } | Self::TooManyFrames { .. } => Refusal::TooLarge,
            Self::Number | Self::Nested(_) | Self::PathTooLong { .. } | Self::Truncated => Refusal::MalformedValue,
        }
    }
}

/// Joins the frames of a function that takes or returns plain values: every frame is a root frame (empty path), and
/// frame boundaries carry no meaning.
///
/// A pure machine: give it the bytes of the stream as they come, in any chunks. The payload of one frame in one chunk
/// is never copied. Memory stays within what arrived, times two, plus 16 KiB, whatever lengths the peer announces.
#[derive(Debug)]
pub struct RootFrames {
    scanner: FrameScanner,
    payload: Payload,
}

#[derive(Debug)]
enum Payload {
    Whole(Bytes),
    Joined(BytesMut),
}

impl RootFrames {
    /// No frames yet. `limits.path` does not count here: any path is refused.
    pub const fn new(limits: FrameLimits) -> Self {
        Self { scanner: FrameScanner::new(FrameLimits { path: 0, ..limits }), payload: Payload::Whole(Bytes::new()) }
    }

    /// Takes the next bytes of the stream.
    ///
    /// # Errors
    ///
    /// The first rule broken. A length over its limit is refused as soon as it is known. After an error nothing
    /// further can be read.
    pub fn push(&mut self, mut chunk: Bytes) -> Result<(), FrameError> {
        while chunk.has_remaining() {
            let run = self.scanner.payload_left().min(chunk.len());
            if run == 0 {
                self.scanner.head_byte(chunk.get_u8())?;
                continue;
            }
            self.append(chunk.split_to(run));
            self.scanner.skip_payload(run);
        }
        Ok(())
    }

    /// The payload so far, all frames joined. It may grow until the stream ends.
    pub fn payload(&self) -> &[u8] {
        match &self.payload {
            Payload::Whole(bytes) => bytes,
            Payload::Joined(bytes) => bytes,
        }
    }

    /// How many frames have begun, empty ones too. A result without a single frame is a callee that gave up.
    pub const fn frames(&self) -> u64 {
        self.scanner.frames()
    }

    /// True between two frames, where a stream may end.
    pub const fn at_boundary(&self) -> bool {
        self.scanner.at_boundary()
    }

    /// The payload so far, without a copy, whether or not the last frame is complete: for callers that know by the
    /// type that it is.
    pub fn into_payload(self) -> Bytes {
        match self.payload {
            Payload::Whole(bytes) => bytes,
            Payload::Joined(bytes) => bytes.freeze(),
        }
    }

    /// The payload once the stream has ended.
    ///
    /// # Errors
    ///
    /// [`FrameError::Truncated`] when it ended inside a frame.
    pub fn finish(self) -> Result<Bytes, FrameError> {
        if self.at_boundary() { Ok(self.into_payload()) } else { Err(FrameError::Truncated) }
    }

    fn append(&mut self, part: Bytes) {
        match &mut self.payload {
            Payload::Whole(whole) if whole.is_empty() => *whole = part,
            Payload::Whole(whole) => {
                let ahead = self.scanner.payload_left().min(AHEAD);
                let mut joined = BytesMut::with_capacity(whole.len() + part.len().max(ahead));
                joined.put_slice(whole);
                joined.put_slice(&part);
                self.payload = Payload::Joined(joined);
            }
            Payload::Joined(joined) => joined.put_slice(&part),
        }
    }
}

impl Default for RootFrames {
    fn default() -> Self {
        Self::new(FrameLimits::default())
    }
}

/// Appends one root frame that carries `payload`.
pub fn encode_root_frame(payload: &[u8], out: &mut BytesMut) {
    out.reserve(payload.len().saturating_add(6));
    encode_root_frame_head(payload.len(), out);
    out.put_slice(payload);
}

/// Appends what precedes a payload of `length` bytes in a root frame, for a payload that is written after it without
/// a copy. No peer accepts a frame of 4 GiB or more.
pub fn encode_root_frame_head(length: usize, out: &mut BytesMut) {
    out.put_u8(0);
    put_leb(length as u64, out);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SMALL: FrameLimits = FrameLimits { frame: 100, path: 4, total: 150, frames: 3 };

    fn frames(payloads: &[&[u8]]) -> Bytes {
        let mut out = BytesMut::new();
        for payload in payloads {
            encode_root_frame(payload, &mut out);
        }
        out.freeze()
    }

    fn pushed(limits: FrameLimits, wire: impl Into<Bytes>) -> Result<RootFrames, FrameError> {
        let mut frames = RootFrames::new(limits);
        frames.push(wire.into()).map(|()| frames)
    }

    #[test]
    fn one_frame_is_not_copied() {
        let wire = frames(&[b"payload"]);
        let inside = wire.as_ptr_range();
        let payload = pushed(SMALL, wire).unwrap().finish().unwrap();
        assert_eq!(payload, "payload");
        assert!(inside.contains(&payload.as_ptr()));
    }

    #[test]
    fn frame_boundaries_carry_no_meaning() {
        let joined = pushed(SMALL, frames(&[b"pay", b"", b"load"])).unwrap();
        assert_eq!((joined.payload(), joined.frames()), (&b"payload"[..], 3));
        assert_eq!(joined.finish().unwrap(), "payload");
    }

    #[test]
    fn a_stream_that_ends_inside_a_frame_is_truncated() {
        let wire = frames(&[b"payload"]);
        for end in 1..wire.len() {
            let part = pushed(SMALL, wire.slice(..end)).unwrap();
            assert!(!part.at_boundary());
            assert_eq!(part.finish(), Err(FrameError::Truncated), "{end}");
        }
        assert_eq!(RootFrames::default().finish().unwrap(), "");
    }

    #[test]
    fn nested_frames_are_refused() {
        assert_eq!(pushed(SMALL, &[1, 0, 0][..]).unwrap_err(), FrameError::Nested(1));
        assert_eq!(FrameError::Nested(1).refusal(), Refusal::MalformedValue);
    }

    #[test]
    fn every_limit_holds_to_the_byte() {
        assert!(pushed(SMALL, frames(&[&[7; 100], &[7; 50]])).is_ok());
        for (wire, error) in [
            (frames(&[&[7; 101]]), FrameError::FrameTooLarge { length: 101, limit: 100 }),
            (frames(&[&[7; 100], &[7; 51]]), FrameError::TotalTooLarge { length: 151, limit: 150 }),
            (frames(&[&[], &[], &[], &[]]), FrameError::TooManyFrames { limit: 3 }),
        ] {
            assert_eq!(pushed(SMALL, wire).unwrap_err(), error);
            assert_eq!(error.refusal(), Refusal::TooLarge);
        }
        assert_eq!(pushed(SMALL, &[0, 0xff, 0xff, 0xff, 0xff, 0x1f][..]).unwrap_err(), FrameError::Number);
    }

    #[test]
    fn a_length_announced_in_25_bytes_costs_next_to_nothing() {
        let unlimited = FrameLimits { frame: u32::MAX, path: 0, total: u64::MAX, frames: u64::MAX };
        // 1 GiB is announced, 19 bytes come, one by one.
        let mut probe = vec![0, 0x80, 0x80, 0x80, 0x80, 0x04];
        probe.extend_from_slice(&[0; 19]);
        let mut frames = RootFrames::new(unlimited);
        for byte in probe.clone() {
            frames.push(Bytes::copy_from_slice(&[byte])).unwrap();
        }
        let Payload::Joined(joined) = &frames.payload else { panic!("{frames:?}") };
        assert!(joined.capacity() <= 2 * AHEAD, "{}", joined.capacity());
        let refused = pushed(FrameLimits::default(), probe).unwrap_err();
        assert_eq!(refused, FrameError::FrameTooLarge { length: 1 << 30, limit: 4 << 20 });
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_payload(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8),
            cuts in prop::collection::vec(1_usize..20, 1..40),
        ) {
            let limits = FrameLimits { frames: 100, total: 1000, ..SMALL };
            let slices: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
            let mut wire = frames(&slices);
            let mut joined = RootFrames::new(limits);
            for cut in cuts.iter().cycle() {
                if wire.is_empty() { break; }
                joined.push(wire.split_to(wire.len().min(*cut))).unwrap();
            }
            prop_assert_eq!(joined.frames(), payloads.len() as u64);
            prop_assert_eq!(joined.finish().unwrap(), payloads.concat());
        }

        #[test]
        fn any_bytes_get_an_answer_that_chunking_does_not_change(wire: Vec<u8>) {
            let whole = pushed(SMALL, wire.clone()).map(RootFrames::into_payload);
            let mut bytewise = RootFrames::new(SMALL);
            let outcome = wire.iter().try_for_each(|byte| bytewise.push(Bytes::copy_from_slice(&[*byte])));
            prop_assert_eq!(whole, outcome.map(|()| bytewise.into_payload()));
        }
    }
}
