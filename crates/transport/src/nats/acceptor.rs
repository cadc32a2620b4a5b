use std::{
    future::{Future, poll_fn},
    sync::Arc,
    task::{Context, Poll, ready},
};

use async_nats::{Message, Subject};
use bytes::Bytes;

use super::{
    called::CalledName,
    failure::{CallFailed, Step},
    headers::{Headers, HeadersTooLarge},
    idle::Lease,
    inbox::{NoRandomness, says_whole},
    incoming::Incoming,
    limits::Deadlines,
    link::Link,
    listening::Listening,
    outgoing::Outgoing,
    path::Path,
    router::Role,
    shared::Shared,
    status::NatsRefusal,
    subject::{CallerToken, InvalidSubject, ReplySubject},
    subscriptions::Subscribed,
    verbatim,
};
use crate::refusal::Refusal;

/// Takes the calls to one component, shared with its other replicas by a queue group. Nothing that one request
/// holds ends it.
#[derive(Debug)]
pub struct Acceptor {
    lease: Lease,
    /// Nothing once its connection is lost for good.
    requests: Option<Subscribed>,
    at: Listening,
}

/// The server did not confirm a subscription.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// The connection is lost.
    #[error("connection to the nats server is lost")]
    Disconnected,
    /// The server said nothing in time.
    #[error("nats server did not confirm the subscription to `{subject}` in time")]
    NotConfirmed {
        /// What was subscribed.
        subject: String,
    },
    /// The server does not let this identity subscribe.
    #[error("the nats server does not permit to subscribe to `{subject}`")]
    NotPermitted {
        /// What was to be subscribed.
        subject: String,
    },
    /// No random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// What arrives at an acceptor.
#[derive(Debug)]
pub enum Arrival {
    /// A call, to accept or to refuse.
    Call(IncomingCall),
    /// Something that is no call. It was refused where it said whom to tell.
    Rejected {
        /// Its subject, for a log: visible ASCII.
        subject: String,
        /// What is wrong with it.
        why: Rejected,
    },
}

/// Why a request is no call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// It does not say where the handshake is to go.
    #[error("request has no reply subject, or a malformed one")]
    NoReply,
    /// Its subject names no caller or no function.
    #[error(transparent)]
    Subject(#[from] InvalidSubject),
    /// Its headers exceed their limits.
    #[error(transparent)]
    Headers(#[from] HeadersTooLarge),
    /// It carries a status, as only answers do.
    #[error("request carries a status")]
    Status,
}

impl Rejected {
    /// What its sender was told.
    pub const fn refusal(&self) -> Refusal {
        match self {
            Self::NoReply | Self::Subject(_) | Self::Status => Refusal::MalformedHeader,
            Self::Headers(_) => Refusal::TooLarge,
        }
    }
}

impl Link {
    /// Subscribes to the calls of a component, and waits until the server has confirmed that it heard of it and did not
    /// refuse. One that it refuses later ends: see [`Acceptor::refused`].
    ///
    /// # Errors
    ///
    /// [`SubscribeError`]
    pub async fn accept_calls(&self, at: impl Into<Listening>) -> Result<Acceptor, SubscribeError> {
        let at = at.into();
        let shared = &self.shared;
        if !shared.is_connected() {
            return Err(SubscribeError::Disconnected);
        }
        let lease = Lease::new(shared);
        let requests = Subscribed::begin(shared, &at.subscription(), Some(at.prefix())).await?;
        Ok(Acceptor { lease, requests: Some(requests), at })
    }
}

impl Acceptor {
    /// The next arrival; `None` when the connection has ended, the server refuses the subscription, or the acceptor retired
    /// and everything was taken. Cancel safe. Take each at once: what waits here waits for all.
    pub async fn next(&mut self) -> Option<Arrival> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Arrival>> {
        let Some(requests) = &mut self.requests else { return Poll::Ready(None) };
        let message = ready!(requests.poll_next(cx));
        // Now that it is here: it may be the first of another connection.
        if self.lease.shared().is_lost() {
            // Dropped, it is not subscribed again.
            self.requests = None;
            // Whoever sent it need not wait, where it can be told.
            let reply = message.and_then(|message| message.reply).and_then(ReplySubject::parse);
            if let Some(reply) = reply {
                let _ = refuse(self.shared(), &reply, Refusal::NotReady, "the connection has not proved itself yet");
            }
            return Poll::Ready(None);
        }
        Poll::Ready(message.map(|message| self.read(message)))
    }

    /// That the server has refused the subscription since it was made, as it does when its configuration was read again.
    pub fn refused(&self) -> Option<SubscribeError> {
        let refused = self.requests.as_ref().is_some_and(Subscribed::is_refused);
        refused.then(|| SubscribeError::NotPermitted { subject: self.at.subscription() })
    }

    /// Takes no further calls: the server ends the subscription, and what it had sent before can still be taken with
    /// [`next`](Self::next), which then ends.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`], when the server does not confirm: what it sent may then be lost.
    pub async fn retire(&mut self) -> Result<(), SubscribeError> {
        let retired = self.retirement().await;
        // Now that nothing is on the way, async-nats may forget it, too.
        if let Some(requests) = &mut self.requests {
            requests.unsubscribe().await?;
        }
        retired
    }

    pub(super) const fn shared(&self) -> &Arc<Shared> {
        self.lease.shared()
    }

    /// Ends the subscription on the server, and waits until what it had sent is here.
    pub(super) fn retirement(&self) -> impl Future<Output = Result<(), SubscribeError>> + Send + use<> {
        let (shared, subject) = (Arc::clone(self.shared()), self.at.subscription());
        let sid = self.requests.as_ref().map(Subscribed::sid);
        async move {
            let Some(sid) = sid else { return Ok(()) };
            shared.unsubscribe(sid).await.map_err(|_| SubscribeError::Disconnected)?;
            if shared.settled().await? { Ok(()) } else { Err(SubscribeError::NotConfirmed { subject }) }
        }
    }

    fn read(&self, message: Message) -> Arrival {
        let subject = message.subject.clone();
        let reply = message.reply.as_ref().and_then(|reply| ReplySubject::parse(reply.clone()));
        match self.parse(message, reply.clone()) {
            Ok(call) => Arrival::Call(call),
            Err(why) => self.reject(&subject, reply, why),
        }
    }

    fn reject(&self, subject: &Subject, reply: Option<ReplySubject>, why: Rejected) -> Arrival {
        if let Some(reply) = reply {
            let refusal = NatsRefusal::new(why.refusal(), &why.to_string());
            let _ = self.shared().try_publish(verbatim::status(&reply, &refusal));
        }
        Arrival::Rejected { subject: subject.as_str().escape_default().to_string(), why }
    }

    fn parse(&self, message: Message, reply: Option<ReplySubject>) -> Result<IncomingCall, Rejected> {
        let Message { subject, payload, headers, status, .. } = message;
        let reply = reply.ok_or(Rejected::NoReply)?;
        if status.is_some() {
            return Err(Rejected::Status);
        }
        let (caller, name) = self.at.parse_request(subject.as_str())?;
        let headers = Headers::read(headers, &self.shared().limits)?;
        let open = Open { lease: Lease::new(self.shared()), reply, payload };
        Ok(IncomingCall { caller, name, headers, open: Some(open) })
    }
}

/// A call that waits for its handshake. One that is dropped is refused as `internal`.
#[derive(Debug)]
pub struct IncomingCall {
    /// Who calls, as the server let it publish; `None` at a plain address.
    pub caller: Option<CallerToken>,
    /// What is called.
    pub name: CalledName,
    /// What came with the request. They prove nothing.
    pub headers: Headers,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    lease: Lease,
    reply: ReplySubject,
    /// The first plain parameters.
    payload: Bytes,
}

impl IncomingCall {
    /// Where the handshake goes: the caller's inbox, if it is one.
    pub fn reply(&self) -> &str {
        self.open.as_ref().map_or("", |open| open.reply.as_str())
    }

    /// How many bytes of parameters came with the request.
    pub fn first_bytes(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.payload.len())
    }

    /// The parameters that came with the request: the first of the plain ones, and often all of them.
    pub fn first(&self) -> &[u8] {
        self.open.as_ref().map_or(&[], |open| &open.payload)
    }

    /// Shakes hands, or answers without where the caller knows that: from here on the parameters arrive. `deadlines.then`
    /// holds from now.
    ///
    /// # Errors
    ///
    /// [`CallFailed`]; the caller was told then.
    pub async fn accept(mut self, deadlines: Deadlines) -> Result<(Incoming, Outgoing), CallFailed> {
        // It is there until one of these methods, which consume the call, takes it.
        let Some(Open { lease, reply, payload }) = self.open.take() else {
            return Err(CallFailed::GivenUp);
        };
        let shared = lease.shared();
        let is_whole = says_whole(reply.as_str()) || self.headers.say_whole();
        let later = is_whole.then(|| shared.clock.now());
        let live = match shared.register(Role::Callee, reply.subject().clone(), deadlines, later) {
            Ok(live) => Arc::new(live),
            Err(failed) => {
                let refusal = NatsRefusal::new(Refusal::TooMany, "the callee has too many calls under way");
                // The first error counts.
                let _ = shared.publish(verbatim::status(&reply, &refusal)).await;
                return Err(failed);
            }
        };
        if !payload.is_empty() {
            live.buffer.push(Path::root(), &payload, shared.clock.now());
        }
        if is_whole {
            live.buffer.end(Path::root(), shared.clock.now());
            return Ok((Incoming::new(Arc::clone(&live)), Outgoing::whole(live, reply)));
        }
        live.publish(shared.handshake(live.key, reply.subject().clone())).await?;
        Ok((Incoming::new(Arc::clone(&live)), Outgoing::new(live, reply.below(".results"))))
    }

    /// Tells the caller at once that the call is refused, and why. False when that cannot be sent at the moment: then the
    /// caller waits for its deadline.
    pub fn refuse(mut self, refusal: Refusal, reason: &str) -> bool {
        self.open.take().is_some_and(|open| refuse(open.lease.shared(), &open.reply, refusal, reason))
    }

    /// The same, but waits while the server takes nothing, at most for
    /// [`send_timeout`](super::NatsLimits::send_timeout). One whose future is dropped is refused as `internal`.
    ///
    /// # Errors
    ///
    /// [`CallFailed`], when it could not be sent.
    pub async fn refuse_patiently(mut self, refusal: Refusal, reason: &str) -> Result<(), CallFailed> {
        let Some(Open { lease, reply, payload }) = &mut self.open else {
            return Err(CallFailed::GivenUp);
        };
        let Ok(place) = lease.shared().refusals.try_acquire() else {
            // Enough of them wait.
            return if self.refuse(refusal, reason) { Ok(()) } else { Err(CallFailed::TimedOut(Step::Send)) };
        };
        // Whoever is refused holds nothing here meanwhile.
        *payload = Bytes::new();
        self.headers = Headers::new();
        let told = lease.shared().publish(verbatim::status(reply, &NatsRefusal::new(refusal, reason))).await;
        drop(place);
        self.open = None;
        told
    }
}

impl Drop for IncomingCall {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            refuse(open.lease.shared(), &open.reply, Refusal::Internal, "the callee dropped the call");
        }
    }
}

fn refuse(shared: &Shared, reply: &ReplySubject, refusal: Refusal, reason: &str) -> bool {
    shared.try_publish(verbatim::status(reply, &NatsRefusal::new(refusal, reason)))
}
