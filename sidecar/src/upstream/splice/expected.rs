//! When an answer of plain values is whole: its type says so before the service closes.

use portcullis_transport::{FrameLimits, RootFrames};
use portcullis_value::{DecodeError, FunctionType, Limits};

/// Longer answers are waited for to their end: to decode one costs more than it saves.
const LONGEST: usize = 64 * 1024;
/// How often an answer is tried before its end is waited for, as a flood of tiny frames must not cost a decoding each.
const ATTEMPTS: u32 = 16;

/// What a call is answered with.
#[derive(Debug)]
pub(crate) struct Expected<'t> {
    ty: &'t FunctionType,
    pub(super) frames: FrameLimits,
    values: Limits,
    attempts: u32,
    /// Bytes below which it cannot be whole.
    wanted: usize,
}

impl<'t> Expected<'t> {
    pub(crate) fn new(ty: &'t FunctionType, frames: FrameLimits, values: Limits) -> Self {
        // Without a result only the end says that the call was carried out.
        let attempts = if ty.result.is_some() { ATTEMPTS } else { 0 };
        Self { ty, frames, values, attempts, wanted: 0 }
    }

    /// Whether what has come is the result, with nothing behind it. Otherwise the service's end says what it is.
    pub(super) fn is_whole(&mut self, frames: &RootFrames) -> bool {
        let payload = frames.payload();
        let may_be = frames.frames() > 0 && frames.at_boundary() && (self.wanted..=LONGEST).contains(&payload.len());
        if self.attempts == 0 || !may_be {
            return false;
        }
        match portcullis_value::decode_result(self.ty, payload, &self.values) {
            Ok(_) => true,
            Err(DecodeError::Incomplete { more }) => {
                self.attempts -= 1;
                self.wanted = payload.len().saturating_add(more);
                false
            }
            Err(DecodeError::Malformed { .. } | DecodeError::Trailing { .. } | DecodeError::TooLarge(_)) => {
                self.attempts = 0;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use portcullis_transport::encode_root_frame;
    use portcullis_value::{Type, Value};

    use super::*;

    fn answer(result: Option<Type>) -> FunctionType {
        FunctionType { params: Vec::new(), result }
    }

    fn framed(payload: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        encode_root_frame(payload, &mut out);
        out
    }

    /// After which byte of `wire` the answer is taken for whole.
    fn whole_after(ty: &FunctionType, wire: &[u8]) -> Option<usize> {
        let mut expected = Expected::new(ty, FrameLimits::default(), Limits::default());
        let mut frames = RootFrames::new(expected.frames);
        (1..=wire.len()).find(|end| {
            frames.push(bytes::Bytes::copy_from_slice(&wire[end - 1..*end])).unwrap();
            expected.is_whole(&frames)
        })
    }

    #[test]
    fn an_answer_is_whole_with_the_last_byte_of_its_result() {
        let ty = answer(Some(Type::String));
        let mut payload = Vec::new();
        portcullis_value::encode_result(&ty, Some(&Value::String("seven".into())), &mut payload).unwrap();
        let wire = framed(&payload);
        assert_eq!(whole_after(&ty, &wire), Some(wire.len()));
        let (front, back) = payload.split_at(3);
        let mut wire = framed(front);
        wire.extend_from_slice(&framed(back));
        assert_eq!(whole_after(&ty, &wire), Some(wire.len()));
    }

    #[test]
    fn what_is_no_result_is_waited_for_to_its_end() {
        // Nothing says that it was carried out, but the end.
        assert_eq!(whole_after(&answer(None), &framed(b"")), None);
        let flag = answer(Some(Type::Bool));
        for payload in [&b""[..], b"\x02", b"\x01\x01"] {
            assert_eq!(whole_after(&flag, &framed(payload)), None, "{payload:?}");
        }
        let text = answer(Some(Type::String));
        let mut long = Vec::new();
        let value = Value::String("x".repeat(LONGEST));
        portcullis_value::encode_result(&text, Some(&value), &mut long).unwrap();
        let mut expected = Expected::new(&text, FrameLimits::default(), Limits::default());
        let mut frames = RootFrames::new(expected.frames);
        frames.push(framed(&long).freeze()).unwrap();
        assert!(!expected.is_whole(&frames));
    }
}
