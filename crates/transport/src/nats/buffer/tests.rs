use std::{sync::atomic::Ordering, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::nats::clock::Clock;

const LIMITS: fn() -> NatsLimits =
    || NatsLimits { call_bytes: 100, call_messages: 8, paths: 2, ..NatsLimits::default() };

fn buffer(budget: &Arc<Budget>, deadlines: Deadlines, step: Step) -> CallBuffer {
    CallBuffer::new(&LIMITS(), Arc::clone(budget), deadlines, Clock::new().now(), step)
}

fn callee(budget: &Arc<Budget>) -> CallBuffer {
    buffer(budget, Deadlines::default(), Step::Whole)
}

fn budget() -> Arc<Budget> {
    Arc::new(Budget::new(150))
}

fn path(indices: &[u32]) -> Path {
    Path::try_from(indices.to_vec()).unwrap()
}

fn now() -> Moment {
    Clock::new().now()
}

fn piece(buffer: &CallBuffer, of: &Path) -> Poll<Result<Option<Bytes>, CallFailed>> {
    buffer.poll_piece(of, &Context::from_waker(Waker::noop()))
}

fn any(buffer: &CallBuffer) -> Poll<Result<Piece, CallFailed>> {
    buffer.poll_any(&Context::from_waker(Waker::noop()))
}

#[test]
fn each_path_is_read_in_its_order_to_its_end() {
    let budget = budget();
    let buffer = callee(&budget);
    let nested = path(&[1]);
    buffer.push(nested.clone(), &Bytes::from_static(b"x"), now());
    buffer.push(Path::root(), &Bytes::from_static(b"a"), now());
    buffer.push(Path::root(), &Bytes::from_static(b"b"), now());
    buffer.end(Path::root(), now());
    buffer.end(Path::root(), now());
    for expected in [Some(Bytes::from_static(b"a")), Some(Bytes::from_static(b"b")), None, None] {
        assert_eq!(piece(&buffer, &Path::root()), Poll::Ready(Ok(expected)));
    }
    assert_eq!(piece(&buffer, &nested), Poll::Ready(Ok(Some(Bytes::from_static(b"x")))));
    assert_eq!(piece(&buffer, &nested), Poll::Pending);
    assert!(!buffer.is_complete());
    buffer.end(nested.clone(), now());
    assert_eq!(piece(&buffer, &nested), Poll::Ready(Ok(None)));
    assert!(buffer.is_complete());
    assert_eq!(budget.used.load(Ordering::Relaxed), 0);
}

#[test]
fn paths_take_turns_with_who_reads_all() {
    let buffer = callee(&budget());
    let nested = path(&[0, 3]);
    for _ in 0..2 {
        buffer.push(Path::root(), &Bytes::from_static(b"a"), now());
        buffer.push(nested.clone(), &Bytes::from_static(b"x"), now());
    }
    buffer.end(Path::root(), now());
    let mut seen = Vec::new();
    while let Poll::Ready(Ok(piece)) = any(&buffer) {
        seen.push(match piece {
            Piece::Bytes(path, bytes) => format!("{path}{}", str::from_utf8(&bytes).unwrap()),
            Piece::End(path) => format!("{path}end"),
        });
    }
    assert_eq!(seen, ["[]a", "[0.3]x", "[]a", "[0.3]x", "[]end"]);
}

#[test]
fn a_sender_that_is_too_fast_ends_its_own_call() {
    let budget = budget();
    let (flooded, other) = (callee(&budget), callee(&budget));
    other.push(Path::root(), &Bytes::from_static(b"kept"), now());
    flooded.push(Path::root(), &Bytes::from(vec![0; 100]), now());
    assert_eq!(flooded.failed(), None);
    flooded.push(Path::root(), &Bytes::from_static(b"x"), now());
    let overflow = CallFailed::SlowConsumer(Overflow::CallBytes { limit: 100 });
    assert_eq!(piece(&flooded, &Path::root()), Poll::Ready(Err(overflow)));
    assert_eq!(piece(&other, &Path::root()), Poll::Ready(Ok(Some(Bytes::from_static(b"kept")))));
    assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    for _ in 0..9 {
        other.push(Path::root(), &Bytes::from_static(b"x"), now());
    }
    assert_eq!(other.failed(), Some(CallFailed::SlowConsumer(Overflow::CallMessages { limit: 8 })));
}

#[test]
fn what_all_calls_hold_is_bounded_too() {
    let budget = budget();
    let (first, second) = (callee(&budget), callee(&budget));
    first.push(Path::root(), &Bytes::from(vec![0; 100]), now());
    second.push(Path::root(), &Bytes::from(vec![0; 51]), now());
    assert_eq!(second.failed(), Some(CallFailed::SlowConsumer(Overflow::Bytes { limit: 150 })));
    drop(first);
    assert_eq!(budget.used.load(Ordering::Relaxed), 0);
}

#[test]
fn a_peer_names_no_more_paths_than_allowed() {
    let buffer = callee(&budget());
    for index in 0..2 {
        buffer.push(path(&[index]), &Bytes::from_static(b"x"), now());
    }
    assert_eq!(buffer.failed(), None);
    buffer.end(path(&[2]), now());
    assert_eq!(buffer.failed(), Some(CallFailed::Malformed(Malformed::Paths { limit: 2 })));
}

#[test]
fn nothing_follows_an_end() {
    let buffer = callee(&budget());
    buffer.end(Path::root(), now());
    buffer.push(Path::root(), &Bytes::from_static(b"x"), now());
    assert_eq!(buffer.failed(), Some(CallFailed::Malformed(Malformed::AfterEnd)));
    // What was complete before stays complete.
    assert_eq!(piece(&buffer, &Path::root()), Poll::Ready(Ok(None)));
}

#[test]
fn an_answer_that_is_whole_outlives_its_connection() {
    let buffer = callee(&budget());
    buffer.push(Path::root(), &Bytes::from_static(b"a"), now());
    buffer.push(path(&[0]), &Bytes::from_static(b"cut"), now());
    buffer.end(Path::root(), now());
    buffer.fail(CallFailed::Disconnected);
    assert_eq!(piece(&buffer, &Path::root()), Poll::Ready(Ok(Some(Bytes::from_static(b"a")))));
    assert_eq!(piece(&buffer, &Path::root()), Poll::Ready(Ok(None)));
    assert_eq!(piece(&buffer, &path(&[0])), Poll::Ready(Err(CallFailed::Disconnected)));
}

#[test]
fn every_step_has_its_deadline() {
    let second = Duration::from_secs(1);
    let deadlines = |then| Deadlines { handshake: second, then };
    let start = now();
    let later = |seconds| start.after(second * seconds);

    let silent = buffer(&budget(), deadlines(Patience::InAll(second * 10)), Step::Handshake);
    silent.expire(start);
    assert_eq!(silent.failed(), None);
    silent.expire(later(2));
    assert_eq!(silent.failed(), Some(CallFailed::TimedOut(Step::Handshake)));

    let slow = buffer(&budget(), deadlines(Patience::InAll(second * 10)), Step::Handshake);
    slow.hand_shaken(ReplySubject::parse("a.b").unwrap(), later(1));
    slow.push(Path::root(), &Bytes::from_static(b"x"), later(9));
    slow.expire(later(9));
    assert_eq!(slow.failed(), None);
    slow.expire(later(11));
    assert_eq!(slow.failed(), Some(CallFailed::TimedOut(Step::Whole)));

    let stream = buffer(&budget(), deadlines(Patience::InSilence(second * 2)), Step::Whole);
    for at in 1..20 {
        stream.push(Path::root(), &Bytes::from_static(b"x"), later(at));
        assert!(piece(&stream, &Path::root()).is_ready());
        stream.expire(later(at + 1));
    }
    assert_eq!(stream.failed(), None);
    stream.expire(later(23));
    assert_eq!(stream.failed(), Some(CallFailed::TimedOut(Step::Silence)));
}

proptest! {
    /// Whatever comes in whatever order: the bounds hold, and the budget is given back.
    #[test]
    fn no_row_of_messages_holds_more_than_its_bounds(
        steps in proptest::collection::vec((0_u8..4, 0_u32..4, 0_usize..40), 0..60)
    ) {
        let budget = budget();
        let buffer = callee(&budget);
        for (step, index, length) in steps {
            let at = if index == 0 { Path::root() } else { path(&[index]) };
            match step {
                0 => buffer.end(at, now()),
                1 => drop(piece(&buffer, &at)),
                2 => drop(any(&buffer)),
                _ => buffer.push(at, &Bytes::from(vec![0; length.max(1)]), now()),
            }
            let state = buffer.state();
            let held: usize = state.slots.iter().flat_map(|slot| &slot.pieces).map(Bytes::len).sum();
            prop_assert_eq!(held, state.bytes);
            prop_assert!(held <= 100 && state.slots.len() <= 3);
            prop_assert_eq!(budget.used.load(Ordering::Relaxed), held);
        }
        drop(buffer);
        prop_assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }
}
