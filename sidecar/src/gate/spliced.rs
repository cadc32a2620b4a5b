//! A call whose bytes pass untouched: decided by its header alone, and again whenever the policies change while it lasts.

use std::pin::pin;

use portcullis_transport::{FrameLimits, Refusal};

use super::{Begun, Call, Gate, Outcome, Refused, Stream};
use crate::upstream::{Ended, Patience, Progress, Splice, Spliced};

pub(super) async fn call(
    gate: &Gate,
    splice: &Splice,
    call: Call<'_>,
    stream: &mut Stream,
    begun: Begun,
) -> Result<Outcome, Refused> {
    let permit = call.permit(gate, None)?;
    let function = call.function;
    let _underway = gate.quota.admit(&call.caller.underway, &function.underway)?;
    let frame = u32::try_from(gate.limits.value_bytes).unwrap_or(u32::MAX);
    let (patience, limits) = match &function.ty {
        Some(_) => {
            let frames = FrameLimits { frame, path: 0, total: frame.into(), ..FrameLimits::default() };
            (Patience::InAll(gate.limits.call_timeout), frames)
        }
        // Streams may last and carry any amount, frame by frame; silence ends them.
        None => {
            let frames = FrameLimits { frame, total: u64::MAX, frames: u64::MAX, ..FrameLimits::default() };
            (Patience::InSilence(splice.idle_timeout), frames)
        }
    };
    let Stream { send, recv, .. } = stream;
    let progress = Progress::new();
    let spliced = Spliced { send: &mut *send, recv, header: begun.raw, rest: begun.rest, limits, progress: &progress };
    let ended = {
        // Pinned here: `select!` would move them.
        let mut carried = pin!(splice.call(permit, spliced));
        let mut withdrawn = pin!(gate.withdrawn(&call));
        tokio::select! {
            biased;
            ended = &mut carried => ended?,
            refused = patience.end(&progress) => return Err(refused),
            refused = &mut withdrawn => return Err(refused),
        }
    };
    let expects_result = function.ty.as_ref().is_some_and(|ty| ty.result.is_some());
    match ended {
        Ended::Answered(0) if expects_result => {
            // A framed server that fails or does not know the function just closes: say so instead of an empty answer.
            Err(Refused::new(Refusal::UpstreamProtocol, "the service closed the call without an answer"))
        }
        Ended::Answered(_) => {
            // Fails only where the caller has stopped the stream.
            let _ = send.finish();
            Ok(Outcome::Answered)
        }
        Ended::GivenUp => Ok(Outcome::GivenUp),
    }
}
