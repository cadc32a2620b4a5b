//! The end of a log's last file: where a crash may have left half a batch.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};

use super::chain::{Broken, Head};
use super::file::MAX_BATCH;
use super::{MAX_LINE, Segment};

/// Bytes that are looked at: all that a crash can have damaged, and a whole line before it.
const TAIL: u64 = (2 * MAX_BATCH + 2 * MAX_LINE) as u64;
/// Bytes that a crash can have damaged: one batch, which was never said to be on disk.
const MAX_TORN: u64 = (MAX_BATCH + MAX_LINE) as u64;

/// What the end of a file looks like.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tail {
    /// After the last whole record.
    pub(super) head: Head,
    /// Bytes up to the end of that record.
    pub(super) whole: u64,
    /// What comes after it.
    pub(super) torn: Vec<u8>,
}

/// Why the end of a file is not that of a log.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidTail {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("record {after} is followed by one that does not belong there: {broken}")]
    Broken { after: u64, broken: Broken },
    #[error("more of its end cannot be read than a crash can have damaged")]
    TooMuch,
}

/// Reads the end of `segment`. `before` is the head that it began with, where that is known.
pub(super) fn read(segment: &Segment, before: Option<Head>) -> Result<Tail, InvalidTail> {
    let mut file = File::open(&segment.path)?;
    let length = file.metadata()?.len();
    let start = length.saturating_sub(TAIL);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(length.saturating_sub(start)).read_to_end(&mut bytes)?;
    // What stands before the first line's end may be the rest of a line that began earlier.
    let skipped = if start == 0 { 0 } else { line_end(&bytes).ok_or(InvalidTail::TooMuch)? };
    let lines = bytes.get(skipped..).unwrap_or_default();
    let before = if start == 0 { before.or_else(|| first_of(segment, lines)) } else { None };
    let (head, whole) = follow(lines, before)?;
    let torn = lines.get(whole..).unwrap_or_default().to_vec();
    if u64::try_from(torn.len()).unwrap_or(u64::MAX) > MAX_TORN {
        return Err(InvalidTail::TooMuch);
    }
    let whole = u64::try_from(skipped.saturating_add(whole)).unwrap_or(u64::MAX);
    Ok(Tail { head, whole: start.saturating_add(whole), torn })
}

/// The head after the last whole line, and where that line ends.
fn follow(lines: &[u8], before: Option<Head>) -> Result<(Head, usize), InvalidTail> {
    let (mut head, mut whole) = (before, 0);
    while let Some(rest) = lines.get(whole..)
        && let Some(end) = line_end(rest)
    {
        let line = rest.get(..end.saturating_sub(1)).unwrap_or_default();
        let Some(from) = head.or_else(|| Head::before(line)) else { break };
        match from.follow(line) {
            Ok(next) => head = Some(next),
            // A crash leaves blocks that were never written; it makes no records.
            Err(Broken::NotARecord) => break,
            Err(broken) => return Err(InvalidTail::Broken { after: from.records, broken }),
        }
        whole = whole.saturating_add(end);
    }
    head.map(|head| (head, whole)).ok_or(InvalidTail::TooMuch)
}

/// What a whole file begins with, by its own word, where the file before it was archived; the file's name must say the same.
fn first_of(segment: &Segment, lines: &[u8]) -> Option<Head> {
    let line = lines.get(..line_end(lines)?.checked_sub(1)?)?;
    Head::before(line).filter(|head| head.records.checked_add(1) == Some(segment.first))
}

/// The first line's length, its end included.
fn line_end(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == b'\n').map(|position| position.saturating_add(1))
}
