//! How lines hang together: pure, so that the writer, the start and the check agree.

use std::fmt;
use std::time::SystemTime;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::event::Event;

/// How far a log has grown. Two logs with the same head are the same log, to the byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// How many lines there are.
    pub records: u64,
    /// SHA-256 of the last line, without its end; zeroes where there is none.
    pub hash: [u8; 32],
}

/// Why a line does not follow the one before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// It is no record at all.
    #[error("it is not a record")]
    NotARecord,
    /// Lines are missing, or come twice.
    #[error("it says to be record {found}, where {expected} was due")]
    Number {
        /// What was due.
        expected: u64,
        /// What it says.
        found: u64,
    },
    /// The line before is not the one it was written after.
    #[error("it follows another record than the one before it: that one was altered, or this one was put in")]
    Hash,
}

/// A line as it is written.
#[derive(Serialize)]
struct Line<'e> {
    n: u64,
    at: String,
    prev: Hex,
    event: &'e Event,
}

/// What a reader needs of a line in order to check it.
#[derive(Deserialize)]
struct Link {
    n: u64,
    prev: String,
}

/// A hash as lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Hex(pub(super) [u8; 32]);

impl Head {
    /// Of a log without any line.
    pub const START: Self = Self { records: 0, hash: [0; 32] };

    /// The line that comes next, with its end.
    pub(super) fn append(self, at: SystemTime, event: &Event, buffer: &mut Vec<u8>) -> Result<Self, serde_json::Error> {
        let n = self.records.saturating_add(1);
        let line = Line { n, at: humantime::format_rfc3339_millis(at).to_string(), prev: Hex(self.hash), event };
        let start = buffer.len();
        serde_json::to_writer(&mut *buffer, &line)?;
        let hash = sha256(buffer.get(start..).unwrap_or_default());
        buffer.push(b'\n');
        Ok(Self { records: n, hash })
    }

    /// The head after `line`, which comes without its end.
    ///
    /// # Errors
    /// [`Broken`] where the line does not follow this head.
    pub(super) fn follow(self, line: &[u8]) -> Result<Self, Broken> {
        let link: Link = serde_json::from_slice(line).map_err(|_| Broken::NotARecord)?;
        let expected = self.records.saturating_add(1);
        if link.n != expected {
            return Err(Broken::Number { expected, found: link.n });
        }
        if link.prev != Hex(self.hash).to_string() {
            return Err(Broken::Hash);
        }
        Ok(Self { records: link.n, hash: sha256(line) })
    }

    /// The head that `line` says to follow: where a log begins whose earlier files were archived.
    pub(super) fn before(line: &[u8]) -> Option<Self> {
        let link: Link = serde_json::from_slice(line).ok()?;
        Some(Self { records: link.n.checked_sub(1)?, hash: Hex::parse(&link.prev)?.0 })
    }
}

impl Hex {
    pub(super) fn parse(text: &str) -> Option<Self> {
        bytes(text)?.try_into().ok().map(Self)
    }
}

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl Serialize for Hex {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&self.0))
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.records, Hex(self.hash))
    }
}

/// Bytes as lower-case hex digits: every line holds three of them, and thousands of lines are written in a second.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().map_or('0', char::from);
    let mut text = String::with_capacity(bytes.len().saturating_mul(2));
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 0xf));
    }
    text
}

/// What lower-case hex digits say.
pub(super) fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks_exact(2).map(byte).collect()
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(count: u64) -> (Vec<Vec<u8>>, Head) {
        let (mut lines, mut head) = (Vec::new(), Head::START);
        for _ in 0..count {
            let mut line = Vec::new();
            head = head.append(SystemTime::UNIX_EPOCH, &Event::Stopped, &mut line).unwrap();
            assert_eq!(line.pop(), Some(b'\n'));
            lines.push(line);
        }
        (lines, head)
    }

    fn follow(lines: &[Vec<u8>]) -> Result<Head, Broken> {
        lines.iter().try_fold(Head::START, |head, line| head.follow(line))
    }

    #[test]
    fn a_line_is_json_that_people_can_read() {
        let (lines, _) = lines(1);
        let zeroes = "0".repeat(64);
        let expected =
            format!(r#"{{"n":1,"at":"1970-01-01T00:00:00.000Z","prev":"{zeroes}","event":{{"what":"stopped"}}}}"#);
        assert_eq!(String::from_utf8(lines[0].clone()).unwrap(), expected);
    }

    #[test]
    fn what_was_written_follows() {
        let (lines, head) = lines(5);
        assert_eq!(follow(&lines), Ok(head));
        assert_eq!(Head::before(&lines[3]), follow(&lines[..3]).ok());
    }

    #[test]
    fn every_change_of_the_middle_is_seen() {
        let (good, _) = lines(5);
        let mut altered = good.clone();
        altered[2] = String::from_utf8(altered[2].clone()).unwrap().replace("1970", "1971").into_bytes();
        assert_eq!(follow(&altered), Err(Broken::Hash));
        let mut removed = good.clone();
        removed.remove(2);
        assert_eq!(follow(&removed), Err(Broken::Number { expected: 3, found: 4 }));
        let mut twice = good.clone();
        twice.insert(2, good[1].clone());
        assert_eq!(follow(&twice), Err(Broken::Number { expected: 3, found: 2 }));
        let mut swapped = good.clone();
        swapped.swap(1, 2);
        assert!(follow(&swapped).is_err());
        let mut garbage = good;
        garbage[4] = b"{}".to_vec();
        assert_eq!(follow(&garbage), Err(Broken::NotARecord));
    }

    #[test]
    fn a_change_of_the_last_line_changes_the_head() {
        let (mut lines, head) = lines(3);
        lines[2].push(b' ');
        assert_ne!(follow(&lines).unwrap(), head);
    }
}
