use std::{future::poll_fn, sync::Arc};

use async_nats::{Subject, message::OutboundMessage};
use bytes::Bytes;

use super::{
    failure::CallFailed,
    headers::Headers,
    inbox::{reply_length, whole_reply},
    incoming::Incoming,
    limits::Deadlines,
    link::Link,
    live::Live,
    outgoing::{Outgoing, chunk},
    router::Role,
    subject::{ReplySubject, RequestSubject},
};

/// One call to make.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// Which function of whom, under which token.
    pub subject: &'a RequestSubject,
    /// What goes with the request.
    pub headers: &'a Headers,
    /// The plain parameters, encoded.
    pub params: Bytes,
    /// How long to wait.
    pub deadlines: Deadlines,
}

impl Link {
    /// Makes a call of plain values: sends all parameters, and returns all results, at most `limit` bytes of them. Dropping
    /// the future gives the call up, and the callee is told.
    ///
    /// A callee that fails without a word ends its results early: whether they are whole, their type says.
    ///
    /// # Errors
    ///
    /// [`CallFailed`]
    pub async fn call(&self, call: Call<'_>, limit: usize) -> Result<Bytes, CallFailed> {
        let Begun { live, rest, form } = self.begin(call, Form::Whole).await?;
        let callee = match form {
            Form::Whole => match poll_fn(|cx| live.buffer.poll_begun(cx)).await? {
                Some(callee) => callee,
                // It answered without a handshake.
                None => return Incoming::new(live).read_root(limit).await,
            },
            Form::InSteps => poll_fn(|cx| live.buffer.poll_handshake(cx)).await?,
        };
        let (mut params, mut results) = halves(live, &callee);
        params.write(rest).await?;
        // A callee may have answered without its parameters' end.
        params.finish().await?;
        results.read_root(limit).await
    }

    /// Begins a call and waits for the callee's handshake. All of `call.params` is sent then, but not yet their end, so
    /// that more may follow; streams and futures among the parameters go by their paths.
    ///
    /// # Errors
    ///
    /// [`CallFailed`]
    pub async fn invoke(&self, call: Call<'_>) -> Result<(Outgoing, Incoming), CallFailed> {
        let Begun { live, rest, .. } = self.begin(call, Form::InSteps).await?;
        let callee = poll_fn(|cx| live.buffer.poll_handshake(cx)).await?;
        let (mut outgoing, incoming) = halves(live, &callee);
        outgoing.write(rest).await?;
        Ok((outgoing, incoming))
    }

    /// Sends the request with as much of the parameters as fits.
    async fn begin(&self, call: Call<'_>, wanted: Form) -> Result<Begun, CallFailed> {
        let Call { subject, headers, params: mut rest, deadlines } = call;
        let live = Arc::new(self.shared.register(Role::Caller, subject.subject().clone(), deadlines, None)?);
        // What the server counts into `max_payload`, and the reply subject as stock callers do.
        let first = chunk(&live, headers.wire_length() + reply_length(self.shared.inbox()));
        let payload = rest.split_to(first.min(rest.len()));
        let form = if rest.is_empty() { wanted } else { Form::InSteps };
        let reply = match form {
            Form::Whole => whole_reply(self.shared.inbox(), live.key),
            Form::InSteps => self.shared.subject(live.key),
        };
        let message = OutboundMessage {
            subject: subject.subject().clone(),
            reply: Some(Subject::from(reply)),
            payload,
            headers: headers.to_map(),
        };
        live.publish(message).await?;
        Ok(Begun { live, rest, form })
    }
}

/// How a call begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// All parameters are in the request.
    Whole,
    /// More of them follow the handshake.
    InSteps,
}

/// A call whose request was sent.
struct Begun {
    live: Arc<Live>,
    /// The parameters that did not fit.
    rest: Bytes,
    form: Form,
}

fn halves(live: Arc<Live>, callee: &ReplySubject) -> (Outgoing, Incoming) {
    (Outgoing::new(Arc::clone(&live), callee.below(".params")), Incoming::new(live))
}
