use std::sync::Arc;

use async_nats::Subject;
use bytes::Bytes;

use super::{
    failure::CallFailed,
    live::{Live, given_up},
    path::Path,
    router::WHOLE,
    shared::plain,
    status::NatsRefusal,
    subject::ReplySubject,
};
use crate::refusal::Refusal;

/// What this end of a call sends: the plain values, and streams and futures within them. Each path has to be finished for
/// itself; one that is dropped before is given up, and the other end told.
#[derive(Debug)]
pub struct Outgoing {
    root: PathWriter,
    /// Below this the other end takes an end together with the last bytes.
    whole: Option<ReplySubject>,
}

impl Outgoing {
    /// `base` is the subject of the plain values.
    pub(super) const fn new(live: Arc<Live>, base: Subject) -> Self {
        Self { root: PathWriter { live, place: Place::At(base), is_open: true }, whole: None }
    }

    /// The results for a caller that takes them whole.
    pub(super) fn whole(live: Arc<Live>, caller: ReplySubject) -> Self {
        let place = Place::Results(caller.clone());
        Self { root: PathWriter { live, place, is_open: true }, whole: Some(caller) }
    }

    /// A writer of one path.
    pub fn path(&self, path: &Path) -> PathWriter {
        let mut subject = self.root.place.subject().as_str().to_owned();
        path.write(&mut subject);
        PathWriter { live: Arc::clone(&self.root.live), place: Place::At(Subject::from(subject)), is_open: true }
    }

    /// Sends plain values. As [`PathWriter::write`].
    ///
    /// # Errors
    ///
    /// [`CallFailed`]
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), CallFailed> {
        self.root.write(bytes).await
    }

    /// The plain values are complete. The other paths go on.
    ///
    /// # Errors
    ///
    /// [`CallFailed`]
    pub async fn finish(mut self) -> Result<(), CallFailed> {
        self.root.end().await
    }

    /// Sends the last plain values, which are complete with them: in one message where the other end knows that. The other
    /// paths go on.
    ///
    /// # Errors
    ///
    /// [`CallFailed`]
    pub async fn finish_with(mut self, bytes: Bytes) -> Result<(), CallFailed> {
        if let Some(caller) = self.whole_caller(&bytes) {
            let sent = self.root.live.publish(plain(caller.below(WHOLE), bytes)).await;
            // Where nothing could be sent, the caller is told that there is no answer, once that can be.
            self.root.is_open = sent.is_err();
            return sent;
        }
        self.finish_in_pieces(bytes).await
    }

    /// The same, for who answers many calls: a short answer may leave in one write with those of other calls that are ready at the moment.
    /// Then another call sends it; if that fails, as it does with the connection, the caller alone is told. Not cancel safe.
    ///
    /// # Errors
    ///
    /// [`CallFailed`]
    pub async fn finish_with_others(mut self, bytes: Bytes) -> Result<(), CallFailed> {
        if let Some(caller) = self.whole_caller(&bytes) {
            let sent = self.root.live.answer(caller, bytes).await;
            self.root.is_open = sent.is_err();
            return sent;
        }
        self.finish_in_pieces(bytes).await
    }

    /// The caller, if it takes these bytes as all of the answer.
    fn whole_caller(&mut self, bytes: &Bytes) -> Option<ReplySubject> {
        self.whole.take().filter(|_| bytes.len() <= chunk(&self.root.live, 0))
    }

    async fn finish_in_pieces(mut self, bytes: Bytes) -> Result<(), CallFailed> {
        self.root.write(bytes).await?;
        self.root.end().await
    }

    /// The plain values will not be complete. A stock peer sees an end that comes too early; ours sees the reason, and
    /// its whole call fails with it.
    pub fn give_up(self, refusal: Refusal, reason: &str) {
        self.root.give_up(refusal, reason);
    }

    /// The same, but waits while the server takes nothing, at most for
    /// [`send_timeout`](super::NatsLimits::send_timeout).
    ///
    /// # Errors
    ///
    /// [`CallFailed`], when it could not be sent: the other end waits for its own deadline.
    pub async fn give_up_patiently(mut self, refusal: Refusal, reason: &str) -> Result<(), CallFailed> {
        let message = given_up(self.root.place.subject(), &NatsRefusal::new(refusal, reason));
        let told = self.root.live.shared.publish(message).await;
        self.root.is_open = false;
        told
    }
}

/// Writes one path of a call.
#[derive(Debug)]
pub struct PathWriter {
    live: Arc<Live>,
    place: Place,
    is_open: bool,
}

/// Where a path's bytes go.
#[derive(Debug)]
enum Place {
    At(Subject),
    /// Plain results, which most calls send in one message to another place.
    Results(ReplySubject),
}

impl Place {
    fn subject(&self) -> Subject {
        match self {
            Self::At(subject) => subject.clone(),
            Self::Results(caller) => caller.below(".results"),
        }
    }
}

impl PathWriter {
    /// Sends bytes, cut where a message would be too long. Waits while the server takes nothing, and while as much of all
    /// calls is on its way to the server as other calls should wait behind; NATS does not say how fast the other end
    /// reads. Not cancel safe.
    ///
    /// # Errors
    ///
    /// [`CallFailed`]
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), CallFailed> {
        let (chunk, subject) = (chunk(&self.live, 0), self.place.subject());
        while !bytes.is_empty() {
            let piece = bytes.split_to(chunk.min(bytes.len()));
            self.live.publish(plain(subject.clone(), piece)).await?;
        }
        Ok(())
    }

    /// The path is complete.
    ///
    /// # Errors
    ///
    /// [`CallFailed`]
    pub async fn finish(mut self) -> Result<(), CallFailed> {
        self.end().await
    }

    /// The path will not be complete, and why.
    pub fn give_up(mut self, refusal: Refusal, reason: &str) {
        self.is_open = false;
        self.tell(&NatsRefusal::new(refusal, reason));
    }

    async fn end(&mut self) -> Result<(), CallFailed> {
        let ended = self.live.publish(plain(self.place.subject(), Bytes::new())).await;
        self.is_open = false;
        ended
    }

    fn tell(&self, refusal: &NatsRefusal) {
        // Where nothing can be sent at the moment, the other end's own deadline ends the call.
        let _ = self.live.shared.try_publish(given_up(self.place.subject(), refusal));
    }
}

impl Drop for PathWriter {
    fn drop(&mut self) {
        if self.is_open {
            self.tell(&NatsRefusal::new(Refusal::Cancelled, ""));
        }
    }
}

/// The longest piece of a message with `overhead` bytes besides. At least one byte, so that a call makes progress even
/// with a server whose limit is absurd.
pub(super) fn chunk(live: &Live, overhead: usize) -> usize {
    let server = live.shared.client().max_payload().saturating_sub(overhead);
    live.shared.limits.chunk.min(server).max(1)
}
