//! The answers that hosts keep, on disk: hosts outlive the broker's process. A file of its own, so that they are no part of a backup of
//! the store: what hosts were told does not become untold when an old store is put back.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis_identity::parse_spiffe_id;
use prost::Message as _;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use super::memory::{Asker, Kept};
use super::question::RequestId;

const ANSWERS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("answers");
/// Bytes. The answers are in memory anyway.
const CACHE_BYTES: usize = 1 << 20;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "what hosts were answered cannot be read from `{}`: {problem}; without it those answers cannot be taken back: remove it, and start the hosts again",
    path.display()
)]
pub struct AnswersError {
    path: PathBuf,
    problem: String,
}

/// The file.
#[derive(Debug)]
pub(super) struct Disk {
    database: Database,
}

/// A change of the file.
#[derive(Debug)]
pub(super) enum Write {
    Keep(u64, Kept),
    Forget(u64),
}

/// An answer as it lies on disk. Numbers are never used again.
#[derive(Clone, PartialEq, prost::Message)]
struct Record {
    #[prost(string, tag = "1")]
    request: String,
    #[prost(string, tag = "2")]
    lattice: String,
    /// Empty: some host.
    #[prost(string, tag = "3")]
    host: String,
    #[prost(bytes = "vec", tag = "4")]
    question: Vec<u8>,
    #[prost(bool, tag = "5")]
    permitted: bool,
    #[prost(bool, tag = "6")]
    overridden: bool,
}

impl Disk {
    /// Opens the file, makes it where there is none, and reads what is in it.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<(u64, Kept)>), AnswersError> {
        let failed = |problem: String| AnswersError { path: path.to_owned(), problem };
        crate::store::make_private(path).map_err(|error| failed(error.to_string()))?;
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            // Without it, a file that somebody altered is trusted until it makes the engine panic.
            .set_check_integrity_on_open(true)
            .create(path)
            .map_err(|error| failed(error.to_string()))?;
        let disk = Self { database };
        disk.write(&[]).map_err(|error| failed(error.to_string()))?;
        let kept = disk.read().map_err(|error| failed(error.to_string()))?.map_err(failed)?;
        Ok((disk, kept))
    }

    /// Makes changes; when it returns they are on disk.
    pub(super) fn write(&self, changes: &[Write]) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(ANSWERS)?;
            for change in changes {
                match change {
                    Write::Keep(number, kept) => table.insert(number, record(kept).as_slice())?.map(drop),
                    Write::Forget(number) => table.remove(number)?.map(drop),
                };
            }
        }
        Ok(transaction.commit()?)
    }

    fn read(&self) -> Result<Result<Vec<(u64, Kept)>, String>, redb::Error> {
        let table = self.database.begin_read()?.open_table(ANSWERS)?;
        let mut all = Vec::new();
        for row in table.iter()? {
            let (number, value) = row?;
            match kept(value.value()) {
                Ok(kept) => all.push((number.value(), kept)),
                Err(problem) => return Ok(Err(format!("answer {}: {problem}", number.value()))),
            }
        }
        Ok(Ok(all))
    }
}

fn record(kept: &Kept) -> Vec<u8> {
    let Kept { request, asker, question, permitted, overridden } = kept;
    Record {
        request: request.as_str().to_owned(),
        lattice: asker.lattice.to_string(),
        host: asker.host.as_ref().map(ToString::to_string).unwrap_or_default(),
        question: question.to_vec(),
        permitted: *permitted,
        overridden: *overridden,
    }
    .encode_to_vec()
}

fn kept(bytes: &[u8]) -> Result<Kept, String> {
    let Record { request, lattice, host, question, permitted, overridden } =
        Record::decode(bytes).map_err(|error| error.to_string())?;
    let host = if host.is_empty() { None } else { Some(parse_spiffe_id(&host).map_err(|error| error.to_string())?) };
    let lattice = lattice.parse().map_err(|error: portcullis_identity::InvalidName| error.to_string())?;
    let request = RequestId::parse(&request).ok_or("its id is none")?;
    let asker = Arc::new(Asker { lattice, host });
    Ok(Kept { request, asker, question: question.into(), permitted, overridden })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn answers_are_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers.redb");
        let (disk, kept) = Disk::open(&path).unwrap();
        assert!(kept.is_empty());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let answer = |request: &str, host: Option<&str>| Kept {
            request: RequestId::parse(request).unwrap(),
            asker: Arc::new(Asker {
                lattice: "demo".parse().unwrap(),
                host: host.map(|id| parse_spiffe_id(id).unwrap()),
            }),
            question: (*b"asked").into(),
            permitted: true,
            overridden: false,
        };
        let (one, two) = (answer("a", None), answer("b", Some("spiffe://a.test/host/one")));
        disk.write(&[Write::Keep(1, one.clone()), Write::Keep(2, two.clone()), Write::Keep(3, one)]).unwrap();
        disk.write(&[Write::Forget(1), Write::Forget(3)]).unwrap();
        drop(disk);
        assert_eq!(Disk::open(&path).unwrap().1, [(2, two)]);
    }

    #[test]
    fn a_file_that_is_none_is_told_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers.redb");
        std::fs::write(&path, "nonsense").unwrap();
        let error = Disk::open(&path).unwrap_err().to_string();
        assert!(error.contains("start the hosts again"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"nonsense");
    }
}
