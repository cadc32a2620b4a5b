//! A call of values: decoded by its WIT type, decided, carried out over HTTP, answered.

use bytes::Bytes;
use portcullis_policy::{Permit, readable_params};
use portcullis_transport::quic::{self, CallUnread, RecvStream, StreamFailed, next_chunk};
use portcullis_transport::{FrameError, FrameLimits, Refusal, RootFrames};
use portcullis_value::{DecodeError, FunctionType, Limits, Value};

use super::quota::Share;
use super::served::ServedFunction;
use super::{Call, Gate, Outcome, Refused, Stream};
use crate::http::{HttpCall, HttpFailure};
use crate::upstream::Http;

/// How often parameters are tried before the caller's end of stream is waited for: a flood of tiny frames must not cost a decoding each.
const ATTEMPTS: u32 = 16;

/// What stops a call before its answer.
enum Stop {
    GivenUp,
    Refused(Refused),
}

impl From<Refused> for Stop {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<CallUnread> for Stop {
    fn from(error: CallUnread) -> Self {
        Refused::unread(&error).map_or(Self::GivenUp, Self::Refused)
    }
}

impl From<FrameError> for Stop {
    fn from(error: FrameError) -> Self {
        CallUnread::from(error).into()
    }
}

impl From<StreamFailed> for Stop {
    fn from(_: StreamFailed) -> Self {
        Self::GivenUp
    }
}

pub(super) async fn call(
    gate: &Gate,
    http: &Http,
    call: Call<'_>,
    stream: &mut Stream,
    rest: Bytes,
) -> Result<Outcome, Refused> {
    let deadline = gate.limits.call_timeout;
    let stopped = stream.send.stopped();
    let answering = tokio::time::timeout(deadline, answer(gate, http, call, stream, rest));
    let result = tokio::select! {
        biased;
        result = answering => result,
        _ = stopped => return Ok(Outcome::GivenUp),
    };
    match result {
        Ok(Ok(())) => Ok(Outcome::Answered),
        Ok(Err(Stop::GivenUp)) => Ok(Outcome::GivenUp),
        Ok(Err(Stop::Refused(refused))) => Err(refused),
        Err(_) => Err(too_long(gate)),
    }
}

pub(super) fn too_long(gate: &Gate) -> Refused {
    let reason = format!("the call took longer than {} ms", gate.limits.call_timeout.as_millis());
    Refused::new(Refusal::DeadlineExceeded, reason)
}

async fn answer(gate: &Gate, http: &Http, call: Call<'_>, stream: &mut Stream, rest: Bytes) -> Result<(), Stop> {
    let Stream { send, recv, .. } = stream;
    let function = call.function;
    let reads_params = call.outlook.view.reads_params(function.action);
    // What needs no parameters is decided before the first of them is believed.
    let early = if reads_params { None } else { Some(call.permit(gate, None)?) };
    let ty = plain(function)?;
    let _underway = gate.quota.admit(&call.caller.underway, &function.underway)?;
    let (values, _held) = params(gate, recv, rest, ty).await?;
    let permit = match early {
        Some(permit) => permit,
        None => call.permit(gate, Some(&readable_params(ty, &values)))?,
    };
    let payload = exchange(http, &call, permit, ty, &values).await?;
    quic::write_root_frame(send, payload.into()).await?;
    Ok(())
}

/// The type of a function of values.
pub(super) fn plain(function: &ServedFunction) -> Result<&FunctionType, Refused> {
    function.ty.as_ref().ok_or_else(|| {
        let reason = "the function has streams or resources, which this service's sidecar does not carry";
        Refused::new(Refusal::UnknownFunction, reason)
    })
}

/// Asks the service, and encodes its answer.
pub(super) async fn exchange(
    http: &Http,
    call: &Call<'_>,
    permit: Permit,
    ty: &FunctionType,
    values: &[Value],
) -> Result<Vec<u8>, Refused> {
    let Call { caller, outlook, function, .. } = call;
    let route = outlook
        .served
        .mapping
        .as_ref()
        .and_then(|mapping| mapping.route(&function.instance, &function.name))
        .ok_or_else(|| Refused::new(Refusal::UnknownFunction, "the function has no route"))?;
    let request = HttpCall { route, caller: Some(caller.id()), trace: None, args: values, deadline: None };
    let result = http.client.call(permit, request).await.map_err(|failure| failed(&failure))?;
    let mut payload = Vec::with_capacity(256);
    portcullis_value::encode_result(ty, result.as_ref(), &mut payload)
        .map_err(|error| Refused::new(Refusal::Internal, "the answer cannot be encoded").detailed(error.to_string()))?;
    Ok(payload)
}

/// What a value of this gate's may cost.
pub(super) fn value_limits(gate: &Gate) -> Limits {
    let limits = &gate.limits;
    Limits { bytes: limits.value_bytes, depth: limits.value_depth, items: limits.value_items }
}

/// Reads until the parameters are whole. The caller's end of stream is not waited for: the values say themselves where they end.
async fn params(
    gate: &Gate,
    recv: &mut RecvStream,
    rest: Bytes,
    ty: &FunctionType,
) -> Result<(Vec<Value>, Vec<Share>), Stop> {
    let value_limits = value_limits(gate);
    let total = u32::try_from(gate.limits.value_bytes).unwrap_or(u32::MAX);
    let mut frames = RootFrames::new(FrameLimits { frame: total, total: total.into(), ..FrameLimits::default() });
    let mut held = vec![gate.quota.hold(rest.len())?];
    frames.push(rest)?;
    let (mut attempts, mut wanted) = (0, 0);
    loop {
        let whole = frames.frames() > 0 && frames.at_boundary();
        if whole && frames.payload().len() >= wanted && attempts < ATTEMPTS {
            match portcullis_value::decode_params(ty, frames.payload(), &value_limits) {
                Ok(values) => return Ok((values, held)),
                Err(DecodeError::Incomplete { more }) => {
                    attempts += 1;
                    wanted = frames.payload().len().saturating_add(more);
                }
                Err(error) => return Err(malformed(&error).into()),
            }
        }
        match next_chunk(recv).await? {
            Some(chunk) => {
                held.push(gate.quota.hold(chunk.len())?);
                frames.push(chunk)?;
            }
            None => {
                let payload = frames.finish()?;
                let values = portcullis_value::decode_params(ty, &payload, &value_limits);
                return values.map(|values| (values, held)).map_err(|error| malformed(&error).into());
            }
        }
    }
}

pub(super) fn malformed(error: &DecodeError) -> Refused {
    let refusal = match error {
        DecodeError::TooLarge(_) => Refusal::TooLarge,
        DecodeError::Incomplete { .. } | DecodeError::Malformed { .. } | DecodeError::Trailing { .. } => {
            Refusal::MalformedValue
        }
    };
    Refused::new(refusal, error.to_string())
}

fn failed(failure: &HttpFailure) -> Refused {
    let detail = failure.to_string();
    match failure {
        HttpFailure::Parameter(_) => Refused::new(Refusal::MalformedValue, detail),
        HttpFailure::Unreachable(_) => {
            Refused::new(Refusal::UpstreamUnavailable, "the service cannot be reached").detailed(detail)
        }
        HttpFailure::DeadlineExceeded(_) => {
            Refused::new(Refusal::DeadlineExceeded, "the service did not answer in time").detailed(detail)
        }
        HttpFailure::Nonsense(_) | HttpFailure::TooLarge(_) => {
            Refused::new(Refusal::UpstreamProtocol, "the service's answer does not fit its contract").detailed(detail)
        }
    }
}
