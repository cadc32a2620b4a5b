//! Lets clients speak gRPC over a Unix socket although they send an `:authority` that HTTP does not know.
//!
//! Clients on the gRPC C core (Python, C++, Ruby: `tmp%2Fapi.sock`) and on Java (`/tmp/api.sock`) name the socket's path there. The `h2` crate
//! answers with RST_STREAM(PROTOCOL_ERROR) before any service sees the request (hyperium/h2#487), and such a client only says that it timed
//! out. What the client sends is therefore read here first, and each byte of such a value that is illegal becomes a `-`, in place. No length
//! changes, so the header compression of both sides (RFC 7541) stays in step: an entry of the dynamic table keeps its size and position.
//!
//! Everything else passes untouched, also what is not understood: `h2` judges it. So does a Huffman-coded value, which no known client
//! sends here, and a field that begins after a header block's first frame: pseudo-header fields come first (RFC 9113 §8.3).

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use http::uri::Authority;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// The client's first bytes (RFC 9113 §3.4) are no frame.
const PREFACE: usize = 24;
/// Length of a frame's own header.
const FRAME_HEADER: usize = 9;
/// The largest frame a server accepts that announced no other limit; a longer one is not held back, the server refuses it.
const MAX_FRAME: usize = 16_384;
/// Bytes read at a time.
const READ: usize = 8192;

const HEADERS: u8 = 0x1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// A stream on which the peer is an HTTP/2 client, with every `:authority` made legal. See the module.
#[derive(Debug)]
pub struct LegalAuthority<T> {
    io: T,
    frames: Frames,
}

impl<T> LegalAuthority<T> {
    /// Wraps a fresh connection: the first bytes must be the client's preface.
    #[must_use]
    pub fn new(io: T) -> Self {
        Self { io, frames: Frames::new() }
    }

    /// The stream within.
    #[must_use]
    pub fn get_ref(&self) -> &T {
        &self.io
    }
}

/// All that a client sends on one connection, with every `:authority` made legal: what [`LegalAuthority`] lets through, for tests and
/// fuzzing. The result is as long as the input.
#[must_use]
pub fn with_legal_authority(sent: &[u8]) -> Vec<u8> {
    let mut frames = Frames::new();
    frames.push(sent);
    frames.end();
    frames.ready.to_vec()
}

/// Cuts what a client sends into frames; only HEADERS are held until they are whole.
#[derive(Debug)]
struct Frames {
    /// Not looked at yet: less than one HEADERS frame, and at most one reading more.
    held: BytesMut,
    /// To be given on.
    ready: BytesMut,
    /// Bytes that pass as they are: the rest of the preface or of a frame.
    pass: usize,
}

impl Frames {
    fn new() -> Self {
        Self { held: BytesMut::new(), ready: BytesMut::new(), pass: PREFACE }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        loop {
            let passing = self.pass.min(self.held.len());
            self.pass -= passing;
            self.ready.extend_from_slice(&self.held.split_to(passing));
            let Some(frame) = next_frame(&self.held) else { return };
            if frame.kind == HEADERS && frame.length <= MAX_FRAME {
                let Some(payload) = self.held.get_mut(FRAME_HEADER..FRAME_HEADER + frame.length) else { return };
                if let Some(block) = header_block(payload, frame.flags) {
                    legalise(block);
                }
            }
            self.pass = FRAME_HEADER + frame.length;
        }
    }

    /// The client sends nothing more: what is held passes as it is.
    fn end(&mut self) {
        let rest = self.held.split();
        self.ready.extend_from_slice(&rest);
    }
}

struct Frame {
    length: usize,
    kind: u8,
    flags: u8,
}

fn next_frame(bytes: &[u8]) -> Option<Frame> {
    let [a, b, c, kind, flags, _, _, _, _] = *bytes.first_chunk::<FRAME_HEADER>()?;
    let length = (usize::from(a) << 16) | (usize::from(b) << 8) | usize::from(c);
    Some(Frame { length, kind, flags })
}

/// The field block of a HEADERS frame's payload, without padding and priority (RFC 9113 §6.2).
fn header_block(payload: &mut [u8], flags: u8) -> Option<&mut [u8]> {
    let mut start = 0;
    let mut end = payload.len();
    if flags & PADDED != 0 {
        end = end.checked_sub(usize::from(*payload.first()?))?;
        start += 1;
    }
    if flags & PRIORITY != 0 {
        start += 5;
    }
    payload.get_mut(start..end)
}

/// Walks a field block (RFC 7541 §6) and makes raw `:authority` values legal.
fn legalise(block: &mut [u8]) {
    let mut at = 0;
    // Ends at the first thing that is not understood.
    while let Some(value) = next_authority(block, &mut at) {
        if let Some(value) = block.get_mut(value)
            && Authority::try_from(&*value).is_err()
        {
            for byte in value.iter_mut().filter(|byte| !is_plain(**byte)) {
                *byte = b'-';
            }
        }
    }
}

/// What may stand anywhere in an authority.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}

/// Where the next raw value of an `:authority` field stands.
fn next_authority(block: &[u8], at: &mut usize) -> Option<Range<usize>> {
    loop {
        let name = match block.get(*at)? {
            // An indexed field, §6.1.
            0x80.. => {
                integer(block, at, 7)?;
                continue;
            }
            // A literal that enters the table, §6.2.1.
            0x40.. => integer(block, at, 6)?,
            // A new size of the table, §6.3.
            0x20.. => {
                integer(block, at, 5)?;
                continue;
            }
            // Literals that do not enter it, §6.2.2 and §6.2.3.
            _ => integer(block, at, 4)?,
        };
        let is_authority = if name == 0 {
            let Text { huffman, range } = text(block, at)?;
            !huffman && block.get(range)? == b":authority"
        } else {
            name == 1
        };
        let Text { huffman, range } = text(block, at)?;
        if is_authority && !huffman {
            return Some(range);
        }
    }
}

/// An integer with a prefix of so many bits, §5.1.
fn integer(block: &[u8], at: &mut usize, prefix: u32) -> Option<usize> {
    let mask = (1_usize << prefix) - 1;
    let mut value = usize::from(*block.get(*at)?) & mask;
    *at += 1;
    if value < mask {
        return Some(value);
    }
    // Four bytes say more than a frame can hold.
    for shift in [0, 7, 14, 21] {
        let byte = usize::from(*block.get(*at)?);
        *at += 1;
        value += (byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

struct Text {
    huffman: bool,
    range: Range<usize>,
}

/// A string literal, §5.2.
fn text(block: &[u8], at: &mut usize) -> Option<Text> {
    let huffman = *block.get(*at)? & 0x80 != 0;
    let length = integer(block, at, 7)?;
    let range = *at..at.checked_add(length)?;
    if range.end > block.len() {
        return None;
    }
    *at = range.end;
    Some(Text { huffman, range })
}

impl<T: AsyncRead + Unpin> AsyncRead for LegalAuthority<T> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { io, frames } = self.get_mut();
        loop {
            if !frames.ready.is_empty() {
                let length = frames.ready.len().min(buffer.remaining());
                buffer.put_slice(frames.ready.get(..length).unwrap_or_default());
                frames.ready.advance(length);
                return Poll::Ready(Ok(()));
            }
            let mut bytes = [0; READ];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut *io).poll_read(context, &mut read))?;
            if read.filled().is_empty() {
                frames.end();
                if frames.ready.is_empty() {
                    return Poll::Ready(Ok(()));
                }
            } else {
                frames.push(read.filled());
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for LegalAuthority<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

impl<T: Connected> Connected for LegalAuthority<T> {
    type ConnectInfo = T::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.io.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        bytes.extend_from_slice(payload);
        bytes
    }

    fn sent(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        frames.iter().for_each(|frame| bytes.extend_from_slice(frame));
        bytes
    }

    /// A literal, raw: with an index of the static table or a name of its own.
    fn literal(first: u8, name: Option<&str>, value: &str) -> Vec<u8> {
        let mut bytes = vec![first];
        for text in name.into_iter().chain([value]) {
            assert!(text.len() < 127);
            bytes.push(u8::try_from(text.len()).unwrap());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes
    }

    fn after(block: &[u8]) -> Vec<u8> {
        let mut block = block.to_vec();
        legalise(&mut block);
        block
    }

    #[test]
    fn a_socket_path_becomes_a_legal_authority_of_the_same_length() {
        for (path, legal) in [
            ("tmp%2Fapi.sock", "tmp-2Fapi.sock"),
            ("/run/portcullis/api.sock", "-run-portcullis-api.sock"),
            ("%", "-"),
            ("a b@c:d", "a-b-c-d"),
        ] {
            for (first, name) in
                [(0x41, None), (0x01, None), (0x11, None), (0x40, Some(":authority")), (0, Some(":authority"))]
            {
                assert_eq!(after(&literal(first, name, path)), literal(first, name, legal), "{first:x} {path}");
            }
            assert!(Authority::try_from(legal).is_ok());
        }
    }

    #[test]
    fn legal_authorities_and_other_fields_stay() {
        for authority in ["localhost", "127.0.0.1:80", "[::1]:443", "user@host", "broker.portcullis"] {
            let block = literal(0x41, None, authority);
            assert_eq!(after(&block), block);
        }
        let block = [vec![0x82, 0x3f, 0xe1, 0x1f], literal(0x44, None, "/SpiffeWorkloadAPI/FetchX509SVID")].concat();
        assert_eq!(after(&block), block);
        let block = literal(0x40, Some("x"), "a/b");
        assert_eq!(after(&block), block);
    }

    #[test]
    fn fields_before_and_after_do_not_hide_it() {
        let path = literal(0x44, None, "/S/M");
        let block =
            [vec![0x83, 0x86], path.clone(), literal(0x41, None, "a%2Fb"), literal(0x40, Some("x"), "y/z")].concat();
        let legal = [vec![0x83, 0x86], path, literal(0x41, None, "a-2Fb"), literal(0x40, Some("x"), "y/z")].concat();
        assert_eq!(after(&block), legal);
    }

    #[test]
    fn what_is_not_understood_is_left_to_the_server() {
        let huffman = [0x41, 0x82, 0x1f, 0x1f];
        assert_eq!(after(&huffman), huffman);
        // Cut short, an endless integer, a length beyond the block.
        for block in [&[0x41][..], &[0x41, 0x05, b'/'], &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff], &[0x41, 0x7f, 0xff]] {
            assert_eq!(after(block), block);
        }
    }

    #[test]
    fn padding_and_priority_are_stepped_over() {
        let block = literal(0x41, None, "a/b");
        let legal = literal(0x41, None, "a-b");
        let payload = |block: &[u8]| [&[2, 0, 0, 0, 0, 7], block, b"//"].concat();
        let before = sent(&[frame(HEADERS, PADDED | PRIORITY | 0x4, &payload(&block))]);
        assert_eq!(with_legal_authority(&before), sent(&[frame(HEADERS, PADDED | PRIORITY | 0x4, &payload(&legal))]));
        let lying = sent(&[frame(HEADERS, PADDED, &[255, 0x41, 1, b'/'])]);
        assert_eq!(with_legal_authority(&lying), lying);
    }

    #[test]
    fn only_headers_are_looked_at_and_only_of_a_lawful_length() {
        let block = literal(0x41, None, "a/b");
        let data = sent(&[frame(0, 0, &block), frame(9, 0, &block)]);
        assert_eq!(with_legal_authority(&data), data);
        let mut long = block;
        long.resize(MAX_FRAME + 1, 0x82);
        let long = sent(&[frame(HEADERS, 0, &long)]);
        assert_eq!(with_legal_authority(&long), long);
    }

    #[tokio::test]
    async fn bytes_arrive_whole_however_they_are_cut() {
        let block = literal(0x41, None, "tmp%2Fapi.sock");
        let bytes = sent(&[frame(4, 0, &[]), frame(HEADERS, 4, &block), frame(0, 1, b"hello"), frame(HEADERS, 4, &[])]);
        let expected = with_legal_authority(&bytes);
        assert_ne!(expected, bytes);
        for size in [1, 2, 3, 7, 24, 64] {
            let (mut client, server) = tokio::io::duplex(size);
            let mut server = LegalAuthority::new(server);
            let sending = async {
                tokio::io::AsyncWriteExt::write_all(&mut client, &bytes).await.unwrap();
                drop(client);
            };
            let mut got = Vec::new();
            let (_, read) = tokio::join!(sending, server.read_to_end(&mut got));
            read.unwrap();
            assert_eq!(got, expected);
        }
    }

    proptest! {
        #[test]
        fn legal_traffic_passes_untouched(
            authority in "[a-z0-9.-]{1,40}(:[0-9]{1,4})?",
            fields in prop::collection::vec(("[a-z-]{1,20}", "[ -~]{0,60}"), 0..8),
            data in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut block = literal(0x41, None, &authority);
            for (name, value) in &fields {
                block.extend(literal(0x40, Some(name), value));
            }
            let bytes = sent(&[frame(HEADERS, 4, &block), frame(0, 1, &data)]);
            prop_assert_eq!(with_legal_authority(&bytes), bytes);
        }

        #[test]
        fn any_bytes_keep_their_length_and_are_done_after_one_pass(
            kinds in prop::collection::vec((0_u8..10, any::<u8>(), prop::collection::vec(any::<u8>(), 0..80)), 0..6),
            cut in 0_usize..200,
        ) {
            let frames: Vec<_> = kinds.iter().map(|(kind, flags, payload)| frame(*kind, *flags, payload)).collect();
            let bytes = sent(&frames);
            let once = with_legal_authority(&bytes);
            prop_assert_eq!(once.len(), bytes.len());
            prop_assert_eq!(&with_legal_authority(&once), &once);
            let (first, second) = bytes.split_at(cut.min(bytes.len()));
            let mut cut = Frames::new();
            cut.push(first);
            cut.push(second);
            cut.end();
            prop_assert_eq!(&cut.ready[..], &once[..]);
        }

        #[test]
        fn every_raw_authority_becomes_legal(value in "[!-~]{1,60}") {
            let block = after(&literal(0x41, None, &value));
            prop_assert!(Authority::try_from(&block[2..]).is_ok());
        }
    }
}
