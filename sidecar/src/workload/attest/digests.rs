//! SHA-256 of executables, remembered by what tells a file from itself before a change.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::sync::{Mutex, PoisonError};

use ring::digest::{Context, SHA256};

use super::executable::Executable;
use super::process::Caller;

/// A larger file has no digest: half a second of one processor.
const MAX_BYTES: u64 = 256 << 20;
/// Files whose digest is remembered; the oldest goes.
const REMEMBERED: usize = 256;

/// Digests that were computed. One file is hashed at a time.
#[derive(Debug, Default)]
pub(crate) struct Digests(Mutex<VecDeque<(Executable, String)>>);

impl Digests {
    /// The digest of what `caller` runs, in lower-case hexadecimal; nothing where the file is too large, or changes.
    pub(super) fn sha256(&self, caller: &Caller, executable: &Executable) -> Option<String> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, digest)) = known.iter().find(|(file, _)| file == executable) {
            return Some(digest.clone());
        }
        let digest = hash(caller, executable)?;
        if known.len() >= REMEMBERED {
            known.pop_front();
        }
        known.push_back((executable.clone(), digest.clone()));
        Some(digest)
    }
}

fn hash(caller: &Caller, executable: &Executable) -> Option<String> {
    if executable.size > MAX_BYTES {
        return None;
    }
    let mut file = File::from(executable.open(caller)?);
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 64 << 10];
    let mut left = executable.size;
    while left > 0 {
        let length = file.read(&mut buffer).ok()?;
        let read = buffer.get(..length).filter(|read| !read.is_empty())?;
        context.update(read);
        left = left.checked_sub(u64::try_from(length).ok()?)?;
    }
    if !executable.is(&file.into()) {
        return None;
    }
    let mut text = String::with_capacity(64);
    for byte in context.finish().as_ref() {
        write!(text, "{byte:02x}").ok()?;
    }
    Some(text)
}
