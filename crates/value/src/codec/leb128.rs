//! LEB128 integers, as `wrpc-transport` reads and writes them.

/// Appends an unsigned integer in its shortest form.
pub(super) fn write_unsigned(mut value: u64, out: &mut Vec<u8>) {
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            out.push(byte);
            return;
        }
        out.push(byte | 0x80);
    }
}

/// Appends a signed integer in its shortest form.
pub(super) fn write_signed(mut value: i64, out: &mut Vec<u8>) {
    loop {
        let byte = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        let sign = byte & 0x40 != 0;
        if (value == 0 && !sign) || (value == -1 && sign) {
            out.push(byte);
            return;
        }
        out.push(byte | 0x80);
    }
}

/// What one more byte does to an integer that is being read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<T> {
    /// Another byte follows.
    More,
    /// This was the last byte.
    Done(T),
    /// The integer does not fit its width.
    Overflow,
}

/// An unsigned integer of `bits` bits that is being read; `bits` is 16, 32 or 64.
#[derive(Debug)]
pub(super) struct Unsigned {
    value: u64,
    shift: u32,
    bits: u32,
}

impl Unsigned {
    pub(super) const fn new(bits: u32) -> Self {
        Self { value: 0, shift: 0, bits }
    }

    pub(super) fn push(&mut self, byte: u8) -> Step<u64> {
        let room = self.bits.saturating_sub(self.shift);
        if room < 8 && u32::from(byte) >> room != 0 {
            return Step::Overflow;
        }
        self.value |= u64::from(byte & 0x7f) << self.shift;
        if byte & 0x80 == 0 {
            return Step::Done(self.value);
        }
        self.shift += 7;
        Step::More
    }
}

/// A signed integer of `bits` bits that is being read; `bits` is 16, 32 or 64.
#[derive(Debug)]
pub(super) struct Signed {
    value: i64,
    shift: u32,
    bits: u32,
}

impl Signed {
    pub(super) const fn new(bits: u32) -> Self {
        Self { value: 0, shift: 0, bits }
    }

    pub(super) fn push(&mut self, byte: u8) -> Step<i64> {
        let payload = byte & 0x7f;
        let room = self.bits.saturating_sub(self.shift);
        if room < 7 {
            // The last byte: the bits beyond the width repeat the sign, and nothing follows.
            let beyond = payload >> room.saturating_sub(1);
            let all = 0x7f >> room.saturating_sub(1);
            if byte & 0x80 != 0 || (beyond != 0 && beyond != all) {
                return Step::Overflow;
            }
        }
        self.value |= i64::from(payload) << self.shift;
        self.shift += 7;
        if byte & 0x80 != 0 {
            return Step::More;
        }
        if payload & 0x40 != 0 && self.shift < i64::BITS {
            self.value |= -1 << self.shift;
        }
        Step::Done(self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::{Signed, Step, Unsigned, write_signed, write_unsigned};

    fn read_unsigned(bits: u32, bytes: &[u8]) -> Step<u64> {
        let mut integer = Unsigned::new(bits);
        bytes.iter().map(|byte| integer.push(*byte)).find(|step| *step != Step::More).unwrap_or(Step::More)
    }

    fn read_signed(bits: u32, bytes: &[u8]) -> Step<i64> {
        let mut integer = Signed::new(bits);
        bytes.iter().map(|byte| integer.push(*byte)).find(|step| *step != Step::More).unwrap_or(Step::More)
    }

    #[test]
    fn the_ends_of_every_width_are_read_back() {
        for (bits, values) in [
            (16, [0, 127, 128, u64::from(u16::MAX)]),
            (32, [0, 1, 1 << 31, u64::from(u32::MAX)]),
            (64, [0, 1, 1 << 63, u64::MAX]),
        ] {
            for value in values {
                let mut bytes = Vec::new();
                write_unsigned(value, &mut bytes);
                assert_eq!(read_unsigned(bits, &bytes), Step::Done(value), "{value} of {bits}");
            }
        }
        for (bits, values) in [
            (16, [0, -1, i64::from(i16::MIN), i64::from(i16::MAX)]),
            (32, [63, -64, i64::from(i32::MIN), i64::from(i32::MAX)]),
            (64, [64, -65, i64::MIN, i64::MAX]),
        ] {
            for value in values {
                let mut bytes = Vec::new();
                write_signed(value, &mut bytes);
                assert_eq!(read_signed(bits, &bytes), Step::Done(value), "{value} of {bits}");
            }
        }
    }

    #[test]
    fn one_more_than_a_width_holds_overflows() {
        for (bits, value) in [(16, 1 << 16), (32, 1 << 32)] {
            let mut bytes = Vec::new();
            write_unsigned(value, &mut bytes);
            assert_eq!(read_unsigned(bits, &bytes), Step::Overflow);
        }
        for (bits, value) in [(16, 1 << 15), (16, -(1 << 15) - 1), (32, 1 << 31), (32, -(1 << 31) - 1)] {
            let mut bytes = Vec::new();
            write_signed(value, &mut bytes);
            assert_eq!(read_signed(bits, &bytes), Step::Overflow, "{value} of {bits}");
        }
        assert_eq!(read_unsigned(64, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]), Step::Overflow);
        assert_eq!(read_signed(64, &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01]), Step::Overflow);
    }

    #[test]
    fn an_endless_integer_overflows() {
        for bits in [16, 32, 64] {
            assert_eq!(read_unsigned(bits, &[0x80; 11]), Step::Overflow);
            assert_eq!(read_signed(bits, &[0x80; 11]), Step::Overflow);
            assert_eq!(read_signed(bits, &[0xff; 11]), Step::Overflow);
        }
    }

    #[test]
    fn a_longer_form_than_needed_is_read() {
        assert_eq!(read_unsigned(16, &[0x81, 0x80, 0x00]), Step::Done(1));
        assert_eq!(read_unsigned(16, &[0x81, 0x80, 0x80, 0x00]), Step::Overflow);
        assert_eq!(read_signed(16, &[0xff, 0xff, 0x7f]), Step::Done(-1));
    }
}
