//! Decisions for one virtual component, with everything prebuilt that does not depend on the call.

mod rules;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cedar_policy::{Authorizer, Context, Entities, Entity, EntityUid, PolicyId, RestrictedExpression};

use crate::call::{CallContext, Transport};
use crate::component::{ComponentFacts, ParamType};
use crate::principal::{Principal, PrincipalKind};
use crate::set::could_match;
use crate::slice::Slice;
use crate::verdict::{PolicyRef, Verdict};
use crate::view::PeerView;
use crate::vocabulary::{EntityKind, action_groups, action_id, component_entity_id};
use rules::{Candidates, Shelf};
pub(crate) use rules::{Rules, Trial, divide};

/// The policies of one virtual component, ready to decide. Cheap to clone; it never changes: new policies, new grants or a new
/// WIT make a new engine, and with it new [`PeerView`]s.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(crate) core: Arc<Core>,
}

/// A function of one engine. An engine refuses (denies) the index of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ActionIndex {
    engine: u64,
    index: usize,
}

/// Facts an engine cannot be built from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEngine {
    /// A function is there twice.
    #[error("function `{function}` of interface `{interface}` is there twice")]
    DuplicateFunction {
        /// The interface's name.
        interface: String,
        /// The function's name.
        function: String,
    },
    /// The policy engine refuses the component's entities.
    #[error("the component's entities are refused: {0}")]
    Entities(String),
    /// The policy engine refuses the policies side by side.
    #[error("the policies are refused: {0}")]
    Policies(String),
}

#[derive(Debug)]
pub(crate) struct Core {
    number: u64,
    epoch: u64,
    pub(crate) authorizer: Authorizer,
    pub(crate) resource: EntityUid,
    /// The component and its actions; a peer's view adds the peer.
    pub(crate) entities: Entities,
    actions: Vec<Action>,
    index: HashMap<String, HashMap<String, usize>>,
    pub(crate) policies: HashMap<PolicyId, PolicyRef>,
    contexts: [Context; 2],
}

/// One function with the policies that can apply to it.
#[derive(Debug)]
pub(crate) struct Action {
    pub(crate) uid: EntityUid,
    pub(crate) params: Vec<(String, ParamType)>,
    workload: Arc<Rules>,
    hosted: Arc<Rules>,
}

impl Engine {
    /// Prepares `slice` for the component that `facts` describe. `epoch` is the version of both, for decision records.
    ///
    /// # Errors
    ///
    /// Where the facts or policies contradict themselves. Then there is no engine, and every call must be refused.
    pub fn new(slice: &Slice, facts: &ComponentFacts, epoch: u64) -> Result<Self, InvalidEngine> {
        Core::new(slice, facts, epoch).map(|core| Self { core: Arc::new(core) })
    }

    /// The version it was made from.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.core.epoch
    }

    /// The function of an instance, where the component serves it.
    #[must_use]
    pub fn action(&self, instance: &str, function: &str) -> Option<ActionIndex> {
        let index = *self.core.index.get(instance)?.get(function)?;
        Some(ActionIndex { engine: self.core.number, index })
    }

    /// Whether some policy may read the function's parameters, so that they must be decoded before the decision.
    #[must_use]
    pub fn reads_params(&self, action: ActionIndex) -> bool {
        // An index of another engine is denied without a look at the parameters.
        self.core
            .find(action)
            .is_some_and(|(_, action)| action.workload.reads.params.any() || action.hosted.reads.params.any())
    }

    /// What a connection of `principal` decides with: its entities once, its verdicts as they come.
    #[must_use]
    pub fn view(&self, principal: &Principal) -> PeerView {
        PeerView::new(self.clone(), principal.clone())
    }

    /// Decides one call of a principal that has no connection, as an operator's question has none.
    #[must_use]
    pub fn decide(&self, principal: &Principal, action: ActionIndex, call: &CallContext<'_>) -> Verdict {
        Arc::unwrap_or_clone(self.view(principal).decide(action, call))
    }

    /// Whether `principal` may call some function of the component; see [`PeerView::may_call_any`].
    #[must_use]
    pub fn may_call_any(&self, principal: &Principal, transport: Transport) -> bool {
        self.view(principal).may_call_any(transport)
    }
}

impl Core {
    fn new(slice: &Slice, facts: &ComponentFacts, epoch: u64) -> Result<Self, InvalidEngine> {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let resource = EntityKind::VirtualComponent.uid(&component_entity_id(&facts.lattice, &facts.id));
        let lattice = EntityKind::Lattice.uid(&facts.lattice);
        let policies: Vec<_> = slice.cedar().iter().filter(|policy| could_match(policy, &resource, &lattice)).collect();
        let policies = Candidates::new(&policies);
        let mut shelf = Shelf::default();
        let mut entities = vec![component_entity(&resource, &lattice, facts)?];
        let mut actions = Vec::new();
        let mut index: HashMap<String, HashMap<String, usize>> = HashMap::new();
        for interface in &facts.interfaces {
            let groups: Vec<_> =
                action_groups(&interface.name).into_iter().map(|group| EntityKind::Action.uid(group)).collect();
            let functions = index.entry(interface.name.clone()).or_default();
            for function in &interface.functions {
                if functions.insert(function.name.clone(), actions.len()).is_some() {
                    let (interface, function) = (interface.name.clone(), function.name.clone());
                    return Err(InvalidEngine::DuplicateFunction { interface, function });
                }
                let uid = EntityKind::Action.uid(&action_id(&interface.name, &function.name));
                entities.push(Entity::new_no_attrs(uid.clone(), groups.iter().cloned().collect()));
                actions.push(Action {
                    workload: shelf.rules(&policies, PrincipalKind::Workload, &uid, &groups)?,
                    hosted: shelf.rules(&policies, PrincipalKind::Hosted, &uid, &groups)?,
                    params: function.params.clone(),
                    uid,
                });
            }
        }
        Ok(Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            epoch,
            authorizer: Authorizer::new(),
            resource,
            entities: Entities::from_entities(entities, None).map_err(entities_refused)?,
            actions,
            index,
            policies: policies.references(),
            contexts: [transport_context(Transport::Quic)?, transport_context(Transport::Nats)?],
        })
    }

    pub(crate) fn find(&self, action: ActionIndex) -> Option<(usize, &Action)> {
        let found = self.actions.get(action.index)?;
        (action.engine == self.number).then_some((action.index, found))
    }

    pub(crate) fn actions(&self) -> impl Iterator<Item = ActionIndex> {
        (0..self.actions.len()).map(|index| ActionIndex { engine: self.number, index })
    }

    /// The context of a call of which only the transport matters.
    pub(crate) fn context(&self, transport: Transport) -> Context {
        let [quic, nats] = &self.contexts;
        match transport {
            Transport::Quic => quic.clone(),
            Transport::Nats => nats.clone(),
        }
    }
}

impl Action {
    pub(crate) fn rules(&self, kind: PrincipalKind) -> &Rules {
        match kind {
            PrincipalKind::Workload => &self.workload,
            PrincipalKind::Hosted => &self.hosted,
        }
    }
}

fn component_entity(uid: &EntityUid, lattice: &EntityUid, facts: &ComponentFacts) -> Result<Entity, InvalidEngine> {
    let grants = facts.grants.iter().map(|id| RestrictedExpression::new_entity_uid(EntityKind::Workload.uid(id)));
    let attributes = HashMap::from([
        ("lattice".to_owned(), RestrictedExpression::new_string(facts.lattice.clone())),
        ("id".to_owned(), RestrictedExpression::new_string(facts.id.clone())),
        ("grants".to_owned(), RestrictedExpression::new_set(grants)),
    ]);
    Entity::new(uid.clone(), attributes, HashSet::from([lattice.clone()])).map_err(entities_refused)
}

fn transport_context(transport: Transport) -> Result<Context, InvalidEngine> {
    let name = RestrictedExpression::new_string(transport.name().to_owned());
    Context::from_pairs([("transport".to_owned(), name)]).map_err(entities_refused)
}

fn entities_refused(error: impl std::fmt::Display) -> InvalidEngine {
    InvalidEngine::Entities(error.to_string())
}
