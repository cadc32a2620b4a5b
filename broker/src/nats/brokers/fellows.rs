//! The other brokers that answer logins, and what they are asked before a login token is taken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::{Client, Message as NatsMessage, SubscribeError};
use portcullis_identity::parse_spiffe_id;
use prost::Message as _;
use tokio::time::Instant;
use tokio_stream::StreamExt as _;

use super::wire::{BrokerId, Here, Take, Taken, new_id};
use super::{BEAT, HERE, SILENCE, TAKE};
use crate::clock;
use crate::nats::callout::Callout;
use crate::nats::replay::{NotFresh, UsedToken};

/// For the others to say whether a token was used; a server waits two seconds for us.
const ANSWER: Duration = Duration::from_millis(500);
/// For the servers to hear that this broker ends.
const GOODBYE: Duration = Duration::from_millis(200);
/// Brokers of one set-up.
const MAX_FELLOWS: usize = 64;

/// Who else answers.
#[derive(Debug)]
pub(in crate::nats) struct Fellows {
    own: BrokerId,
    heard: Mutex<BTreeMap<BrokerId, Instant>>,
    /// Since when this broker listens.
    since: Mutex<Option<Instant>>,
}

impl Default for Fellows {
    fn default() -> Self {
        Self { own: new_id(), heard: Mutex::default(), since: Mutex::default() }
    }
}

impl Fellows {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<BrokerId, Instant>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, Here { broker, leaves }: Here) {
        let mut heard = self.lock();
        heard.retain(|_, at| at.elapsed() < SILENCE);
        if leaves {
            heard.remove(&broker);
        } else if broker != self.own && (heard.len() < MAX_FELLOWS || heard.contains_key(&broker)) {
            heard.insert(broker, Instant::now());
        }
    }

    /// Those who were heard just now.
    fn present(&self) -> BTreeSet<BrokerId> {
        let mut heard = self.lock();
        heard.retain(|_, at| at.elapsed() < SILENCE);
        heard.keys().cloned().collect()
    }

    /// Whether it has listened for so long that it has heard of everybody.
    fn knows_all(&self) -> bool {
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| since.elapsed() > BEAT * 2)
    }

    fn beat(&self, leaves: bool) -> Vec<u8> {
        Here { broker: self.own.clone(), leaves }.encode_to_vec()
    }
}

impl Callout {
    /// Tells the others that this broker is there, and remembers what tokens they take, until the connection is closed for good.
    pub(in crate::nats) async fn keep_company(&self, client: &Client) -> Result<(), SubscribeError> {
        let mut here = client.subscribe(HERE).await?;
        let mut takes = client.subscribe(TAKE).await?;
        *self.fellows.since.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = here.next() => match message {
                    Some(message) => {
                        if let Ok(message) = Here::decode(message.payload) {
                            self.fellows.note(message);
                        }
                    }
                    None => return Ok(()),
                },
                message = takes.next() => match message {
                    Some(message) => self.remember(client, message).await,
                    None => return Ok(()),
                },
                _ = beat.tick() => tell(client, HERE, self.fellows.beat(false)).await,
            }
        }
    }

    /// Tells the others not to wait for this broker any more.
    pub(in crate::nats) async fn leave_company(&self, client: &Client) {
        let told = async {
            tell(client, HERE, self.fellows.beat(true)).await;
            client.flush().await
        };
        // Without servers nobody hears it.
        let _ = tokio::time::timeout(GOODBYE, told).await;
    }

    /// Another broker takes a token.
    async fn remember(&self, client: &Client, message: NatsMessage) {
        let (Some(reply), Ok(take)) = (message.reply, Take::decode(message.payload)) else { return };
        let Take { spiffe_id, token, until } = take;
        let (Ok(id), Ok(hash)) = (parse_spiffe_id(&spiffe_id), token.try_into()) else { return };
        let token = UsedToken { id, hash, until: clock::from_unix_seconds(until) };
        let fresh = self.used().take(&token, clock::now()).is_ok();
        let answer = Taken { broker: self.fellows.own.clone(), fresh };
        tell(client, &reply, answer.encode_to_vec()).await;
    }

    /// Asks the other brokers whether `token` was used there; from now on they refuse it.
    pub(in crate::nats) async fn ask_fellows(&self, client: &Client, token: &UsedToken) -> Result<(), NotFresh> {
        let deadline = Instant::now() + ANSWER;
        let mut missing = self.fellows.present();
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await.map_err(|_| NotFresh::Unsure)?;
        let take = Take {
            spiffe_id: token.id.to_string(),
            token: token.hash.to_vec(),
            until: clock::unix_seconds(token.until),
        };
        let asked = client.publish_with_reply(TAKE, inbox, take.encode_to_vec().into()).await;
        asked.map_err(|_| NotFresh::Unsure)?;
        loop {
            let answer = match tokio::time::timeout_at(deadline, answers.next()).await {
                Ok(Some(answer)) => answer,
                // Who hangs is not heard any more, and who went said so: nobody waits for them.
                Ok(None) | Err(_) if missing.is_disjoint(&self.fellows.present()) => return Ok(()),
                Ok(None) | Err(_) => return Err(NotFresh::Unsure),
            };
            // Of our own messages we hear nothing, so that the server says it where nobody else is there.
            if answer.status == Some(async_nats::StatusCode::NO_RESPONDERS) {
                return Ok(());
            }
            let Ok(Taken { broker, fresh }) = Taken::decode(answer.payload) else { continue };
            if !fresh {
                return Err(NotFresh::Used);
            }
            missing.remove(&broker);
            // Who is not known yet may answer still.
            if missing.is_empty() && self.fellows.knows_all() {
                return Ok(());
            }
        }
    }
}

async fn tell(client: &Client, subject: &str, message: Vec<u8>) {
    if let Err(error) = client.publish(subject.to_owned(), message.into()).await {
        tracing::warn!(%error, subject, "the other brokers were not told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_goodbye_is_not_waited_for_and_nobody_waits_for_itself() {
        let fellows = Fellows::default();
        let here = |broker: u8, leaves| fellows.note(Here { broker: vec![broker; 16], leaves });
        fellows.note(Here { broker: fellows.own.clone(), leaves: false });
        here(1, false);
        here(2, false);
        here(1, true);
        assert_eq!(fellows.present(), BTreeSet::from([vec![2; 16]]));
        for broker in 0..=u8::MAX {
            here(broker, false);
        }
        assert_eq!(fellows.present().len(), MAX_FELLOWS);
    }
}
