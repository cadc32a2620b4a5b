//! What the broker has told this node, as domain types; applying a message is a plain function.

mod bundle;
mod entry;
mod template;
mod withdrawal;

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use portcullis_api::v1;
use portcullis_identity::{Bundle, JwtBundle, SpiffeId, Target, TrustBundles, TrustDomain};
use portcullis_policy::PolicyText;
use portcullis_value::WitSource;

pub(crate) use self::bundle::parse_bundle;
pub use self::entry::{ComponentDigest, Entry};
pub use self::template::Template;

pub use withdrawal::Withdrawal;

/// The order of everything the broker says. A restored broker starts a new incarnation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Grows when the broker's store is restored from a backup.
    pub incarnation: u64,
    /// Grows with every change.
    pub epoch: u64,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.incarnation, self.epoch)
    }
}

impl From<Version> for v1::Version {
    fn from(version: Version) -> Self {
        Self { incarnation: version.incarnation, epoch: version.epoch }
    }
}

/// What is needed in order to call a virtual component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRecord {
    /// Its address in the lattice.
    pub target: Target,
    /// Who must answer.
    pub spiffe_id: SpiffeId,
    /// wRPC instance names, `namespace:package/interface@version`.
    pub interfaces: Vec<String>,
    /// `host:port` of QUIC listeners.
    pub addresses: Vec<String>,
}

/// Whether the sidecar decodes parameters, so that a policy may read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamKind {
    /// Values are decoded by WIT.
    Typed,
    /// Bytes pass untouched.
    Splice,
}

/// Everything needed in order to serve a virtual component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedComponent {
    /// How the lattice sees it.
    pub record: PeerRecord,
    /// As it was registered.
    pub upstream: UpstreamKind,
    /// Its WIT folder.
    pub wit: Vec<WitSource>,
    /// Every policy that could match it.
    pub policies: Vec<PolicyText>,
    /// SPIFFE IDs granted on it.
    pub grants: Vec<String>,
}

/// Everything the broker has told this node, at one version.
#[derive(Clone, Debug, Default)]
pub struct NodeState {
    /// Of the last message applied.
    pub version: Version,
    /// X.509 authorities by trust domain.
    pub bundles: BTreeMap<TrustDomain, Bundle>,
    /// JWT authorities by trust domain; they vouch for no certificate.
    pub jwt_bundles: BTreeMap<TrustDomain, JwtBundle>,
    /// Entries by their id.
    pub entries: BTreeMap<String, Entry>,
    /// What makes entries of attested workloads, by id.
    pub templates: BTreeMap<String, Template>,
    /// Virtual components that can be called.
    pub components: BTreeMap<Target, PeerRecord>,
    /// Virtual components that this node serves.
    pub served: BTreeMap<Target, ServedComponent>,
    /// Whose the names are that the node met over NATS; of one that is nobody's that is known, too.
    pub callers: BTreeMap<Target, Option<SpiffeId>>,
    /// What is not trusted although a bundle vouches for it, or not for long.
    pub withdrawal: Withdrawal,
}

/// A message of the broker that is not believed.
#[derive(Debug, thiserror::Error)]
pub enum InvalidState {
    /// A required field is missing.
    #[error("the broker's message lacks `{0}`")]
    Missing(&'static str),
    /// A field does not parse.
    #[error("the broker's message has a bad `{field}`: {cause}")]
    Field {
        /// Which one.
        field: &'static str,
        /// Why.
        cause: String,
    },
    /// The message is older than what is already known: a rolled-back or restored store.
    #[error("the broker offers version {offered}, but {known} was already seen")]
    Older {
        /// In the message.
        offered: Version,
        /// Applied before.
        known: Version,
    },
}

impl NodeState {
    /// Parses a whole state.
    ///
    /// # Errors
    /// When a field is missing or malformed, or when it is older than `known`.
    pub fn from_message(message: v1::State, known: Version) -> Result<Self, InvalidState> {
        let v1::State {
            version,
            bundles,
            entries,
            components,
            served,
            now_seconds: _,
            revocations,
            templates,
            callers,
        } = message;
        let version = parse_version(version)?;
        if version < known {
            return Err(InvalidState::Older { offered: version, known });
        }
        let mut state = Self { version, ..Self::default() };
        state.withdrawal.note_revocations(revocations)?;
        state.upsert(bundles, entries, components, served)?;
        template::note(&mut state.templates, templates);
        super::callers::note(&mut state.callers, callers)?;
        Ok(state)
    }

    /// Keeps what `before` knew to be revoked. A broker forgets no revocation before it is over, but a backup knows only older ones.
    pub fn keep_revocations(&mut self, before: &Self, now: SystemTime) {
        self.withdrawal.keep_revocations(&before.withdrawal, now);
    }

    /// The state after a change.
    ///
    /// # Errors
    /// As for [`NodeState::from_message`]; the state before stays good.
    pub fn changed(&self, change: v1::Change) -> Result<Self, InvalidState> {
        let v1::Change {
            version,
            bundles,
            entries,
            entries_removed,
            components,
            components_removed,
            served,
            served_removed,
            revocations,
            bundles_removed,
            templates,
            templates_removed,
        } = change;
        let version = parse_version(version)?;
        if version <= self.version {
            return Err(InvalidState::Older { offered: version, known: self.version });
        }
        let mut state = self.clone();
        state.version = version;
        state.withdrawal.note_revocations(revocations)?;
        for name in bundles_removed {
            let trust_domain = portcullis_identity::parse_trust_domain(&name)
                .map_err(|error| InvalidState::Field { field: "bundles_removed", cause: error.to_string() })?;
            state.bundles.remove(&trust_domain);
            state.jwt_bundles.remove(&trust_domain);
            state.withdrawal.forget_bundle(&name);
        }
        for id in entries_removed {
            state.entries.remove(&id);
        }
        for id in templates_removed {
            state.templates.remove(&id);
        }
        template::note(&mut state.templates, templates);
        for target in components_removed {
            state.components.remove(&parse_target(Some(target))?);
        }
        for target in served_removed {
            state.served.remove(&parse_target(Some(target))?);
        }
        state.upsert(bundles, entries, components, served)?;
        Ok(state)
    }

    /// The message that would carry this state: what the on-disk cache keeps.
    #[must_use]
    pub fn to_message(&self) -> v1::State {
        v1::State {
            version: Some(self.version.into()),
            bundles: self.bundle_messages(),
            entries: self.entries.values().map(Entry::to_message).collect(),
            components: self.components.values().map(PeerRecord::to_message).collect(),
            served: self.served.values().map(ServedComponent::to_message).collect(),
            now_seconds: 0,
            revocations: self.withdrawal.revocation_messages(),
            templates: self.templates.values().map(Template::to_message).collect(),
            callers: super::callers::messages(&self.callers),
        }
    }

    /// Whether both states trust and refuse the same, to the byte.
    pub(super) fn trusts_as(&self, other: &Self) -> bool {
        self.withdrawal == other.withdrawal && self.bundle_messages() == other.bundle_messages()
    }

    /// Whom this state trusts at `now`: its bundles, in this order, without what is withdrawn.
    pub(super) fn trust(&self, bundles: Vec<Bundle>, now: SystemTime) -> TrustBundles {
        let trust = TrustBundles::new(bundles, now).with_revocations(self.withdrawal.revocations(now));
        trust.with_tainted(self.withdrawal.all_tainted())
    }

    fn bundle_messages(&self) -> Vec<v1::Bundle> {
        let message = |(trust_domain, x509): (&TrustDomain, &Bundle)| {
            self.withdrawal.annotate(bundle::bundle_message(x509, self.jwt_bundles.get(trust_domain)))
        };
        self.bundles.iter().map(message).collect()
    }

    fn upsert(
        &mut self,
        bundles: Vec<v1::Bundle>,
        entries: Vec<v1::Entry>,
        components: Vec<v1::PeerRecord>,
        served: Vec<v1::ServedComponent>,
    ) -> Result<(), InvalidState> {
        for bundle in bundles {
            self.withdrawal.note_bundle(&bundle)?;
            let (x509, jwt) = parse_bundle(bundle)?;
            self.jwt_bundles.insert(jwt.trust_domain().clone(), jwt);
            self.bundles.insert(x509.trust_domain().clone(), x509);
        }
        for entry in entries {
            let entry = Entry::from_message(entry)?;
            self.entries.insert(entry.id.clone(), entry);
        }
        for record in components {
            let record = PeerRecord::from_message(record)?;
            self.components.insert(record.target.clone(), record);
        }
        for component in served {
            let component = ServedComponent::from_message(component)?;
            self.served.insert(component.record.target.clone(), component);
        }
        Ok(())
    }
}

impl PeerRecord {
    pub(crate) fn from_message(message: v1::PeerRecord) -> Result<Self, InvalidState> {
        let v1::PeerRecord { target, spiffe_id, interfaces, addresses } = message;
        Ok(Self {
            target: parse_target(target)?,
            spiffe_id: parse_id("record.spiffe_id", &spiffe_id)?,
            interfaces,
            addresses,
        })
    }

    fn to_message(&self) -> v1::PeerRecord {
        v1::PeerRecord {
            target: Some(target_message(&self.target)),
            spiffe_id: self.spiffe_id.to_string(),
            interfaces: self.interfaces.clone(),
            addresses: self.addresses.clone(),
        }
    }
}

impl ServedComponent {
    fn from_message(message: v1::ServedComponent) -> Result<Self, InvalidState> {
        let v1::ServedComponent { record, upstream, wit, policies, grants } = message;
        let upstream = match v1::Upstream::try_from(upstream) {
            Ok(v1::Upstream::Typed) => UpstreamKind::Typed,
            Ok(v1::Upstream::Splice) => UpstreamKind::Splice,
            Ok(v1::Upstream::Unspecified) | Err(_) => return Err(InvalidState::Missing("served.upstream")),
        };
        Ok(Self {
            record: PeerRecord::from_message(record.ok_or(InvalidState::Missing("served.record"))?)?,
            upstream,
            wit: wit_sources(wit),
            policies: policies.into_iter().map(|v1::Policy { id, text }| PolicyText { id, text }).collect(),
            grants,
        })
    }

    fn to_message(&self) -> v1::ServedComponent {
        let upstream = match self.upstream {
            UpstreamKind::Typed => v1::Upstream::Typed,
            UpstreamKind::Splice => v1::Upstream::Splice,
        };
        v1::ServedComponent {
            record: Some(self.record.to_message()),
            upstream: upstream.into(),
            wit: self
                .wit
                .iter()
                .map(|source| v1::WitFile { path: source.path.clone(), text: source.text.clone() })
                .collect(),
            policies: self
                .policies
                .iter()
                .map(|policy| v1::Policy { id: policy.id.clone(), text: policy.text.clone() })
                .collect(),
            grants: self.grants.clone(),
        }
    }
}

pub(crate) fn wit_sources(files: Vec<v1::WitFile>) -> Vec<WitSource> {
    files.into_iter().map(|v1::WitFile { path, text }| WitSource { path, text }).collect()
}

pub(crate) fn target_message(target: &Target) -> v1::Target {
    v1::Target { lattice: target.lattice.to_string(), id: target.id.to_string() }
}

pub(super) fn parse_version(version: Option<v1::Version>) -> Result<Version, InvalidState> {
    let v1::Version { incarnation, epoch } = version.ok_or(InvalidState::Missing("version"))?;
    Ok(Version { incarnation, epoch })
}

pub(super) fn parse_target(target: Option<v1::Target>) -> Result<Target, InvalidState> {
    let v1::Target { lattice, id } = target.ok_or(InvalidState::Missing("target"))?;
    let field = |cause: String| InvalidState::Field { field: "target", cause };
    Ok(Target {
        lattice: lattice.parse().map_err(|error: portcullis_identity::InvalidName| field(error.to_string()))?,
        id: id.parse().map_err(|error: portcullis_identity::InvalidName| field(error.to_string()))?,
    })
}

pub(super) fn parse_id(field: &'static str, text: &str) -> Result<SpiffeId, InvalidState> {
    portcullis_identity::parse_spiffe_id(text).map_err(|error| InvalidState::Field { field, cause: error.to_string() })
}

#[cfg(test)]
mod tests;
