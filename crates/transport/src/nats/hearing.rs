//! Beside calls: what others announce on a subject, and questions with several answers.

use std::time::Duration;

use async_nats::{Subject, message::OutboundMessage};
use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    acceptor::SubscribeError,
    inbox::{Key, NoRandomness},
    link::Link,
    router::Route,
    shared::Shared,
    subscriptions::Subscribed,
};

/// Bytes of all answers to one question.
const MOST_BYTES: usize = 16 << 20;

/// What is announced on a subject; ends with its connection, or when the server refuses it.
#[derive(Debug)]
pub struct Hearing(Subscribed);

/// One announcement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// On which subject.
    pub subject: String,
    /// What it says.
    pub payload: Bytes,
}

/// A question was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Nobody is there who answers.
    #[error("nobody answers there")]
    NoResponder,
    /// The answers did not end in time.
    #[error("the answers did not end in time")]
    TimedOut,
    /// The answers are longer than their limit together.
    #[error("answers of more than {MOST_BYTES} bytes")]
    TooLarge,
    /// Who answers says no, with this number.
    #[error("refused with status {0}")]
    Refused(u16),
    /// The connection is lost.
    #[error("connection to the nats server is lost")]
    Disconnected,
    /// No random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

impl Hearing {
    /// The next announcement; `None` when the connection has ended, or the server does not permit to hear more.
    pub async fn next(&mut self) -> Option<Announcement> {
        let message = self.0.next().await?;
        Some(Announcement { subject: message.subject.to_string(), payload: message.payload })
    }
}

impl Link {
    /// Subscribes to `subject`, and waits until the server has confirmed that it heard of it and did not refuse.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`]
    pub async fn hear(&self, subject: String) -> Result<Hearing, SubscribeError> {
        let shared = &self.shared;
        if !shared.is_connected() || !is_sound(&subject) {
            return Err(SubscribeError::Disconnected);
        }
        Subscribed::begin(shared, &subject, None).await.map(Hearing)
    }

    /// Asks what has any number of answers and then one with the status 204, as a direct get of several messages has
    /// (ADR-31 of NATS). Of more than `most` answers the rest is dropped.
    ///
    /// # Errors
    ///
    /// [`AskError`]
    pub async fn ask(
        &self,
        subject: &str,
        question: Bytes,
        most: usize,
        patience: Duration,
    ) -> Result<Vec<Bytes>, AskError> {
        if !is_sound(subject) {
            return Err(AskError::NoResponder);
        }
        let (asked, mut heard) = Asked::begin(&self.shared, most)?;
        let answers = async {
            let reply = Some(Subject::from(self.shared.subject(asked.key)));
            let question = OutboundMessage { subject: Subject::from(subject), reply, payload: question, headers: None };
            self.shared.publish(question).await.map_err(|_| AskError::Disconnected)?;
            let (mut answers, mut bytes) = (Vec::new(), 0_usize);
            while let Some(message) = heard.recv().await {
                match message.status.map(|status| status.as_u16()) {
                    None | Some(200) => {
                        bytes = bytes.saturating_add(message.payload.len());
                        if bytes > MOST_BYTES {
                            return Err(AskError::TooLarge);
                        }
                        answers.push(message.payload);
                    }
                    // The end, or that there is nothing.
                    Some(204 | 404) => return Ok(answers),
                    Some(503) => return Err(AskError::NoResponder),
                    Some(other) => return Err(AskError::Refused(other)),
                }
            }
            Err(AskError::Disconnected)
        };
        tokio::time::timeout(patience, answers).await.unwrap_or(Err(AskError::TimedOut))
    }
}

impl Link {
    /// Asks what has one answer.
    ///
    /// # Errors
    ///
    /// [`AskError`]
    pub async fn ask_once(&self, subject: &str, question: Bytes, patience: Duration) -> Result<Bytes, AskError> {
        if !is_sound(subject) {
            return Err(AskError::NoResponder);
        }
        let (asked, mut heard) = Asked::begin(&self.shared, 1)?;
        let answer = async {
            let reply = Some(Subject::from(self.shared.subject(asked.key)));
            let question = OutboundMessage { subject: Subject::from(subject), reply, payload: question, headers: None };
            self.shared.publish(question).await.map_err(|_| AskError::Disconnected)?;
            let answer = heard.recv().await.ok_or(AskError::Disconnected)?;
            match answer.status.map(|status| status.as_u16()) {
                None | Some(200) => Ok(answer.payload),
                Some(503) => Err(AskError::NoResponder),
                Some(other) => Err(AskError::Refused(other)),
            }
        };
        tokio::time::timeout(patience, answer).await.unwrap_or(Err(AskError::TimedOut))
    }
}

/// A question under way.
struct Asked<'l> {
    shared: &'l Shared,
    key: Key,
}

impl<'l> Asked<'l> {
    fn begin(shared: &'l Shared, most: usize) -> Result<(Self, mpsc::Receiver<async_nats::Message>), NoRandomness> {
        let key = shared.new_key()?;
        let (answers, heard) = mpsc::channel(most.saturating_add(1));
        // With room for the end beside the answers.
        shared.insert(key, Route::Answers(answers));
        Ok((Self { shared, key }, heard))
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.shared.forget(self.key);
    }
}

/// What we build subjects of was parsed; a space in one would be another line of the protocol all the same.
fn is_sound(subject: &str) -> bool {
    !subject.is_empty() && subject.bytes().all(|byte| byte.is_ascii_graphic())
}
