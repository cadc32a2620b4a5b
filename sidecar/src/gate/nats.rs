//! A call over NATS. Every path of it is a subject of its own, so nothing is spliced: plain values are carried whole, streams path by path.
//!
//! It is refused on the handshake subject wherever that can be: there a stock host reads the reason, and needs not wait.

use bytes::{Bytes, BytesMut};
use portcullis_policy::{Permit, Transport, readable_params};
use portcullis_transport::nats::{
    CallFailed, CalledName, CallerToken, Deadlines, Headers, Incoming, IncomingCall, Path, Patience, Piece,
};
use portcullis_transport::{FrameLimits, Header, Refusal};
use portcullis_value::{DecodeError, FunctionType, Value};

use super::quota::Share;
use super::served::ServedFunction;
use super::{Call, Caller, Gate, Outlook, Refused, bridged, recorded, typed, unknown};
use crate::clock;
use crate::upstream::{Expected, Splice, Upstream};

/// The header in which a host names the link of its component.
const LINK_NAME: &str = "link-name";

/// What stops a call after the handshake.
pub(super) enum Stop {
    /// The caller, or the connection to the server.
    Failed(CallFailed),
    Refused(Refused),
}

impl From<CallFailed> for Stop {
    fn from(failed: CallFailed) -> Self {
        match failed {
            CallFailed::TooLarge { .. } | CallFailed::SlowConsumer(_) => {
                Self::Refused(Refused::new(Refusal::TooLarge, failed.to_string()))
            }
            CallFailed::Malformed(_) => Self::Refused(Refused::new(Refusal::MalformedValue, failed.to_string())),
            CallFailed::TimedOut(_) => Self::Refused(Refused::new(Refusal::DeadlineExceeded, failed.to_string())),
            CallFailed::NoResponder
            | CallFailed::Refused(_)
            | CallFailed::GivenUp
            | CallFailed::NotPermitted { .. }
            | CallFailed::Disconnected
            | CallFailed::TooManyCalls { .. }
            | CallFailed::NoRandomness(_) => Self::Failed(failed),
        }
    }
}

impl From<Refused> for Stop {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// What is known before the handshake.
enum Begun<'g> {
    /// Its values are carried whole.
    Plain(Plain),
    /// It holds streams: leave to carry it path by path.
    Streams(&'g Splice, Permit),
}

/// What is known of a call of plain values before the handshake.
struct Plain {
    /// Leave to forward, where no parameter had to be read for it.
    permit: Option<Permit>,
    /// The parameters, where they came whole with the request and are read; and how many bytes they were.
    values: Option<(Vec<Value>, usize)>,
}

impl Gate {
    /// Serves one call to its end.
    pub(crate) async fn serve_nats(&self, caller: &Caller, incoming: IncomingCall) {
        let began = clock::instant();
        let (outlook, header) = match self.named(caller, &incoming.name) {
            Ok(found) => found,
            Err(refused) => {
                let header = incoming.name.header();
                return self.refuse_nats(caller, &header, incoming, refused).await;
            }
        };
        let Some(function) = outlook.served.function(&header.instance, &header.function) else {
            // It was there a line above, in this very version.
            let refused = unknown(&outlook, &header, Transport::Nats);
            return self.refuse_nats(caller, &header, incoming, refused).await;
        };
        let link = link_name(incoming.caller.as_ref(), &incoming.headers).map(str::to_owned);
        let call = Call { caller, outlook: &outlook, function, transport: Transport::Nats, link_name: link.as_deref() };
        let begun = self
            .begin(&call, incoming.first())
            .and_then(|begun| Ok((begun, self.quota.admit(&caller.underway, &function.underway)?)));
        let (begun, underway) = match begun {
            Ok(begun) => begun,
            Err(refused) => return self.refuse_nats(caller, &header, incoming, refused).await,
        };
        let patience = match &begun {
            Begun::Plain(_) => Patience::InAll(self.limits.call_timeout),
            // Streams may last and carry any amount; silence ends them.
            Begun::Streams(splice, _) => Patience::InSilence(splice.idle_timeout),
        };
        let (params, mut results) = match incoming.accept(Deadlines { then: patience, ..Deadlines::default() }).await {
            Ok(halves) => halves,
            // The caller was told.
            Err(failed) => return tracing::debug!(peer = caller.id(), %failed, "no handshake"),
        };
        let answered = match begun {
            Begun::Plain(plain) => self.answer_plain(&call, plain, params).await,
            Begun::Streams(splice, permit) => {
                let carried = Box::pin(bridged::call(self, (splice, permit), &call, params, &mut results)).await;
                carried.map(|()| Bytes::new())
            }
        };
        match answered {
            Ok(rest) => {
                // It may send the answers of others, too: that is none of this call's time.
                let took = clock::instant().duration_since(began);
                drop(underway);
                if let Err(failed) = results.finish_with_others(rest).await {
                    return tracing::debug!(peer = caller.id(), %failed, "the answer did not leave");
                }
                function.meter.answered(took);
            }
            Err(Stop::Failed(failed)) => {
                tracing::debug!(peer = caller.id(), function = function.name, %failed, "the call ended early");
            }
            Err(Stop::Refused(refused)) => {
                let refused = recorded(caller, &header.instance, &header.function, refused);
                self.meters.refused(refused.refusal);
                if let Err(failed) = results.give_up_patiently(refused.refusal, &told(&refused)).await {
                    tracing::debug!(peer = caller.id(), %failed, "the refusal did not leave");
                }
            }
        }
    }

    /// The function that a subject names, among those that are served.
    fn named(&self, caller: &Caller, name: &CalledName) -> Result<(std::sync::Arc<Outlook>, Header), Refused> {
        let outlook = self.outlook(caller)?;
        let served = |header: &Header| outlook.served.function(&header.instance, &header.function).is_some();
        match name.candidates().find(served) {
            Some(header) => Ok((outlook, header)),
            None => Err(unknown(&outlook, name, Transport::Nats)),
        }
    }

    /// Decides, where that can be done before the handshake.
    fn begin(&self, call: &Call<'_>, first: &[u8]) -> Result<Begun<'_>, Refused> {
        match &call.function.ty {
            Some(ty) => self.begin_plain(call, ty, first).map(Begun::Plain),
            None => {
                let permit = call.permit(self, None)?;
                Ok(Begun::Streams(bridged::carrier(&self.upstream, call.function)?, permit))
            }
        }
    }

    fn begin_plain(&self, call: &Call<'_>, ty: &FunctionType, first: &[u8]) -> Result<Plain, Refused> {
        if !call.outlook.view.reads_params(call.function.action) {
            return Ok(Plain { permit: Some(call.permit(self, None)?), values: None });
        }
        match portcullis_value::decode_params(ty, first, &typed::value_limits(self)) {
            Ok(values) => {
                let permit = call.permit(self, Some(&readable_params(ty, &values)))?;
                Ok(Plain { permit: Some(permit), values: Some((values, first.len())) })
            }
            Err(DecodeError::Incomplete { .. }) => Ok(Plain { permit: None, values: None }),
            Err(error) => Err(typed::malformed(&error)),
        }
    }

    async fn answer_plain(&self, call: &Call<'_>, begun: Plain, mut params: Incoming) -> Result<Bytes, Stop> {
        let (payload, _held) = self.plain_params(&params).await?;
        let asked = self.asked(call, begun, &payload)?;
        tokio::select! {
            biased;
            answered = self.ask(call, asked, payload) => answered.map_err(Stop::from),
            stop = self.given_up(&mut params) => Err(stop),
        }
    }

    /// The plain parameters to their end, let into memory piece by piece: what is read counts against the connection's budget no more.
    async fn plain_params(&self, params: &Incoming) -> Result<(Bytes, Share), Stop> {
        let limit = self.limits.value_bytes;
        let mut held = self.quota.hold(0)?;
        let mut root = params.path(Path::root());
        // What comes in one piece is not copied.
        let (mut first, mut joined) = (Bytes::new(), BytesMut::new());
        while let Some(piece) = root.next().await.map_err(|failed| self.ended(failed))? {
            let before = first.len() + joined.len();
            if piece.len() > limit.saturating_sub(before) {
                return Err(CallFailed::TooLarge { limit }.into());
            }
            self.quota.hold_more(&mut held, piece.len())?;
            if before == 0 {
                first = piece;
                continue;
            }
            joined.extend_from_slice(&std::mem::take(&mut first));
            joined.extend_from_slice(&piece);
        }
        Ok((if joined.is_empty() { first } else { joined.freeze() }, held))
    }

    /// Leave to forward, and the parameters where they had to be read.
    fn asked(&self, call: &Call<'_>, begun: Plain, payload: &[u8]) -> Result<(Permit, Option<Vec<Value>>), Refused> {
        let Plain { permit, values } = begun;
        let values = match values {
            Some((_, bytes)) if bytes != payload.len() => {
                return Err(Refused::new(Refusal::MalformedValue, "there are bytes behind the parameters"));
            }
            Some((values, _)) => Some(values),
            None => None,
        };
        if let Some(permit) = permit {
            return Ok((permit, values));
        }
        let ty = typed::plain(call.function)?;
        let values = self.decoded(ty, payload)?;
        let permit = call.permit(self, Some(&readable_params(ty, &values)))?;
        Ok((permit, Some(values)))
    }

    async fn ask(
        &self,
        call: &Call<'_>,
        (permit, values): (Permit, Option<Vec<Value>>),
        payload: Bytes,
    ) -> Result<Bytes, Refused> {
        let ty = typed::plain(call.function)?;
        match &self.upstream {
            Upstream::Http(http) => {
                let values = values.map_or_else(|| self.decoded(ty, &payload), Ok)?;
                // Boxed: the task that holds this future is moved before it first runs.
                Box::pin(typed::exchange(http, call, permit, ty, &values)).await.map(Bytes::from)
            }
            Upstream::Splice(splice) => {
                drop(values);
                spliced(self, splice, call.function, permit, payload).await
            }
        }
    }

    fn decoded(&self, ty: &FunctionType, payload: &[u8]) -> Result<Vec<Value>, Refused> {
        portcullis_value::decode_params(ty, payload, &typed::value_limits(self))
            .map_err(|error| typed::malformed(&error))
    }

    /// Waits until the caller gives its call up, or the time for it is over: the service works for nobody then.
    async fn given_up(&self, params: &mut Incoming) -> Stop {
        loop {
            match params.next().await {
                Ok(Piece::End(_)) => {}
                Ok(Piece::Bytes(..)) => {
                    let reason = "a stream came that the function does not take";
                    return Refused::new(Refusal::MalformedValue, reason).into();
                }
                Err(failed) => return self.ended(failed),
            }
        }
    }

    /// Why a call of plain values ends before its answer: its deadline is the gate's.
    fn ended(&self, failed: CallFailed) -> Stop {
        if matches!(failed, CallFailed::TimedOut(_)) { typed::too_long(self).into() } else { failed.into() }
    }

    async fn refuse_nats(&self, caller: &Caller, header: &Header, incoming: IncomingCall, refused: Refused) {
        let refused = recorded(caller, &header.instance, &header.function, refused);
        self.meters.refused(refused.refusal);
        if let Err(failed) = incoming.refuse_patiently(refused.refusal, &told(&refused)).await {
            tracing::debug!(peer = caller.id(), %failed, "the refusal did not leave");
        }
    }
}

async fn spliced(
    gate: &Gate,
    splice: &Splice,
    function: &ServedFunction,
    permit: Permit,
    params: Bytes,
) -> Result<Bytes, Refused> {
    let ty = typed::plain(function)?;
    let header = Header { instance: function.instance.clone(), function: function.name.clone() };
    let most = u32::try_from(gate.limits.value_bytes).unwrap_or(u32::MAX);
    let frames = FrameLimits { frame: most, total: most.into(), ..FrameLimits::default() };
    let expected = Expected::new(ty, frames, typed::value_limits(gate));
    match splice.exchange(permit, &header, params, expected).await? {
        // A framed server that fails or does not know the function just closes: say so instead of an empty answer.
        None if ty.result.is_some() => {
            Err(Refused::new(Refusal::UpstreamProtocol, "the service closed the call without an answer"))
        }
        answer => Ok(answer.unwrap_or_default()),
    }
}

/// The link under which a component calls. Its host alone knows, and is believed; from everybody else the header is a mere claim.
fn link_name<'h>(caller: Option<&CallerToken>, headers: &'h Headers) -> Option<&'h str> {
    match caller {
        Some(CallerToken::Host) => headers.only(LINK_NAME),
        Some(CallerToken::Registered(_)) | None => None,
    }
}

/// The reason on one line: what the policies advise is the most useful of it.
fn told(refused: &Refused) -> String {
    let mut text = refused.reason.clone();
    for policy in &refused.policies {
        if let Some(advice) = &policy.advice {
            text.push_str("; ");
            text.push_str(advice);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_named_by_a_host_alone() {
        let mut headers = Headers::new();
        headers.append(LINK_NAME, "fast").unwrap();
        assert_eq!(link_name(Some(&CallerToken::Host), &headers), Some("fast"));
        assert_eq!(link_name(Some(&CallerToken::Host), &Headers::new()), None);
        assert_eq!(link_name(Some(&"cart".parse().unwrap()), &headers), None);
        assert_eq!(link_name(None, &headers), None);
    }
}
