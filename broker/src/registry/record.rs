//! What the registry keeps, one type per kind of record. All of them are made by parsing: a value of these types is a valid one.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use portcullis_identity::{Lattice, NodeName, SpiffeId, Target};
use portcullis_policy::{AdmissionSet, PolicyFile, PolicySet, PolicyText, Problem, Schema};
use portcullis_value::WitSource;

use super::address::Address;
use super::refusal::Refusal;
use super::surface;
use super::terms::Terms;

/// The order of everything the broker says (D2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Grows when a store is restored.
    pub incarnation: u64,
    /// Grows with every change.
    pub epoch: u64,
}

impl Version {
    /// The version of an empty store.
    pub const FIRST: Self = Self { incarnation: 1, epoch: 0 };

    /// The version after one more change.
    #[must_use]
    pub const fn next(self) -> Self {
        self.skip(1)
    }

    /// The version so many epochs later.
    #[must_use]
    pub const fn skip(self, epochs: u64) -> Self {
        Self { incarnation: self.incarnation, epoch: self.epoch.saturating_add(epochs) }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.incarnation, self.epoch)
    }
}

/// Whether the sidecar decodes the parameters of a component's functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upstream {
    /// Values are decoded by WIT.
    Typed,
    /// Bytes pass untouched: no policy can read a parameter.
    Splice,
}

/// A registered virtual component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// Its name.
    pub target: Target,
    /// Who serves it.
    pub spiffe_id: SpiffeId,
    /// How its sidecar passes values on.
    pub upstream: Upstream,
    /// Where it is reached, if it is of another trust domain: nobody announces that here.
    pub addresses: Vec<Address>,
    /// The WIT as registered.
    pub wit: Vec<WitSource>,
    /// What it serves, read from the WIT: functions and what a policy can see of their parameters.
    pub surface: portcullis_policy::Component,
}

impl Component {
    /// Reads the `interfaces` of `wit`; every exported one where none is named.
    ///
    /// # Errors
    /// When the WIT is not usable or lacks one of them.
    pub fn read(
        target: Target,
        spiffe_id: SpiffeId,
        upstream: Upstream,
        wit: Vec<WitSource>,
        interfaces: &[String],
    ) -> Result<Self, Refusal> {
        let surface = surface::read(&target, upstream, &wit, interfaces)?;
        Ok(Self { target, spiffe_id, upstream, addresses: Vec::new(), wit, surface })
    }

    /// The same, reached at `addresses`.
    #[must_use]
    pub fn at(self, addresses: Vec<Address>) -> Self {
        Self { addresses, ..self }
    }

    /// wRPC instance names.
    pub fn interface_names(&self) -> impl Iterator<Item = &str> {
        self.surface.interfaces.iter().map(|interface| interface.name.as_str())
    }
}

/// The name of an entry: `eINCARNATION-EPOCH` of the change that made it, so that none is ever used again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(Version);

/// Not the name of an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the id of an entry: `entry list` shows them")]
pub struct InvalidEntryId(String);

impl EntryId {
    pub(super) const fn made_at(version: Version) -> Self {
        Self(version)
    }
}

impl FromStr for EntryId {
    type Err = InvalidEntryId;

    fn from_str(text: &str) -> Result<Self, InvalidEntryId> {
        // As it is printed, and in no other way.
        let number = |text: &str| {
            let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
            text.parse::<u64>().ok().filter(|_| plain)
        };
        text.strip_prefix('e')
            .and_then(|rest| rest.split_once('-'))
            .and_then(|(incarnation, epoch)| {
                Some(Self(Version { incarnation: number(incarnation)?, epoch: number(epoch)? }))
            })
            .ok_or_else(|| InvalidEntryId(text.chars().take(64).collect()))
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Version { incarnation, epoch }) = self;
        write!(f, "e{incarnation}-{epoch}")
    }
}

/// Which file of a wasm component may have the entry's SVID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Digest {
    /// The holder is not a wasm component.
    NotApplicable,
    /// `sha256:HEX` of the file.
    Exactly(ComponentDigest),
    /// Whatever the host runs under that name: for development.
    DangerAny,
}

/// `sha256:` and 64 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComponentDigest(String);

/// Not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a component digest: write `sha256:` and 64 lower-case hex digits")]
pub struct InvalidDigest(String);

impl ComponentDigest {
    /// The digest as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ComponentDigest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let hex = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
        text.strip_prefix("sha256:")
            .filter(|digits| digits.len() == 64 && digits.bytes().all(hex))
            .map(|_| Self(text.to_owned()))
            .ok_or_else(|| InvalidDigest(text.chars().take(80).collect()))
    }
}

/// What a node may ask an SVID for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub id: EntryId,
    /// What the SVID says.
    pub spiffe_id: SpiffeId,
    /// The node whose child it is.
    pub node: NodeName,
    /// For a wasm component: which file.
    pub digest: Digest,
    /// The lattice whose virtual components the holder sees.
    pub lattice: Option<Lattice>,
    /// What an operator may alter.
    pub terms: Terms,
    /// When it was made.
    pub created_at: SystemTime,
    /// The template that made it, where no operator did.
    pub template: Option<EntryId>,
}

impl Entry {
    /// Whether both name the same holder: two such entries would be one rule written twice.
    #[must_use]
    pub fn names_as(&self, other: &Self) -> bool {
        self.spiffe_id == other.spiffe_id
            && self.digest == other.digest
            && self.terms.selectors == other.terms.selectors
    }

    /// Whether both say the same, whatever they are called and whenever they were made.
    #[must_use]
    pub fn says_as(&self, other: &Self) -> bool {
        let Self { id: _, spiffe_id, node, digest, lattice, terms, created_at: _, template: _ } = self;
        *spiffe_id == other.spiffe_id
            && *node == other.node
            && *digest == other.digest
            && *lattice == other.lattice
            && *terms == other.terms
    }
}

/// The policies of one file.
#[derive(Debug)]
pub struct PolicyDocument {
    /// The file's name.
    pub name: String,
    /// Cedar text.
    pub text: String,
    /// The text, parsed and checked against the schema.
    pub set: PolicySet,
}

impl PolicyDocument {
    /// Parses one file against `schema`.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn parse(file: &PolicyFile, schema: &Schema) -> Result<Self, Vec<Problem>> {
        let set = PolicySet::parse(std::slice::from_ref(file), schema)?;
        Ok(Self { name: file.name.clone(), text: file.text.clone(), set })
    }
}

/// The policies of one file that say what hosts may start.
#[derive(Debug)]
pub struct AdmissionDocument {
    /// The file's name.
    pub name: String,
    /// Cedar text.
    pub text: String,
    /// The text, parsed and checked.
    pub set: AdmissionSet,
}

impl AdmissionDocument {
    /// Parses one file.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn parse(file: &PolicyFile) -> Result<Self, Vec<Problem>> {
        let set = AdmissionSet::parse(std::slice::from_ref(file))?;
        Ok(Self { name: file.name.clone(), text: file.text.clone(), set })
    }
}

/// What other nodes need in order to call a virtual component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRecord {
    /// Its name.
    pub target: Target,
    /// Who must answer.
    pub spiffe_id: SpiffeId,
    /// wRPC instance names.
    pub interfaces: Vec<String>,
    /// Where its sidecars listen.
    pub addresses: Vec<Address>,
}

/// What a sidecar needs in order to serve a virtual component.
#[derive(Debug)]
pub struct Served {
    /// As other nodes see it.
    pub record: Arc<PeerRecord>,
    /// WIT and upstream.
    pub component: Arc<Component>,
    /// Every policy that could match it.
    pub policies: Vec<PolicyText>,
    /// Who is granted on it.
    pub grants: Vec<SpiffeId>,
}
