use bytes::{BufMut, BytesMut};

/// An unsigned LEB128 number of at most 32 bits, read byte by byte.
///
/// Like every wRPC implementation it takes padded (non-minimal) encodings of up to five bytes.
#[derive(Debug)]
pub(crate) struct Leb {
    value: u32,
    shift: u32,
}

/// The number does not fit in 32 bits or is longer than five bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overflow;

impl Leb {
    pub(crate) const fn new() -> Self {
        Self { value: 0, shift: 0 }
    }

    /// Takes the next byte; returns the number once its last byte came, and is then ready for the next number.
    pub(crate) fn push(&mut self, byte: u8) -> Result<Option<u32>, Overflow> {
        // The fifth byte holds the top four bits; a bit above them, the continuation bit too, does not fit.
        if self.shift == 28 && byte > 0x0f {
            return Err(Overflow);
        }
        self.value |= u32::from(byte & 0x7f) << self.shift;
        if byte & 0x80 != 0 {
            self.shift += 7;
            return Ok(None);
        }
        let value = self.value;
        *self = Self::new();
        Ok(Some(value))
    }
}

/// Reads one number from the front of `bytes`; `None` when its last byte is still missing.
pub(crate) fn split_leb(bytes: &[u8]) -> Result<Option<(u32, &[u8])>, Overflow> {
    let mut leb = Leb::new();
    let mut rest = bytes;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if let Some(value) = leb.push(byte)? {
            return Ok(Some((value, rest)));
        }
    }
    Ok(None)
}

/// Appends `value` in its shortest form.
pub(crate) fn put_leb(mut value: u64, out: &mut BytesMut) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            out.put_u8(low & 0x7f);
            return;
        }
        out.put_u8(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn padded_numbers_of_up_to_five_bytes_are_read() {
        for bytes in [&[0x05][..], &[0x85, 0x00], &[0x85, 0x80, 0x80, 0x80, 0x00]] {
            assert_eq!(split_leb(bytes), Ok(Some((5, &[][..]))), "{bytes:x?}");
        }
    }

    #[test]
    fn numbers_above_32_bits_are_refused() {
        assert_eq!(split_leb(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Ok(Some((u32::MAX, &[][..]))));
        for bytes in [&[0xff, 0xff, 0xff, 0xff, 0x10], &[0x80, 0x80, 0x80, 0x80, 0x80]] {
            assert_eq!(split_leb(bytes), Err(Overflow), "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_put_is_read(value: u32, tail: Vec<u8>) {
            let mut out = BytesMut::new();
            put_leb(u64::from(value), &mut out);
            prop_assert_eq!(split_leb(out.get(..out.len() - 1).unwrap()), Ok(None));
            out.extend_from_slice(&tail);
            prop_assert_eq!(split_leb(&out), Ok(Some((value, &tail[..]))));
        }
    }
}
