//! Which SPIFFE ID may call which function of which virtual component: Cedar policies over WIT functions.
//!
//! The operator's side parses and checks: [`Schema`] is generated from the registered components, [`PolicySet::parse`] finds
//! every mistake of every file, and [`PolicySet::for_component`] cuts the [`Slice`] that one component's sidecar needs. The
//! sidecar's side decides: an [`Engine`] holds one component's slice, its [`PeerView`] holds one peer's entities and verdicts,
//! and only a [`Verdict`] hands out the [`Permit`] without which a call is not forwarded.
//!
//! Everything is denied that no policy permits, and a policy that fails to evaluate denies, whatever the others say.
//!
//! What wasmCloud hosts may start is decided beside that, by policies of their own with a fixed schema: [`Admissions`].
//!
//! This crate knows no transport, no clock, no file, no wRPC and no SPIFFE verification: it believes the names it is given.
//! Of WIT it knows which parameters a policy can read ([`ParamType`], [`readable_params`]); who decodes them, and whether what is
//! forwarded is what was evaluated, is the caller's duty.
//!
//! # Vocabulary
//!
//! | Cedar | what it is |
//! |---|---|
//! | `Workload::"spiffe://td/path"` | a peer that proved its SPIFFE ID: `trust_domain`, `path`; in its `TrustDomain` |
//! | `HostedComponent::"id"` | a component that a host named: `vouched_by?`, the host's SPIFFE ID; in no group |
//! | `HostedComponent::"anonymous"` | whoever calls where nothing says who calls; no host can name a component so |
//! | `VirtualComponent::"lattice/id"` | what is called: `lattice`, `id`, `grants`; in its `Lattice` |
//! | `Action::"ns:pkg/iface@1.0.0#function"` | a function; in `"ns:pkg/iface@1.0.0"`, in `"ns:pkg/iface"`, in `"any"` |
//! | `context.transport` | `"quic"` or `"nats"` |
//! | `context.link_name` | optional: the link under which a hosted component calls |
//! | `context.params` | a record of the call's readable parameters under their WIT names: `context.params["customer-id"]` |
//!
//! A readable parameter is a `bool` (Bool), an integer (Long), a `string`, `char` or `enum` (String), or an `option` of one of
//! these (an optional attribute). `params` exists only where every component that serves the function decodes its parameters.

mod admission;
mod call;
mod component;
mod engine;
mod outcome;
mod principal;
mod problem;
mod reads;
mod schema;
mod set;
mod similar;
mod slice;
mod source;
mod verdict;
mod view;
mod vocabulary;
mod wit;

pub use admission::{
    ADMISSION_SCHEMA, Admission, AdmissionAction, Admissions, Artifact, ArtifactClaims, AskingHost, ImageReference,
    ImageSource, InvalidImage,
};
pub use call::{CallContext, InvalidTransport, ParamValue, Transport};
pub use component::{Component, ComponentFacts, Function, Interface, ParamType, ParamsReadable};
pub use engine::{ActionIndex, Engine, InvalidEngine};
pub use principal::{ANONYMOUS, Principal};
pub use problem::Problem;
pub use schema::{InvalidSchema, Schema};
pub use set::{AdmissionSet, PolicyFile, PolicySet};
pub use slice::{InvalidSlice, PolicyText, Slice};
pub use verdict::{Allowed, Denied, DryRun, DryRunOutcome, EvaluationError, Permit, PolicyRef, Verdict};
pub use view::PeerView;
pub use wit::readable_params;
