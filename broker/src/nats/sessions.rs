//! Who is connected now, as far as this broker knows: its own admissions, and what servers tell of the others'.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use portcullis_identity::SpiffeId;
use tokio::time::Instant;

use super::login::Evidence;
use super::member::{Class, Membership};
use super::permissions::Permissions;

/// Sessions known at one time; beyond that a newcomer is not followed, and ends when its time is over.
const MAX_SESSIONS: usize = 100_000;

/// How long one is remembered that was lost sight of, where its end is not known: as long as a certificate may last that has to be shown
/// daily.
const REMEMBERED: Duration = Duration::from_hours(24);

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
    /// When this broker first heard of it.
    pub(super) met: Instant,
    /// Its server told of it when it came, not in a list.
    pub(super) heard: bool,
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
pub(super) struct Sessions {
    followed: BTreeMap<Place, Session>,
    /// Those that a server or its list lost sight of, and until when they may come back. What was decided of one holds for it then: a server
    /// never uses the number of a connection again.
    lost: BTreeMap<Place, (SystemTime, Session)>,
}

impl Sessions {
    /// Follows a session that this broker admitted.
    pub(super) fn admit(&mut self, place: Place, session: Session, now: SystemTime) {
        if self.followed.len() >= MAX_SESSIONS {
            // Of those whose end nobody told us.
            self.followed.retain(|_, session| session.until.is_none_or(|until| until > now));
        }
        if self.followed.len() < MAX_SESSIONS {
            self.followed.insert(place, session);
        } else {
            tracing::error!(
                limit = MAX_SESSIONS,
                "too many sessions to follow: a newcomer will end when its time is over"
            );
        }
    }

    /// Follows a session that a server tells of, unless it is known.
    pub(super) fn learn(&mut self, place: Place, session: impl FnOnce() -> Session, now: SystemTime) {
        if !self.followed.contains_key(&place) {
            let session = self.lost.remove(&place).map_or_else(session, |(_, session)| session);
            self.admit(place, session, now);
        }
    }

    /// A connection is gone.
    pub(super) fn end(&mut self, place: &Place) {
        self.followed.remove(place);
        self.lost.remove(place);
    }

    /// Notes what becomes of a session; `false` where it was on that course already, or is gone.
    pub(super) fn set_course(&mut self, place: &Place, course: Course) -> bool {
        let Some(session) = self.followed.get_mut(place) else { return false };
        let before = std::mem::replace(&mut session.course, course);
        before != course
    }

    /// Notes what a session that proved nothing to this broker may do.
    pub(super) fn find(&mut self, place: &Place, membership: &Membership) {
        if let Some(session) = self.followed.get_mut(place) {
            session.found.get_or_insert_with(|| Box::new(membership.clone()));
        }
    }

    /// Those that were ended and are still there, as far as is known.
    pub(super) fn ending(&self) -> Vec<Place> {
        self.followed
            .iter()
            .filter(|(_, session)| session.course == Course::Ends)
            .map(|(place, _)| place.clone())
            .collect()
    }

    /// The servers that have them.
    pub(super) fn servers(&self) -> BTreeSet<String> {
        self.followed.keys().map(|place| place.server.clone()).collect()
    }

    /// Follows those of a server no more that seems to be gone.
    pub(super) fn lose_server(&mut self, server: &str, now: SystemTime) {
        self.lose(|place, _| place.server == server, now);
    }

    /// Something was taken back that may be held against those that are out of sight and proved nothing to this broker.
    pub(super) fn doubt_lost(&mut self) {
        for (_, session) in self.lost.values_mut().filter(|(_, session)| session.proved.is_none()) {
            session.heard = false;
        }
    }

    fn lose(&mut self, which: impl Fn(&Place, &Session) -> bool, now: SystemTime) {
        self.lost.retain(|_, (until, _)| *until > now);
        let places = self.followed.iter().filter(|(place, session)| which(place, session));
        let places: Vec<Place> = places.map(|(place, _)| place.clone()).collect();
        for place in places {
            let Some(mut session) = self.followed.remove(&place) else { continue };
            // Nobody waits for it to have moved.
            if session.course == Course::Moves {
                session.course = Course::Stays;
            }
            let until = session.until.unwrap_or(now + REMEMBERED);
            // One that is not remembered shows itself again when it comes back.
            if until > now && self.lost.len() < MAX_SESSIONS {
                self.lost.insert(place, (until, session));
            }
        }
    }

    /// One of them.
    pub(super) fn session(&self, place: &Place) -> Option<&Session> {
        self.followed.get(place)
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<(Place, Session)> {
        self.followed.iter().map(|(place, session)| (place.clone(), session.clone())).collect()
    }

    /// Follows those no more that are not among `present` although they should be: their end was missed, or the list is not whole.
    pub(super) fn keep(&mut self, server: &str, present: &BTreeSet<u64>, asked_at: SystemTime, now: SystemTime) {
        let missing = |place: &Place, session: &Session| {
            place.server == server && !present.contains(&place.number) && session.since < asked_at
        };
        self.lose(missing, now);
    }
}

#[cfg(test)]
mod tests {
    use portcullis_identity::parse_spiffe_id;

    use super::*;

    #[test]
    fn what_was_decided_of_a_session_that_was_lost_holds_when_it_is_back() {
        let now = SystemTime::UNIX_EPOCH + REMEMBERED * 10;
        let place = |number| Place { server: "s".to_owned(), number };
        let session = |until| Session {
            identity: parse_spiffe_id("spiffe://test.example/shop").unwrap(),
            proved: None,
            met: Instant::now(),
            heard: true,
            found: None,
            address: String::new(),
            since: now,
            until,
            course: Course::Stays,
        };
        let second = Duration::from_secs(1);
        let mut sessions = Sessions::default();
        sessions.admit(place(1), session(Some(now + second * 10)), now);
        sessions.admit(place(2), session(Some(now + second)), now);
        sessions.admit(place(3), session(None), now);
        sessions.admit(place(4), session(None), now);
        assert!(sessions.set_course(&place(1), Course::Ends) && sessions.set_course(&place(3), Course::Moves));
        // One is missing in a list that was asked for a second later; then the server is gone.
        sessions.keep("s", &BTreeSet::from([1, 2, 3]), now + second, now);
        assert_eq!(sessions.all().len(), 3);
        sessions.lose_server("s", now + second * 2);
        assert!(sessions.all().is_empty() && sessions.ending().is_empty());
        sessions.doubt_lost();
        let unheard = || Session { heard: false, ..session(None) };
        for number in 1..=5 {
            sessions.learn(place(number), unheard, now + second * 3);
        }
        assert_eq!(sessions.ending(), [place(1)]);
        let known = |number| sessions.session(&place(number)).map(|session| (session.heard, session.course));
        // Its time was over; it waits for nobody; it has to show itself again; it was never known.
        assert_eq!(known(2), Some((false, Course::Stays)));
        assert_eq!(known(3), Some((false, Course::Stays)));
        assert_eq!(known(4), Some((false, Course::Stays)));
        assert_eq!(known(5), Some((false, Course::Stays)));
        // What ended is not remembered.
        sessions.end(&place(1));
        sessions.learn(place(1), unheard, now + second * 3);
        assert_eq!(sessions.session(&place(1)).map(|session| session.course), Some(Course::Stays));
    }
}
