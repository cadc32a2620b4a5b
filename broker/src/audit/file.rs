//! The log's files as the broker writes them: opened at their end, grown by batches, each of which is on disk or taken back.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::chain::{Head, Hex, sha256};
use super::event::Event;
use super::folder::{FolderError, Segment, segments};
use super::tail::{self, InvalidTail, Tail};
use crate::data_folder::make_private;

/// Bytes that are written and synced at a time, but for the last line.
pub(super) const MAX_BATCH: usize = 256 << 10;
/// Bytes of one file, after which the next one begins: some 200 000 records.
const SEGMENT_BYTES: u64 = 64 << 20;

/// Why the audit log is not opened; the broker does not start without it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A file in it.
    #[error("cannot use the audit log `{}`: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        cause: io::Error,
    },
    /// Others may write to it.
    #[error("the audit log `{}` has mode {mode:o}: others may have altered it; check it with `audit verify`, then make it 600", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is damaged in a way that no crash explains.
    #[error("the audit log `{}` was altered: {problem}; look at it with `audit verify`, then move the folder away to begin a new log", path.display())]
    Altered {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// What was found when the log was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// No log at all.
    Nothing,
    /// A log that ends with a whole record.
    Whole,
    /// One that a crash left with half a record, which was taken out.
    Torn { bytes: u64, sha256: [u8; 32], kept: PathBuf },
}

/// The log's end.
#[derive(Debug)]
pub(super) struct LogFile {
    folder: PathBuf,
    path: PathBuf,
    file: File,
    /// Bytes of the present file that are on disk.
    length: u64,
    segment_bytes: u64,
    /// After the last record that is on disk.
    head: Head,
    /// What waits to be written, and the head after it.
    buffer: Vec<u8>,
    next: Head,
    /// Whether the file may hold more than is known to be on disk.
    unsure: bool,
}

impl LogFile {
    /// Opens the log in `folder`, and makes it where there is none.
    pub(super) fn open(folder: &Path) -> Result<(Self, Found), OpenError> {
        make_private(folder).map_err(|cause| FolderError { folder: folder.to_owned(), cause })?;
        let mut segments = segments(folder)?;
        let Some(last) = segments.pop() else {
            let path = Segment::named(folder, 1).path;
            let file = create(folder, &path).map_err(|cause| OpenError::Io { path: path.clone(), cause })?;
            return Ok((Self::at(folder, (path, file), 0, Head::START), Found::Nothing));
        };
        let failed = |cause| OpenError::Io { path: last.path.clone(), cause };
        let mode = fs::metadata(&last.path).map_err(failed)?.mode() & 0o777;
        if mode & 0o022 != 0 {
            return Err(OpenError::Exposed { path: last.path, mode });
        }
        let Tail { head, whole, torn } = end_of_log(&last, segments.last())?;
        let file = OpenOptions::new().append(true).open(&last.path).map_err(failed)?;
        let found = if torn.is_empty() {
            Found::Whole
        } else {
            let kept = keep(folder, head, &torn).map_err(failed)?;
            file.set_len(whole).and_then(|()| file.sync_all()).map_err(failed)?;
            Found::Torn { bytes: u64::try_from(torn.len()).unwrap_or(u64::MAX), sha256: sha256(&torn), kept }
        };
        Ok((Self::at(folder, (last.path, file), whole, head), found))
    }

    fn at(folder: &Path, (path, file): (PathBuf, File), length: u64, head: Head) -> Self {
        Self {
            folder: folder.to_owned(),
            path,
            file,
            length,
            segment_bytes: SEGMENT_BYTES,
            head,
            buffer: Vec::new(),
            next: head,
            unsure: false,
        }
    }

    /// After the last record that is on disk.
    pub(super) fn head(&self) -> Head {
        self.head
    }

    /// Adds a record to what waits to be written.
    pub(super) fn append(&mut self, at: SystemTime, event: &Event) -> io::Result<()> {
        self.next = self.next.append(at, event, &mut self.buffer)?;
        Ok(())
    }

    /// Whether as much waits as should be written at a time.
    pub(super) fn is_full(&self) -> bool {
        self.buffer.len() >= MAX_BATCH
    }

    /// Puts what waits on disk; where that fails, it is as if it had never been added.
    pub(super) fn commit(&mut self) -> io::Result<()> {
        let result = self.write();
        if result.is_ok() {
            self.head = self.next;
        } else {
            self.unsure = true;
            self.next = self.head;
        }
        self.buffer.clear();
        result
    }

    fn write(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        if self.unsure {
            // What an earlier, failed batch left must not stand between this one and the last good record.
            self.file = OpenOptions::new().append(true).open(&self.path)?;
            self.file.set_len(self.length)?;
            self.file.sync_all()?;
            self.unsure = false;
        }
        let size = u64::try_from(self.buffer.len()).unwrap_or(u64::MAX);
        if self.length > 0 && self.length.saturating_add(size) > self.segment_bytes {
            let segment = Segment::named(&self.folder, self.head.records.saturating_add(1));
            self.file = create(&self.folder, &segment.path)?;
            self.path = segment.path;
            self.length = 0;
        }
        self.file.write_all(&self.buffer)?;
        self.file.sync_data()?;
        self.length = self.length.saturating_add(size);
        Ok(())
    }
}

/// The end of the last file; an empty one continues the file before it.
fn end_of_log(last: &Segment, previous: Option<&Segment>) -> Result<Tail, OpenError> {
    let refused = |segment: &Segment, error| match error {
        InvalidTail::Io(cause) => OpenError::Io { path: segment.path.clone(), cause },
        InvalidTail::Broken { .. } | InvalidTail::TooMuch => {
            OpenError::Altered { path: segment.path.clone(), problem: error.to_string() }
        }
    };
    let before = match previous {
        None => (last.first == 1).then_some(Head::START),
        Some(previous) => {
            let tail = tail::read(previous, None).map_err(|error| refused(previous, error))?;
            let follows = tail.torn.is_empty() && tail.head.records.checked_add(1) == Some(last.first);
            if !follows {
                let problem = format!("it does not end where record {} follows", last.first);
                return Err(OpenError::Altered { path: previous.path.clone(), problem });
            }
            Some(tail.head)
        }
    };
    tail::read(last, before).map_err(|error| refused(last, error))
}

/// A new file of the log; one that a crash left before a byte was in it is taken.
fn create(folder: &Path, path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    if file.metadata()?.len() > 0 {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("`{}` is not empty", path.display())));
    }
    File::open(folder)?.sync_all()?;
    Ok(file)
}

/// Keeps what is taken out of the log beside it: it may tell something to somebody.
fn keep(folder: &Path, head: Head, torn: &[u8]) -> io::Result<PathBuf> {
    let tag: String = Hex(sha256(torn)).to_string().chars().take(8).collect();
    let path = folder.join(format!("torn-after-{}-{tag}", head.records));
    crate::atomic_file::write(&path, torn, 0o600, crate::atomic_file::Existing::Replace)?;
    Ok(path)
}

#[cfg(test)]
mod tests;
