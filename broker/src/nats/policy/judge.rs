//! Who decides: one thread, so that no answer falls between two versions of the policies. It decides by the policies that are in force when
//! it comes to a question, stores the answer, and only then lets it be told; and it goes through all answers again when they change.

use std::sync::Arc;

use portcullis_identity::Lattice;
use portcullis_policy::{Admissions, PolicyRef, Verdict};
use tokio::sync::{mpsc, oneshot};

use super::counts::{Counts, Outcome};
use super::disk::{Disk, Write};
use super::memory::{Asker, Kept, Known, Memory};
use super::question::{Answer, Malformed, Question};

/// Questions that share one write to the disk.
const BATCH: usize = 128;
/// Answers gone through again between two batches: some milliseconds, for questions wait meanwhile.
const STRETCH: usize = 256;

const FORGOTTEN: &str = "the broker has no room to remember that this is allowed: start the host again";
const UNSTORED: &str = "the broker cannot store what it answers";

/// What the judge is asked to do.
#[derive(Debug)]
pub(super) enum Job {
    /// Answer a question.
    Answer(Box<Asked>),
    /// Say whether a host was allowed to start a component, and still is.
    Started { asker: Asker, component: String, reply: oneshot::Sender<bool> },
    /// See whether the policies changed.
    Look,
    /// Say again what was told otherwise: somebody may have missed it.
    Repeat,
}

/// A question, where it comes from, and where its answer goes.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) question: Question,
    /// As it came.
    pub(super) bytes: Arc<[u8]>,
    pub(super) asker: Asker,
    pub(super) reply: oneshot::Sender<Answer>,
}

/// That an answer is another one now.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) lattice: Lattice,
    /// As hosts read it.
    pub(super) bytes: Vec<u8>,
    pub(super) telling: Telling,
}

/// Whether something is told for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Telling {
    First,
    Again,
}

/// The policies that are in force now.
pub(super) type InForce = Box<dyn Fn() -> Arc<Admissions> + Send>;

/// The judge's state.
pub(super) struct Judge {
    in_force: InForce,
    policies: Arc<Admissions>,
    memory: Memory,
    disk: Disk,
    round: Option<Round>,
    repeat: bool,
    changes: mpsc::Sender<Change>,
    counts: Arc<Counts>,
}

/// A way through all answers.
#[derive(Debug)]
struct Round {
    /// The number of the next.
    next: u64,
    purpose: Purpose,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// The policies are others.
    Decide,
    /// What was overridden is told once more.
    Repeat,
}

impl Judge {
    pub(super) fn new(
        in_force: InForce,
        (disk, memory): (Disk, Memory),
        changes: mpsc::Sender<Change>,
        counts: Arc<Counts>,
    ) -> Self {
        let policies = in_force();
        // While the broker was away its store may have been put back.
        let round = Some(Round { next: 0, purpose: Purpose::Decide });
        counts.set_remembered(memory.len());
        Self { in_force, policies, memory, disk, round, repeat: false, changes, counts }
    }

    /// Works until nobody can ask any more.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        loop {
            let mut jobs = Vec::new();
            if self.round.is_none() && !self.repeat {
                match queue.blocking_recv() {
                    Some(job) => jobs.push(job),
                    None => return,
                }
            }
            while jobs.len() < BATCH {
                match queue.try_recv() {
                    Ok(job) => jobs.push(job),
                    Err(mpsc::error::TryRecvError::Empty) => break,
                    Err(mpsc::error::TryRecvError::Disconnected) => return,
                }
            }
            self.look();
            self.work(jobs);
            self.go_on();
        }
    }

    fn look(&mut self) {
        let policies = (self.in_force)();
        if !Arc::ptr_eq(&policies, &self.policies) {
            self.policies = policies;
            self.repeat |= self.round.as_ref().is_some_and(|round| round.purpose == Purpose::Repeat);
            self.round = Some(Round { next: 0, purpose: Purpose::Decide });
        }
    }

    fn work(&mut self, jobs: Vec<Job>) {
        let (mut writes, mut answers) = (Vec::new(), Vec::new());
        for job in jobs {
            match job {
                Job::Look => {}
                Job::Repeat => self.repeat = true,
                Job::Started { asker, component, reply } => {
                    // Who asked may be gone.
                    let _ = reply.send(self.allows_start(&asker, &component));
                }
                // Its host was told that nothing was decided.
                Job::Answer(asked) if asked.reply.is_closed() => {}
                Job::Answer(asked) => {
                    let Asked { question, bytes, asker, reply } = *asked;
                    let (number, answer) = self.answer(question, bytes, asker, &mut writes);
                    answers.push((number, reply, answer));
                }
            }
        }
        let stored = self.store(&writes);
        self.counts.set_remembered(self.memory.len());
        for (number, reply, answer) in answers {
            let answer = match number {
                Some(number) if !stored => {
                    self.memory.forget(number);
                    Answer::Undecided(UNSTORED)
                }
                Some(_) | None => answer,
            };
            if let Some(outcome) = outcome(&answer) {
                self.counts.note(outcome);
            }
            // Who asked may be gone.
            let _ = reply.send(answer);
        }
    }

    /// Decides a question; with the number under which that is remembered.
    fn answer(
        &mut self,
        question: Question,
        bytes: Arc<[u8]>,
        asker: Asker,
        writes: &mut Vec<Write>,
    ) -> (Option<u64>, Answer) {
        let request = question.request.clone();
        let known = self.memory.known(&request, &asker, &bytes);
        if known == Known::Other {
            return (None, Answer::Denied(Malformed::Used.to_string()));
        }
        let answer = self.decide(question, &asker);
        let permitted = answer == Answer::Permitted;
        if let Known::Same(number) = known {
            if let Some(kept) = self.memory.change(number, permitted) {
                writes.push(Write::Keep(number, kept.clone()));
            }
            return (None, answer);
        }
        let asker = self.memory.share(asker);
        let kept = Kept { request, asker, question: bytes, permitted, overridden: false };
        let (number, gone) = self.memory.keep(kept.clone());
        for (number, gone) in gone {
            if gone.permitted {
                tracing::warn!(lattice = %gone.asker.lattice, host = ?gone.asker.host.as_ref().map(ToString::to_string),
                    request = gone.request.as_str(), "no room to remember an answer: what it allowed is denied");
                self.tell(&gone, &Answer::Denied(FORGOTTEN.to_owned()), Telling::First);
            }
            writes.push(Write::Forget(number));
        }
        writes.push(Write::Keep(number, kept));
        (Some(number), answer)
    }

    fn decide(&self, question: Question, asker: &Asker) -> Answer {
        let request = question.request.clone();
        let admission = question.admission(asker.host.as_ref());
        let verdict = self.policies.decide(&admission);
        let (kind, id, image) = (admission.action.name(), &admission.artifact.id, admission.artifact.image.as_str());
        let (lattice, host, key) = (&asker.lattice, &admission.host.spiffe_id, &admission.host.public_key);
        for trial in verdict.dry_run() {
            tracing::info!(target: "decision", %lattice, host, key, kind, id, image, ?trial, "dry run");
        }
        let request = request.as_str();
        if verdict.is_allowed() {
            let policies: Vec<_> = verdict.reasons().iter().map(PolicyRef::id).collect();
            tracing::debug!(target: "decision", %lattice, host, key, kind, id, image, request, ?policies, "allowed");
            return Answer::Permitted;
        }
        let reason = self.reason(&verdict, lattice);
        let errors = verdict.errors();
        tracing::info!(target: "decision", %lattice, host, key, kind, id, image, request, reason, ?errors, "refused");
        Answer::Denied(reason)
    }

    fn reason(&self, verdict: &Verdict, lattice: &Lattice) -> String {
        let unsaid = verdict.reasons().is_empty() && verdict.errors().is_empty();
        if unsaid && !self.policies.concern(lattice.as_str()) {
            return format!(
                "denied: there is no admission policy for lattice `{lattice}`, so that nothing starts there"
            );
        }
        verdict.summary()
    }

    /// By the policies of now, for the way through all answers may not have come there.
    fn allows_start(&self, asker: &Asker, component: &str) -> bool {
        self.memory.of(asker).filter(|kept| kept.permitted).any(|kept| {
            Question::parse(&kept.question)
                .is_ok_and(|question| question.starts(component) && self.decide(question, asker) == Answer::Permitted)
        })
    }

    /// Goes through some more answers.
    fn go_on(&mut self) {
        if self.round.is_none() && std::mem::take(&mut self.repeat) {
            self.round = Some(Round { next: 0, purpose: Purpose::Repeat });
        }
        let Some(Round { next, purpose }) = self.round.take() else { return };
        let stretch: Vec<(u64, Kept)> =
            self.memory.from(next).take(STRETCH).map(|(number, kept)| (number, kept.clone())).collect();
        let Some(last) = stretch.last().map(|(number, _)| *number) else { return };
        self.round = Some(Round { next: last.saturating_add(1), purpose });
        let mut writes = Vec::new();
        for (number, kept) in stretch {
            if purpose == Purpose::Repeat && !kept.overridden {
                continue;
            }
            let answer = self.decide_again(&kept);
            if let Some(changed) = self.memory.change(number, answer == Answer::Permitted).cloned() {
                self.counts.note(Outcome::Overridden);
                self.tell(&changed, &answer, Telling::First);
                writes.push(Write::Keep(number, changed));
            } else if purpose == Purpose::Repeat {
                self.tell(&kept, &answer, Telling::Again);
            }
        }
        self.store(&writes);
    }

    fn decide_again(&self, kept: &Kept) -> Answer {
        match Question::parse(&kept.question) {
            Ok(question) => self.decide(question, &kept.asker),
            Err(malformed) => Answer::Denied(malformed.to_string()),
        }
    }

    fn tell(&self, kept: &Kept, answer: &Answer, telling: Telling) {
        let bytes = answer.to_bytes(Some(&kept.request));
        let change = Change { lattice: kept.asker.lattice.clone(), bytes, telling };
        // Nobody takes it when the broker stops; the next one tells it.
        let _ = self.changes.blocking_send(change);
    }

    fn store(&self, writes: &[Write]) -> bool {
        if writes.is_empty() {
            return true;
        }
        match self.disk.write(writes) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "what hosts are answered was not stored; the broker must be started again");
                false
            }
        }
    }
}

fn outcome(answer: &Answer) -> Option<Outcome> {
    match answer {
        Answer::Permitted => Some(Outcome::Allowed),
        Answer::Denied(_) => Some(Outcome::Denied),
        // Counted where it is told.
        Answer::Undecided(_) => None,
    }
}

#[cfg(test)]
mod tests;
