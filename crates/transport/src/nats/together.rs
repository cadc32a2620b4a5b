//! Answers of several calls that leave in one write.
//!
//! The client's task runs as soon as whoever woke it waits for something, and writes what there is: of tasks that are ready one after the
//! other each has a write of its own, and the server a read. So the first one lets the others come first, and passes on what they have.

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_nats::message::OutboundMessage;
use bytes::Bytes;

use super::{
    failure::CallFailed,
    live::given_up,
    router::WHOLE,
    shared::{Shared, plain},
    status::NatsRefusal,
    subject::ReplySubject,
};
use crate::refusal::Refusal;

/// Bytes of an answer that waits for others: for a longer one a write of its own is no loss.
const SHORT: usize = 4096;
/// Answers that wait at one time.
const MOST: usize = 64;

/// Answers that wait for whoever sends them.
#[derive(Debug, Default)]
pub(super) struct Together(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// Somebody will send them.
    is_led: bool,
    answers: Vec<Answer>,
    /// Those, and those that are being sent.
    held: usize,
}

#[derive(Debug)]
struct Answer {
    caller: ReplySubject,
    bytes: Bytes,
}

impl Answer {
    fn message(&self) -> OutboundMessage {
        plain(self.caller.below(WHOLE), self.bytes.clone())
    }
}

/// Whose turn it is.
enum Turn {
    /// Somebody else sends it.
    Passed,
    Leads(Answer),
    Alone(Answer),
}

impl Together {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(&self, answer: Answer) -> Turn {
        let mut waiting = self.lock();
        if waiting.held >= MOST {
            return Turn::Alone(answer);
        }
        if !waiting.is_led {
            waiting.is_led = true;
            return Turn::Leads(answer);
        }
        waiting.held += 1;
        waiting.answers.push(answer);
        Turn::Passed
    }

    /// Those that wait. Whoever comes from now on is led by somebody else.
    fn take(&self) -> std::vec::IntoIter<Answer> {
        let mut waiting = self.lock();
        waiting.is_led = false;
        std::mem::take(&mut waiting.answers).into_iter()
    }

    /// One of them is sent, or will not be.
    fn done(&self) {
        let mut waiting = self.lock();
        waiting.held = waiting.held.saturating_sub(1);
    }
}

impl Shared {
    /// Sends the whole answer of a call, a short one with those of other calls that are ready at the moment.
    pub(super) async fn answer(&self, caller: ReplySubject, bytes: Bytes) -> Result<(), CallFailed> {
        let answer = Answer { caller, bytes };
        if answer.bytes.len() > SHORT || self.calls() < 2 {
            return self.publish(answer.message()).await;
        }
        match self.together.join(answer) {
            Turn::Passed => Ok(()),
            Turn::Alone(answer) => self.publish(answer.message()).await,
            Turn::Leads(own) => {
                let mut lead = Lead { shared: self, taken: None };
                tokio::task::yield_now().await;
                // Over another connection it would not be believed.
                if self.is_lost() {
                    return Err(CallFailed::Disconnected);
                }
                let sent = self.publish(own.message()).await;
                if sent.is_ok() {
                    lead.pass_on().await;
                }
                sent
            }
        }
    }
}

/// Sends what others have. What is left when it is dropped it sends as far as that goes at once.
struct Lead<'s> {
    shared: &'s Shared,
    taken: Option<std::vec::IntoIter<Answer>>,
}

impl Lead<'_> {
    async fn pass_on(&mut self) {
        while let Some(answer) = self.next() {
            let sent = if self.shared.is_lost() {
                Err(CallFailed::Disconnected)
            } else {
                self.shared.publish(answer.message()).await
            };
            self.shared.together.done();
            if sent.is_err() {
                // The server takes nothing: nobody waits for that once more.
                return self.shared.tell_cancelled(&answer);
            }
        }
    }

    fn next(&mut self) -> Option<Answer> {
        self.taken.get_or_insert_with(|| self.shared.together.take()).next()
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        while let Some(answer) = self.next() {
            self.shared.together.done();
            if self.shared.is_lost() || !self.shared.try_publish(answer.message()) {
                self.shared.tell_cancelled(&answer);
            }
        }
    }
}

impl Shared {
    /// There will be no answer. Where nothing can be sent at the moment, the caller's own deadline ends the call.
    fn tell_cancelled(&self, answer: &Answer) {
        let refusal = NatsRefusal::new(Refusal::Cancelled, "");
        self.try_publish(given_up(answer.caller.below(".results"), &refusal));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> Answer {
        Answer { caller: ReplySubject::parse("_INBOX.a.b").unwrap(), bytes: Bytes::new() }
    }

    #[test]
    fn one_leads_until_it_takes_what_waits() {
        let together = Together::default();
        assert!(matches!(together.join(answer()), Turn::Leads(_)));
        for _ in 0..MOST {
            assert!(matches!(together.join(answer()), Turn::Passed));
        }
        assert!(matches!(together.join(answer()), Turn::Alone(_)));
        assert_eq!(together.take().count(), MOST);
        // Until they are sent, nobody else waits for anybody.
        assert!(matches!(together.join(answer()), Turn::Alone(_)));
        together.done();
        assert!(matches!(together.join(answer()), Turn::Leads(_)));
        assert!(matches!(together.join(answer()), Turn::Passed));
        assert_eq!(together.take().count(), 1);
        assert_eq!(together.take().count(), 0);
    }
}
