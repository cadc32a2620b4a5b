use std::fmt;

use bytes::{BufMut, BytesMut};

use crate::{
    leb::{put_leb, split_leb},
    refusal::Refusal,
};

/// The only protocol version there is (wRPC SPEC, "Framed stream specification").
const VERSION: u8 = 0;

/// The first bytes of an invocation on a framed transport: which function of which instance is called.
///
/// On the wire: version byte 0, then instance and function, each a LEB128 length and UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// The WIT interface, `ns:pkg/iface@version`; empty for functions at the root of a world.
    pub instance: String,
    /// The function's wRPC name: for resources without the kind prefix (`r.m`, not `[method]r.m`).
    pub function: String,
}

/// How long the names of a header may be, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderLimits {
    /// Longest instance name.
    pub instance: u32,
    /// Longest function name.
    pub function: u32,
}

impl HeaderLimits {
    /// The longest header within these limits, in bytes: nobody needs to keep more of a stream to read its header.
    pub fn bytes(&self) -> usize {
        // One version byte and two LEB128 lengths of at most five bytes.
        let names = u64::from(self.instance) + u64::from(self.function);
        usize::try_from(names).unwrap_or(usize::MAX).saturating_add(11)
    }
}

impl Default for HeaderLimits {
    /// 256 bytes of instance and 128 of function: the longest names of the WASI packages take a quarter of that.
    fn default() -> Self {
        Self { instance: 256, function: 128 }
    }
}

/// What [`Header::parse`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// So far nothing is wrong, but more bytes are needed.
    Incomplete,
    /// The whole header.
    Complete {
        /// The header itself.
        header: Header,
        /// How many bytes of the input it took; what follows are frames.
        consumed: usize,
    },
}

/// A name in the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The instance name.
    Instance,
    /// The function name.
    Function,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Instance => "instance",
            Self::Function => "function",
        })
    }
}

/// The peer sent something that is not a header, or too long a one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHeader {
    /// The first byte is not the version this crate speaks.
    #[error("wrpc version byte is `{0}`, expected `0`")]
    Version(u8),
    /// A name's length does not fit in 32 bits.
    #[error("length of the {0} name is no 32-bit LEB128 number")]
    Length(Field),
    /// A name is longer than its limit.
    #[error("{field} name of `{length}` bytes exceeds the limit of {limit}")]
    TooLong {
        /// Which name.
        field: Field,
        /// Its length in bytes, as the peer announced it.
        length: u32,
        /// The limit in bytes.
        limit: u32,
    },
    /// A name is not UTF-8.
    #[error("{0} name is not UTF-8")]
    NotUtf8(Field),
    /// A name holds a control character, a space or another invisible character, which no WIT name does.
    #[error("{field} name holds the character `{}`", .character.escape_unicode())]
    Character {
        /// Which name.
        field: Field,
        /// The first such character.
        character: char,
    },
    /// The function has no name.
    #[error("function name is empty")]
    NoFunction,
}

impl InvalidHeader {
    /// What the peer is told.
    pub const fn refusal(&self) -> Refusal {
        Refusal::MalformedHeader
    }
}

impl Header {
    /// Reads a header from the front of `bytes`, which may hold less or more than it.
    ///
    /// A length over its limit is refused as soon as the length is there; the bytes it announces are not awaited.
    ///
    /// # Errors
    ///
    /// [`InvalidHeader`] when no continuation of `bytes` can be a header within `limits`.
    pub fn parse(bytes: &[u8], limits: &HeaderLimits) -> Result<Parsed, InvalidHeader> {
        let Some((&version, rest)) = bytes.split_first() else {
            return Ok(Parsed::Incomplete);
        };
        if version != VERSION {
            return Err(InvalidHeader::Version(version));
        }
        let Some((instance, rest)) = split_name(rest, Field::Instance, limits.instance)? else {
            return Ok(Parsed::Incomplete);
        };
        let Some((function, rest)) = split_name(rest, Field::Function, limits.function)? else {
            return Ok(Parsed::Incomplete);
        };
        if function.is_empty() {
            return Err(InvalidHeader::NoFunction);
        }
        let header = Self { instance: instance.to_owned(), function: function.to_owned() };
        Ok(Parsed::Complete { header, consumed: bytes.len() - rest.len() })
    }

    /// Appends the header's bytes.
    pub fn encode_into(&self, out: &mut BytesMut) {
        out.reserve(self.instance.len() + self.function.len() + 11);
        out.put_u8(VERSION);
        for name in [&self.instance, &self.function] {
            put_leb(name.len() as u64, out);
            out.put_slice(name.as_bytes());
        }
    }
}

impl fmt::Display for Header {
    /// `instance#function`, as policies name an action.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.instance, self.function)
    }
}

fn split_name(bytes: &[u8], field: Field, limit: u32) -> Result<Option<(&str, &[u8])>, InvalidHeader> {
    let Some((length, rest)) = split_leb(bytes).map_err(|_| InvalidHeader::Length(field))? else {
        return Ok(None);
    };
    if length > limit {
        return Err(InvalidHeader::TooLong { field, length, limit });
    }
    let Some((name, rest)) = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length)) else {
        return Ok(None);
    };
    let name = str::from_utf8(name).map_err(|_| InvalidHeader::NotUtf8(field))?;
    // WIT names are ASCII; other letters are left to exotic servers, but nothing that can forge a line of a log.
    match name.chars().find(|c| !c.is_ascii_graphic() && (c.is_ascii() || !c.is_alphanumeric())) {
        Some(character) => Err(InvalidHeader::Character { field, character }),
        None => Ok(Some((name, rest))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: HeaderLimits = HeaderLimits { instance: 256, function: 128 };

    fn bytes(instance: &[u8], function: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::new();
        out.put_u8(0);
        for name in [instance, function] {
            put_leb(name.len() as u64, &mut out);
            out.put_slice(name);
        }
        out.to_vec()
    }

    fn refused(bytes: &[u8]) -> InvalidHeader {
        Header::parse(bytes, &LIMITS).unwrap_err()
    }

    #[test]
    fn the_header_of_the_specification_is_read() {
        let mut wire = b"\0\x1bacme:billing/invoices@1.0.0\x03get".to_vec();
        wire.extend_from_slice(b"\0\x02hi");
        let header = Header { instance: "acme:billing/invoices@1.0.0".into(), function: "get".into() };
        assert_eq!(header.to_string(), "acme:billing/invoices@1.0.0#get");
        assert_eq!(Header::parse(&wire, &LIMITS), Ok(Parsed::Complete { header, consumed: wire.len() - 4 }));
    }

    #[test]
    fn every_prefix_of_a_header_is_incomplete() {
        let wire = bytes(b"acme:billing/invoices@1.0.0", b"get");
        for end in 0..wire.len() {
            assert_eq!(Header::parse(&wire[..end], &LIMITS), Ok(Parsed::Incomplete), "{end}");
        }
    }

    #[test]
    fn the_longest_names_are_read_and_one_byte_more_is_refused() {
        let longest = bytes(&[b'a'; 256], &[b'b'; 128]);
        assert!(matches!(Header::parse(&longest, &LIMITS), Ok(Parsed::Complete { .. })));
        assert!(longest.len() <= LIMITS.bytes());
        assert_eq!(
            refused(&bytes(&[b'a'; 257], b"f")),
            InvalidHeader::TooLong { field: Field::Instance, length: 257, limit: 256 }
        );
        assert_eq!(
            refused(&bytes(b"a:b/c", &[b'f'; 129])),
            InvalidHeader::TooLong { field: Field::Function, length: 129, limit: 128 }
        );
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_its_bytes_come() {
        assert!(matches!(refused(&[0, 0x80, 0x80, 0x80, 0x80, 0x04]), InvalidHeader::TooLong { .. }));
        assert_eq!(refused(&[0, 0x80, 0x80, 0x80, 0x80, 0x10]), InvalidHeader::Length(Field::Instance));
    }

    #[test]
    fn malformed_headers_are_refused() {
        assert_eq!(refused(&[1]), InvalidHeader::Version(1));
        assert_eq!(refused(&bytes(b"a:b/c", b"")), InvalidHeader::NoFunction);
        assert_eq!(refused(&bytes(b"a:b/\xff", b"f")), InvalidHeader::NotUtf8(Field::Instance));
        for bad in ["a\n", "a\0b", "a b", "a\u{202e}b", "a\u{200b}b", "\u{7f}", "a\u{85}"] {
            let error = refused(&bytes(b"a:b/c", bad.as_bytes()));
            assert!(matches!(error, InvalidHeader::Character { field: Field::Function, .. }), "{bad:?}: {error}");
            assert!(!error.to_string().contains(bad));
        }
    }

    #[test]
    fn a_function_at_the_root_of_a_world_has_an_empty_instance() {
        let Ok(Parsed::Complete { header, .. }) = Header::parse(&bytes(b"", b"run"), &LIMITS) else { panic!() };
        assert_eq!(header.to_string(), "#run");
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_parsed(instance in "[!-~é]{0,128}", function in "[!-~]{1,128}", tail: Vec<u8>) {
            let header = Header { instance, function };
            let mut out = BytesMut::new();
            header.encode_into(&mut out);
            let consumed = out.len();
            out.extend_from_slice(&tail);
            prop_assert_eq!(Header::parse(&out, &LIMITS), Ok(Parsed::Complete { header, consumed }));
        }

        #[test]
        fn any_bytes_get_an_answer(bytes: Vec<u8>) {
            if let Ok(Parsed::Complete { consumed, .. }) = Header::parse(&bytes, &LIMITS) {
                prop_assert!(consumed <= bytes.len());
            }
        }
    }
}
