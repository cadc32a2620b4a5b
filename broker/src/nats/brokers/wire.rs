//! What brokers say to each other: protobuf, with fields that are never given another meaning.

use prost::Message;
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::registry::Version;
use crate::store::{self, Copied};

/// One run of a broker: 128 random bits.
pub(super) type BrokerId = Vec<u8>;

/// `here`
#[derive(Clone, PartialEq, Message)]
pub(super) struct Here {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) broker: BrokerId,
    /// It ends.
    #[prost(bool, tag = "2")]
    pub(super) leaves: bool,
}

/// `take`
#[derive(Clone, PartialEq, Message)]
pub(super) struct Take {
    #[prost(string, tag = "1")]
    pub(super) spiffe_id: String,
    /// SHA-256 of what is signed of it.
    #[prost(bytes = "vec", tag = "2")]
    pub(super) token: Vec<u8>,
    /// Seconds since 1970.
    #[prost(uint64, tag = "3")]
    pub(super) until: u64,
}

/// The reply to it.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Taken {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) broker: BrokerId,
    /// It was not used there, and is remembered from now on.
    #[prost(bool, tag = "2")]
    pub(super) fresh: bool,
}

/// The reply to `lead`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Stand {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) broker: BrokerId,
    #[prost(string, tag = "2")]
    pub(super) trust_domain: String,
    #[prost(uint64, tag = "3")]
    pub(super) incarnation: u64,
    #[prost(uint64, tag = "4")]
    pub(super) epoch: u64,
    /// Of the records: who knows an older one would not see what they forbid.
    #[prost(uint32, tag = "5")]
    pub(super) layout: u32,
}

/// `copy`
#[derive(Clone, PartialEq, Message)]
pub(super) struct Ask {
    /// Who is asked.
    #[prost(bytes = "vec", tag = "1")]
    pub(super) broker: BrokerId,
    /// What the asker has of it.
    #[prost(message, optional, tag = "2")]
    pub(super) have: Option<Point>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Point {
    #[prost(uint64, tag = "1")]
    incarnation: u64,
    #[prost(uint64, tag = "2")]
    epoch: u64,
}

/// One of the replies to `copy`: a piece of a [`Copy`].
#[derive(Clone, PartialEq, Message)]
pub(super) struct Part {
    #[prost(uint32, tag = "1")]
    pub(super) number: u32,
    #[prost(uint32, tag = "2")]
    pub(super) of: u32,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) bytes: Vec<u8>,
}

/// All pieces together.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Copy {
    /// What the rows change; without, they are all there are.
    #[prost(message, optional, tag = "1")]
    base: Option<Point>,
    #[prost(message, required, tag = "2")]
    version: Point,
    #[prost(message, repeated, tag = "3")]
    rows: Vec<Row>,
}

#[derive(Clone, PartialEq, Message)]
struct Row {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(bytes = "vec", optional, tag = "2")]
    value: Option<Vec<u8>>,
}

/// A name for this run.
pub(super) fn new_id() -> BrokerId {
    let mut id = vec![0; 16];
    // Without randomness this broker is taken for any other that has none, either.
    let _ = SystemRandom::new().fill(&mut id);
    id
}

impl Stand {
    pub(super) fn version(&self) -> Version {
        Version { incarnation: self.incarnation, epoch: self.epoch }
    }
}

impl From<Version> for Point {
    fn from(Version { incarnation, epoch }: Version) -> Self {
        Self { incarnation, epoch }
    }
}

impl From<Point> for Version {
    fn from(Point { incarnation, epoch }: Point) -> Self {
        Self { incarnation, epoch }
    }
}

impl From<Copied> for Copy {
    fn from(Copied { base, version, rows }: Copied) -> Self {
        let row = |store::Row { key, value }| Row { key, value };
        Self { base: base.map(Into::into), version: version.into(), rows: rows.into_iter().map(row).collect() }
    }
}

impl From<Copy> for Copied {
    fn from(Copy { base, version, rows }: Copy) -> Self {
        let row = |Row { key, value }| store::Row { key, value };
        Self { base: base.map(Into::into), version: version.into(), rows: rows.into_iter().map(row).collect() }
    }
}
