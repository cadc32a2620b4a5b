//! The virtual component at one version: its functions, its policies, its routes. Replaced as a whole when the broker says something new.

use std::collections::HashMap;
use std::sync::Arc;

use portcullis_client::node::{ServedComponent, UpstreamKind, Version};
use portcullis_policy::{ActionIndex, ComponentFacts, Engine, Slice};
use portcullis_value::{FunctionKind, FunctionType, Streams, Wit};

use super::quota::Counter;
use crate::http::{Mapping, MappingProblem};
use crate::meters::{FunctionMeter, Meters};
use crate::upstream::Upstream;

/// Why the sidecar cannot serve what the broker registered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotServable {
    /// The registered WIT does not parse.
    #[error("the registered WIT cannot be read: {0}")]
    Wit(#[from] portcullis_value::InvalidWit),
    /// The policies cannot be used: a set that cannot be read denies.
    #[error("the policies cannot be used: {0}")]
    Policies(String),
    /// The mapping file does not fit the registered WIT.
    #[error("the mapping does not fit the registered WIT: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Mapping(Vec<MappingProblem>),
    /// Registration and configuration disagree.
    #[error(
        "`{target}` is registered with a {registered} upstream, but this sidecar's is {configured} (hint: register it with --upstream {configured})"
    )]
    Upstream {
        /// The component.
        target: String,
        /// In the registry.
        registered: &'static str,
        /// In the configuration.
        configured: &'static str,
    },
}

/// One function that callers may name.
#[derive(Debug)]
pub(crate) struct ServedFunction {
    pub(crate) instance: String,
    pub(crate) name: String,
    pub(crate) action: ActionIndex,
    /// Nothing for functions with streams, futures or resources.
    pub(crate) ty: Option<FunctionType>,
    pub(crate) streams: Streams,
    pub(crate) meter: FunctionMeter,
    pub(crate) underway: Arc<Counter>,
}

/// Everything calls are decided and routed by.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) version: Version,
    pub(crate) engine: Engine,
    /// Only where the upstream is HTTP.
    pub(crate) mapping: Option<Mapping>,
    functions: HashMap<String, HashMap<String, Arc<ServedFunction>>>,
}

impl Served {
    /// Puts together what the broker pushed and what the configuration says.
    pub(crate) fn build(
        component: &ServedComponent,
        version: Version,
        upstream: &Upstream,
        meters: &Meters,
        before: Option<&Self>,
    ) -> Result<Self, NotServable> {
        agree(component, upstream)?;
        let wit = Wit::parse(&component.wit)?;
        let registered = &component.record.interfaces;
        let mapping = upstream.mapping(&wit, registered).transpose().map_err(NotServable::Mapping)?;
        let interfaces: Vec<_> = wit.interfaces().filter(|interface| registered.contains(&interface.name)).collect();
        let target = &component.record.target;
        let facts = ComponentFacts {
            lattice: target.lattice.to_string(),
            id: target.id.to_string(),
            interfaces: interfaces.iter().map(|interface| (*interface).into()).collect(),
            grants: component.grants.clone(),
        };
        let unusable = |error: &dyn std::fmt::Display| NotServable::Policies(error.to_string());
        let slice = Slice::parse(&component.policies).map_err(|error| unusable(&error))?;
        let engine = Engine::new(&slice, &facts, version.epoch).map_err(|error| unusable(&error))?;
        let mut functions: HashMap<String, HashMap<String, Arc<ServedFunction>>> = HashMap::new();
        for interface in interfaces {
            for function in &interface.functions {
                let Some(action) = engine.action(&interface.name, &function.name) else {
                    continue;
                };
                let known = before.and_then(|before| before.function(&interface.name, &function.name));
                let served = ServedFunction {
                    instance: interface.name.clone(),
                    name: function.name.clone(),
                    action,
                    ty: match &function.kind {
                        FunctionKind::Typed(ty) => Some(ty.clone()),
                        FunctionKind::Opaque(_) => None,
                    },
                    streams: function.streams.clone(),
                    meter: meters.function(&interface.name, &function.name),
                    underway: known.map(|known| Arc::clone(&known.underway)).unwrap_or_default(),
                };
                functions.entry(interface.name.clone()).or_default().insert(function.name.clone(), Arc::new(served));
            }
        }
        Ok(Self { version, engine, mapping, functions })
    }

    pub(crate) fn function(&self, instance: &str, function: &str) -> Option<&Arc<ServedFunction>> {
        self.functions.get(instance)?.get(function)
    }
}

fn agree(component: &ServedComponent, upstream: &Upstream) -> Result<(), NotServable> {
    let name = |kind: UpstreamKind| match kind {
        UpstreamKind::Typed => "typed",
        UpstreamKind::Splice => "splice",
    };
    if component.upstream == upstream.kind() {
        return Ok(());
    }
    Err(NotServable::Upstream {
        target: component.record.target.to_string(),
        registered: name(component.upstream),
        configured: name(upstream.kind()),
    })
}
