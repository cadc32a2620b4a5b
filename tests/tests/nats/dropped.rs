//! What a stock client throws away of what has arrived for it, as it says in its log.

use std::fmt::{Debug, Write as _};
use std::sync::{Mutex, Once, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

static DROPPED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// From here on it is noted, for the whole process.
pub fn note() {
    static BEGUN: Once = Once::new();
    BEGUN.call_once(|| tracing::subscriber::set_global_default(Noting).expect("nobody else listens"));
}

/// How many handshakes, of all that came to inboxes of this prefix.
///
/// A caller subscribes to the handshake of a call and to its results by one command to the task that tells its messages apart. What comes
/// before that task sees the command is dropped, and the handshake comes first: a call whose handshake was dropped waits for ever.
pub fn handshakes(prefix: &str) -> usize {
    let dropped = DROPPED.lock().unwrap_or_else(PoisonError::into_inner);
    let inboxes = dropped.iter().filter_map(|subject| subject.strip_prefix(prefix));
    // `.CLIENT.CALL`; results and paths have more parts.
    inboxes.filter(|rest| rest.matches('.').count() == 2).count()
}

struct Noting;

impl Subscriber for Noting {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target() == "wrpc_transport_nats" && *metadata.level() == Level::DEBUG
    }

    fn event(&self, event: &Event<'_>) {
        let mut said = Said::default();
        event.record(&mut said);
        if said.message == "drop message with no subscriber" {
            DROPPED.lock().unwrap_or_else(PoisonError::into_inner).push(said.subject);
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Said {
    message: String,
    subject: String,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let (text, subject) = match field.name() {
            "message" => (&mut self.message, false),
            "subject" => (&mut self.subject, true),
            _ => return,
        };
        write!(text, "{value:?}").expect("a text takes everything");
        if subject {
            // Whatever a subject is wrapped in to be shown.
            let of_subject = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
            let longest = text.split(|c| !of_subject(c)).max_by_key(|part| part.len());
            *text = longest.unwrap_or_default().to_owned();
        }
    }
}
