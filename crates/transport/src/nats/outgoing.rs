use std::sync::Arc;

use async_nats::Subject;
use bytes::Bytes;

use super::{
    failure::CallFailed,
    live::{Live, given_up},
    path::Path,
    shared::plain,
    status::NatsRefusal,
};
use crate::refusal::Refusal;

/// What this end of a call sends: the plain values, and streams and futures within them. Each path has to be finished for
/// itself; one that is dropped before is given up, and the other end told.
#[derive(Debug)]
pub struct Outgoing {
    root: PathWriter,
    /// Where the other end takes an end together with the last bytes.
    whole: Option<Subject>,
}

impl Outgoing {
    /// `base` is the subject of the plain values.
    pub(super) const fn new(live: Arc<Live>, base: Subject) -> Self {
        Self { root: PathWriter { live, subject: base, is_open: true }, whole: None }
    }

    /// The same for a caller that takes a whole answer on the subject `whole`.
    pub(super) const fn whole(live: Arc<Live>, base: Subject, whole: Subject) -> Self {
        Self { root: PathWriter { live, subject: base, is_open: true }, whole: Some(whole) }
    }

    /// A writer of one path.
    pub fn path(&self, path: &Path) -> PathWriter {
        let base = self.root.subject.as_str();
        let mut subject = String::with_capacity(base.len() + 2 * path.indices().len() + 8);
        subject.push_str(base);
        path.write(&mut subject);
        PathWriter { live: Arc::clone(&self.root.live), subject: Subject::from(subject), is_open: true }
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

    /// Sends the last plain values, which are complete with them: in one message where the other end knows that. The other paths go on.
    ///
    /// # Errors
    ///
    /// [`CallFailed`]
    pub async fn finish_with(mut self, bytes: Bytes) -> Result<(), CallFailed> {
        if let Some(subject) = self.whole.take()
            && bytes.len() <= chunk(&self.root.live, 0)
        {
            let sent = self.root.live.publish(plain(subject, bytes)).await;
            self.root.is_open = false;
            return sent;
        }
        self.root.write(bytes).await?;
        self.root.end().await
    }

    /// The plain values will not be complete. A stock peer sees an end that comes too early; ours sees the reason, and
    /// its whole call fails with it.
    pub fn give_up(self, refusal: Refusal, reason: &str) {
        self.root.give_up(refusal, reason);
    }
}

/// Writes one path of a call.
#[derive(Debug)]
pub struct PathWriter {
    live: Arc<Live>,
    subject: Subject,
    is_open: bool,
}

impl PathWriter {
    /// Sends bytes, cut where a message would be too long. Waits while the server takes nothing; NATS does not say how
    /// fast the other end reads. Not cancel safe.
    ///
    /// # Errors
    ///
    /// [`CallFailed`]
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), CallFailed> {
        let chunk = chunk(&self.live, 0);
        while !bytes.is_empty() {
            let piece = bytes.split_to(chunk.min(bytes.len()));
            self.live.publish(plain(self.subject.clone(), piece)).await?;
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
        let ended = self.live.publish(plain(self.subject.clone(), Bytes::new())).await;
        self.is_open = false;
        ended
    }

    fn tell(&self, refusal: &NatsRefusal) {
        // Where nothing can be sent at the moment, the other end's own deadline ends the call.
        let _ = self.live.shared.try_publish(given_up(self.subject.clone(), refusal));
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
