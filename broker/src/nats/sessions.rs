//! Who is connected now, as far as this broker knows: its own admissions, and what servers tell of the others'.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use portcullis_identity::SpiffeId;

use super::login::Evidence;
use super::member::{Class, Membership};
use super::permissions::Permissions;

/// Sessions known at one time; beyond that a newcomer is not followed, and ends when its time is over.
const MAX_SESSIONS: usize = 100_000;

/// A connection of a server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The server.
    pub(crate) server: String,
    /// The connection's number there.
    pub(super) number: u64,
}

/// A connection that was admitted.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) identity: SpiffeId,
    /// How it proved itself; `None` where another broker admitted it, or this one before it was started again.
    pub(crate) proved: Option<Proved>,
    /// Without proof: what it might do when this broker first asked.
    pub(super) found: Option<Box<Membership>>,
    pub(crate) address: String,
    pub(crate) since: SystemTime,
    /// Its end, where it is known.
    pub(crate) until: Option<SystemTime>,
    pub(crate) course: Course,
}

/// What a session was admitted for.
#[derive(Debug, Clone)]
pub(crate) struct Proved {
    pub(crate) evidence: Evidence,
    pub(crate) class: Class,
    pub(super) permissions: Permissions,
}

/// What becomes of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Course {
    /// It goes on.
    Stays,
    /// It was asked to connect anew.
    Moves,
    /// It was ended.
    Ends,
}

impl Course {
    /// The course as people read it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Stays => "stays",
            Self::Moves => "moves",
            Self::Ends => "ends",
        }
    }
}

impl Proved {
    pub(super) fn new(evidence: Evidence, membership: &Membership) -> Self {
        Self { evidence, class: membership.class, permissions: membership.permissions.clone() }
    }
}

/// The sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions(BTreeMap<Place, Session>);

impl Sessions {
    /// Follows a session that this broker admitted.
    pub(super) fn admit(&mut self, place: Place, session: Session, now: SystemTime) {
        if self.0.len() >= MAX_SESSIONS {
            // Of those whose end nobody told us.
            self.0.retain(|_, session| session.until.is_none_or(|until| until > now));
        }
        if self.0.len() < MAX_SESSIONS {
            self.0.insert(place, session);
        } else {
            tracing::error!(
                limit = MAX_SESSIONS,
                "too many sessions to follow: a newcomer will end when its time is over"
            );
        }
    }

    /// Follows a session that a server tells of, unless it is known.
    pub(super) fn learn(&mut self, place: Place, session: impl FnOnce() -> Session, now: SystemTime) {
        if !self.0.contains_key(&place) {
            self.admit(place, session(), now);
        }
    }

    /// A connection is gone.
    pub(super) fn end(&mut self, place: &Place) {
        self.0.remove(place);
    }

    /// Notes what becomes of a session; `false` where it was on that course already, or is gone.
    pub(super) fn set_course(&mut self, place: &Place, course: Course) -> bool {
        let Some(session) = self.0.get_mut(place) else { return false };
        let before = std::mem::replace(&mut session.course, course);
        before != course
    }

    /// Notes what a session that proved nothing to this broker may do.
    pub(super) fn find(&mut self, place: &Place, membership: &Membership) {
        if let Some(session) = self.0.get_mut(place) {
            session.found.get_or_insert_with(|| Box::new(membership.clone()));
        }
    }

    /// Those that were ended and are still there, as far as is known.
    pub(super) fn ending(&self) -> Vec<Place> {
        self.0.iter().filter(|(_, session)| session.course == Course::Ends).map(|(place, _)| place.clone()).collect()
    }

    /// The servers that have them.
    pub(super) fn servers(&self) -> BTreeSet<String> {
        self.0.keys().map(|place| place.server.clone()).collect()
    }

    /// Forgets those of a server that is gone.
    pub(super) fn forget_server(&mut self, server: &str) {
        self.0.retain(|place, _| place.server != server);
    }

    /// One of them.
    pub(super) fn session(&self, place: &Place) -> Option<&Session> {
        self.0.get(place)
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<(Place, Session)> {
        self.0.iter().map(|(place, session)| (place.clone(), session.clone())).collect()
    }

    /// Forgets those that are not among `present` although they should be: their end was missed.
    pub(super) fn keep(&mut self, server: &str, present: &BTreeSet<u64>, asked_at: SystemTime) {
        self.0.retain(|place, session| {
            place.server != server || present.contains(&place.number) || session.since >= asked_at
        });
    }
}
