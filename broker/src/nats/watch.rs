//! Ends sessions that would not be admitted any more: at once where something was taken away, in its own time where something was added.
//!
//! The system account tells of connections that come and go, whichever broker admitted them, and takes the order to end one.

mod servers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_nats::{Client, Message, Subscriber};
use portcullis_identity::{Revoked, parse_spiffe_id};
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;
use tokio_stream::StreamExt as _;

use self::servers::{ConnectionWire, ServerWire, flush, order};
use super::callout::Callout;
use super::login::LoginRefused;
use super::member::Class;
use super::permissions::{Difference, Permissions};
use super::sessions::{Course, Place, Session};
use crate::audit::Event;
use crate::clock;

/// A client that was asked to connect anew has so long.
const MOVE: Duration = Duration::from_secs(5);
/// How often the list is compared with that of the servers: messages can be lost.
const COMPARE: Duration = Duration::from_secs(60);
/// How soon an order to end a session is repeated: orders can be lost.
const AGAIN: Duration = Duration::from_secs(5);
/// A server that was missed in so many comparisons is gone, and its sessions with it.
const MISSED: u8 = 3;
/// Servers whose list is asked for.
const MAX_SERVERS: usize = 64;

/// `$SYS.ACCOUNT.*.CONNECT` and `DISCONNECT`.
#[derive(Deserialize)]
struct Advisory {
    server: ServerWire,
    client: ClientWire,
}

#[derive(Deserialize)]
struct ClientWire {
    id: u64,
    #[serde(default)]
    user: String,
    #[serde(default)]
    host: String,
    #[serde(default)]
    start: String,
}

/// A connection as a server tells of it.
struct Told {
    user: String,
    address: String,
    /// RFC 3339.
    start: String,
    /// As it came.
    heard: bool,
}

impl Told {
    /// Whose beginning is not known may be older than whatever was revoked.
    fn since(&self) -> SystemTime {
        OffsetDateTime::parse(&self.start, &Rfc3339).map_or(SystemTime::UNIX_EPOCH, SystemTime::from)
    }
}

/// What to do with a session.
#[derive(Debug, PartialEq, Eq)]
enum Ruling {
    Keep,
    /// Its rights grew.
    Move,
    End(String),
}

impl Callout {
    /// Follows the servers' connections with the system account's `client`, until the broker stops.
    pub(super) async fn watch(self: &Arc<Self>, client: Client) -> Result<(), async_nats::SubscribeError> {
        let account = &self.material.lattice;
        let mut coming = client.subscribe(format!("$SYS.ACCOUNT.{account}.CONNECT")).await?;
        let mut going = client.subscribe(format!("$SYS.ACCOUNT.{account}.DISCONNECT")).await?;
        let (mut versions, mut trust) = (self.ground.registry.versions(), self.ground.trust.changes());
        let mut compare = tokio::time::interval(COMPARE);
        compare.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut again = tokio::time::interval(AGAIN);
        again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut missed = BTreeMap::new();
        let mut certificates = self.revoked_certificates();
        loop {
            tokio::select! {
                message = coming.next() => match message {
                    Some(message) => self.came(&client, &message).await,
                    None => return Ok(()),
                },
                message = going.next() => match message {
                    Some(message) => {
                        // What a server told of before: who went must not come afterwards.
                        while let Some(earlier) = arrived(&mut coming).await {
                            self.came(&client, &earlier).await;
                        }
                        self.went(&message);
                    }
                    None => return Ok(()),
                },
                changed = versions.changed() => {
                    if changed.is_err() { return Ok(()) }
                    versions.mark_unchanged();
                    let now_revoked = self.revoked_certificates();
                    let grown = !now_revoked.is_subset(&certificates);
                    certificates = now_revoked;
                    if grown {
                        self.sessions().doubt_lost();
                    }
                    self.judge_all(&client, grown).await;
                }
                changed = trust.changed() => {
                    if changed.is_err() { return Ok(()) }
                    self.judge_all(&client, false).await;
                }
                () = self.look_again.notified() => self.judge_all(&client, false).await,
                _ = compare.tick() => self.compare(&client, &mut missed, &mut coming).await,
                _ = again.tick() => {
                    self.end_again(&client).await;
                    // Of whom its copy said nothing sure before.
                    if self.ground.age.is_some() {
                        self.judge_all(&client, false).await;
                    }
                }
            }
        }
    }

    async fn came(self: &Arc<Self>, client: &Client, message: &Message) {
        let Ok(Advisory { server, client: connected }) = serde_json::from_slice(&message.payload) else { return };
        let place = Place { server: server.id, number: connected.id };
        let ClientWire { id: _, user, host, start } = connected;
        self.learn(place.clone(), Told { user, address: host, start, heard: true });
        self.came.notify_one();
        // Something may have changed between its admission and now.
        let session = self.sessions().session(&place).cloned();
        if let Some(session) = session {
            let ruling = self.rule((&place, &session), false, clock::now());
            self.enforce(client, &place, &session, ruling).await;
            flush(client).await;
        }
    }

    fn went(&self, message: &Message) {
        let Ok(Advisory { server, client }) = serde_json::from_slice::<Advisory>(&message.payload) else { return };
        self.sessions().end(&Place { server: server.id, number: client.id });
    }

    /// Follows a connection that this broker did not admit. Users without a SPIFFE ID are the broker's own.
    fn learn(&self, place: Place, told: Told) {
        let Ok(identity) = parse_spiffe_id(&told.user) else { return };
        let now = clock::now();
        // The server's clock may be ahead of ours, by which revocations count.
        let since = told.since().min(now);
        let Told { user: _, address, start: _, heard } = told;
        let session = || Session {
            identity,
            proved: None,
            met: Instant::now(),
            heard,
            found: None,
            address,
            since,
            until: None,
            course: Course::Stays,
        };
        self.sessions().learn(place, session, now);
    }

    /// Judges every session again.
    async fn judge_all(self: &Arc<Self>, client: &Client, certificate_revoked: bool) {
        let judge = Arc::clone(self);
        let judged = self.ground.tracker.spawn_blocking(move || {
            let now = clock::now();
            judge.members().forget_gone();
            let sessions = judge.sessions().all();
            let judged = sessions.into_iter().map(|(place, session)| {
                let ruling = judge.rule((&place, &session), certificate_revoked, now);
                (place, session, ruling)
            });
            judged.filter(|(_, _, ruling)| *ruling != Ruling::Keep).collect::<Vec<_>>()
        });
        for (place, session, ruling) in judged.await.unwrap_or_default() {
            self.enforce(client, &place, &session, ruling).await;
        }
        flush(client).await;
    }

    fn rule(&self, (place, session): (&Place, &Session), certificate_revoked: bool, now: SystemTime) -> Ruling {
        if session.course == Course::Ends {
            return Ruling::Keep;
        }
        let Some(proved) = &session.proved else {
            return self.rule_learned((place, session), certificate_revoked, now);
        };
        match self.judge_again(&proved.evidence, now) {
            Err(refused) => Ruling::End(refused.to_string()),
            Ok(membership) if membership.class != proved.class => Ruling::End("it is something else now".to_owned()),
            Ok(membership) => by_rights(&proved.permissions, &membership.permissions),
        }
    }

    /// What becomes of a session that was not admitted by this broker, or before it was started: it is not known how it proved itself, nor what
    /// it may do.
    fn rule_learned(&self, (place, session): (&Place, &Session), certificate_revoked: bool, now: SystemTime) -> Ruling {
        let Session { identity, since, .. } = session;
        let holds_key = self.settings.keys.iter().any(|holder| holder.identity == *identity);
        // A key is issued by nobody: whatever is revoked of its identity is later.
        let issued = if holds_key { SystemTime::UNIX_EPOCH } else { *since };
        if self.identity_revoked(identity, issued, now) {
            return Ruling::End(LoginRefused::Revoked(identity.clone()).to_string());
        }
        // A copy may lack what was registered before it came.
        if self.ground.age.as_ref().is_some_and(|age| !age.is_of_after(session.met)) {
            return Ruling::Keep;
        }
        // What a key may do stands in the settings, which are older than this broker.
        let membership = match self.membership_of(identity) {
            Err(_) if holds_key => return Ruling::Keep,
            Err(refused) => return Ruling::End(refused.to_string()),
            Ok(membership) => membership,
        };
        // Hosts log in by token, and what they may do depends on their lattice alone. Who follows leaves the rest to the broker that it follows.
        if membership.class != Class::Host && self.ground.age.is_none() {
            if certificate_revoked {
                return Ruling::End("a certificate was revoked, and it may have been this one".to_owned());
            }
            // Its rights may have shrunk, and its certificate been revoked, when nobody could end it: it shows itself again.
            if *since < self.started || !session.heard {
                return Ruling::Move;
            }
        }
        let Some(found) = &session.found else {
            self.sessions().find(place, &membership);
            return Ruling::Keep;
        };
        if found.class != membership.class {
            return Ruling::End("it is something else now".to_owned());
        }
        by_rights(&found.permissions, &membership.permissions)
    }

    async fn enforce(self: &Arc<Self>, client: &Client, place: &Place, session: &Session, ruling: Ruling) {
        let reason = match ruling {
            Ruling::Keep => return,
            Ruling::Move => return self.ask_to_move(client, place, session).await,
            Ruling::End(reason) => reason,
        };
        if !self.sessions().set_course(place, Course::Ends) {
            return;
        }
        let identity = &session.identity;
        tracing::warn!(%identity, address = session.address, reason, "a session of the lattice is ended");
        self.ground.audit.note(Event::LatticeLeft {
            identity: identity.to_string(),
            address: session.address.clone(),
            reason,
        });
        order(client, place, "KICK").await;
    }

    /// Its permissions are those of its login: with more it has to log in again. It is told, and ended where it does not go.
    async fn ask_to_move(self: &Arc<Self>, client: &Client, place: &Place, session: &Session) {
        if session.course == Course::Moves || !self.sessions().set_course(place, Course::Moves) {
            return;
        }
        tracing::info!(identity = %session.identity, address = session.address, "a session of the lattice has more rights now: it is asked to connect anew");
        order(client, place, "LDM").await;
        let (callout, client, place) = (Arc::clone(self), client.clone(), place.clone());
        self.ground.tracker.spawn(self.ground.stop.clone().run_until_cancelled_owned(async move {
            tokio::time::sleep(MOVE).await;
            if callout.sessions().set_course(&place, Course::Ends) {
                order(&client, &place, "KICK").await;
                flush(&client).await;
            }
        }));
    }

    /// Compares the sessions with the servers' connections. `missed` counts how often in a row each server did not answer.
    async fn compare(self: &Arc<Self>, client: &Client, missed: &mut BTreeMap<String, u8>, coming: &mut Subscriber) {
        let asked_at = clock::now();
        let servers = self.servers(client).await;
        let silent = self.sessions().servers().into_iter().filter(|known| !servers.contains(known));
        *missed = silent
            .map(|server| (server.clone(), missed.get(&server).map_or(1, |times| times.saturating_add(1))))
            .collect();
        for (server, _) in missed.iter().filter(|(_, times)| **times >= MISSED) {
            tracing::info!(server, "a server of the lattice seems to be gone, and its sessions with it");
            self.sessions().lose_server(server, clock::now());
        }
        for server in servers.into_iter().take(MAX_SERVERS) {
            let Some(connections) = self.connections(client, &server).await else { continue };
            // Who came meanwhile is told of in messages that wait: it is no stranger.
            while let Some(earlier) = arrived(coming).await {
                self.came(client, &earlier).await;
            }
            let present: BTreeSet<u64> = connections.iter().map(|connection| connection.cid).collect();
            for ConnectionWire { cid, ip, authorized_user, start } in connections {
                let told = Told { user: authorized_user, address: ip, start, heard: false };
                // Of who came since then a message will tell that is on its way.
                if (asked_at..=clock::now()).contains(&told.since()) {
                    continue;
                }
                self.learn(Place { server: server.clone(), number: cid }, told);
            }
            self.sessions().keep(&server, &present, asked_at, clock::now());
        }
        self.judge_all(client, false).await;
    }

    /// Ends again what should have ended: of an order nobody hears whether it arrived.
    async fn end_again(&self, client: &Client) {
        let ending = self.sessions().ending();
        for place in &ending {
            order(client, place, "KICK").await;
        }
        if !ending.is_empty() {
            flush(client).await;
        }
    }

    fn revoked_certificates(&self) -> BTreeSet<Vec<u8>> {
        self.ground.registry.read(|registry| {
            let certificate = |revoked: &Revoked| match revoked {
                Revoked::Certificate(serial) => Some(serial.as_bytes().to_vec()),
                Revoked::Identity(_) => None,
            };
            registry.revocations().keys().filter_map(certificate).collect()
        })
    }
}

fn by_rights(before: &Permissions, now: &Permissions) -> Ruling {
    match before.difference(now) {
        Difference::None => Ruling::Keep,
        Difference::Wider => Ruling::Move,
        Difference::Lost => Ruling::End("its rights shrank".to_owned()),
    }
}

/// A message that is there already.
pub(super) async fn arrived(messages: &mut Subscriber) -> Option<Message> {
    tokio::select! {
        biased;
        message = messages.next() => message,
        () = std::future::ready(()) => None,
    }
}
