use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;

use super::{
    clock::Moment,
    failure::{CallFailed, Malformed, Overflow, Step},
    limits::{Deadlines, NatsLimits, Patience},
    path::Path,
    subject::ReplySubject,
};

/// A payload shorter than this is copied: otherwise it would keep the whole read buffer it came in. Those of async-nats have
/// 64 KiB, and grow twofold for a message that is longer, to a few MiB, in which short ones come then, too.
const COPIED: usize = 64 * 1024;

/// Bytes that have arrived for all calls of a connection and were not read yet.
#[derive(Debug)]
pub(super) struct Budget {
    limit: usize,
    used: AtomicUsize,
}

impl Budget {
    pub(super) const fn new(limit: usize) -> Self {
        Self { limit, used: AtomicUsize::new(0) }
    }

    fn take(&self, bytes: usize) -> bool {
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= self.limit;
        if !fits {
            self.give_back(bytes);
        }
        fits
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What has arrived for one call and was not read yet: bounded, by path. The router puts in and never waits; readers take
/// out. All methods take one lock for a moment.
#[derive(Debug)]
pub(super) struct CallBuffer {
    bytes: usize,
    messages: usize,
    paths: usize,
    budget: Arc<Budget>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    failed: Option<CallFailed>,
    /// When the call fails, unless something happens.
    due: Moment,
    step: Step,
    then: Patience,
    began: Moment,
    handshake: Option<ReplySubject>,
    /// Waits for the handshake, or for a piece of any path.
    any: Option<Waker>,
    slots: Vec<Slot>,
    bytes: usize,
    messages: usize,
    /// Where the search for a piece of any path begins.
    turn: usize,
}

/// One path.
#[derive(Debug)]
struct Slot {
    path: Path,
    pieces: VecDeque<Bytes>,
    ended: bool,
    /// The end was handed out to who reads all paths.
    told: bool,
    waker: Option<Waker>,
}

impl Slot {
    fn new(path: Path) -> Self {
        Self { path, pieces: VecDeque::new(), ended: false, told: false, waker: None }
    }
}

/// What a reader of all paths gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// The next bytes of a path. Where they are cut carries no meaning.
    Bytes(Path, Bytes),
    /// The path is complete.
    End(Path),
}

impl CallBuffer {
    /// For a call that begins now; `step` is what it waits for first.
    pub(super) fn new(limits: &NatsLimits, budget: Arc<Budget>, deadlines: Deadlines, now: Moment, step: Step) -> Self {
        let mut state = State {
            failed: None,
            due: now.after(deadlines.handshake),
            step,
            then: deadlines.then,
            began: now,
            handshake: None,
            any: None,
            slots: vec![Slot::new(Path::root())],
            bytes: 0,
            messages: 0,
            turn: 0,
        };
        if step != Step::Handshake {
            state.proceed(now);
        }
        let NatsLimits { call_bytes, call_messages, paths, .. } = *limits;
        Self { bytes: call_bytes, messages: call_messages, paths, budget, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The callee accepted. A second handshake changes nothing.
    pub(super) fn hand_shaken(&self, reply: ReplySubject, now: Moment) {
        let mut state = self.state();
        if state.handshake.is_none() && state.failed.is_none() {
            state.handshake = Some(reply);
            state.proceed(now);
            wake(state.any.take());
        }
    }

    /// The next bytes of a path.
    pub(super) fn push(&self, path: Path, payload: &Bytes, now: Moment) {
        let mut state = self.state();
        if state.failed.is_some() {
            return;
        }
        if let Err(failed) = self.try_push(&mut state, path, payload, now) {
            self.fail_locked(&mut state, failed);
        }
    }

    fn try_push(&self, state: &mut State, path: Path, payload: &Bytes, now: Moment) -> Result<(), CallFailed> {
        if state.messages >= self.messages {
            return Err(CallFailed::SlowConsumer(Overflow::CallMessages { limit: self.messages }));
        }
        if state.bytes.saturating_add(payload.len()) > self.bytes {
            return Err(CallFailed::SlowConsumer(Overflow::CallBytes { limit: self.bytes }));
        }
        state.touch(now);
        let slot = self.slot(&mut state.slots, path)?;
        if slot.ended {
            return Err(CallFailed::Malformed(Malformed::AfterEnd));
        }
        if !self.budget.take(payload.len()) {
            return Err(CallFailed::SlowConsumer(Overflow::Bytes { limit: self.budget.limit }));
        }
        let piece = if payload.len() < COPIED { Bytes::copy_from_slice(payload) } else { payload.clone() };
        slot.pieces.push_back(piece);
        wake(slot.waker.take());
        state.bytes += payload.len();
        state.messages += 1;
        wake(state.any.take());
        Ok(())
    }

    /// A path is complete. A second end changes nothing: stock writers send one when they are dropped, too.
    pub(super) fn end(&self, path: Path, now: Moment) {
        let mut state = self.state();
        if state.failed.is_some() {
            return;
        }
        state.touch(now);
        match self.slot(&mut state.slots, path) {
            Ok(slot) => {
                slot.ended = true;
                wake(slot.waker.take());
                wake(state.any.take());
            }
            Err(failed) => self.fail_locked(&mut state, failed),
        }
    }

    /// Ends the call; what is complete can still be read. The first reason counts.
    pub(super) fn fail(&self, failed: CallFailed) {
        self.fail_locked(&mut self.state(), failed);
    }

    fn fail_locked(&self, state: &mut State, failed: CallFailed) {
        if state.failed.is_some() {
            return;
        }
        state.failed = Some(failed);
        let mut freed = 0;
        for slot in &mut state.slots {
            if !slot.ended {
                freed += slot.pieces.drain(..).map(|piece| piece.len()).sum::<usize>();
            }
            wake(slot.waker.take());
        }
        state.bytes -= freed;
        self.budget.give_back(freed);
        wake(state.any.take());
    }

    /// Ends the call if its time is over.
    pub(super) fn expire(&self, now: Moment) {
        let mut state = self.state();
        if state.failed.is_none() && now >= state.due {
            let step = state.step;
            self.fail_locked(&mut state, CallFailed::TimedOut(step));
        }
    }

    /// Something was sent: that is progress, too.
    pub(super) fn sent(&self, now: Moment) {
        let mut state = self.state();
        if state.step == Step::Silence {
            state.proceed(now);
        }
    }

    pub(super) fn failed(&self) -> Option<CallFailed> {
        self.state().failed.clone()
    }

    /// Where parameters go, once the callee has said so.
    pub(super) fn handshake(&self) -> Option<ReplySubject> {
        self.state().handshake.clone()
    }

    /// Whether everything that has begun is complete, the plain values among it.
    pub(super) fn is_complete(&self) -> bool {
        self.state().slots.iter().all(|slot| slot.ended)
    }

    pub(super) fn poll_handshake(&self, cx: &Context<'_>) -> Poll<Result<ReplySubject, CallFailed>> {
        let mut state = self.state();
        if let Some(reply) = &state.handshake {
            return Poll::Ready(Ok(reply.clone()));
        }
        if let Some(failed) = &state.failed {
            return Poll::Ready(Err(failed.clone()));
        }
        state.any = Some(cx.waker().clone());
        Poll::Pending
    }

    /// What comes first: the handshake, or `None` for results without one.
    pub(super) fn poll_begun(&self, cx: &Context<'_>) -> Poll<Result<Option<ReplySubject>, CallFailed>> {
        let mut state = self.state();
        if state.slots.iter().any(|slot| slot.ended || !slot.pieces.is_empty()) {
            return Poll::Ready(Ok(None));
        }
        if let Some(reply) = &state.handshake {
            return Poll::Ready(Ok(Some(reply.clone())));
        }
        if let Some(failed) = &state.failed {
            return Poll::Ready(Err(failed.clone()));
        }
        state.any = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The next bytes of `path`; `None` when it is complete.
    pub(super) fn poll_piece(&self, path: &Path, cx: &Context<'_>) -> Poll<Result<Option<Bytes>, CallFailed>> {
        let mut state = self.state();
        let failed = state.failed.clone();
        let slot = match self.slot(&mut state.slots, path.clone()) {
            Ok(slot) => slot,
            Err(error) => return Poll::Ready(Err(error)),
        };
        if let Some(piece) = slot.pieces.pop_front() {
            state.bytes -= piece.len();
            state.messages -= 1;
            self.budget.give_back(piece.len());
            return Poll::Ready(Ok(Some(piece)));
        }
        if slot.ended {
            return Poll::Ready(Ok(None));
        }
        if let Some(failed) = failed {
            return Poll::Ready(Err(failed));
        }
        slot.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The next of any path, each path in turn.
    pub(super) fn poll_any(&self, cx: &Context<'_>) -> Poll<Result<Piece, CallFailed>> {
        let mut state = self.state();
        let count = state.slots.len();
        for offset in 0..count {
            let at = (state.turn + offset) % count;
            let Some(slot) = state.slots.get_mut(at) else { continue };
            if let Some(piece) = slot.pieces.pop_front() {
                let path = slot.path.clone();
                state.bytes -= piece.len();
                state.messages -= 1;
                state.turn = at + 1;
                self.budget.give_back(piece.len());
                return Poll::Ready(Ok(Piece::Bytes(path, piece)));
            }
            if slot.ended && !slot.told {
                slot.told = true;
                return Poll::Ready(Ok(Piece::End(slot.path.clone())));
            }
        }
        if let Some(failed) = &state.failed {
            return Poll::Ready(Err(failed.clone()));
        }
        state.any = Some(cx.waker().clone());
        Poll::Pending
    }

    fn slot<'a>(&self, slots: &'a mut Vec<Slot>, path: Path) -> Result<&'a mut Slot, CallFailed> {
        let at = slots.iter().position(|slot| slot.path == path);
        let at = match at {
            Some(at) => at,
            // The plain values have one, too.
            None if slots.len() > self.paths => {
                return Err(CallFailed::Malformed(Malformed::Paths { limit: self.paths }));
            }
            None => {
                slots.push(Slot::new(path));
                slots.len() - 1
            }
        };
        slots.get_mut(at).ok_or(CallFailed::Malformed(Malformed::Subject))
    }
}

impl Drop for CallBuffer {
    fn drop(&mut self) {
        let bytes = self.state().bytes;
        self.budget.give_back(bytes);
    }
}

impl State {
    /// From now on the second deadline counts.
    fn proceed(&mut self, now: Moment) {
        (self.step, self.due) = match self.then {
            Patience::InAll(whole) => (Step::Whole, self.began.after(whole)),
            Patience::InSilence(silence) => (Step::Silence, now.after(silence)),
        };
    }

    /// Something arrived. Results without a handshake stand for one.
    fn touch(&mut self, now: Moment) {
        if matches!(self.step, Step::Silence | Step::Handshake) {
            self.proceed(now);
        }
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests;
