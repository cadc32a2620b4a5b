//! The side of a broker that follows: a copy of the other's registry, and each change as it is made.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::{Client, SubscribeError};
use portcullis_identity::TrustDomain;
use prost::Message as _;
use tokio_stream::StreamExt as _;

use super::wire::{Ask, BrokerId, Copy, Part, Stand};
use super::{COPY, SILENCE, VERSION};
use crate::clock;
use crate::ledger::Publisher;
use crate::nats::PAUSE;
use crate::nats::callout::Callout;
use crate::nats::connect::connect;
use crate::nats::ground::Age;
use crate::registry::{Registry, Version};
use crate::store::{Copied, Records, Row};
use crate::trust::Trust;

/// For a copy to be here.
const ANSWER: Duration = Duration::from_secs(10);
/// Bytes of a copy.
const MAX_COPY: usize = 256 << 20;

/// Why a copy is not taken.
#[derive(Debug, thiserror::Error)]
enum NotTaken {
    #[error("it did not come in time")]
    Late,
    #[error("the connection ended")]
    Disconnected,
    #[error("it is not whole, or too large")]
    Broken,
    #[error(
        "{0} is older than {1}, which is here: is it a store that was put back? `portcullis-broker restore` makes it a new incarnation"
    )]
    Older(Version, Version),
    #[error("it is of trust domain `{0}`")]
    Foreign(String),
    #[error("record `{key}`: {problem}")]
    Record { key: String, problem: String },
    #[error("its records do not fit together: {0}")]
    Unrestorable(#[from] crate::registry::Unrestorable),
}

/// What a follower follows with.
#[derive(Debug)]
pub(crate) struct Followed {
    pub(crate) trust_domain: TrustDomain,
    pub(crate) publisher: Publisher,
    pub(crate) trust: Arc<Trust>,
    pub(crate) age: Arc<Age>,
    /// Why there is no newer copy.
    pub(crate) problem: Arc<Mutex<Option<String>>>,
}

/// The rows that are here, and whose.
#[derive(Debug)]
struct Held {
    source: BrokerId,
    version: Version,
    rows: Rows,
}

/// Follows the broker that has the store until it is dropped.
pub(crate) async fn follow(followed: Followed, callout: Arc<Callout>) {
    let Callout { settings, material, ways, .. } = &*callout;
    let mut held = None;
    loop {
        match connect(settings, "following", &material.users.callout).await {
            Ok(client) => {
                ways.connected("following", client.clone());
                if let Err(error) = followed.follow(&client, &mut held).await {
                    tracing::error!(%error, "cannot hear of the registry");
                }
            }
            Err(error) => ways.failed("following", &error),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl Followed {
    async fn follow(&self, client: &Client, held: &mut Option<Held>) -> Result<(), SubscribeError> {
        let mut stands = client.subscribe(VERSION).await?;
        loop {
            let stand = match tokio::time::timeout(SILENCE, stands.next()).await {
                Ok(Some(message)) => Stand::decode(message.payload),
                Ok(None) => return Ok(()),
                Err(_) => {
                    self.note(Some("no broker with a store is heard".to_owned()));
                    continue;
                }
            };
            let Ok(stand) = stand else { continue };
            let is_here = |held: &Held| held.source == stand.broker && held.version == stand.version();
            if !held.as_ref().is_some_and(is_here)
                && let Err(reason) = self.take(client, &stand, held).await
            {
                self.note(Some(format!("the registry is not taken from the other broker: {reason}")));
                continue;
            }
            self.note(None);
            self.age.confirm();
        }
    }

    /// Has the registry be what `stand` tells of. Of what is `held` already only the changes are asked for; after an error everything is.
    async fn take(&self, client: &Client, stand: &Stand, held: &mut Option<Held>) -> Result<(), NotTaken> {
        if stand.trust_domain != self.trust_domain.as_str() {
            return Err(NotTaken::Foreign(stand.trust_domain.chars().take(255).collect()));
        }
        let here = self.publisher.read(Registry::version);
        if stand.version() < here {
            return Err(NotTaken::Older(stand.version(), here));
        }
        let have = held.as_ref().filter(|held| held.source == stand.broker).map(|held| held.version);
        let Copied { base, version, rows } = fetch(client, stand, have).await?;
        let before = match (base, held.take()) {
            (None, _) => BTreeMap::new(),
            (Some(base), Some(held)) if Some(base) == have => held.rows,
            (Some(_), _) => return Err(NotTaken::Broken),
        };
        if version < stand.version() {
            return Err(NotTaken::Older(version, stand.version()));
        }
        let trust_domain = self.trust_domain.clone();
        let built = tokio::task::spawn_blocking(move || build((before, rows), trust_domain, version)).await;
        let (registry, rows) = built.map_err(|_| NotTaken::Disconnected)??;
        tracing::info!(%version, records = rows.len(), "the registry is as the broker that is followed has it");
        // First, so that whoever hears of the version finds revoked what it revokes.
        self.trust.refresh(&registry, clock::now());
        self.publisher.change(|current| *current = registry);
        *held = Some(Held { source: stand.broker.clone(), version, rows });
        Ok(())
    }

    /// Notes why there is no newer copy, or that there is one.
    fn note(&self, problem: Option<String>) {
        let mut noted = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = problem.as_ref().filter(|_| *noted != problem) {
            tracing::warn!(
                reason,
                "the registry cannot be followed: logins are answered by the last copy, while it is young enough"
            );
        }
        *noted = problem;
    }
}

type Rows = BTreeMap<String, Vec<u8>>;

/// What `changes` make of `rows`.
fn build(
    (mut rows, changes): (Rows, Vec<Row>),
    trust_domain: TrustDomain,
    version: Version,
) -> Result<(Registry, Rows), NotTaken> {
    for Row { key, value } in changes {
        match value {
            Some(value) => rows.insert(key, value),
            None => rows.remove(&key),
        };
    }
    let mut records = Records::default();
    for (key, value) in &rows {
        let taken = records.take(key, value, &trust_domain);
        taken.map_err(|problem| NotTaken::Record { key: key.clone(), problem })?;
    }
    Ok((records.into_registry(trust_domain, version)?, rows))
}

async fn fetch(client: &Client, stand: &Stand, have: Option<Version>) -> Result<Copied, NotTaken> {
    let inbox = client.new_inbox();
    let mut parts = client.subscribe(inbox.clone()).await.map_err(|_| NotTaken::Disconnected)?;
    let ask = Ask { broker: stand.broker.clone(), have: have.map(Into::into) };
    let asked = client.publish_with_reply(COPY, inbox, ask.encode_to_vec().into()).await;
    asked.map_err(|_| NotTaken::Disconnected)?;
    let mut whole = Vec::new();
    for next in 0_u32.. {
        let part = tokio::time::timeout(ANSWER, parts.next()).await.map_err(|_| NotTaken::Late)?;
        let part = part.ok_or(NotTaken::Disconnected)?;
        let Part { number, of, bytes } = Part::decode(part.payload).map_err(|_| NotTaken::Broken)?;
        if number != next || whole.len().saturating_add(bytes.len()) > MAX_COPY {
            return Err(NotTaken::Broken);
        }
        whole.extend(bytes);
        if next.saturating_add(1) >= of {
            break;
        }
    }
    Copy::decode(whole.as_slice()).map(Into::into).map_err(|_| NotTaken::Broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_made_to_what_is_held_or_nothing_is() {
        let row = |key: &str, value: Option<&[u8]>| Row { key: key.to_owned(), value: value.map(<[u8]>::to_vec) };
        let trust_domain = || TrustDomain::new("acme.test").unwrap();
        // A grant of a component; its record has two texts.
        let grant = b"\x0a\x06prod/a\x12\x16spiffe://acme.test/bob".as_slice();
        let version = Version { incarnation: 1, epoch: 4 };
        let rows = Rows::from([("grant/prod/a/old".to_owned(), grant.to_vec())]);
        let changes = vec![row("grant/prod/a/old", None), row("grant/prod/a/new", Some(grant))];
        let (registry, rows) = build((rows, changes), trust_domain(), version).unwrap();
        assert_eq!(
            (registry.version(), rows.keys().map(String::as_str).collect()),
            (version, vec!["grant/prod/a/new"])
        );
        for (key, value) in [("grant/prod/a/x", b"\xff".as_slice()), ("toad/x", b"".as_slice())] {
            let error = build((rows.clone(), vec![row(key, Some(value))]), trust_domain(), version).unwrap_err();
            assert!(error.to_string().starts_with(&format!("record `{key}`")), "{error}");
        }
    }
}
