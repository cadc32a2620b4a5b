//! A call over NATS that holds streams or futures, to a framed wRPC server: what comes on a path leaves in frames of that path, and back.
//!
//! On NATS every path ends for itself; frames know only the end of all. So the service's half is closed where the function's parameters hold
//! no stream, once the plain values are complete; otherwise the values say themselves where they end, and it is closed with the answer. When
//! the service closes its half, every path of the answer has ended.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use portcullis_policy::Permit;
use portcullis_transport::nats::{Incoming, Outgoing, Path, PathWriter, Piece};
use portcullis_transport::{FrameLimits, Header, PathFrames, Refusal, encode_frame_head};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::nats::Stop;
use super::served::ServedFunction;
use super::{Call, Gate, Refused};
use crate::config::StreamEncoding;
use crate::upstream::{Connection, Splice, Upstream};

/// Room for one read of the answer.
const READ: usize = 16 * 1024;
/// Paths of one answer: as many as a call may have.
const MOST_PATHS: usize = 64;
/// The caller bounds what it takes; here the form is checked alone.
const ANSWER: FrameLimits = FrameLimits { frame: u32::MAX, path: 16, total: u64::MAX, frames: u64::MAX };

/// What carries calls of `function` path by path.
pub(super) fn carrier<'u>(upstream: &'u Upstream, function: &ServedFunction) -> Result<&'u Splice, Refused> {
    let Upstream::Splice(splice) = upstream else {
        let reason = "the function has streams or resources, which this service's sidecar does not carry";
        return Err(Refused::new(Refusal::UnknownFunction, reason));
    };
    if function.streams.in_result && splice.streams != Some(StreamEncoding::V029) {
        let reason = "the service is not known to write streams as callers over NATS read them";
        let refused = Refused::new(Refusal::UnknownFunction, reason);
        return Err(refused.detailed("`upstream.splice.streams` has to be \"0.29\" for that"));
    }
    Ok(splice)
}

/// Carries one permitted call, and decides again whenever the policies change while it lasts.
pub(super) async fn call(
    gate: &Gate,
    (splice, permit): (&Splice, Permit),
    call: &Call<'_>,
    params: Incoming,
    results: &mut Outgoing,
) -> Result<(), Stop> {
    let connection = splice.connect(permit).await?;
    let mut answer = Answer { root: results, paths: BTreeMap::new() };
    let expected = &call.function.streams.result_paths;
    let carried = async {
        match connection {
            Connection::Unix(stream) => {
                carry((gate, splice.idle_timeout), call.function, stream, params, &mut answer).await
            }
            Connection::Tcp(stream) => {
                carry((gate, splice.idle_timeout), call.function, stream, params, &mut answer).await
            }
        }
    };
    let ended = tokio::select! {
        biased;
        ended = carried => ended,
        refused = gate.withdrawn(call) => Err(refused.into()),
    };
    match ended {
        Ok(()) => answer.finish(expected).await,
        Err(stop) => {
            if let Stop::Refused(refused) = &stop {
                answer.give_up(expected, refused);
            }
            Err(stop)
        }
    }
}

/// What one call may take of the service's time, and send besides streams.
#[derive(Clone, Copy)]
struct Bounds {
    plain: usize,
    silence: Duration,
}

async fn carry(
    (gate, silence): (&Gate, Duration),
    function: &ServedFunction,
    stream: impl AsyncRead + AsyncWrite,
    params: Incoming,
    answer: &mut Answer<'_>,
) -> Result<(), Stop> {
    let (read, write) = tokio::io::split(stream);
    let bounds = Bounds { plain: gate.limits.value_bytes, silence };
    let up = pin!(upload(bounds, function, params, write));
    let down = pin!(download(read, answer));
    tokio::select! {
        biased;
        done = down => done,
        stopped = up => match stopped? {},
    }
}

/// Carries what the caller says, and waits for more of it for as long as the call lasts: so it is known when the caller gives up.
async fn upload(
    Bounds { plain: most, silence }: Bounds,
    function: &ServedFunction,
    mut params: Incoming,
    write: impl AsyncWrite,
) -> Result<Infallible, Stop> {
    let mut write = pin!(write);
    let mut head = BytesMut::with_capacity(256);
    Header { instance: function.instance.clone(), function: function.name.clone() }.encode_into(&mut head);
    // Also where there are no parameters: without a first frame a server waits for one.
    encode_frame_head(&[], 0, &mut head);
    let mut plain = 0_usize;
    loop {
        in_time(silence, write.write_all(&head)).await?;
        head.clear();
        match params.next().await? {
            Piece::Bytes(path, bytes) => {
                if path.is_root() {
                    plain = plain.saturating_add(bytes.len());
                    if plain > most {
                        let reason = format!("parameters of more than {most} bytes");
                        return Err(Refused::new(Refusal::TooLarge, reason).into());
                    }
                } else if !function.streams.in_params {
                    let reason = "a stream came that the function does not take";
                    return Err(Refused::new(Refusal::MalformedValue, reason).into());
                }
                encode_frame_head(path.indices(), bytes.len(), &mut head);
                let mut frame = head.split().chain(bytes);
                in_time(silence, write.write_all_buf(&mut frame)).await?;
            }
            Piece::End(path) if path.is_root() && !function.streams.in_params => {
                in_time(silence, write.shutdown()).await?;
            }
            Piece::End(_) => {}
        }
    }
}

/// A service that takes nothing holds nobody for longer than silence may last: while it does, nobody hears that the caller's time is over.
async fn in_time(silence: Duration, writing: impl Future<Output = std::io::Result<()>>) -> Result<(), Refused> {
    match tokio::time::timeout(silence, writing).await {
        Ok(written) => written.map_err(|error| broken(&error)),
        Err(_) => Err(Refused::new(Refusal::DeadlineExceeded, "the service takes nothing any more")),
    }
}

async fn download(read: impl AsyncRead, answer: &mut Answer<'_>) -> Result<(), Stop> {
    let mut read = pin!(read);
    let mut frames = PathFrames::new(ANSWER);
    let mut buffer = BytesMut::with_capacity(READ);
    while read.read_buf(&mut buffer).await.map_err(|error| broken(&error))? > 0 {
        let mut chunk = buffer.split().freeze();
        while let Some(piece) = frames.next(&mut chunk).map_err(|error| nonsense(&error))? {
            answer.write(frames.path(), piece).await?;
        }
        buffer.reserve(READ);
    }
    if !frames.at_boundary() {
        return Err(nonsense(&"it ended inside a frame").into());
    }
    if frames.frames() == 0 {
        return Err(Refused::new(Refusal::UpstreamProtocol, "the service closed the call without an answer").into());
    }
    Ok(())
}

/// The paths of an answer that have begun.
struct Answer<'r> {
    root: &'r mut Outgoing,
    paths: BTreeMap<Path, PathWriter>,
}

impl Answer<'_> {
    async fn write(&mut self, indices: &[u32], piece: bytes::Bytes) -> Result<(), Stop> {
        if indices.is_empty() {
            return Ok(self.root.write(piece).await?);
        }
        let path = Path::try_from(indices.to_vec()).map_err(|error| nonsense(&error))?;
        let count = self.paths.len();
        let root = &self.root;
        let writer = match self.paths.entry(path) {
            std::collections::btree_map::Entry::Occupied(writer) => writer.into_mut(),
            std::collections::btree_map::Entry::Vacant(_) if count >= MOST_PATHS => {
                return Err(nonsense(&format_args!("more than {MOST_PATHS} streams")).into());
            }
            std::collections::btree_map::Entry::Vacant(free) => {
                let writer = root.path(free.key());
                free.insert(writer)
            }
        };
        Ok(writer.write(piece).await?)
    }

    fn begin(&mut self, expected: &[Vec<u32>]) {
        for path in expected.iter().filter_map(|indices| Path::try_from(indices.clone()).ok()) {
            let root = &self.root;
            self.paths.entry(path).or_insert_with_key(|path| root.path(path));
        }
    }

    /// Ends every path, those too that did not begin: whoever waits for one waits no longer.
    async fn finish(mut self, expected: &[Vec<u32>]) -> Result<(), Stop> {
        self.begin(expected);
        for writer in self.paths.into_values() {
            writer.finish().await?;
        }
        Ok(())
    }

    fn give_up(mut self, expected: &[Vec<u32>], refused: &Refused) {
        self.begin(expected);
        for writer in self.paths.into_values() {
            writer.give_up(refused.refusal, &refused.reason);
        }
    }
}

fn broken(error: &std::io::Error) -> Refused {
    Refused::new(Refusal::UpstreamProtocol, "the service broke the connection").detailed(error.to_string())
}

fn nonsense(error: &dyn std::fmt::Display) -> Refused {
    Refused::new(Refusal::UpstreamProtocol, "the service's answer is not wRPC").detailed(error.to_string())
}
