//! The store: every record of the registry in one file, written durably before anybody is told that it is.
//!
//! A commit is one transaction of redb: after a crash it is there whole or not at all, and one that was acknowledged is there. The file
//! holds no secret: of join tokens it has hashes, of keys none.

mod codec;
mod record;

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use portcullis_identity::TrustDomain;
use portcullis_policy::PolicyFile;
use prost::Message as _;
use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use self::codec::Stored;
use crate::registry::{Change, Registry, Unrestorable, Version};

const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
const META: &str = "meta";
/// 1: entries without terms beside their lifetime. 2: entries with selectors and names, nodes with a standing; a broker that knows only
/// layout 1 would hand out their identities without asking for the selectors, so it must not open it. Older layouts are read as they are.
pub(crate) const LAYOUT: u32 = 2;
/// Bytes. The registry is in memory anyway; redb's own default of 1 GiB would hold it twice.
const CACHE_BYTES: usize = 4 << 20;

/// Why the store is not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the store `{}` is in use by another broker", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file system refuses.
    #[error("cannot open the store `{}`: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        cause: io::Error,
    },
    /// It is not a store, or a damaged one.
    #[error("the store `{}` cannot be read: {cause}; restore it from a backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the engine said.
        cause: Box<redb::Error>,
    },
    /// It was made by a newer version.
    #[error("the store `{}` has layout {found}, this version knows {LAYOUT}: it was written by a newer broker", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: u32,
    },
    /// It is that of another trust domain.
    #[error("the store `{}` belongs to trust domain `{found}`, not to `{expected}`: use another data folder", path.display())]
    OtherTrustDomain {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: TrustDomain,
    },
    /// A record in it cannot be read.
    #[error("record `{key}` of the store `{}` cannot be read: {problem}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// The record's key.
        key: String,
        /// Why.
        problem: String,
    },
    /// Its records do not fit together.
    #[error("the store `{}` cannot be used: {cause}", path.display())]
    Unrestorable {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: Unrestorable,
    },
}

/// A change was not stored.
#[derive(Debug, thiserror::Error)]
#[error("cannot store the change: {0}")]
pub struct CommitError(#[from] redb::Error);

/// The store cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the store: {0}")]
pub struct ReadError(#[from] redb::Error);

/// A record as it lies in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What it is called there.
    pub key: String,
    /// What it says; `None`: it is not there any more.
    pub value: Option<Vec<u8>>,
}

/// Records for who keeps a copy of the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// What they change; `None`: they are all there are.
    pub base: Option<Version>,
    /// What they make.
    pub version: Version,
    /// The records.
    pub rows: Vec<Row>,
}

impl Row {
    /// Bytes of it.
    #[must_use]
    pub fn size(&self) -> usize {
        self.key.len().saturating_add(self.value.as_ref().map_or(0, Vec::len))
    }
}

/// The file with all records.
#[derive(Debug)]
pub struct Store {
    database: Database,
    trust_domain: TrustDomain,
}

impl Store {
    /// Opens the store at `path`, makes it where there is none, and reads what the registry was.
    ///
    /// # Errors
    /// When the file cannot be used; nothing is repaired silently.
    pub fn open(path: &Path, trust_domain: &TrustDomain) -> Result<(Self, Registry), OpenError> {
        make_private(path).map_err(|cause| OpenError::Io { path: path.to_owned(), cause })?;
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            // Without it, a file that somebody altered is trusted until it makes the engine panic.
            .set_check_integrity_on_open(true)
            .create(path)
            .map_err(|error| refused(path, error))?;
        let store = Self { database, trust_domain: trust_domain.clone() };
        let registry = store.read(path)?;
        Ok((store, registry))
    }

    /// Stores `changes` under `version`; when it returns they are on disk, as these rows.
    ///
    /// # Errors
    /// When they may not be. After an error of the disk every later commit fails too, until the broker is started again.
    pub fn commit(&self, changes: &[Change], version: Version) -> Result<Vec<Row>, CommitError> {
        let rows: Vec<Row> = changes.iter().map(codec::write).collect();
        self.commit_transaction(&rows, version)?;
        Ok(rows)
    }

    fn commit_transaction(&self, rows: &[Row], version: Version) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(RECORDS)?;
            for Row { key, value } in rows {
                match value {
                    Some(value) => table.insert(key.as_str(), value.as_slice())?.map(drop),
                    None => table.remove(key.as_str())?.map(drop),
                };
            }
            table.insert(META, self.meta(version).encode_to_vec().as_slice())?;
        }
        Ok(transaction.commit()?)
    }

    /// Every record, of one version.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn copy(&self) -> Result<Copied, ReadError> {
        self.copy_transaction().map_err(ReadError)
    }

    fn copy_transaction(&self) -> Result<Copied, redb::Error> {
        let table = self.database.begin_read()?.open_table(RECORDS)?;
        let (mut rows, mut version) = (Vec::new(), Version::FIRST);
        for row in table.iter()? {
            let (key, value) = row?;
            if key.value() == META {
                // It was read when the store was opened, and written by this version since.
                let record::Meta { incarnation, epoch, .. } = record::Meta::decode(value.value()).unwrap_or_default();
                version = Version { incarnation, epoch };
            } else {
                rows.push(Row { key: key.value().to_owned(), value: Some(value.value().to_vec()) });
            }
        }
        Ok(Copied { base: None, version, rows })
    }

    fn meta(&self, version: Version) -> record::Meta {
        record::Meta {
            layout: LAYOUT,
            trust_domain: self.trust_domain.to_string(),
            incarnation: version.incarnation,
            epoch: version.epoch,
        }
    }

    fn read(&self, path: &Path) -> Result<Registry, OpenError> {
        let damaged = |cause| OpenError::Damaged { path: path.to_owned(), cause: Box::new(cause) };
        let unrestorable = |cause| OpenError::Unrestorable { path: path.to_owned(), cause };
        let Some(meta) = self.meta_row().map_err(damaged)? else {
            return self
                .begin()
                .map_err(damaged)
                .and_then(|()| Registry::empty(self.trust_domain.clone()).map_err(unrestorable));
        };
        let version = self.check_meta(path, &meta)?;
        let mut records = Records::default();
        self.each_row(|key, value| records.take(key, value, &self.trust_domain))
            .map_err(damaged)?
            .map_err(|(key, problem)| OpenError::Record { path: path.to_owned(), key, problem })?;
        records.into_registry(self.trust_domain.clone(), version).map_err(unrestorable)
    }

    /// Writes the record that says whose store this is.
    fn begin(&self) -> Result<(), redb::Error> {
        self.commit_transaction(&[], Version::FIRST)
    }

    fn check_meta(&self, path: &Path, meta: &[u8]) -> Result<Version, OpenError> {
        let record::Meta { layout, trust_domain, incarnation, epoch } =
            record::Meta::decode(meta).map_err(|error| OpenError::Record {
                path: path.to_owned(),
                key: META.to_owned(),
                problem: error.to_string(),
            })?;
        if layout > LAYOUT {
            return Err(OpenError::Newer { path: path.to_owned(), found: layout });
        }
        if trust_domain != self.trust_domain.as_str() {
            let expected = self.trust_domain.clone();
            return Err(OpenError::OtherTrustDomain { path: path.to_owned(), found: trust_domain, expected });
        }
        Ok(Version { incarnation, epoch })
    }

    fn meta_row(&self) -> Result<Option<Vec<u8>>, redb::Error> {
        let transaction = self.database.begin_read()?;
        match transaction.open_table(RECORDS) {
            Ok(table) => Ok(table.get(META)?.map(|meta| meta.value().to_vec())),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Every record one after the other, so that they are not in memory twice. `take` says what is wrong with one; that ends it.
    fn each_row(
        &self,
        mut take: impl FnMut(&str, &[u8]) -> Result<(), String>,
    ) -> Result<Result<(), (String, String)>, redb::Error> {
        let table = self.database.begin_read()?.open_table(RECORDS)?;
        for row in table.iter()? {
            let (key, value) = row?;
            if key.value() != META
                && let Err(problem) = take(key.value(), value.value())
            {
                return Ok(Err((key.value().to_owned(), problem)));
            }
        }
        Ok(Ok(()))
    }
}

/// Records on their way to a registry.
#[derive(Debug, Default)]
pub(crate) struct Records {
    records: Vec<Change>,
    policies: Vec<PolicyFile>,
}

impl Records {
    /// Takes the record under `key`; an error says what is wrong with it.
    pub(crate) fn take(&mut self, key: &str, value: &[u8], trust_domain: &TrustDomain) -> Result<(), String> {
        match codec::read(key, value, trust_domain)? {
            Stored::Record(record) => self.records.push(record),
            Stored::Policies(file) => self.policies.push(file),
        }
        Ok(())
    }

    /// The registry that they are.
    ///
    /// # Errors
    /// When they do not fit together.
    pub(crate) fn into_registry(self, trust_domain: TrustDomain, version: Version) -> Result<Registry, Unrestorable> {
        let Self { mut records, mut policies } = self;
        // Grants and addresses hang on components, so these come first; the order of files is that of their names.
        records.sort_by_key(|record| !matches!(record, Change::Component(_)));
        policies.sort_by(|one, other| one.name.cmp(&other.name));
        Registry::restore(trust_domain, version, records, &policies)
    }
}

/// redb makes files that everybody can read; this one lists who may call whom.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map(drop)
}

fn refused(path: &Path, error: DatabaseError) -> OpenError {
    if matches!(error, DatabaseError::DatabaseAlreadyOpen) {
        return OpenError::InUse { path: path.to_owned() };
    }
    OpenError::Damaged { path: path.to_owned(), cause: Box::new(error.into()) }
}

#[cfg(test)]
mod tests;
