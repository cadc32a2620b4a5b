//! A call over NATS. Every path of it is a subject of its own, so nothing is spliced: plain values are carried whole, streams path by path.
//!
//! It is refused on the handshake subject wherever that can be: there a stock host reads the reason, and needs not wait.

use bytes::Bytes;
use portcullis_policy::{Permit, Transport, readable_params};
use portcullis_transport::nats::{CallFailed, CalledName, Deadlines, Incoming, IncomingCall, Patience};
use portcullis_transport::{FrameLimits, Header, Refusal};
use portcullis_value::{DecodeError, FunctionType, Value};

use super::served::ServedFunction;
use super::{Call, Caller, Gate, Outlook, Refused, bridged, recorded, typed, unknown};
use crate::clock;
use crate::upstream::{Splice, Upstream};

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
            Err(refused) => return self.refuse_nats(caller, &incoming.name.header(), incoming, refused),
        };
        let Some(function) = outlook.served.function(&header.instance, &header.function) else {
            // It was there a line above, in this very version.
            let refused = unknown(&outlook, &header, Transport::Nats);
            return self.refuse_nats(caller, &header, incoming, refused);
        };
        let link = incoming.headers.only(LINK_NAME).map(str::to_owned);
        let call = Call { caller, outlook: &outlook, function, transport: Transport::Nats, link_name: link.as_deref() };
        let begun = self
            .begin(&call, incoming.first())
            .and_then(|begun| Ok((begun, self.quota.admit(&caller.underway, &function.underway)?)));
        let (begun, _underway) = match begun {
            Ok(begun) => begun,
            Err(refused) => return self.refuse_nats(caller, &header, incoming, refused),
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
            Begun::Plain(plain) => {
                let answering = self.answer_plain(&call, plain, params);
                let answered = tokio::time::timeout(self.limits.call_timeout, answering).await;
                answered.unwrap_or_else(|_| Err(typed::too_long(self).into()))
            }
            Begun::Streams(splice, permit) => {
                let carried = bridged::call(self, (splice, permit), &call, params, &mut results).await;
                carried.map(|()| Bytes::new())
            }
        };
        match answered {
            Ok(rest) => {
                if let Err(failed) = results.finish_with(rest).await {
                    return tracing::debug!(peer = caller.id(), %failed, "the answer did not leave");
                }
                function.meter.answered(clock::instant().duration_since(began));
            }
            Err(Stop::Failed(failed)) => {
                tracing::debug!(peer = caller.id(), function = function.name, %failed, "the call ended early");
            }
            Err(Stop::Refused(refused)) => {
                let refused = recorded(caller, &header.instance, &header.function, refused);
                results.give_up(refused.refusal, &told(&refused));
                self.meters.refused(refused.refusal);
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
        let ty = typed::plain(call.function)?;
        let payload = params.read_root(self.limits.value_bytes).await?;
        let _held = self.quota.hold(payload.len())?;
        let decoded = || {
            portcullis_value::decode_params(ty, &payload, &typed::value_limits(self))
                .map_err(|error| typed::malformed(&error))
        };
        let known = match begun.values {
            Some((_, bytes)) if bytes != payload.len() => {
                let reason = "there are bytes behind the parameters";
                return Err(Refused::new(Refusal::MalformedValue, reason).into());
            }
            Some((values, _)) => Some(values),
            None => None,
        };
        let (permit, known) = match (begun.permit, known) {
            (Some(permit), known) => (permit, known),
            (None, _) => {
                let values = decoded()?;
                (call.permit(self, Some(&readable_params(ty, &values)))?, Some(values))
            }
        };
        Ok(match &self.upstream {
            Upstream::Http(http) => {
                let values = known.map_or_else(decoded, Ok)?;
                Bytes::from(typed::exchange(http, call, permit, ty, &values).await?)
            }
            Upstream::Splice(splice) => {
                drop(known);
                spliced(self, splice, call.function, permit, payload).await?
            }
        })
    }

    fn refuse_nats(&self, caller: &Caller, header: &Header, incoming: IncomingCall, refused: Refused) {
        let refused = recorded(caller, &header.instance, &header.function, refused);
        if !incoming.refuse(refused.refusal, &told(&refused)) {
            tracing::debug!(peer = caller.id(), "the refusal did not leave");
        }
        self.meters.refused(refused.refusal);
    }
}

async fn spliced(
    gate: &Gate,
    splice: &Splice,
    function: &ServedFunction,
    permit: Permit,
    params: Bytes,
) -> Result<Bytes, Refused> {
    let header = Header { instance: function.instance.clone(), function: function.name.clone() };
    let most = u32::try_from(gate.limits.value_bytes).unwrap_or(u32::MAX);
    let limits = FrameLimits { frame: most, total: most.into(), ..FrameLimits::default() };
    let answer = splice.exchange(permit, &header, params, limits).await?;
    let expects_result = function.ty.as_ref().is_some_and(|ty| ty.result.is_some());
    match answer {
        // A framed server that fails or does not know the function just closes: say so instead of an empty answer.
        None if expects_result => {
            Err(Refused::new(Refusal::UpstreamProtocol, "the service closed the call without an answer"))
        }
        answer => Ok(answer.unwrap_or_default()),
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
