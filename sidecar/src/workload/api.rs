//! The calls of the Workload API: each attests its caller, asks [`Snapshot`] what it may have, and says so.

mod claims;
mod fill;

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use portcullis_api::workload::spiffe_workload_api_server::SpiffeWorkloadApi;
use portcullis_api::workload::{
    JwtBundlesRequest, JwtBundlesResponse, Jwtsvid, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, WitBundlesRequest, WitBundlesResponse, WitsvidRequest, WitsvidResponse,
    X509BundlesRequest, X509BundlesResponse, X509svidRequest, X509svidResponse,
};
use portcullis_identity::parse_spiffe_id;
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};
use tracing::{debug, info};
use zeroize::Zeroize as _;

use super::attest::{Attestor, Depth};
use super::connection::Workload;
use super::quota::{Permit, Quota};
use super::snapshot::{Entitled, NothingToGive};
use super::{Identities, Selectors, Snapshot, TokenRefused, WantedToken};
use crate::clock;

/// Shows that a request was not made by somebody who can only make a program send HTTP (Workload Endpoint §3).
const SECURITY_HEADER: &str = "workload.spiffe.io";
/// How often the caller of an open stream is attested again, beside every change: it may run another program meanwhile.
const ATTEST_AGAIN: Duration = Duration::from_secs(5);
/// So much later each further stream may hear of a change that all of them hear of; and the last of them so late at the latest.
const SPLAY_STEP: Duration = Duration::from_micros(200);
const SPLAY: Duration = Duration::from_millis(500);
/// Audiences of one request.
const MAX_AUDIENCES: usize = 16;
/// Bytes of one audience.
const MAX_AUDIENCE_BYTES: usize = 1024;
/// Bytes of a token that is looked at.
const MAX_TOKEN_BYTES: usize = 16 << 10;

/// What every request passes first: the security header, then the rate of its user.
pub(super) fn admit(request: Request<()>, quota: &Quota) -> Result<Request<()>, Status> {
    let mut values = request.metadata().get_all(SECURITY_HEADER).iter();
    if values.next().map(|value| value.as_encoded_bytes()) != Some(b"true") || values.next().is_some() {
        return Err(Status::invalid_argument("the header `workload.spiffe.io: true` is required, once"));
    }
    let uid = workload(&request)?.caller.uid();
    quota.request(uid, clock::instant()).map_err(|error| Status::unavailable(error.to_string()))?;
    Ok(request)
}

pub(super) fn workload<T>(request: &Request<T>) -> Result<&Workload, Status> {
    request.extensions().get().ok_or_else(|| Status::internal("the connection has no caller"))
}

/// The service.
#[derive(Debug)]
pub(super) struct Api<I>(Arc<Shared<I>>);

#[derive(Debug)]
struct Shared<I> {
    identities: I,
    attestor: Attestor,
    quota: Arc<Quota>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// How a stream's message is made of what its caller is entitled to.
type Answer<T> = fn(&Entitled<'_>, SystemTime) -> Result<T, NothingToGive>;

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl<I: Identities> Api<I> {
    pub(super) fn new(identities: I, quota: Arc<Quota>, tasks: TaskTracker, stop: CancellationToken) -> Self {
        Self(Arc::new(Shared { identities, attestor: Attestor::new(), quota, tasks, stop }))
    }

    /// A stream of whole sets: the first at once, another after every change.
    async fn stream<R: Send, T: Message + 'static>(
        &self,
        request: Request<R>,
        answer: Answer<T>,
    ) -> Result<Response<Messages<T>>, Status> {
        let workload = workload(&request)?.clone();
        let permit = self.0.quota.stream(workload.caller.uid());
        let permit = permit.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut snapshots = self.0.identities.snapshots();
        // What comes from here on is another message.
        snapshots.mark_unchanged();
        let first = self.0.answer(&workload, answer).await?;
        let (sender, messages) = mpsc::channel(1);
        let follower = Follower { workload, snapshots, answer, sender, _permit: permit };
        self.0.tasks.spawn(follower.follow(Arc::clone(&self.0), first));
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }
}

impl<I: Identities> Shared<I> {
    /// Attests the caller and makes its message.
    async fn answer<T>(&self, workload: &Workload, answer: Answer<T>) -> Result<T, Status> {
        let (snapshot, selectors) = self.filled(workload).await?;
        let entitled = snapshot.entitled(&selectors).map_err(|nothing| refuse(nothing, workload, &selectors))?;
        answer(&entitled, clock::now()).map_err(|nothing| refuse(nothing, workload, &selectors))
    }

    async fn attest(&self, workload: &Workload, snapshot: &Snapshot) -> Result<Selectors, Status> {
        let depth = if snapshot.demands_digest() { Depth::WithDigest } else { Depth::WithoutDigest };
        self.attestor.attest(Arc::clone(&workload.caller), depth).await.map_err(|error| {
            let (uid, pid) = (workload.caller.uid(), workload.caller.pid());
            info!(uid, pid, %error, "a workload is not attested");
            Status::permission_denied(error.to_string())
        })
    }
}

pub(super) fn known(snapshot: Option<Arc<Snapshot>>) -> Result<Arc<Snapshot>, Status> {
    snapshot.ok_or_else(|| Status::unavailable("not ready yet: the broker has not said which identities there are"))
}

fn refuse(nothing: NothingToGive, workload: &Workload, selectors: &Selectors) -> Status {
    let (uid, pid) = (workload.caller.uid(), workload.caller.pid());
    match nothing {
        NothingToGive::NotEntitled => {
            info!(uid, pid, %selectors, "a workload meets no entry");
            Status::permission_denied(nothing.to_string())
        }
        NothingToGive::NoSvidYet => {
            debug!(uid, pid, %selectors, "a workload has to wait for its svid");
            Status::unavailable(nothing.to_string())
        }
    }
}

/// One open stream.
struct Follower<T> {
    workload: Workload,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    answer: Answer<T>,
    sender: mpsc::Sender<Result<T, Status>>,
    _permit: Permit,
}

impl<T: Message> Follower<T> {
    /// Sends until nobody listens, the process ends, or it has lost its last identity.
    async fn follow<I: Identities>(mut self, shared: Arc<Shared<I>>, first: T) {
        let mut last = fingerprint(&first);
        if self.sender.send(Ok(first)).await.is_err() {
            return;
        }
        let end = loop {
            let streams = shared.quota.streams();
            let changed = async {
                let changed = self.snapshots.changed().await;
                tokio::time::sleep(splay(streams, clock::jitter())).await;
                changed
            };
            tokio::select! {
                changed = changed => if changed.is_err() {
                    break Status::unavailable("stopping");
                },
                () = tokio::time::sleep(ATTEST_AGAIN) => {}
                () = self.workload.ended.cancelled() => break Status::permission_denied("the calling process has ended"),
                () = shared.stop.cancelled() => break Status::unavailable("stopping"),
                () = self.sender.closed() => return,
            }
            self.snapshots.mark_unchanged();
            match shared.answer(&self.workload, self.answer).await {
                Ok(message) => {
                    let this = fingerprint(&message);
                    if this == last {
                        continue;
                    }
                    last = this;
                    tokio::select! {
                        sent = self.sender.send(Ok(message)) => if sent.is_err() {
                            return;
                        },
                        () = self.workload.ended.cancelled() => return,
                        () = shared.stop.cancelled() => return,
                    }
                }
                Err(status) => break status,
            }
        };
        // One that does not read its last message does not learn why.
        let _ = self.sender.try_send(Err(end));
    }
}

/// When one of so many streams that drew `jitter`, a number in `0..1`, looks at a change. A machine's workloads are not attested all at one moment,
/// and do not all answer a new bundle at one moment.
fn splay(streams: usize, jitter: f64) -> Duration {
    let streams = u32::try_from(streams).unwrap_or(u32::MAX);
    SPLAY_STEP.saturating_mul(streams).min(SPLAY).mul_f64(jitter)
}

/// Tells a message from another without keeping its keys.
fn fingerprint(message: &impl Message) -> [u8; 32] {
    let mut bytes = message.encode_to_vec();
    let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
    bytes.zeroize();
    let mut fingerprint = [0; 32];
    for (byte, of) in fingerprint.iter_mut().zip(digest.as_ref()) {
        *byte = *of;
    }
    fingerprint
}

#[tonic::async_trait]
impl<I: Identities> SpiffeWorkloadApi for Api<I> {
    type FetchX509SVIDStream = Messages<X509svidResponse>;
    type FetchX509BundlesStream = Messages<X509BundlesResponse>;
    type FetchJWTBundlesStream = Messages<JwtBundlesResponse>;
    type FetchWITSVIDStream = Messages<WitsvidResponse>;
    type FetchWITBundlesStream = Messages<WitBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        self.stream(request, |entitled, now| entitled.x509_svids(now)).await
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        self.stream(request, |entitled, _| Ok(entitled.x509_bundles())).await
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        self.stream(request, |entitled, _| Ok(entitled.jwt_bundles())).await
    }

    async fn fetch_jwtsvid(&self, request: Request<JwtsvidRequest>) -> Result<Response<JwtsvidResponse>, Status> {
        let workload = workload(&request)?.clone();
        let JwtsvidRequest { audience, spiffe_id } = request.into_inner();
        check_audience(&audience)?;
        let only = match spiffe_id.as_str() {
            "" => None,
            id => Some(parse_spiffe_id(id).map_err(|error| Status::invalid_argument(error.to_string()))?),
        };
        let (snapshot, selectors) = self.0.filled(&workload).await?;
        let entitled = snapshot.entitled(&selectors).map_err(|nothing| refuse(nothing, &workload, &selectors))?;
        let entries: Vec<_> =
            entitled.entries().filter(|entry| only.as_ref().is_none_or(|only| entry.spiffe_id == *only)).collect();
        if entries.is_empty() {
            return Err(refuse(NothingToGive::NotEntitled, &workload, &selectors));
        }
        let wanted = entries.iter().map(|entry| WantedToken {
            entry: entry.id.clone(),
            audience: audience.clone(),
            vouched_by: None,
        });
        let tokens = self.0.identities.tokens(wanted.collect()).await.map_err(|refused| match refused {
            TokenRefused::Unavailable => Status::unavailable(refused.to_string()),
            TokenRefused::Refused(why) => Status::permission_denied(why),
        })?;
        if tokens.len() != entries.len() {
            return Err(Status::internal("the broker answers something else than it was asked"));
        }
        let svid = |(entry, token): (&super::Entry, super::Token)| Jwtsvid {
            spiffe_id: entry.spiffe_id.to_string(),
            svid: token.text,
            hint: entry.hint.clone(),
        };
        let svids = entries.into_iter().zip(tokens).map(svid).collect();
        Ok(Response::new(JwtsvidResponse { svids }))
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        let workload = workload(&request)?.clone();
        let ValidateJwtsvidRequest { audience, svid } = request.into_inner();
        check_audience(std::slice::from_ref(&audience))?;
        if svid.is_empty() || svid.len() > MAX_TOKEN_BYTES {
            return Err(Status::invalid_argument("`svid` is empty or too long"));
        }
        let snapshot = known(self.0.identities.snapshots().borrow().clone())?;
        let selectors = self.0.attest(&workload, &snapshot).await?;
        let entitled = snapshot.entitled(&selectors).map_err(|nothing| refuse(nothing, &workload, &selectors))?;
        let invalid =
            |error: &dyn std::fmt::Display| Status::invalid_argument(format!("the token is refused: {error}"));
        let token = self.0.identities.validate(&svid, &audience, clock::now()).map_err(|error| invalid(&error))?;
        // A token of a domain that no entry of the caller federates with is as unknown as one of no domain.
        let domain = portcullis_identity::parse_trust_domain(token.spiffe_id.trust_domain_name());
        if !domain.is_ok_and(|domain| entitled.may_see(&domain)) {
            return Err(invalid(&"its trust domain is unknown"));
        }
        let response = ValidateJwtsvidResponse {
            spiffe_id: token.spiffe_id.to_string(),
            claims: Some(claims::message(token.claims)),
        };
        Ok(Response::new(response))
    }

    async fn fetch_witsvid(
        &self,
        _request: Request<WitsvidRequest>,
    ) -> Result<Response<Self::FetchWITSVIDStream>, Status> {
        Err(no_wit())
    }

    async fn fetch_wit_bundles(
        &self,
        _request: Request<WitBundlesRequest>,
    ) -> Result<Response<Self::FetchWITBundlesStream>, Status> {
        Err(no_wit())
    }
}

fn no_wit() -> Status {
    Status::unimplemented("WIT-SVIDs are not issued here")
}

pub(super) fn check_audience(audience: &[String]) -> Result<(), Status> {
    if audience.is_empty() || audience.iter().any(String::is_empty) {
        return Err(Status::invalid_argument("`audience` is required"));
    }
    if audience.len() > MAX_AUDIENCES || audience.iter().any(|audience| audience.len() > MAX_AUDIENCE_BYTES) {
        return Err(Status::invalid_argument("`audience` is too long"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_reaches_few_streams_at_once_and_thousands_over_half_a_second() {
        assert!(splay(1, 0.999) < Duration::from_millis(1));
        assert_eq!(splay(100, 0.5), Duration::from_millis(10));
        let mut windows = [0_usize; 50];
        for _ in 0..5000 {
            let at = splay(5000, clock::jitter());
            assert!(at < SPLAY);
            windows[usize::try_from(at.as_millis()).unwrap() / 10] += 1;
        }
        assert!(windows.iter().all(|streams| (30..200).contains(streams)), "{windows:?}");
        assert_eq!(splay(usize::MAX, 1.0), SPLAY);
    }
}
