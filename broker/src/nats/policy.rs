//! The policy service of wasmCloud hosts: a host asks before it starts a component or provider and before a component serves a call, and
//! keeps the answer as long as it runs. So each answer is remembered, and told otherwise when the policies change.
//!
//! Who asks is known by the subject, to which the NATS server holds it: a host of the lattice, or one particular host. Whatever stands in a
//! question is the host's word.

mod counts;
mod desk;
mod disk;
mod judge;
mod memory;
mod question;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::{Client, Message};
use portcullis_identity::{Lattice, SpiffeId};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio_stream::StreamExt as _;

pub(crate) use self::counts::{Counts, Outcome};
use self::desk::PolicyDesk;
pub use self::disk::AnswersError;
use self::disk::Disk;
use self::judge::{Asked, Change, Job, Judge, Telling};
use self::memory::{Asker, Memory, Room};
pub(crate) use self::question::Question;
use self::question::{Answer, Malformed, RequestId};
use super::callout::Callout;
use super::connect::connect;
use super::member::{hosts_by_token, is_host_of};
use super::{PAUSE, subjects};
use crate::registry::Version;

/// Questions under way at one time.
const MAX_QUESTIONS: usize = 1024;
/// A host waits one second.
const DEADLINE: Duration = Duration::from_millis(800);
/// Changes that wait for the server.
const MAX_CHANGES: usize = 1024;
/// When changes are told again after one was made or somebody connected: hosts hear a change only while they are connected, and only
/// once they noted what they asked.
const REPEATS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(25)];
/// Bytes of the subject of an answer.
const MAX_REPLY: usize = 256;

const BUSY: &str = "the broker has too many questions at once: ask again";
const LATE: &str = "the broker did not decide in time: ask again";

/// The service, shared by its tasks.
#[derive(Debug)]
struct PolicyService {
    callout: Arc<Callout>,
    counts: Arc<Counts>,
    jobs: mpsc::Sender<Job>,
    places: Arc<Semaphore>,
    /// The connection, while there is one.
    client: watch::Sender<Option<Client>>,
    hosts: Mutex<Hosts>,
    /// Something was told for the first time.
    again: Notify,
}

/// Which host a topic's token stands for.
#[derive(Debug, Default)]
struct Hosts {
    /// The registry's, when it was gone through.
    version: Option<Version>,
    by_token: HashMap<(Lattice, String), SpiffeId>,
}

/// Answers the hosts until the broker stops; what they were answered is kept at `path`.
///
/// # Errors
/// When the file cannot be used.
pub(super) fn serve(callout: &Arc<Callout>, counts: &Arc<Counts>, path: &Path) -> Result<(), AnswersError> {
    let ground = &callout.ground;
    let (disk, kept) = Disk::open(path)?;
    let memory = Memory::new(Room::DEFAULT, kept);
    let (jobs, queue) = mpsc::channel(MAX_QUESTIONS);
    let (changes, changed) = mpsc::channel(MAX_CHANGES);
    let registry = ground.registry.clone();
    let in_force = Box::new(move || registry.read(|registry| Arc::clone(registry.admissions())));
    let judge = Judge::new(in_force, (disk, memory), changes, Arc::clone(counts));
    // A thread of its own: it waits for the disk.
    ground.tracker.spawn_blocking(move || judge.run(queue));
    // It is set once.
    let _ = counts.desk.set(PolicyDesk::new(&jobs, callout.settings.clone()));
    let service = Arc::new(PolicyService {
        callout: Arc::clone(callout),
        counts: Arc::clone(counts),
        jobs,
        places: Arc::new(Semaphore::new(MAX_QUESTIONS)),
        client: watch::Sender::new(None),
        hosts: Mutex::default(),
        again: Notify::new(),
    });
    let stop = &ground.stop;
    ground.tracker.spawn(stop.clone().run_until_cancelled_owned(Arc::clone(&service).tell(changed)));
    ground.tracker.spawn(stop.clone().run_until_cancelled_owned(Arc::clone(&service).follow()));
    ground.tracker.spawn(stop.clone().run_until_cancelled_owned(Arc::clone(&service).repeat()));
    ground.tracker.spawn(stop.clone().run_until_cancelled_owned(service.listen()));
    Ok(())
}

impl PolicyService {
    async fn listen(self: Arc<Self>) {
        loop {
            match connect(&self.callout.settings, "policy", &self.callout.material.users.lattice).await {
                Ok(client) => {
                    self.callout.ways.connected("policy", client.clone());
                    if let Err(error) = self.answer_all(client).await {
                        tracing::error!(%error, "cannot hear what hosts ask");
                    }
                }
                Err(error) => self.callout.ways.failed("policy", &error),
            }
            self.client.send_replace(None);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Answers until the connection is closed for good.
    async fn answer_all(self: &Arc<Self>, client: Client) -> Result<(), async_nats::SubscribeError> {
        let [of_some, of_one] = subjects::QUESTIONS;
        let queue = || subjects::QUESTIONS_QUEUE.to_owned();
        let of_some = client.queue_subscribe(of_some, queue()).await?;
        let of_one = client.queue_subscribe(of_one, queue()).await?;
        self.client.send_replace(Some(client.clone()));
        // Full: then there is work, and with it what was told otherwise is told again soon.
        let _ = self.jobs.try_send(Job::Repeat);
        tracing::info!("answering what hosts may start");
        let mut questions = of_some.merge(of_one);
        while let Some(message) = questions.next().await {
            self.take(&client, message).await;
        }
        Ok(())
    }

    async fn take(self: &Arc<Self>, client: &Client, message: Message) {
        let counts = &self.counts;
        // The broker may publish elsewhere, too: nobody may have it do so.
        let Some(reply) = message.reply.clone().filter(|reply| is_host_inbox(reply)) else {
            counts.note(Outcome::Dropped);
            let subject = message.subject.as_str();
            return tracing::warn!(subject, "a host's question without a host's inbox for the answer was dropped");
        };
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            counts.note(Outcome::Undecided);
            tracing::warn!(limit = MAX_QUESTIONS, "too many questions of hosts at one time: one is not decided");
            let answer = Answer::Undecided(BUSY).to_bytes(RequestId::find(&message.payload).as_ref());
            return publish(client, reply.to_string(), answer).await;
        };
        let (service, client) = (Arc::clone(self), client.clone());
        self.callout.ground.tracker.spawn(async move {
            let answer = service.answer(&message).await;
            publish(&client, reply.to_string(), answer).await;
            drop(place);
        });
    }

    async fn answer(&self, message: &Message) -> Vec<u8> {
        let counts = &self.counts;
        let (question, asker) = match self.read(message) {
            Ok(read) => read,
            Err(malformed) => {
                counts.note(Outcome::Malformed);
                let subject = message.subject.as_str();
                tracing::info!(target: "decision", subject, reason = %malformed, "refused");
                let answer = Answer::Denied(format!("denied: {malformed}"));
                return answer.to_bytes(RequestId::find(&message.payload).as_ref());
            }
        };
        let request = question.request.clone();
        let (reply, decided) = oneshot::channel();
        let bytes = message.payload.as_ref().into();
        let job = Job::Answer(Box::new(Asked { question, bytes, asker, reply }));
        let answer = match self.jobs.try_send(job) {
            Ok(()) => tokio::time::timeout(DEADLINE, decided).await.ok().and_then(Result::ok),
            Err(_) => Some(Answer::Undecided(BUSY)),
        };
        let answer = answer.unwrap_or(Answer::Undecided(LATE));
        if let Answer::Undecided(reason) = &answer {
            counts.note(Outcome::Undecided);
            tracing::warn!(request = request.as_str(), reason, "a host's question was not decided");
        }
        answer.to_bytes(Some(&request))
    }

    fn read(&self, message: &Message) -> Result<(Question, Asker), Malformed> {
        let (lattice, token) = topic(&message.subject).ok_or(Malformed::Topic)?;
        let host = token.map(|token| self.host(&lattice, token).ok_or(Malformed::Topic)).transpose()?;
        let question = Question::parse(&message.payload)?;
        if question.lattice != lattice {
            return Err(Malformed::OtherLattice { named: question.lattice, asked: lattice });
        }
        Ok((question, Asker { lattice, host }))
    }

    /// The host that alone may ask under `token`.
    fn host(&self, lattice: &Lattice, token: &str) -> Option<SpiffeId> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (lattice.clone(), token.to_owned());
        let settings = &self.callout.settings;
        self.callout.ground.registry.read(|registry| {
            let known = hosts.by_token.get(&key).filter(|id| is_host_of(registry, settings, id, lattice));
            if known.is_none() && hosts.version != Some(registry.version()) {
                *hosts = Hosts { version: Some(registry.version()), by_token: hosts_by_token(registry, settings) };
                return hosts.by_token.get(&key).cloned();
            }
            known.cloned()
        })
    }

    /// Has the judge look whenever something changed.
    async fn follow(self: Arc<Self>) {
        let mut versions = self.callout.ground.registry.versions();
        while versions.changed().await.is_ok() {
            // Where the queue is full the judge looks anyway.
            let _ = self.jobs.try_send(Job::Look);
        }
    }

    async fn tell(self: Arc<Self>, mut changes: mpsc::Receiver<Change>) {
        while let Some(Change { lattice, bytes, telling }) = changes.recv().await {
            let client = self.client.borrow().clone();
            // Without a connection nobody hears it; all is told again once there is one.
            if let Some(client) = client {
                publish(&client, subjects::changes(&lattice), bytes).await;
            }
            match telling {
                Telling::First => self.again.notify_one(),
                Telling::Again => {}
            }
        }
    }

    /// Has everything told again that hosts may have missed.
    async fn repeat(self: Arc<Self>) {
        let (came, again) = (&self.callout.came, &self.again);
        let mut step = REPEATS.len();
        loop {
            match REPEATS.get(step) {
                None => {
                    tokio::select! {
                        () = came.notified() => {}
                        () = again.notified() => {}
                    }
                    step = 0;
                    continue;
                }
                // Whoever comes meanwhile does not put it off.
                Some(pause) if step == 0 => tokio::time::sleep(*pause).await,
                Some(pause) => tokio::select! {
                    () = tokio::time::sleep(*pause) => {}
                    () = came.notified() => {
                        step = 0;
                        continue;
                    }
                    () = again.notified() => {
                        step = 0;
                        continue;
                    }
                },
            }
            let _ = self.jobs.try_send(Job::Repeat);
            step = step.saturating_add(1);
        }
    }
}

async fn publish(client: &Client, subject: String, bytes: Vec<u8>) {
    if let Err(error) = client.publish(subject, bytes.into()).await {
        tracing::warn!(%error, "an answer to a host was not sent");
    }
}

/// The lattice of a question's subject, and the token of its host where there is one.
fn topic(subject: &str) -> Option<(Lattice, Option<&str>)> {
    let mut tokens = subject.strip_prefix("portcullis.policy.")?.split('.');
    let lattice = tokens.next()?.parse().ok()?;
    match (tokens.next(), tokens.next(), tokens.next()) {
        (Some("ask"), token, None) => Some((lattice, token)),
        (Some(_) | None, ..) => None,
    }
}

/// Whether `reply` lies in the inbox that hosts have.
fn is_host_inbox(reply: &str) -> bool {
    let token =
        |token: &str| !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    reply.len() <= MAX_REPLY && reply.strip_prefix("_INBOX.").is_some_and(|rest| rest.split('.').all(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_says_the_lattice_and_maybe_the_host() {
        let read = |subject| topic(subject).map(|(lattice, token)| (lattice.to_string(), token.map(str::to_owned)));
        assert_eq!(read("portcullis.policy.demo.ask"), Some(("demo".to_owned(), None)));
        assert_eq!(read("portcullis.policy.demo.ask.ab"), Some(("demo".to_owned(), Some("ab".to_owned()))));
        for other in ["portcullis.policy.demo.changes", "portcullis.policy.demo", "portcullis.policy.demo.ask.a.b", "x"]
        {
            assert_eq!(read(other), None, "{other}");
        }
    }

    #[test]
    fn answers_go_to_hosts_inboxes_alone() {
        assert!(is_host_inbox("_INBOX.aBc-_1.2"));
        for other in [
            "portcullis.policy.demo.changes",
            "$JS.API.STREAM.CREATE.x",
            "_INBOX.",
            "_INBOX.*",
            "_INBOX.a.>",
            "_INBOX.a b",
            "_INBOX..a",
            "_B.a",
            "_I.demo.a",
        ] {
            assert!(!is_host_inbox(other), "{other}");
        }
        assert!(!is_host_inbox(&format!("_INBOX.{}", "a".repeat(MAX_REPLY))));
    }
}
