use crate::leb::Leb;

use super::{FrameError, FrameLimits};

/// Follows a sequence of frames that somebody else decodes: says which bytes are payload and refuses a number the
/// moment it breaks a limit, so that its last byte goes no further.
///
/// A frame is: number of indices, that many indices, payload length (LEB128 each), payload.
#[derive(Debug)]
pub struct FrameScanner {
    limits: FrameLimits,
    leb: Leb,
    state: State,
    frames: u64,
    total: u64,
}

#[derive(Debug, PartialEq)]
enum State {
    /// Nothing of the next frame has come.
    Boundary,
    PathLength,
    Path {
        left: u32,
    },
    Length,
    Payload {
        left: usize,
    },
}

impl FrameScanner {
    /// Before the first frame.
    pub const fn new(limits: FrameLimits) -> Self {
        Self { limits, leb: Leb::new(), state: State::Boundary, frames: 0, total: 0 }
    }

    /// Follows the next bytes of the stream, in any chunks.
    ///
    /// # Errors
    ///
    /// The first rule broken, and how many of the bytes may still pass. Nothing after them can be followed.
    pub fn follow(&mut self, bytes: &[u8]) -> Result<(), (usize, FrameError)> {
        let mut rest = bytes;
        while let Some((&byte, tail)) = rest.split_first() {
            let run = self.payload_left().min(rest.len());
            if run > 0 {
                self.skip_payload(run);
                rest = rest.get(run..).unwrap_or_default();
                continue;
            }
            if let Err(error) = self.head_byte(byte) {
                return Err((bytes.len() - rest.len(), error));
            }
            rest = tail;
        }
        Ok(())
    }

    /// How many of the next bytes are payload; 0 where the next byte belongs to a frame's head.
    pub(crate) const fn payload_left(&self) -> usize {
        match self.state {
            State::Payload { left } => left,
            State::Boundary | State::PathLength | State::Path { .. } | State::Length => 0,
        }
    }

    /// Says that the next `count` bytes came; at most [`Self::payload_left`].
    pub(crate) fn skip_payload(&mut self, count: usize) {
        self.state = match self.payload_left().saturating_sub(count) {
            0 => State::Boundary,
            left => State::Payload { left },
        };
    }

    /// Takes the next byte of a frame's head; returns an index of the frame's path where it is complete.
    pub(crate) fn head_byte(&mut self, byte: u8) -> Result<Option<u32>, FrameError> {
        if self.state == State::Boundary {
            self.frames = self.frames.saturating_add(1);
            if self.frames > self.limits.frames {
                return Err(FrameError::TooManyFrames { limit: self.limits.frames });
            }
            self.state = State::PathLength;
        }
        let Some(number) = self.leb.push(byte).map_err(|_| FrameError::Number)? else {
            return Ok(None);
        };
        let index = matches!(self.state, State::Path { .. }).then_some(number);
        self.state = match self.state {
            State::Boundary | State::PathLength => self.path_of(number)?,
            State::Path { left: 0 | 1 } => State::Length,
            State::Path { left } => State::Path { left: left - 1 },
            State::Length | State::Payload { .. } => self.payload_of(number)?,
        };
        Ok(index)
    }

    pub(crate) const fn frames(&self) -> u64 {
        self.frames
    }

    /// True between two frames, where a stream may end.
    pub const fn at_boundary(&self) -> bool {
        matches!(self.state, State::Boundary)
    }

    fn path_of(&self, length: u32) -> Result<State, FrameError> {
        let limit = self.limits.path;
        match length {
            0 => Ok(State::Length),
            _ if limit == 0 => Err(FrameError::Nested(length)),
            _ if length > limit => Err(FrameError::PathTooLong { length, limit }),
            _ => Ok(State::Path { left: length }),
        }
    }

    fn payload_of(&mut self, length: u32) -> Result<State, FrameError> {
        let limit = self.limits.frame;
        if length > limit {
            return Err(FrameError::FrameTooLarge { length, limit });
        }
        self.total = self.total.saturating_add(u64::from(length));
        if self.total > self.limits.total {
            return Err(FrameError::TotalTooLarge { length: self.total, limit: self.limits.total });
        }
        let left = usize::try_from(length).map_err(|_| FrameError::Number)?;
        Ok(if left == 0 { State::Boundary } else { State::Payload { left } })
    }
}
