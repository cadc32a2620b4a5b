//! The side of the broker that has the store: which version it is, and its records for those that follow.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Message as NatsMessage, SubscribeError};
use prost::Message as _;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_stream::StreamExt as _;

use super::wire::{Ask, BrokerId, Copy, Part, Stand, new_id};
use super::{BEAT, COPY, LEAD, VERSION};
use crate::ledger::Ledger;
use crate::nats::PAUSE;
use crate::nats::callout::Callout;
use crate::nats::connect::connect;
use crate::store::LAYOUT;

/// Bytes of one part: well below what a server passes on.
const PART: usize = 128 << 10;
/// Followers that are answered at one time; another one asks again.
const MAX_COPIES: usize = 4;
/// For a broker with a store to say that there is one.
const ANSWER: Duration = Duration::from_secs(1);
/// How often it is said that there are two.
const COMPLAINT: Duration = Duration::from_secs(60);

struct Copies {
    own: BrokerId,
    callout: Arc<Callout>,
    ledger: Ledger,
    places: Arc<Semaphore>,
}

/// Serves followers until the broker stops.
pub(in crate::nats) async fn serve(callout: Arc<Callout>, ledger: Ledger) {
    let copies = Copies { own: new_id(), callout, ledger, places: Arc::new(Semaphore::new(MAX_COPIES)) };
    let Callout { settings, material, ways, .. } = &*copies.callout;
    loop {
        match connect(settings, "followers", &material.users.callout).await {
            Ok(client) => {
                ways.connected("followers", client.clone());
                if let Err(error) = copies.answer(&client).await {
                    tracing::error!(%error, "cannot serve other brokers");
                }
            }
            Err(error) => ways.failed("followers", &error),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl Copies {
    async fn answer(&self, client: &Client) -> Result<(), SubscribeError> {
        let mut asked = client.subscribe(COPY).await?;
        let mut leads = client.subscribe(LEAD).await?;
        let mut others = client.subscribe(VERSION).await?;
        let mut versions = self.ledger.versions();
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut complained: Option<Instant> = None;
        loop {
            tokio::select! {
                message = asked.next() => match message {
                    Some(message) => self.hand_out(client, message),
                    None => return Ok(()),
                },
                message = leads.next() => match message.map(|message| message.reply) {
                    Some(Some(reply)) => tell(client, &reply, self.stand()).await,
                    Some(None) => {}
                    None => return Ok(()),
                },
                message = others.next() => {
                    if message.is_none() { return Ok(()) }
                    if complained.is_none_or(|at| at.elapsed() > COMPLAINT) {
                        tracing::error!("another broker with a store of its own answers these servers: only one may, others follow it");
                        complained = Some(Instant::now());
                    }
                }
                changed = versions.changed() => {
                    if changed.is_err() { return Ok(()) }
                    tell(client, VERSION, Vec::new()).await;
                }
                _ = beat.tick() => tell(client, VERSION, Vec::new()).await,
            }
        }
    }

    fn stand(&self) -> Vec<u8> {
        let version = self.ledger.read(crate::registry::Registry::version);
        let stand = Stand {
            broker: self.own.clone(),
            trust_domain: self.callout.ground.trust_domain.to_string(),
            incarnation: version.incarnation,
            epoch: version.epoch,
            layout: LAYOUT,
        };
        stand.encode_to_vec()
    }

    fn hand_out(&self, client: &Client, message: NatsMessage) {
        let (Some(reply), Ok(ask)) = (message.reply, Ask::decode(message.payload)) else { return };
        if ask.broker != self.own {
            return;
        }
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return tracing::warn!(limit = MAX_COPIES, "too many brokers ask for the registry at one time");
        };
        let (copier, client) = (self.ledger.copier(), client.clone());
        let copy = async move {
            let copied = tokio::task::spawn_blocking(move || copier.copy(ask.have.map(Into::into))).await;
            match copied {
                Ok(Ok(copied)) => send(&client, &reply, &Copy::from(copied).encode_to_vec()).await,
                Ok(Err(error)) => tracing::error!(%error, "another broker gets no copy of the registry"),
                Err(_) => {}
            }
            drop(place);
        };
        let ground = &self.callout.ground;
        ground.tracker.spawn(ground.stop.clone().run_until_cancelled_owned(copy));
    }
}

async fn send(client: &Client, reply: &str, copy: &[u8]) {
    let of = u32::try_from(copy.chunks(PART).len()).unwrap_or(u32::MAX);
    for (number, bytes) in (0..of).zip(copy.chunks(PART)) {
        tell(client, reply, Part { number, of, bytes: bytes.to_vec() }.encode_to_vec()).await;
    }
}

async fn tell(client: &Client, subject: &str, message: Vec<u8>) {
    if let Err(error) = client.publish(subject.to_owned(), message.into()).await {
        tracing::warn!(%error, subject, "the other brokers were not told");
    }
}

/// Whether a broker with a store answers these servers already.
pub(in crate::nats) async fn another_leads(client: &Client) -> bool {
    matches!(tokio::time::timeout(ANSWER, client.request(LEAD, "".into())).await, Ok(Ok(_)))
}
