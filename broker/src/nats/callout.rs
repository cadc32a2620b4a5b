//! The auth callout: NATS servers ask who somebody is, and the broker answers with a user that may do what its identity may.
//!
//! Nobody answers: nobody new joins. That is the servers' part; ours is to answer in time, to refuse with a reason, and to end what was
//! admitted once it would not be any more.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_nats::{Client as NatsClient, Message};
use portcullis_identity::{PeerRule, PeerVerifier, Revoked, SpiffeId};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_stream::StreamExt as _;

use super::brokers::Fellows;
use super::claims::{Answer, LoginRequest, Proof, UserClaims, respond};
use super::folder::Material;
use super::ground::Ground;
use super::login::{Login, LoginRefused};
use super::member::Members;
use super::replay::UsedTokens;
use super::sessions::{Course, Place, Proved, Session, Sessions};
use super::token::{self, Claims};
use super::ways::{Way, Ways};
use crate::audit::Event;
use crate::clock;
use crate::config::Nats;

/// Where servers ask.
const QUESTIONS: &str = "$SYS.REQ.USER.AUTH";
/// Brokers of one trust domain share the questions.
const QUEUE: &str = "portcullis";
/// Names the key that a request was sealed with.
const SEAL_HEADER: &str = "Nats-Server-Xkey";
/// Bytes of a sealed request.
const MAX_REQUEST: usize = token::MAX_TOKEN_BYTES + 64;
/// Logins judged at one time: a server gives each two seconds, so that more would only be late.
const MAX_LOGINS: usize = 256;
/// An answer that comes later is not waited for by a server.
const DEADLINE: Duration = Duration::from_millis(1800);
/// Refusals kept to be shown.
const MAX_REFUSALS: usize = 64;
/// Bytes of a reason as a server is told it.
const MAX_REASON: usize = 400;

/// The service, shared by its tasks.
#[derive(Debug)]
pub(crate) struct Callout {
    pub(super) ground: Ground,
    pub(super) settings: Nats,
    pub(super) material: Material,
    pub(super) verifier: Arc<PeerVerifier>,
    members: Mutex<Members>,
    used: Mutex<UsedTokens>,
    pub(super) fellows: Fellows,
    sessions: Mutex<Sessions>,
    refusals: Mutex<VecDeque<Refused>>,
    logins: Arc<Semaphore>,
    /// Sessions that began before are not known by their proof.
    pub(super) started: SystemTime,
    pub(super) ways: Ways,
    /// Sessions are to be judged again.
    pub(super) look_again: Notify,
    /// Somebody connected.
    pub(super) came: Notify,
}

/// A login that was refused.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    pub(crate) at: SystemTime,
    pub(crate) server: String,
    pub(crate) address: String,
    pub(crate) client: String,
    pub(crate) reason: String,
}

impl Callout {
    pub(super) fn new(ground: Ground, settings: Nats, material: Material) -> Arc<Self> {
        let rule = PeerRule::TrustDomain(ground.trust_domain.clone());
        let verifier = PeerVerifier::new(ground.trust.source(), rule);
        Arc::new(Self {
            ground,
            settings,
            material,
            verifier,
            members: Mutex::default(),
            used: Mutex::default(),
            fellows: Fellows::default(),
            sessions: Mutex::default(),
            refusals: Mutex::default(),
            logins: Arc::new(Semaphore::new(MAX_LOGINS)),
            started: clock::now(),
            ways: Ways::default(),
            look_again: Notify::new(),
            came: Notify::new(),
        })
    }

    /// Answers until the connection is closed for good.
    pub(super) async fn serve(self: &Arc<Self>, client: NatsClient) -> Result<(), async_nats::SubscribeError> {
        let served = tokio::select! {
            served = self.answer_all(&client) => served,
            met = self.keep_company(&client) => met,
            () = self.ground.becomes_too_old() => Ok(()),
            () = self.ground.stop.cancelled() => Ok(()),
        };
        self.leave_company(&client).await;
        served
    }

    async fn answer_all(self: &Arc<Self>, client: &NatsClient) -> Result<(), async_nats::SubscribeError> {
        let mut questions = client.queue_subscribe(QUESTIONS, QUEUE.to_owned()).await?;
        tracing::info!("answering who may join the lattice");
        while let Some(message) = questions.next().await {
            let Ok(place) = Arc::clone(&self.logins).try_acquire_owned() else {
                tracing::warn!(limit = MAX_LOGINS, "too many logins at one time: one is not answered");
                continue;
            };
            let (callout, client) = (Arc::clone(self), client.clone());
            self.ground.tracker.spawn(async move {
                if tokio::time::timeout(DEADLINE, callout.answer(&client, message)).await.is_err() {
                    tracing::warn!("a login was not judged in time");
                }
                drop(place);
            });
        }
        Ok(())
    }

    async fn answer(self: &Arc<Self>, client: &NatsClient, message: Message) {
        let Some(reply) = message.reply.clone() else { return };
        let now = clock::now();
        let request = match self.open(&message, clock::unix_seconds(now)) {
            Ok(request) => Arc::new(request),
            // Who cannot be answered is not told anything.
            Err(reason) => return tracing::warn!(%reason, "a question that is not a server's was dropped"),
        };
        let answered = match self.login(client, &request, now).await {
            Ok(user) => self.sealed(&request, Answer::Admitted(&user), now),
            Err(refused) => {
                let reason = self.note_refusal(&request, &refused, now);
                self.sealed(&request, Answer::Refused(&reason), now)
            }
        };
        let Some(answer) = answered else { return };
        if let Err(error) = client.publish(reply, answer.into()).await {
            tracing::warn!(%error, "a login's answer was not sent");
        }
    }

    fn open(&self, message: &Message, now: u64) -> Result<LoginRequest, String> {
        if message.payload.len() > MAX_REQUEST {
            return Err(format!("it has {} bytes", message.payload.len()));
        }
        let seal = message.headers.as_ref().and_then(|headers| headers.get(SEAL_HEADER));
        let seal = seal.ok_or("it is not sealed: the account names no curve key")?.as_str();
        let sender = seal.parse().map_err(|error: super::key::InvalidKey| error.to_string())?;
        let opened = self.material.seal.open(&message.payload, &sender).ok_or("it is not sealed for this broker")?;
        let text = std::str::from_utf8(&opened).map_err(|_| "it is no text")?;
        LoginRequest::parse(text, &self.material.callout, seal, now).map_err(|error| error.to_string())
    }

    /// The token of the user that `request` is answered with.
    async fn login(
        self: &Arc<Self>,
        client: &NatsClient,
        request: &Arc<LoginRequest>,
        now: SystemTime,
    ) -> Result<String, LoginRefused> {
        // It leaves the questions to others in a moment.
        if self.ground.is_too_old() {
            return Err(LoginRefused::TooOld);
        }
        let (judge, asked) = (Arc::clone(self), Arc::clone(request));
        // Signatures and policies: too much for a thread that others wait for.
        let before = self.ground.registry.read(crate::registry::Registry::version);
        let judged = self.ground.tracker.spawn_blocking(move || judge.judge(&asked.client, now)).await;
        let login = judged.map_err(|_| LoginRefused::Busy)??;
        if let Some(token) = &login.takes {
            let fresh = self.ask_fellows(client, token).await;
            fresh.map_err(|reason| LoginRefused::NotFresh { id: token.id.clone(), reason })?;
        }
        let user = self.user(request, &login, now)?;
        let identity = login.evidence.identity().clone();
        let joined = Event::LatticeJoined {
            identity: identity.to_string(),
            class: login.membership.class.name().to_owned(),
            proof: login.evidence.name().to_owned(),
            server: request.server_name.clone(),
            address: request.client.address.clone(),
            until: clock::unix_seconds(login.until),
        };
        self.ground.audit.record(joined).await.map_err(|_| LoginRefused::Unaudited)?;
        tracing::info!(%identity, class = login.membership.class.name(), proof = login.evidence.name(),
            server = request.server_name, address = request.client.address, "joined the lattice");
        let place = Place { server: request.server.as_str().to_owned(), number: request.client.number };
        let session = Session {
            identity,
            proved: Some(Proved::new(login.evidence, &login.membership)),
            met: Instant::now(),
            heard: true,
            found: None,
            address: request.client.address.clone(),
            since: now,
            until: Some(login.until),
            course: Course::Stays,
        };
        self.sessions().admit(place, session, now);
        if self.ground.registry.read(crate::registry::Registry::version) != before {
            self.look_again.notify_one();
        }
        Ok(user)
    }

    fn user(&self, request: &LoginRequest, login: &Login, now: SystemTime) -> Result<String, LoginRefused> {
        let permissions = login.membership.permissions.claims();
        let claims = UserClaims::new(permissions, &self.material.lattice, Proof::Key);
        let name = login.evidence.identity().to_string();
        let exp = clock::unix_seconds(login.until);
        let about = Claims::about(request.user.as_str(), clock::unix_seconds(now), claims);
        Ok(token::encode(Claims { name, exp, ..about }, &self.material.lattice_key)?)
    }

    fn sealed(&self, request: &LoginRequest, answer: Answer<'_>, now: SystemTime) -> Option<Vec<u8>> {
        let Material { callout, callout_key, seal, .. } = &self.material;
        respond(request, answer, (callout, callout_key, seal), clock::unix_seconds(now))
            .inspect_err(|error| tracing::error!(%error, "a login's answer cannot be written"))
            .ok()
    }

    fn note_refusal(&self, request: &LoginRequest, refused: &LoginRefused, now: SystemTime) -> String {
        let mut reason = refused.to_string().replace(char::is_control, " ");
        reason.truncate(reason.floor_char_boundary(MAX_REASON));
        let (server, client) = (request.server_name.clone(), &request.client);
        tracing::warn!(
            server,
            address = client.address,
            client = client.name,
            reason,
            "a login to the lattice was refused"
        );
        self.ground.audit.note(Event::LatticeRefused {
            server: server.clone(),
            address: client.address.clone(),
            client: client.name.clone(),
            reason: reason.clone(),
        });
        let mut refusals = lock(&self.refusals);
        if refusals.len() >= MAX_REFUSALS {
            refusals.pop_front();
        }
        refusals.push_back(Refused {
            at: now,
            server,
            address: client.address.clone(),
            client: client.name.clone(),
            reason: reason.clone(),
        });
        reason
    }

    /// When a session that begins now ends by itself: so that not all come back at once, up to a fifth sooner than configured.
    pub(super) fn session_end(&self, now: SystemTime) -> SystemTime {
        let mut random = [0; 2];
        // Without randomness all sessions are of one length.
        let _ = SystemRandom::new().fill(&mut random);
        let part = f64::from(u16::from_ne_bytes(random)) / f64::from(u16::MAX);
        now.checked_add(self.settings.session.mul_f64(1.0 - part / 5.0)).unwrap_or(now)
    }

    /// Whether what was issued to `id` at `since` is revoked by its identity.
    pub(super) fn identity_revoked(&self, id: &SpiffeId, since: SystemTime, now: SystemTime) -> bool {
        self.ground.registry.read(|registry| {
            let revocation = registry.revocations().get(&Revoked::Identity(id.clone()));
            revocation.is_some_and(|revocation| revocation.until >= now && since <= revocation.issued_until)
        })
    }

    /// Who is connected, and the last refusals.
    pub(crate) fn state(&self) -> (Vec<(Place, Session)>, Vec<Refused>) {
        (self.sessions().all(), lock(&self.refusals).iter().cloned().collect())
    }

    /// How the broker's connections are.
    pub(crate) fn ways(&self) -> Vec<Way> {
        self.ways.all()
    }

    pub(super) fn members(&self) -> MutexGuard<'_, Members> {
        lock(&self.members)
    }

    pub(super) fn used(&self) -> MutexGuard<'_, UsedTokens> {
        lock(&self.used)
    }

    pub(super) fn sessions(&self) -> MutexGuard<'_, Sessions> {
        lock(&self.sessions)
    }
}

/// A poisoned lock is taken over: every critical section here leaves its data whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
