//! The answers that hosts keep: each can be told otherwise as long as it is here. Pure.
//!
//! A host keeps a decision as long as it runs. Where there is no room for another, the oldest of the asker with the most goes: a denial
//! silently, what is allowed only after it was told to be denied. So nothing stays allowed that nobody can take back.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use portcullis_identity::{Lattice, SpiffeId};

use super::question::RequestId;

/// How much is remembered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Answers to one asker.
    pub(super) of_asker: usize,
    /// Answers in all.
    pub(super) all: usize,
    /// Bytes of their questions.
    pub(super) bytes: usize,
}

impl Room {
    /// A host asks once for each component, provider and function that it runs: a few hundred times.
    pub(super) const DEFAULT: Self = Self { of_asker: 16_384, all: 65_536, bytes: 64 << 20 };
}

/// Who asked, as far as the NATS server vouches for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Asker {
    /// A host of this lattice.
    pub(super) lattice: Lattice,
    /// The one with this identity; `None`: some host.
    pub(super) host: Option<SpiffeId>,
}

/// An answer that a host keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) request: RequestId,
    pub(super) asker: Arc<Asker>,
    /// As it came.
    pub(super) question: Arc<[u8]>,
    /// What the host was told last.
    pub(super) permitted: bool,
    /// That was not what it was told first.
    pub(super) overridden: bool,
}

/// What is known of a request's id.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing.
    New,
    /// The same host asked the same.
    Same(u64),
    /// It stands for another question: an answer to this one could be taken for one to that.
    Other,
}

/// The answers, in the order in which they were given.
#[derive(Debug)]
pub(super) struct Memory {
    room: Room,
    kept: BTreeMap<u64, Kept>,
    requests: HashMap<RequestId, u64>,
    of_asker: BTreeMap<Arc<Asker>, BTreeSet<u64>>,
    bytes: usize,
    next: u64,
}

impl Memory {
    /// What was remembered, by its number.
    pub(super) fn new(room: Room, kept: impl IntoIterator<Item = (u64, Kept)>) -> Self {
        let mut memory = Self {
            room,
            kept: BTreeMap::new(),
            requests: HashMap::new(),
            of_asker: BTreeMap::new(),
            bytes: 0,
            next: 0,
        };
        for (number, kept) in kept {
            memory.next = memory.next.max(number.saturating_add(1));
            let asker = memory.share(Asker::clone(&kept.asker));
            memory.insert(number, Kept { asker, ..kept });
        }
        memory
    }

    pub(super) fn known(&self, request: &RequestId, asker: &Asker, question: &[u8]) -> Known {
        let Some(number) = self.requests.get(request) else { return Known::New };
        let same = |kept: &Kept| *kept.asker == *asker && *kept.question == *question;
        if self.kept.get(number).is_some_and(same) { Known::Same(*number) } else { Known::Other }
    }

    /// Remembers an answer; returns its number, and those that it takes the room of.
    pub(super) fn keep(&mut self, kept: Kept) -> (u64, Vec<(u64, Kept)>) {
        let mut gone = Vec::new();
        while self.of_asker.get(&kept.asker).is_some_and(|of| of.len() >= self.room.of_asker)
            && let Some(old) = self.forget_oldest(&Arc::clone(&kept.asker))
        {
            gone.push(old);
        }
        while (self.kept.len() >= self.room.all || self.bytes.saturating_add(kept.question.len()) > self.room.bytes)
            && let Some(old) = self.forget_of_most()
        {
            gone.push(old);
        }
        let number = self.next;
        self.next = number.saturating_add(1);
        self.insert(number, kept);
        (number, gone)
    }

    /// Another answer to a question; `None` where it is gone or was answered so.
    pub(super) fn change(&mut self, number: u64, permitted: bool) -> Option<&Kept> {
        let kept = self.kept.get_mut(&number).filter(|kept| kept.permitted != permitted)?;
        (kept.permitted, kept.overridden) = (permitted, true);
        Some(kept)
    }

    pub(super) fn forget(&mut self, number: u64) -> Option<Kept> {
        let kept = self.kept.remove(&number)?;
        self.requests.remove(&kept.request);
        self.bytes = self.bytes.saturating_sub(kept.question.len());
        if let Some(of) = self.of_asker.get_mut(&kept.asker) {
            of.remove(&number);
            if of.is_empty() {
                self.of_asker.remove(&kept.asker);
            }
        }
        Some(kept)
    }

    /// The answers from `first` on.
    pub(super) fn from(&self, first: u64) -> impl Iterator<Item = (u64, &Kept)> {
        self.kept.range((Bound::Included(first), Bound::Unbounded)).map(|(number, kept)| (*number, kept))
    }

    /// The answers to `asker`.
    pub(super) fn of(&self, asker: &Asker) -> impl Iterator<Item = &Kept> {
        self.of_asker.get(asker).into_iter().flatten().filter_map(|number| self.kept.get(number))
    }

    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// The same asker once for all its answers.
    pub(super) fn share(&self, asker: Asker) -> Arc<Asker> {
        self.of_asker.get_key_value(&asker).map_or_else(|| Arc::new(asker), |(known, _)| Arc::clone(known))
    }

    fn insert(&mut self, number: u64, kept: Kept) {
        self.bytes = self.bytes.saturating_add(kept.question.len());
        self.requests.insert(kept.request.clone(), number);
        self.of_asker.entry(Arc::clone(&kept.asker)).or_default().insert(number);
        self.kept.insert(number, kept);
    }

    fn forget_of_most(&mut self) -> Option<(u64, Kept)> {
        let (most, _) = self.of_asker.iter().max_by_key(|(_, of)| of.len())?;
        self.forget_oldest(&Arc::clone(most))
    }

    /// The oldest denial; without one, the oldest of what is allowed.
    fn forget_oldest(&mut self, asker: &Asker) -> Option<(u64, Kept)> {
        let of = self.of_asker.get(asker)?;
        let denied = |number: &&u64| self.kept.get(number).is_some_and(|kept| !kept.permitted);
        let number = of.iter().find(denied).or_else(|| of.first()).copied()?;
        self.forget(number).map(|kept| (number, kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room { of_asker: 3, all: 5, bytes: 100 };

    fn asker(host: Option<&str>) -> Arc<Asker> {
        let host = host.map(|id| portcullis_identity::parse_spiffe_id(id).unwrap());
        Arc::new(Asker { lattice: "demo".parse().unwrap(), host })
    }

    fn answer(request: &str, asker: &Arc<Asker>, permitted: bool) -> Kept {
        Kept {
            request: RequestId::parse(request).unwrap(),
            asker: Arc::clone(asker),
            question: (*b"question").into(),
            permitted,
            overridden: false,
        }
    }

    #[test]
    fn an_id_stands_for_one_question_of_one_asker() {
        let (one, two) = (asker(None), asker(Some("spiffe://a.test/host/two")));
        let mut memory = Memory::new(ROOM, []);
        let request = RequestId::parse("r").unwrap();
        assert_eq!(memory.known(&request, &one, b"question"), Known::New);
        let (number, gone) = memory.keep(answer("r", &one, true));
        assert!(gone.is_empty());
        assert_eq!(memory.known(&request, &one, b"question"), Known::Same(number));
        assert_eq!(memory.known(&request, &one, b"another"), Known::Other);
        assert_eq!(memory.known(&request, &two, b"question"), Known::Other);
        memory.forget(number).unwrap();
        assert_eq!((memory.known(&request, &one, b"question"), memory.len(), memory.bytes), (Known::New, 0, 0));
    }

    #[test]
    fn a_change_is_told_once_and_stays_one() {
        let mut memory = Memory::new(ROOM, []);
        let (number, _) = memory.keep(answer("r", &asker(None), true));
        assert!(memory.change(number, true).is_none());
        assert!(memory.change(number, false).is_some_and(|kept| kept.overridden));
        assert!(memory.change(number, false).is_none());
        // Back to what it was first: its host was told otherwise meanwhile.
        assert!(memory.change(number, true).is_some_and(|kept| kept.overridden));
        assert!(memory.change(9, true).is_none());
    }

    #[test]
    fn who_asks_much_forgets_its_own_denials_first() {
        let (one, two) = (asker(None), asker(Some("spiffe://a.test/host/two")));
        let mut memory = Memory::new(ROOM, []);
        memory.keep(answer("other", &two, true));
        for (request, permitted) in [("a", true), ("b", false), ("c", true)] {
            assert!(memory.keep(answer(request, &one, permitted)).1.is_empty());
        }
        let names = |gone: Vec<(u64, Kept)>| {
            gone.into_iter().map(|(_, kept)| (kept.request.as_str().to_owned(), kept.permitted)).collect::<Vec<_>>()
        };
        assert_eq!(names(memory.keep(answer("d", &one, true)).1), [("b".to_owned(), false)]);
        assert_eq!(names(memory.keep(answer("e", &one, true)).1), [("a".to_owned(), true)]);
        assert_eq!((memory.of(&one).count(), memory.of(&two).count()), (3, 1));
        // All places are taken: whoever has most loses one.
        let three = asker(Some("spiffe://a.test/host/three"));
        assert!(memory.keep(answer("f", &three, true)).1.is_empty());
        assert_eq!(names(memory.keep(answer("g", &three, true)).1), [("c".to_owned(), true)]);
        assert_eq!((memory.len(), memory.bytes), (5, 40));
    }

    #[test]
    fn bytes_are_bounded() {
        let mut memory = Memory::new(Room { bytes: 20, ..ROOM }, []);
        let one = asker(None);
        memory.keep(answer("a", &one, true));
        memory.keep(answer("b", &one, true));
        assert_eq!(memory.keep(answer("c", &one, true)).1.len(), 1);
        assert_eq!(memory.bytes, 16);
    }

    #[test]
    fn what_was_remembered_goes_on_with_the_next_number() {
        let mut memory =
            Memory::new(ROOM, [(4, answer("a", &asker(None), true)), (7, answer("b", &asker(None), true))]);
        assert_eq!(memory.keep(answer("c", &asker(None), true)).0, 8);
        assert_eq!(memory.from(5).map(|(number, _)| number).collect::<Vec<_>>(), [7, 8]);
    }
}
