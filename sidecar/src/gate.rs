//! The gate: every call's header is read here, decided, and forwarded or refused.
//!
//! It knows one virtual component, its policies and its upstream. It does not know where connections come from, nor the broker.

mod bridged;
mod caller;
mod nats;
mod quota;
mod refused;
mod served;
mod spliced;
mod typed;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use portcullis_client::explanation;
use portcullis_policy::{CallContext, ParamValue, Permit, Transport, Verdict};
use portcullis_transport::quic::{self, Invocation, RecvStream, SendStream};
use portcullis_transport::{Header, HeaderLimits, Refusal};
use tokio::sync::watch;
use tracing::{debug, info, warn};

pub(crate) use caller::{Caller, Outlook};
pub(crate) use quota::Quota;
pub(crate) use refused::Refused;
pub(crate) use served::Served;

use crate::clock;
use crate::config::LimitsSection;
use crate::meters::Meters;
use crate::upstream::{Ended, Upstream};

/// What a caller without any grant is told, whatever it asks for.
const NO_POLICY: &str = "no policy permits it";

/// What every call needs.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Nothing while no call can be decided; `not_ready` says why.
    served: ArcSwapOption<Served>,
    /// Counts changes of `served`.
    changes: watch::Sender<u64>,
    not_ready: ArcSwap<String>,
    draining: AtomicBool,
    pub(crate) upstream: Upstream,
    pub(crate) quota: Quota,
    pub(crate) meters: Arc<Meters>,
    limits: LimitsSection,
    record_allowed: bool,
}

/// How a call ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    Answered,
    GivenUp,
}

impl From<Ended> for Outcome {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Answered(_) => Self::Answered,
            Ended::GivenUp => Self::GivenUp,
        }
    }
}

/// A caller's stream, from the moment it was opened.
#[derive(Debug)]
struct Stream {
    send: SendStream,
    recv: RecvStream,
    began: Instant,
}

/// What was read of a call when its header was whole.
#[derive(Debug)]
struct Begun {
    /// The header's bytes as they came.
    raw: Bytes,
    /// What came behind it.
    rest: Bytes,
}

/// One call being served, whatever it came over.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    caller: &'a Caller,
    outlook: &'a Outlook,
    function: &'a served::ServedFunction,
    transport: Transport,
    /// The link under which a host says that its component calls.
    link_name: Option<&'a str>,
}

impl Gate {
    pub(crate) fn new(upstream: Upstream, limits: LimitsSection, meters: Arc<Meters>, record_allowed: bool) -> Self {
        Self {
            served: ArcSwapOption::empty(),
            changes: watch::Sender::new(0),
            not_ready: ArcSwap::from_pointee("the broker has not told yet what to serve".to_owned()),
            draining: AtomicBool::new(false),
            upstream,
            quota: Quota::new(limits),
            meters,
            limits,
            record_allowed,
        }
    }

    pub(crate) fn limits(&self) -> &LimitsSection {
        &self.limits
    }

    /// Serves this from the next call on.
    pub(crate) fn serve_from_now(&self, served: Served) {
        self.served.store(Some(Arc::new(served)));
        self.changes.send_modify(|count| *count += 1);
    }

    /// Refuses every call until told otherwise.
    pub(crate) fn close(&self, why: String) {
        self.not_ready.store(Arc::new(why));
        self.served.store(None);
        self.changes.send_modify(|count| *count += 1);
    }

    /// What is in force.
    pub(crate) fn served(&self) -> Option<Arc<Served>> {
        self.served.load_full()
    }

    /// Why nothing is served.
    pub(crate) fn not_ready(&self) -> Arc<String> {
        self.not_ready.load_full()
    }

    /// From now on new calls are refused with `draining`.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Serves one stream of a caller to its end.
    pub(crate) async fn serve(&self, caller: &Caller, send: SendStream, recv: RecvStream) {
        let mut stream = Stream { send, recv, began: clock::instant() };
        let Err(refused) = self.call(caller, &mut stream).await else {
            return;
        };
        // Remembered first: the caller may ask as soon as it sees the reset.
        caller.refusals.remember(stream.send.id().index(), &refused);
        quic::refuse(&mut stream.send, &mut stream.recv, refused.refusal);
        self.meters.refused(refused.refusal);
    }

    async fn call(&self, caller: &Caller, stream: &mut Stream) -> Result<(), Refused> {
        let header = HeaderLimits::default();
        let reading = quic::read_header(&mut stream.recv, &header);
        let read = tokio::time::timeout(self.limits.header_timeout, reading).await;
        let invocation = match read {
            Ok(Ok(invocation)) => invocation,
            Ok(Err(error)) => match Refused::unread(&error) {
                Some(refused) => return Err(recorded(caller, "", "", refused)),
                None => return Ok(()),
            },
            Err(_) => {
                let refused = Refused::new(Refusal::HeaderTimeout, "the wRPC header did not arrive in time");
                return Err(recorded(caller, "", "", refused));
            }
        };
        if invocation.header.instance == explanation::INSTANCE {
            return Box::pin(self.explain(caller, invocation, stream)).await;
        }
        let Invocation { header, raw, rest } = invocation;
        self.admitted(caller, &header, Begun { raw, rest }, stream)
            .await
            .map_err(|refused| recorded(caller, &header.instance, &header.function, refused))
    }

    /// Everything behind a readable header.
    async fn admitted(
        &self,
        caller: &Caller,
        header: &Header,
        begun: Begun,
        stream: &mut Stream,
    ) -> Result<(), Refused> {
        let outlook = self.outlook(caller)?;
        let Some(function) = outlook.served.function(&header.instance, &header.function) else {
            return Err(unknown(&outlook, header, Transport::Quic));
        };
        let function = Arc::clone(function);
        let call = Call { caller, outlook: &outlook, function: &function, transport: Transport::Quic, link_name: None };
        // Boxed: the task that holds this future is moved some times before it first runs, and these two are most of it.
        let outcome = match &self.upstream {
            Upstream::Http(http) => Box::pin(typed::call(self, http, call, stream, begun.rest)).await?,
            Upstream::Splice(splice) => Box::pin(spliced::call(self, splice, call, stream, begun)).await?,
        };
        match outcome {
            Outcome::Answered => function.meter.answered(clock::instant().duration_since(stream.began)),
            Outcome::GivenUp => debug!(peer = caller.id(), function = function.name, "the caller gave up"),
        }
        Ok(())
    }

    /// What the caller may do now, where calls are served at all.
    fn outlook(&self, caller: &Caller) -> Result<Arc<Outlook>, Refused> {
        if self.is_draining() {
            return Err(Refused::new(Refusal::Draining, "the sidecar is stopping"));
        }
        let served = self.served.load_full().ok_or_else(|| {
            Refused::new(Refusal::NotReady, "the sidecar cannot decide calls now")
                .detailed(self.not_ready.load().as_str())
        })?;
        Ok(caller.outlook(served))
    }

    /// Waits until a change of policy takes back what a call under way was permitted without its parameters.
    async fn withdrawn(&self, call: &Call<'_>) -> Refused {
        let Call { caller, outlook: decided, function, transport, link_name } = *call;
        let mut changes = self.changes.subscribe();
        let mut seen = Arc::clone(&decided.served);
        loop {
            let Some(served) = self.served.load_full() else {
                return Refused::new(Refusal::NotReady, "the sidecar cannot decide calls any more");
            };
            // Looked at before the first wait too: a change between the decision and the subscription announces itself no more.
            if !Arc::ptr_eq(&seen, &served) {
                seen = Arc::clone(&served);
                let outlook = caller.outlook(served);
                let Some(now) = outlook.served.function(&function.instance, &function.name) else {
                    return Refused::new(Refusal::UnknownFunction, "the function is not served any more");
                };
                let context = CallContext { transport, link_name, params: None };
                let verdict = outlook.view.decide(now.action, &context);
                if !verdict.is_allowed() {
                    return Refused::denied(&verdict);
                }
            }
            // The sender lives in this very gate.
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// `portcullis:peers/refusals`: answered here, for the caller's own calls on this connection.
    async fn explain(&self, caller: &Caller, invocation: Invocation, stream: &mut Stream) -> Result<(), Refused> {
        let Stream { send, recv, .. } = stream;
        if invocation.header.function != explanation::FUNCTION {
            return Err(Refused::new(Refusal::UnknownFunction, "this interface has one function, `explain`"));
        }
        let malformed = |error: &dyn std::fmt::Display| Refused::new(Refusal::MalformedValue, error.to_string());
        let limits = portcullis_transport::FrameLimits { frame: 64, total: 64, ..Default::default() };
        let reading = quic::read_root_frames(recv, invocation.rest, limits);
        let frames = match tokio::time::timeout(self.limits.header_timeout, reading).await {
            Ok(Ok(frames)) => frames,
            Ok(Err(error)) => return Refused::unread(&error).map_or(Ok(()), Err),
            Err(_) => {
                return Err(Refused::new(Refusal::DeadlineExceeded, "the question did not arrive in time"));
            }
        };
        let call = explanation::decode_question(frames.payload()).map_err(|error| malformed(&error))?;
        let answer = explanation::encode_answer(caller.refusals.of(call).as_ref())
            .map_err(|error| Refused::new(Refusal::Internal, error.to_string()))?;
        // A caller that is gone does not need the answer.
        let _ = quic::write_root_frame(send, Bytes::from(answer)).await;
        Ok(())
    }
}

impl Call<'_> {
    /// Leave to forward, or why not.
    fn permit(&self, gate: &Gate, params: Option<&[(&str, ParamValue<'_>)]>) -> Result<Permit, Refused> {
        let context = CallContext { transport: self.transport, link_name: self.link_name, params };
        let verdict = self.outlook.view.decide(self.function.action, &context);
        for trial in verdict.dry_run() {
            info!(target: "decision", peer = self.caller.id(), instance = self.function.instance, function = self.function.name, ?trial, "dry run");
        }
        let permit = verdict.permit().ok_or_else(|| self.denied(&verdict))?;
        if gate.record_allowed {
            let policies: Vec<_> = verdict.reasons().iter().map(portcullis_policy::PolicyRef::id).collect();
            info!(target: "decision", peer = self.caller.id(), instance = self.function.instance, function = self.function.name, ?policies, epoch = %self.outlook.served.version, "allowed");
        }
        Ok(permit)
    }

    /// Who may call nothing here is not told which policy decided: it would tell that the name exists.
    fn denied(&self, verdict: &Verdict) -> Refused {
        if self.outlook.view.may_call_any(self.transport) {
            return Refused::denied(verdict);
        }
        Refused::new(Refusal::Denied, NO_POLICY).detailed(verdict.summary())
    }
}

/// A name that is not served. Who may call nothing here learns nothing about what exists.
fn unknown(outlook: &Outlook, name: &dyn std::fmt::Display, transport: Transport) -> Refused {
    if !outlook.view.may_call_any(transport) {
        return Refused::new(Refusal::Denied, NO_POLICY);
    }
    Refused::new(Refusal::UnknownFunction, format!("`{name}` is not served here"))
}

/// The one log line of a refusal: a decision record for denials, a warning where the service is at fault.
fn recorded(caller: &Caller, instance: &str, function: &str, refused: Refused) -> Refused {
    let Refused { refusal, reason, detail, policies } = &refused;
    let policies: Vec<_> = policies.iter().map(|policy| policy.id.as_str()).collect();
    let (peer, code) = (caller.id(), refusal.name());
    match refusal {
        Refusal::UpstreamUnavailable | Refusal::UpstreamProtocol | Refusal::DeadlineExceeded | Refusal::Internal => {
            warn!(target: "decision", peer, instance, function, code, reason, detail, "refused");
        }
        Refusal::Denied
        | Refusal::UnknownFunction
        | Refusal::MalformedHeader
        | Refusal::MalformedValue
        | Refusal::TooLarge
        | Refusal::TooMany
        | Refusal::HeaderTimeout
        | Refusal::NotReady
        | Refusal::Draining
        | Refusal::Cancelled => {
            let epoch = caller.epoch();
            info!(target: "decision", peer, instance, function, code, reason, detail, ?policies, epoch, "refused");
        }
    }
    refused
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use portcullis_client::node::{PeerRecord, ServedComponent, UpstreamKind, Version};
    use portcullis_policy::PolicyText;
    use portcullis_value::WitSource;

    use super::*;
    use crate::config::{SpliceAddress, SpliceSection, UpstreamSection};

    const ITEMS: &str = "test:shop/items";
    const WIT: &str = "package test:shop;\ninterface items { count: func() -> u32; }\n";
    const ON_A_LINK: &str =
        "permit(principal, action, resource) when { context has link_name && context.link_name == \"fast\" };";

    fn gate() -> Gate {
        let address = SpliceAddress::Tcp("127.0.0.1:1".to_owned());
        let patience = Duration::from_secs(1);
        let section = SpliceSection { address, connect_timeout: patience, idle_timeout: patience, streams: None };
        let upstream = Upstream::open(&UpstreamSection::Splice(section)).unwrap();
        Gate::new(upstream, LimitsSection::default(), Meters::new(), false)
    }

    fn serve(gate: &Gate, epoch: u64) {
        let record = PeerRecord {
            target: "demo/shop".parse().unwrap(),
            spiffe_id: portcullis_identity::parse_spiffe_id("spiffe://test.example/virtual/demo/shop").unwrap(),
            interfaces: vec![ITEMS.to_owned()],
            addresses: Vec::new(),
        };
        let component = ServedComponent {
            record,
            upstream: UpstreamKind::Splice,
            wit: vec![WitSource { path: "shop.wit".to_owned(), text: WIT.to_owned() }],
            policies: vec![PolicyText { id: "on-a-link".to_owned(), text: ON_A_LINK.to_owned() }],
            grants: Vec::new(),
        };
        let version = Version { incarnation: 1, epoch };
        gate.serve_from_now(Served::build(&component, version, &gate.upstream, &gate.meters, None).unwrap());
    }

    #[tokio::test]
    async fn a_call_under_way_is_decided_anew_with_its_link() {
        let gate = gate();
        serve(&gate, 1);
        let caller = &Caller::hosted("cart", &gate.quota);
        let outlook = gate.outlook(caller).unwrap();
        let function = outlook.served.function(ITEMS, "count").unwrap();
        let on = |link_name| Call { caller, outlook: &outlook, function, transport: Transport::Nats, link_name };
        let linked = on(Some("fast"));
        assert!(linked.permit(&gate, None).is_ok());
        serve(&gate, 2);
        tokio::select! {
            biased;
            refused = gate.withdrawn(&linked) => panic!("{refused:?}"),
            () = std::future::ready(()) => {}
        }
        assert_eq!(gate.withdrawn(&on(None)).await.refusal, Refusal::Denied);
    }
}
