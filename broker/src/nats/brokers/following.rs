//! The side of a broker that follows: a copy of the other's registry, and each change as it is made.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::{Client, SubscribeError};
use portcullis_identity::TrustDomain;
use prost::Message as _;
use tokio::time::Instant;
use tokio_stream::StreamExt as _;

use super::wire::{Ask, BrokerId, Copy, Part, Stand};
use super::{BEAT, COPY, LEAD, SILENCE, VERSION};
use crate::clock;
use crate::ledger::Publisher;
use crate::nats::PAUSE;
use crate::nats::callout::Callout;
use crate::nats::connect::connect;
use crate::nats::ground::Age;
use crate::nats::watch::arrived;
use crate::registry::{Registry, Version};
use crate::store::{Copied, LAYOUT, Records, Row};
use crate::trust::Trust;

/// For a copy to be here.
const ANSWER: Duration = Duration::from_secs(30);
/// How soon a copy is asked for again that was not taken.
const AGAIN: Duration = Duration::from_secs(10);
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
    #[error("its records have layout {0}, this version knows {LAYOUT}: it is newer than this follower")]
    Layout(u32),
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
        let mut calls = client.subscribe(VERSION).await?;
        let mut failed: Option<(Stand, Instant)> = None;
        loop {
            // What came meanwhile says the same.
            match tokio::time::timeout(SILENCE, calls.next()).await {
                Ok(Some(_)) => while arrived(&mut calls).await.is_some() {},
                Ok(None) => return Ok(()),
                Err(_) => {}
            }
            // From before the question: what is registered later may be missing.
            let asked = Instant::now();
            let Some(stand) = ask_stand(client).await else {
                self.note(Some("no broker with a store is heard".to_owned()));
                continue;
            };
            let is_here = |held: &Held| held.source == stand.broker && held.version == stand.version();
            if held.as_ref().is_some_and(is_here) {
                self.note(None);
                self.age.confirm(asked);
                continue;
            }
            // What was refused is not asked for again at once, unless it is another one now.
            if failed.as_ref().is_some_and(|(refused, at)| *refused == stand && at.elapsed() < AGAIN) {
                self.age.fall_behind();
                continue;
            }
            match self.take(client, &stand, held).await {
                Ok(true) => {
                    self.note(None);
                    self.age.confirm(asked);
                    failed = None;
                }
                // It has changed meanwhile: what came is newer than the question was.
                Ok(false) => {}
                Err(reason) => {
                    self.note(Some(format!("the registry is not taken from the other broker: {reason}")));
                    // One of another trust domain, or an older store, is not the one that is followed.
                    if !matches!(reason, NotTaken::Foreign(_) | NotTaken::Older(..)) {
                        self.age.fall_behind();
                    }
                    failed = Some((stand, Instant::now()));
                }
            }
        }
    }

    /// Has the registry be what `stand` tells of. Of what is `held` already only the changes are asked for; after an error everything is.
    /// Whether it is just that, or a newer one.
    async fn take(&self, client: &Client, stand: &Stand, held: &mut Option<Held>) -> Result<bool, NotTaken> {
        if stand.trust_domain != self.trust_domain.as_str() {
            return Err(NotTaken::Foreign(stand.trust_domain.chars().take(255).collect()));
        }
        if !(1..=LAYOUT).contains(&stand.layout) {
            return Err(NotTaken::Layout(stand.layout));
        }
        let here = self.publisher.read(Registry::version);
        if stand.version() < here {
            return Err(NotTaken::Older(stand.version(), here));
        }
        let have = held.as_ref().filter(|held| held.source == stand.broker).map(|held| held.version);
        let fetched = tokio::time::timeout(ANSWER, fetch(client, stand, have)).await;
        let Copied { base, version, rows } = fetched.map_err(|_| NotTaken::Late)??;
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
        Ok(version == stand.version())
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

/// Which version the broker with the store has now.
async fn ask_stand(client: &Client) -> Option<Stand> {
    let answer = tokio::time::timeout(BEAT, client.request(LEAD, "".into())).await.ok()?.ok()?;
    Stand::decode(answer.payload).ok()
}

async fn fetch(client: &Client, stand: &Stand, have: Option<Version>) -> Result<Copied, NotTaken> {
    let inbox = client.new_inbox();
    let mut parts = client.subscribe(inbox.clone()).await.map_err(|_| NotTaken::Disconnected)?;
    let ask = Ask { broker: stand.broker.clone(), have: have.map(Into::into) };
    let asked = client.publish_with_reply(COPY, inbox, ask.encode_to_vec().into()).await;
    asked.map_err(|_| NotTaken::Disconnected)?;
    let mut whole = Vec::new();
    for next in 0_u32.. {
        let part = parts.next().await.ok_or(NotTaken::Disconnected)?;
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
