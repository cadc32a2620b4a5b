//! Reading a log from its beginning: does it hang together, and does it still hold what somebody remembers?

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_identity::JwtAuthority;
use serde::Deserialize;

use super::MAX_LINE;
use super::chain::{Broken, Head, Hex, bytes};
use super::folder::{FolderError, Segment, segments};

/// A log that hangs together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The number of the first record that is there; above 1 where older files were archived.
    pub first: u64,
    /// After the last whole record.
    pub head: Head,
    /// How many files there are.
    pub files: usize,
    /// Bytes after the last whole record: being written, or left by a crash.
    pub unfinished: usize,
    /// Whether the remembered head was signed by a key that the log names; `None` where none was given, or it is older than the log's first file.
    pub signature: Option<Signature>,
}

/// What a remembered head's signature is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signature {
    /// It is by a key that the log names.
    Good,
    /// The log names no key of that name.
    UnknownKey,
}

/// A log that does not hang together, or not with what somebody remembers.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The folder cannot be read.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A file cannot be read.
    #[error("cannot read `{}`: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// There is no log.
    #[error("there is no audit log in `{}`", .0.display())]
    NoLog(PathBuf),
    /// A record does not follow the one before.
    #[error("line {line} of `{}`: {broken}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// Why.
        broken: Broken,
    },
    /// A file begins with another record than its name says.
    #[error("`{}` begins with record {found}: a file is missing, or was renamed", path.display())]
    Misplaced {
        /// The file.
        path: PathBuf,
        /// Its first record.
        found: u64,
    },
    /// The log ends before the remembered record.
    #[error(
        "the log ends with record {found}, but record {remembered} was there: it was truncated, or is an older copy"
    )]
    Truncated {
        /// The last record.
        found: u64,
        /// What is remembered.
        remembered: u64,
    },
    /// The remembered record is another one.
    #[error("record {0} is not the one that is remembered: the log was rewritten")]
    Rewritten(u64),
    /// The remembered head is not what the broker said.
    #[error("the remembered head's signature is not good: it was altered, or is not of this broker")]
    Forged,
}

/// A head that a node was told, as it keeps it: `{"records":…,"hash":"HEX","signature":"HEX","kid":"…"}`, also as the field `audit` of
/// a larger object, such as a sidecar's status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RememberedHead {
    head: Head,
    signature: Vec<u8>,
    kid: String,
}

/// Not a remembered head.
#[derive(Debug, thiserror::Error)]
#[error("it holds no audit head: a sidecar's `status --json` or the file `audit.json` in its state folder do")]
pub struct InvalidHead;

#[derive(Deserialize)]
struct Remembered {
    records: u64,
    hash: String,
    #[serde(default)]
    signature: String,
    #[serde(default)]
    kid: String,
}

impl RememberedHead {
    /// Reads JSON.
    ///
    /// # Errors
    /// When it is something else.
    pub fn parse(text: &str) -> Result<Self, InvalidHead> {
        let value: serde_json::Value = serde_json::from_str(text).map_err(|_| InvalidHead)?;
        let value = value.get("audit").cloned().unwrap_or(value);
        let Remembered { records, hash, signature, kid } = serde_json::from_value(value).map_err(|_| InvalidHead)?;
        let Hex(hash) = Hex::parse(&hash).ok_or(InvalidHead)?;
        let signature = bytes(&signature).ok_or(InvalidHead)?;
        Ok(Self { head: Head { records, hash }, signature, kid })
    }

    /// The head.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head
    }
}

/// Reads the whole log in `folder`, and looks for what is `remembered`.
///
/// # Errors
/// Where it begins to be wrong.
pub fn verify(folder: &Path, remembered: Option<&RememberedHead>) -> Result<Verified, VerifyError> {
    let segments = segments(folder)?;
    let Some(oldest) = segments.first() else { return Err(VerifyError::NoLog(folder.to_owned())) };
    let mut check = Check { head: None, remembered, seen: false, key: None, unfinished: 0 };
    for (position, segment) in segments.iter().enumerate() {
        let last = position.saturating_add(1) == segments.len();
        check.file(segment, last)?;
    }
    let head = check.head.unwrap_or(Head::START);
    let signature = match remembered {
        Some(remembered) if remembered.head.records > head.records => {
            return Err(VerifyError::Truncated { found: head.records, remembered: remembered.head.records });
        }
        Some(remembered) if check.seen => Some(check.signature(remembered)?),
        Some(_) | None => None,
    };
    Ok(Verified { first: oldest.first, head, files: segments.len(), unfinished: check.unfinished, signature })
}

struct Check<'r> {
    head: Option<Head>,
    remembered: Option<&'r RememberedHead>,
    /// Whether the remembered record was there.
    seen: bool,
    /// The key that signed the remembered head, by the log's own word.
    key: Option<JwtAuthority>,
    unfinished: usize,
}

impl Check<'_> {
    fn file(&mut self, segment: &Segment, is_last: bool) -> Result<(), VerifyError> {
        let failed = |cause| VerifyError::Io { path: segment.path.clone(), cause };
        let mut reader = BufReader::new(File::open(&segment.path).map_err(failed)?);
        let (mut line, mut number) = (Vec::new(), 0_u64);
        loop {
            line.clear();
            let limit = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
            reader.by_ref().take(limit).read_until(b'\n', &mut line).map_err(failed)?;
            number = number.saturating_add(1);
            let broken = |broken| VerifyError::Broken { path: segment.path.clone(), line: number, broken };
            if line.is_empty() {
                return Ok(());
            }
            if line.pop_if(|end| *end == b'\n').is_none() {
                if !is_last || line.len() >= MAX_LINE {
                    return Err(broken(Broken::NotARecord));
                }
                self.unfinished = line.len();
                return Ok(());
            }
            self.line(segment, number, &line).map_err(|problem| match problem {
                Problem::Broken(found) => broken(found),
                Problem::Other(error) => error,
            })?;
        }
    }

    fn line(&mut self, segment: &Segment, number: u64, line: &[u8]) -> Result<(), Problem> {
        let before = match self.head {
            Some(head) => head,
            None if segment.first == 1 => Head::START,
            None => Head::before(line).ok_or(Broken::NotARecord)?,
        };
        let head = before.follow(line)?;
        if number == 1 && head.records != segment.first {
            return Err(Problem::Other(VerifyError::Misplaced { path: segment.path.clone(), found: head.records }));
        }
        self.head = Some(head);
        let Some(remembered) = self.remembered else { return Ok(()) };
        if let Some(key) = head_key(line, &remembered.kid) {
            self.key = Some(key);
        }
        if head.records == remembered.head.records {
            if head != remembered.head {
                return Err(Problem::Other(VerifyError::Rewritten(head.records)));
            }
            self.seen = true;
        }
        Ok(())
    }

    fn signature(&self, remembered: &RememberedHead) -> Result<Signature, VerifyError> {
        let Some(key) = &self.key else { return Ok(Signature::UnknownKey) };
        let Head { records, hash } = &remembered.head;
        let good = key.verifies_audit_head(*records, hash, &remembered.signature);
        if good { Ok(Signature::Good) } else { Err(VerifyError::Forged) }
    }
}

enum Problem {
    Broken(Broken),
    Other(VerifyError),
}

impl From<Broken> for Problem {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

/// The key `kid`, where `line` names it.
fn head_key(line: &[u8], kid: &str) -> Option<JwtAuthority> {
    /// Only these lines are parsed whole.
    const MARK: &[u8] = br#""what":"head-key""#;
    line.windows(MARK.len()).find(|window| *window == MARK)?;
    let value: serde_json::Value = serde_json::from_slice(line).ok()?;
    let event = value.get("event")?;
    if event.get("what")? != "head-key" || event.get("kid")?.as_str()? != kid {
        return None;
    }
    let spki = STANDARD.decode(event.get("public_key")?.as_str()?).ok()?;
    JwtAuthority::from_spki(kid.parse().ok()?, &spki, None, None).ok()
}

#[cfg(test)]
mod tests;
