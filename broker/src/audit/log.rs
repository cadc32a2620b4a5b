//! The running log: a thread that writes, and handles on it. What arrives while a sync is under way shares the next one.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::TaskTracker;

use super::chain::{Head, Hex};
use super::event::Event;
use super::file::{Found, LogFile, OpenError};
use super::tally::Tally;
use crate::clock;
use crate::throttle::{Admission, Rate, Throttle};

/// Events that wait. One more waits with its caller.
const QUEUE: usize = 4096;
/// Callers whose records share one sync, at most.
const MAX_SHARED: usize = 1024;
/// The least time between two syncs: a record waits that much longer at worst.
const PAUSE: Duration = Duration::from_millis(1);
/// The same, after a sync that many shared. One costs as much as some signatures; who issues thousands in a second does not notice the wait.
const BUSY_PAUSE: Duration = Duration::from_millis(8);
/// So many are many.
const MANY: usize = 8;
/// Refusals that are told one by one; a stranger can cause as many as it likes, and the disk is not its own.
const REFUSALS: Rate = Rate { burst: 512, every: Duration::from_millis(100) };

/// A record that is not on disk; what it tells of must not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unaudited {
    /// The disk refuses.
    #[error("the audit log cannot be written: {0}")]
    Disk(String),
    /// The broker is shutting down.
    #[error("the broker is shutting down")]
    Closed,
}

/// A handle on the log. Clones share it; when the last one is gone, the log is closed.
#[derive(Debug, Clone)]
pub struct AuditLog {
    queue: mpsc::Sender<Item>,
    head: watch::Receiver<Head>,
    refusals: Arc<Mutex<Refusals>>,
    tally: Arc<Tally>,
}

/// The log before anything is served: whoever holds it is the only one who writes, and waits for the disk itself.
#[derive(Debug)]
pub struct Unserved(LogFile);

/// A record under way to the disk.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Result<(), Unaudited>>);

#[derive(Debug)]
struct Item {
    at: SystemTime,
    events: Vec<Event>,
    done: Option<oneshot::Sender<Result<(), Unaudited>>>,
}

#[derive(Debug)]
struct Refusals {
    throttle: Throttle<()>,
    unlisted: u64,
}

impl AuditLog {
    /// Opens the log in `folder` and repairs what a crash left.
    ///
    /// `beginning` is recorded where there is no log yet.
    ///
    /// # Errors
    /// When it cannot be used, or was altered.
    pub fn open(folder: &Path, beginning: Event) -> Result<Unserved, OpenError> {
        let (mut file, found) = LogFile::open(folder)?;
        let failed = |cause| OpenError::Io { path: folder.to_owned(), cause };
        let event = match found {
            Found::Whole => None,
            Found::Nothing => Some(beginning),
            Found::Torn { bytes, sha256, kept } => {
                tracing::warn!(bytes, kept = %kept.display(), "a crash left half a record at the audit log's end; it was taken out");
                let kept = kept.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                Some(Event::Repaired { bytes, sha256: Hex(sha256).to_string(), kept })
            }
        };
        if let Some(event) = event {
            file.append(clock::now(), &event.bounded()).map_err(failed)?;
            file.commit().map_err(failed)?;
        }
        Ok(Unserved(file))
    }

    /// Puts `event` on disk; when it returns, what the event tells of may happen.
    ///
    /// # Errors
    /// When it may not.
    pub async fn record(&self, event: Event) -> Result<(), Unaudited> {
        self.submit(vec![event]).await.on_disk().await
    }

    /// Gives `events` to the log; they come to lie in the order in which they are given.
    pub async fn submit(&self, events: Vec<Event>) -> Pending {
        let (done, pending) = oneshot::channel();
        // Where the log is closed, the other half is dropped and tells.
        let _ = self.queue.send(Item::of(events, Some(done))).await;
        Pending(pending)
    }

    /// As [`Self::record`], for several events and from a thread that may wait.
    ///
    /// # Errors
    /// When one of them may not be on disk.
    pub fn record_blocking(&self, events: Vec<Event>) -> Result<(), Unaudited> {
        let (done, pending) = oneshot::channel();
        self.queue.blocking_send(Item::of(events, Some(done))).map_err(|_| Unaudited::Closed)?;
        pending.blocking_recv().map_err(|_| Unaudited::Closed)?
    }

    /// Tells of a refusal. Nobody waits for it; where they come too fast they are summed up.
    pub fn note(&self, event: Event) {
        let now = clock::now();
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if refusals.throttle.admit((), now) == Admission::Throttled {
            refusals.unlisted = refusals.unlisted.saturating_add(1);
            return;
        }
        let unlisted = std::mem::take(&mut refusals.unlisted);
        let mut events = vec![event];
        if unlisted > 0 {
            events.insert(0, Event::Unlisted { refusals: unlisted });
        }
        if self.queue.try_send(Item::of(events, None)).is_err() {
            refusals.unlisted = unlisted.saturating_add(1);
        }
    }

    /// The log in numbers.
    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// After the last record that is on disk, and every growth.
    #[must_use]
    pub fn head(&self) -> watch::Receiver<Head> {
        self.head.clone()
    }
}

impl Unserved {
    /// Puts `events` on disk; when it returns, what they tell of may happen.
    ///
    /// # Errors
    /// When it may not.
    pub fn record(&mut self, events: &[Event]) -> Result<(), Unaudited> {
        let Self(file) = self;
        let mut write = || {
            for event in events {
                file.append(clock::now(), &event.clone().bounded())?;
            }
            file.commit()
        };
        write().map_err(|error: std::io::Error| Unaudited::Disk(error.to_string()))
    }

    /// Starts the writer; the log closes when every handle is gone.
    #[must_use]
    pub fn serve(self, tracker: &TaskTracker) -> AuditLog {
        let Self(file) = self;
        let (queue, items) = mpsc::channel(QUEUE);
        let (grown, head) = watch::channel(file.head());
        // A thread of its own: it waits for the disk.
        let tally = Arc::<Tally>::default();
        let counts = Arc::clone(&tally);
        tracker.spawn_blocking(move || write(file, items, &grown, &counts));
        let refusals = Refusals { throttle: Throttle::new(REFUSALS, 1), unlisted: 0 };
        AuditLog { queue, head, refusals: Arc::new(Mutex::new(refusals)), tally }
    }
}

impl Pending {
    /// Returns once the record is on disk. To be asked until it answers, and then never again.
    ///
    /// # Errors
    /// When it is not.
    pub async fn on_disk(&mut self) -> Result<(), Unaudited> {
        (&mut self.0).await.map_err(|_| Unaudited::Closed)?
    }
}

impl Item {
    fn of(events: Vec<Event>, done: Option<oneshot::Sender<Result<(), Unaudited>>>) -> Self {
        Self { at: clock::now(), events: events.into_iter().map(Event::bounded).collect(), done }
    }
}

/// Writes what comes until every handle is gone.
fn write(mut file: LogFile, mut items: mpsc::Receiver<Item>, grown: &watch::Sender<Head>, tally: &Tally) {
    let mut shared = Vec::new();
    let mut broken = false;
    while let Some(first) = items.blocking_recv() {
        shared.push(first);
        while shared.len() < MAX_SHARED
            && let Ok(next) = items.try_recv()
        {
            shared.push(next);
        }
        let result = write_all(&mut file, &shared).map_err(|error| Unaudited::Disk(error.to_string()));
        match &result {
            Ok(()) => {
                grown.send_replace(file.head());
                shared.iter().flat_map(|item| &item.events).for_each(|event| tally.written(event));
                if broken {
                    tracing::info!("the audit log can be written again");
                }
            }
            Err(error) if !broken => {
                tracing::error!(%error, "ALARM: nothing is issued and nothing changes until the audit log can be written")
            }
            Err(_) => {}
        }
        broken = result.is_err();
        tally.set_broken(broken);
        let pause = if shared.len() < MANY { PAUSE } else { BUSY_PAUSE };
        for item in shared.drain(..) {
            if let Some(done) = item.done {
                // Who asked may be gone; the record stays.
                let _ = done.send(result.clone());
            }
        }
        std::thread::sleep(pause);
    }
}

fn write_all(file: &mut LogFile, items: &[Item]) -> std::io::Result<()> {
    for item in items {
        for event in &item.events {
            file.append(item.at, event)?;
            if file.is_full() {
                file.commit()?;
            }
        }
    }
    file.commit()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::audit::{Segment, segments, verify};

    fn refusal(number: usize) -> Event {
        Event::IssueRefused { node: "n".to_owned(), entry: number.to_string(), reason: "because".to_owned() }
    }

    fn beginning() -> Event {
        Event::Begun { trust_domain: "acme.test".to_owned(), version: "1.0".to_owned() }
    }

    async fn closed(log: AuditLog, tracker: TaskTracker) {
        drop(log);
        tracker.close();
        tracker.wait().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_writers_share_the_syncs_and_every_record_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let tracker = TaskTracker::new();
        let log = AuditLog::open(folder.path(), beginning()).unwrap().serve(&tracker);
        let started = clock::now();
        let writers: Vec<_> = (0..64)
            .map(|writer| {
                let log = log.clone();
                tracker.spawn(async move {
                    for number in 0..100 {
                        log.record(refusal(writer * 100 + number)).await.unwrap();
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        let took = clock::now().duration_since(started).unwrap();
        println!("{:.0} records a second", 6400.0 / took.as_secs_f64());
        let head = *log.head().borrow();
        assert_eq!(head.records, 6401);
        closed(log, tracker).await;
        let verified = verify(folder.path(), None).unwrap();
        assert_eq!((verified.first, verified.head), (1, head));
    }

    #[tokio::test]
    async fn with_a_full_disk_nothing_is_on_record_and_with_room_it_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let (mut file, _) = LogFile::open(folder.path()).unwrap();
        file.append(clock::now(), &beginning()).unwrap();
        file.commit().unwrap();
        let room = file.fill_disk();
        let tracker = TaskTracker::new();
        let log = Unserved(file).serve(&tracker);
        for _ in 0..3 {
            assert!(matches!(log.record(refusal(1)).await, Err(Unaudited::Disk(_))));
            assert_eq!(log.head().borrow().records, 1);
        }
        room();
        log.record(refusal(2)).await.unwrap();
        closed(log, tracker).await;
        assert_eq!(verify(folder.path(), None).unwrap().head.records, 2);
    }

    #[tokio::test]
    async fn half_a_record_is_taken_out_kept_and_told() {
        let folder = tempfile::tempdir().unwrap();
        let tracker = TaskTracker::new();
        let log = AuditLog::open(folder.path(), beginning()).unwrap().serve(&tracker);
        log.record(refusal(1)).await.unwrap();
        closed(log, tracker).await;
        let path = Segment::named(folder.path(), 1).path;
        let whole = fs::read(&path).unwrap();
        for torn in [&b"{\"n\":3,\"at\":"[..], &[0; 4096], b"\0\0\n\0\n"] {
            fs::write(&path, [&whole, torn].concat()).unwrap();
            let tracker = TaskTracker::new();
            let log = AuditLog::open(folder.path(), beginning()).unwrap().serve(&tracker);
            closed(log, tracker).await;
            assert_eq!(verify(folder.path(), None).unwrap().head.records, 3);
            let text = fs::read_to_string(&path).unwrap();
            let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
            assert_eq!(last["event"]["what"], "repaired");
            let kept = folder.path().join(last["event"]["kept"].as_str().unwrap());
            assert_eq!(fs::read(kept).unwrap(), torn);
        }
    }

    #[tokio::test]
    async fn a_record_that_was_put_in_is_no_crash() {
        let folder = tempfile::tempdir().unwrap();
        let tracker = TaskTracker::new();
        let log = AuditLog::open(folder.path(), beginning()).unwrap().serve(&tracker);
        log.record(refusal(1)).await.unwrap();
        closed(log, tracker).await;
        let path = Segment::named(folder.path(), 1).path;
        let text = fs::read_to_string(&path).unwrap();
        let last = text.lines().last().unwrap();
        fs::write(&path, format!("{text}{last}\n")).unwrap();
        let error = AuditLog::open(folder.path(), beginning()).unwrap_err();
        assert!(matches!(error, OpenError::Altered { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_flood_of_refusals_is_summed_up() {
        let folder = tempfile::tempdir().unwrap();
        let tracker = TaskTracker::new();
        let log = AuditLog::open(folder.path(), beginning()).unwrap().serve(&tracker);
        (0..10_000).for_each(|number| log.note(refusal(number)));
        tokio::time::sleep(Duration::from_millis(150)).await;
        log.note(refusal(0));
        log.record(Event::Stopped).await.unwrap();
        closed(log, tracker).await;
        let text = fs::read_to_string(&segments(folder.path()).unwrap()[0].path).unwrap();
        assert!(text.lines().count() < 700);
        assert!(text.contains(r#""what":"unlisted""#), "{text}");
    }
}
