use std::{future::poll_fn, sync::Arc};

use async_nats::{Subject, message::OutboundMessage};
use bytes::Bytes;

use super::{
    failure::CallFailed,
    headers::Headers,
    incoming::Incoming,
    limits::Deadlines,
    link::Link,
    outgoing::{Outgoing, chunk},
    router::Role,
    subject::RequestSubject,
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
        let (params, mut results) = self.invoke(call).await?;
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
        let Call { subject, headers, mut params, deadlines } = call;
        let live = Arc::new(self.shared.register(Role::Caller, subject.subject().clone(), deadlines)?);
        let reply = self.shared.subject(live.key);
        // What the server counts into `max_payload`, and the reply subject as stock callers do.
        let first = chunk(&live, headers.wire_length() + reply.len());
        let payload = params.split_to(first.min(params.len()));
        let message = OutboundMessage {
            subject: subject.subject().clone(),
            reply: Some(Subject::from(reply)),
            payload,
            headers: headers.to_map(),
        };
        live.publish(message).await?;
        let callee = poll_fn(|cx| live.buffer.poll_handshake(cx)).await?;
        let base = Subject::from(format!("{}.params", callee.as_str()));
        let incoming = Incoming::new(Arc::clone(&live));
        let mut outgoing = Outgoing::new(live, base);
        outgoing.write(params).await?;
        Ok((outgoing, incoming))
    }
}
