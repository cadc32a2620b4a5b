//! `portcullis-sidecar invoke`: one call of a virtual component from the shell, JSON in and out.
//!
//! It borrows the cache of a sidecar or host on this machine: the call is made under one of that node's identities, and policy decides it
//! like any other.

use std::sync::Arc;
use std::time::Duration;

use portcullis_client::lattice::{Callee, LatticeCaller, LatticeError, LatticeSettings, address};
use portcullis_client::node::{
    ComponentDigest, DescribeError, Entry, Identity, Node, NodeConfig, NodeKind, SignError, StartError,
};
use portcullis_client::peers::{CallLimits, FunctionName};
use portcullis_client::{CallError, Peers};
use portcullis_identity::{SealKey, SpiffeId, Target, lattice_name};
use portcullis_transport::nats::NatsLimits;
use portcullis_value::json::{Int64, JsonRules};
use portcullis_value::{FunctionKind, FunctionType, Limits, Wit, WitSource};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::lattice::Causes;

/// How long the broker is waited for.
const BROKER_PATIENCE: Duration = Duration::from_secs(5);

/// What to call.
#[derive(Debug)]
pub struct Invocation {
    /// The node whose cache is borrowed.
    pub state_dir: std::path::PathBuf,
    /// Opens that cache where its keys are sealed.
    pub seal_key: Option<SealKey>,
    /// The callee.
    pub target: Target,
    /// `namespace:package/interface@version#function`; the interface may be left out where the name is unique.
    pub function: String,
    /// A JSON object by parameter names, or an array by position.
    pub arguments: String,
    /// Under which of the node's identities; needed where it has several.
    pub identity: Option<SpiffeId>,
    /// For the whole call, with everything that comes before it.
    pub deadline: Duration,
    /// Over what.
    pub way: Way,
}

/// Over what a call is made.
#[derive(Debug)]
pub enum Way {
    /// To the callee's sidecar.
    Quic,
    /// Over the lattice.
    Nats {
        /// Which one.
        settings: LatticeSettings,
        /// The WIT of a component on a host, which the broker does not know; nothing for a virtual component.
        hosted: Option<Vec<WitSource>>,
    },
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum InvokeError {
    /// The node's cache cannot be borrowed.
    #[error(transparent)]
    Node(#[from] StartError),
    /// There is no identity to call with.
    #[error("{0}")]
    Identity(String),
    /// The broker did not sign.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The callee is not described.
    #[error(transparent)]
    Describe(#[from] DescribeError),
    /// Its WIT cannot be read.
    #[error(transparent)]
    Wit(#[from] portcullis_value::InvalidWit),
    /// The function is not there, or not one of values.
    #[error("{0}")]
    Function(String),
    /// The arguments do not fit.
    #[error("the arguments do not fit: {0}")]
    Arguments(String),
    /// The call failed or was refused.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The identity cannot call over NATS.
    #[error(transparent)]
    Lattice(#[from] LatticeError),
    /// The lattice cannot be joined.
    #[error("{0}")]
    Connect(String),
    /// Finding the callee, connecting and the call took too long together.
    #[error("there is no answer within {} ms", .0.as_millis())]
    TooLate(Duration),
    /// The answer does not fit the WIT.
    #[error("the answer does not fit the WIT: {0}")]
    Answer(String),
}

/// Calls, and returns the result as JSON; `null` for a function without one.
///
/// # Errors
/// [`InvokeError`]; [`CallError::Refused`] inside it where the callee's sidecar refused.
pub async fn invoke(invocation: Invocation) -> Result<String, InvokeError> {
    let tasks = TaskTracker::new();
    let stop = CancellationToken::new();
    let deadline = invocation.deadline;
    let invoking = Box::pin(invoked(invocation, &tasks, stop.clone()));
    let result = tokio::time::timeout(deadline, invoking).await.unwrap_or(Err(InvokeError::TooLate(deadline)));
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    result
}

async fn invoked(invocation: Invocation, tasks: &TaskTracker, stop: CancellationToken) -> Result<String, InvokeError> {
    let config = NodeConfig {
        state_dir: invocation.state_dir,
        kind: NodeKind::Shell,
        join_token: None,
        broker: None,
        seal_key: invocation.seal_key,
    };
    let node = Node::start(config, tasks, stop).await?;
    let mut connectivity = node.connectivity();
    let connected = connectivity.wait_for(|state| matches!(state, portcullis_client::node::Connectivity::Connected));
    // Without the broker the describe below says so.
    let _ = tokio::time::timeout(BROKER_PATIENCE, connected).await;
    let (record, sources) = match &invocation.way {
        Way::Nats { hosted: Some(sources), .. } => (None, sources.clone()),
        Way::Nats { hosted: None, .. } | Way::Quic => {
            let (record, sources) = node.describe(&invocation.target).await?;
            (Some(record), sources)
        }
    };
    let wit = Wit::parse(&sources)?;
    let all = || wit.interfaces().map(|interface| interface.name.clone()).collect();
    let interfaces = record.as_ref().map_or_else(all, |record| record.interfaces.clone());
    let (instance, function, ty) = function(&wit, &interfaces, &invocation.function)?;
    let params = encode(&ty, &invocation.arguments)?;
    let entry = entry(&node, invocation.identity.as_ref())?;
    let digest = match &entry.digest {
        ComponentDigest::Exactly(digest) => digest.clone(),
        ComponentDigest::NotAComponent | ComponentDigest::DangerAny => String::new(),
    };
    let identity = node.identity(&entry, &digest).await?;
    let name = FunctionName { instance: &instance, function: &function };
    let answer = match (invocation.way, record) {
        (Way::Quic, Some(record)) => {
            let peers = Peers::new(Arc::clone(&identity), CallLimits::default(), tasks.clone());
            peers.call(&record, name, params.into(), invocation.deadline).await?
        }
        (Way::Nats { settings, .. }, record) => {
            let callee = match record {
                Some(_) => Callee::Virtual(invocation.target),
                None => Callee::Hosted(invocation.target),
            };
            let caller = on_lattice(&settings, &identity, tasks).await?;
            caller.0.call(&callee, name, params.into(), invocation.deadline).await?
        }
        (Way::Quic, None) => return Err(InvokeError::Function("the callee is not described".to_owned())),
    };
    decode(&ty, &answer)
}

/// Ends its connection with it: nobody waits for a call that was given up.
struct Calling(LatticeCaller);

impl Drop for Calling {
    fn drop(&mut self) {
        self.0.close();
    }
}

async fn on_lattice(
    settings: &LatticeSettings,
    identity: &Identity,
    tasks: &TaskTracker,
) -> Result<Calling, InvokeError> {
    let id = identity.id();
    let member = lattice_name(&id).ok_or_else(|| {
        InvokeError::Identity(format!(
            "`{id}` has no name on a lattice: only /component/… and /virtual/… have (hint: --as)"
        ))
    })?;
    let answer = usize::try_from(CallLimits::default().answer.total).unwrap_or(usize::MAX);
    let connection = settings.of(identity, &member, NatsLimits::default())?;
    LatticeCaller::connect(connection, &address(&member)?, answer, tasks)
        .await
        .map(Calling)
        .map_err(|error| InvokeError::Connect(Causes(&error).to_string()))
}

fn entry(node: &Node, wanted: Option<&SpiffeId>) -> Result<Entry, InvokeError> {
    let state = node.state().borrow().clone();
    let fits = |entry: &&Entry| wanted.is_none_or(|id| &entry.spiffe_id == id);
    let mut found = state.entries.values().filter(fits);
    let ids = || state.entries.values().map(|entry| format!("`{}`", entry.spiffe_id)).collect::<Vec<_>>().join(", ");
    match (found.next(), found.next()) {
        (Some(entry), None) => Ok(entry.clone()),
        (Some(_), Some(_)) => {
            Err(InvokeError::Identity(format!("this node has several identities (hint: --as one of {})", ids())))
        }
        (None, _) => match wanted {
            Some(id) => Err(InvokeError::Identity(format!("this node has no entry for `{id}`; it has {}", ids()))),
            None => Err(InvokeError::Identity(
                "this node has no entry to call with (hint: portcullis-broker entry create --node NAME …)".to_owned(),
            )),
        },
    }
}

fn function(wit: &Wit, served: &[String], name: &str) -> Result<(String, String, FunctionType), InvokeError> {
    let (instance, function) = match name.split_once('#') {
        Some((instance, function)) => (Some(instance), function),
        None => (None, name),
    };
    let candidates: Vec<_> = wit
        .interfaces()
        .filter(|interface| served.contains(&interface.name))
        .filter(|interface| instance.is_none_or(|instance| interface.name == instance))
        .filter_map(|interface| interface.function(function).map(|function| (interface, function)))
        .collect();
    match candidates.as_slice() {
        [(interface, function)] => match &function.kind {
            FunctionKind::Typed(ty) => Ok((interface.name.clone(), function.name.clone(), ty.clone())),
            FunctionKind::Opaque(why) => {
                Err(InvokeError::Function(format!("`{name}` cannot be called with JSON: {why}")))
            }
        },
        [] => {
            let names = wit.interfaces().filter(|interface| served.contains(&interface.name)).flat_map(|interface| {
                interface.functions.iter().map(|function| format!("{}#{}", interface.name, function.name))
            });
            let names = names.collect::<Vec<_>>().join(", ");
            Err(InvokeError::Function(format!("`{name}` is not served; there are: {names}")))
        }
        [..] => {
            let names = candidates.iter().map(|(interface, _)| interface.name.as_str()).collect::<Vec<_>>().join(", ");
            Err(InvokeError::Function(format!("`{name}` is in several interfaces: {names} (hint: INTERFACE#FUNCTION)")))
        }
    }
}

const RULES: JsonRules = JsonRules { int64: Int64::Number };

fn encode(ty: &FunctionType, arguments: &str) -> Result<Vec<u8>, InvokeError> {
    let limits = Limits::default();
    let wrong = |error: &dyn std::fmt::Display| InvokeError::Arguments(error.to_string());
    let json = portcullis_value::json::parse_json(arguments.as_bytes(), &limits).map_err(|error| wrong(&error))?;
    let values = portcullis_value::json::params_from_json(ty, &json, &RULES, &limits).map_err(|error| wrong(&error))?;
    let mut params = Vec::new();
    portcullis_value::encode_params(ty, &values, &mut params).map_err(|error| wrong(&error))?;
    Ok(params)
}

fn decode(ty: &FunctionType, answer: &[u8]) -> Result<String, InvokeError> {
    let wrong = |error: &dyn std::fmt::Display| InvokeError::Answer(error.to_string());
    let value = portcullis_value::decode_result(ty, answer, &Limits::default()).map_err(|error| wrong(&error))?;
    let (Some(value), Some(ty)) = (value, &ty.result) else {
        return Ok("null".to_owned());
    };
    let mut out = Vec::new();
    portcullis_value::json::to_json(&value, ty, &RULES, &mut out).map_err(|error| wrong(&error))?;
    String::from_utf8(out).map_err(|error| wrong(&error))
}
