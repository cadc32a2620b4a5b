//! A component at work: joined, identified, linked to its callees.

use std::{collections::BTreeMap, path::PathBuf, pin::Pin, sync::Arc, time::Duration};

use portcullis_client::{
    Node, NodeConfig, NodeKind, NodeState, Peers, SourceError, StartError, WorkloadSocket, WorkloadSource,
    node::{Connectivity, DescribeError, JoinCertificate, SignError},
    peers::CallLimits,
};
use portcullis_identity::{JoinToken, Lattice as LatticeName, SealKey, SpiffeId, Target};
use portcullis_transport::FrameLimits;
use portcullis_value::{InvalidWit, Wit, WitSource};
use tokio::{sync::watch, time::Sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{
    Binding, Guest, HostLimits, Import, InvalidGuest, LinkError, Offer, Program, Unresolved,
    contract::{self, Misfit},
    engine,
    lattice::Lattice,
    membership::{self, Claim, NoEntry},
    resolve,
    wit_cache::WitCache,
};

/// How long the broker is waited for before the WIT of an earlier run is believed.
const DESCRIBE_PATIENCE: Duration = Duration::from_secs(3);

/// How a host starts.
#[derive(Debug)]
pub struct HostConfig {
    /// Folder of the node's on-disk cache, mode 0700.
    pub state_dir: PathBuf,
    /// Needed once, where the cache holds no identity.
    pub join_token: Option<JoinToken>,
    /// The certificate by which the node joins, where it has no token.
    pub certificate: Option<JoinCertificate>,
    /// `host:port` of the broker where it is not that of the token any more.
    pub broker: Option<String>,
    /// The Workload API that gives the component's identity, where that is not the broker.
    pub workload_api: Option<WorkloadSocket>,
    /// Seals the keys in the cache.
    pub seal_key: Option<SealKey>,
    /// Who the component is; without it, whoever the broker says its file is.
    pub component: Option<Target>,
    /// Who serves an import, by its name, where the lattice has several.
    pub imports: BTreeMap<String, Target>,
    /// What the component may take.
    pub limits: HostLimits,
    /// How long to wait for an entry and for those who serve the imports.
    pub patience: Duration,
}

/// Why a component does not start.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// There is no engine on this machine.
    #[error("cannot start wasmtime: {0}")]
    Engine(String),
    /// The file is no component for this host.
    #[error(transparent)]
    Guest(#[from] InvalidGuest),
    /// The node does not start.
    #[error(transparent)]
    Node(#[from] StartError),
    /// The component has no identity.
    #[error(transparent)]
    NoEntry(#[from] NoEntry),
    /// The broker does not sign.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The Workload API that is to give the identity cannot be used.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// It gives none.
    #[error("the workload API `{socket}` does not issue the component's identity (hint: an entry for this process)")]
    NoSvid {
        /// Which.
        socket: String,
    },
    /// Nobody serves some imports.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Unresolved(Vec<Unresolved>),
    /// A choice of the configuration is for no import.
    #[error("the component does not import `{0}`")]
    UnknownImport(String),
    /// The WIT of a callee cannot be had.
    #[error("cannot check `{target}`: {cause}")]
    Describe {
        /// The callee.
        target: String,
        /// Why.
        cause: DescribeError,
    },
    /// The WIT of a callee cannot be read.
    #[error("the WIT of `{target}`: {cause}")]
    Wit {
        /// The callee.
        target: String,
        /// What is wrong.
        cause: InvalidWit,
    },
    /// A callee is not what the component was built against.
    #[error(transparent)]
    Misfit(#[from] Misfit),
    /// wasmtime refuses.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// A component that can be called.
#[derive(Debug)]
pub struct Host {
    guest: Guest,
    program: Program,
    id: SpiffeId,
}

impl Host {
    /// Loads the component, joins the broker, gets the component's identity, finds its callees and links it. The node's tasks run on
    /// `tasks` until `stop`.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn start(
        config: HostConfig,
        component: &[u8],
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, HostError> {
        let engine = engine().map_err(|error| HostError::Engine(format!("{error:#}")))?;
        let guest = Guest::load(&engine, component)?;
        let imported = |name: &String| guest.imports().iter().any(|import| import.name.to_string() == *name);
        if let Some(unknown) = config.imports.keys().find(|name| !imported(name)) {
            return Err(HostError::UnknownImport(unknown.clone()));
        }
        let node_config = NodeConfig {
            state_dir: config.state_dir.clone(),
            kind: NodeKind::Host,
            join_token: config.join_token,
            broker: config.broker,
            seal_key: config.seal_key,
        };
        let node = match &config.certificate {
            Some(certificate) => Node::start_with_certificate(node_config, certificate, tasks, stop.clone()).await?,
            None => Node::start(node_config, tasks, stop.clone()).await?,
        };
        let mut patience = std::pin::pin!(tokio::time::sleep(config.patience));
        let mut state = node.state();
        let node_id = node.id();
        let claim = Claim {
            trust_domain: node.trust_domain(),
            node: &node_id,
            target: config.component.as_ref(),
            digest: guest.digest(),
        };
        let entry = settled(&mut state, patience.as_mut(), |state| {
            membership::entry(state, &claim).map_err(|error| (error.may_pass(), error))
        })
        .await?;
        let lattice = membership::lattice(&claim, &entry);
        let identity = match &config.workload_api {
            Some(socket) => {
                // Which file it is was held against the entry above; the Workload API does not ask.
                let source = WorkloadSource::start(socket, entry.spiffe_id, &node, tasks, stop);
                let source = tokio::select! {
                    source = source => source?,
                    () = patience.as_mut() => return Err(HostError::NoSvid { socket: socket.to_string() }),
                };
                source.identity()
            }
            None => node.identity(&entry, guest.digest()).await?,
        };
        let bindings = settled(&mut state, patience, |state| {
            bindings(state, guest.imports(), lattice.as_ref(), &config.imports).map_err(|errors| (true, errors))
        })
        .await
        .map_err(HostError::Unresolved)?;
        check(&node, &guest, &bindings, &WitCache::new(&config.state_dir)).await?;
        let id = identity.id();
        let peers = Peers::new(identity, call_limits(&config.limits), tasks.clone());
        let program = Program::link(&guest, &bindings, &Arc::new(Lattice { peers, state }), config.limits)?;
        info!(%id, digest = guest.digest(), "component started");
        Ok(Self { guest, program, id })
    }

    /// The component's SPIFFE ID.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// What was loaded.
    #[must_use]
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// What can be called.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
    }
}

/// Tries with every state the broker tells of, until it works, until it cannot work any more, or until patience ends. An error comes with
/// whether it may pass.
async fn settled<T, E>(
    states: &mut watch::Receiver<Arc<NodeState>>,
    mut patience: Pin<&mut Sleep>,
    attempt: impl Fn(&NodeState) -> Result<T, (bool, E)>,
) -> Result<T, E> {
    loop {
        let state = Arc::clone(&states.borrow_and_update());
        let (may_pass, error) = match attempt(&state) {
            Ok(settled) => return Ok(settled),
            Err(error) => error,
        };
        if !may_pass {
            return Err(error);
        }
        tokio::select! {
            changed = states.changed() => if changed.is_err() { return Err(error) },
            () = patience.as_mut() => return Err(error),
        }
    }
}

/// Who serves each import. A choice of the configuration may be in any lattice, the rest is in the component's own.
fn bindings(
    state: &NodeState,
    imports: &[Import],
    lattice: Option<&LatticeName>,
    chosen: &BTreeMap<String, Target>,
) -> Result<Vec<Binding>, Vec<Unresolved>> {
    let all: Vec<Offer> = state
        .components
        .values()
        .flat_map(|record| {
            let interfaces = record.interfaces.iter().filter_map(|name| name.parse().ok());
            interfaces.map(|interface| Offer { target: record.target.clone(), interface })
        })
        .collect();
    let own: Vec<Offer> =
        all.iter().filter(|offer| lattice.is_none_or(|lattice| offer.target.lattice == *lattice)).cloned().collect();
    let mut bindings = Vec::new();
    let mut unresolved = Vec::new();
    for import in imports {
        let chosen = chosen.get(&import.name.to_string());
        match resolve(&import.name, if chosen.is_some() { &all } else { &own }, chosen) {
            Ok(Offer { target, interface }) => {
                bindings.push(Binding { target: target.clone(), instance: interface.to_string() });
            }
            Err(error) => unresolved.push(error),
        }
    }
    if unresolved.is_empty() { Ok(bindings) } else { Err(unresolved) }
}

/// Holds every callee's WIT against what the component was built against.
async fn check(node: &Node, guest: &Guest, bindings: &[Binding], cache: &WitCache) -> Result<(), HostError> {
    let mut described: BTreeMap<&Target, Wit> = BTreeMap::new();
    for (import, binding) in guest.imports().iter().zip(bindings) {
        let target = &binding.target;
        if !described.contains_key(target) {
            let sources = describe(node, target, cache).await;
            let sources = sources.map_err(|cause| HostError::Describe { target: target.to_string(), cause })?;
            let wit = Wit::parse(&sources).map_err(|cause| HostError::Wit { target: target.to_string(), cause })?;
            described.insert(target, wit);
        }
        if let Some(wit) = described.get(target) {
            contract::check(import, binding, wit)?;
        }
        info!(import = %import.name, %target, instance = binding.instance, "import resolved");
    }
    Ok(())
}

/// The WIT of a callee: from the broker, or of an earlier run where the broker is away.
async fn describe(node: &Node, target: &Target, cache: &WitCache) -> Result<Vec<WitSource>, DescribeError> {
    let mut connectivity = node.connectivity();
    let connected = connectivity.wait_for(|connectivity| *connectivity == Connectivity::Connected);
    // Whether it came to that, the question itself shows.
    let _ = tokio::time::timeout(DESCRIBE_PATIENCE, connected).await;
    match node.describe(target).await {
        Ok((_, sources)) => {
            if let Err(error) = cache.store(target, &sources) {
                warn!(%error, %target, "cannot keep the WIT of a callee");
            }
            Ok(sources)
        }
        Err(error) => match (&error, cache.load(target)) {
            (DescribeError::Offline, Some(sources)) => {
                warn!(%target, "the broker is away: the WIT of a callee is that of an earlier run");
                Ok(sources)
            }
            (DescribeError::Offline | DescribeError::Refused { .. } | DescribeError::Invalid(_), _) => Err(error),
        },
    }
}

fn call_limits(limits: &HostLimits) -> CallLimits {
    let bytes = limits.values.bytes;
    let answer = FrameLimits {
        frame: u32::try_from(bytes).unwrap_or(u32::MAX),
        total: u64::try_from(bytes).unwrap_or(u64::MAX),
        ..FrameLimits::default()
    };
    CallLimits { answer, ..CallLimits::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_client::node::PeerRecord;
    use portcullis_identity::parse_spiffe_id;

    fn record(target: &str, interfaces: &[&str]) -> (Target, PeerRecord) {
        let target: Target = target.parse().unwrap();
        let record = PeerRecord {
            target: target.clone(),
            spiffe_id: parse_spiffe_id(&format!("spiffe://example.org/virtual/{target}")).unwrap(),
            interfaces: interfaces.iter().map(|name| (*name).to_owned()).collect(),
            addresses: Vec::new(),
        };
        (target, record)
    }

    fn bound(import: &str, lattice: Option<&str>, chosen: &[(&str, &str)]) -> Result<String, usize> {
        let components = [
            record("demo/billing", &["a:b/c@1.1.0", "", "not a name"]),
            record("demo/other", &["a:b/d@1.0.0"]),
            record("prod/billing", &["a:b/c@1.1.0"]),
        ];
        let state = NodeState { components: components.into(), ..NodeState::default() };
        let imports = [Import { name: import.parse().unwrap(), functions: Vec::new() }];
        let lattice = lattice.map(|lattice| lattice.parse().unwrap());
        let chosen = chosen.iter().map(|(name, target)| ((*name).to_owned(), target.parse().unwrap())).collect();
        match bindings(&state, &imports, lattice.as_ref(), &chosen) {
            Ok(bindings) => Ok(format!("{} {}", bindings[0].target, bindings[0].instance)),
            Err(unresolved) => Err(unresolved.len()),
        }
    }

    #[test]
    fn an_import_is_served_within_the_component_s_lattice_unless_chosen_otherwise() {
        assert_eq!(bound("a:b/c@1.0.0", Some("demo"), &[]), Ok("demo/billing a:b/c@1.1.0".to_owned()));
        assert_eq!(bound("a:b/d@1.0.0", Some("prod"), &[]), Err(1));
        assert_eq!(bound("a:b/c@1.0.0", None, &[]), Err(1));
        let chosen = [("a:b/c@1.0.0", "prod/billing")];
        assert_eq!(bound("a:b/c@1.0.0", Some("demo"), &chosen), Ok("prod/billing a:b/c@1.1.0".to_owned()));
    }

    #[tokio::test]
    async fn a_state_that_will_do_is_waited_for_and_no_longer_than_patience() {
        let (states, mut state) = watch::channel(Arc::new(NodeState::default()));
        let found = |state: &NodeState| match state.components.len() {
            0 => Err((true, "nobody")),
            1 => Ok("one"),
            _ => Err((false, "too many")),
        };
        let waiting = std::pin::pin!(tokio::time::sleep(Duration::from_millis(5)));
        assert_eq!(settled(&mut state, waiting, found).await, Err("nobody"));
        let mut waiting = std::pin::pin!(tokio::time::sleep(Duration::from_secs(600)));
        let told = async {
            tokio::task::yield_now().await;
            let components = [record("demo/x", &[])].into();
            states.send_replace(Arc::new(NodeState { components, ..NodeState::default() }));
        };
        let (settled_as, ()) = tokio::join!(settled(&mut state, waiting.as_mut(), found), told);
        assert_eq!(settled_as, Ok("one"));
        let components = [record("demo/x", &[]), record("demo/y", &[])].into();
        states.send_replace(Arc::new(NodeState { components, ..NodeState::default() }));
        assert_eq!(settled(&mut state, waiting, found).await, Err("too many"));
    }
}
