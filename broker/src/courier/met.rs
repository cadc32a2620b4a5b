//! The names of callers that one node met over NATS, and whose it was told they are.
//!
//! A node never sees all names of its lattices: it says which ones it met, and hears of those alone.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_identity::{Lattice, NodeName, SpiffeId, Target};

use crate::registry::{Registry, Version};

/// The most names that one stream may meet.
const MOST: usize = 4096;

/// A node met more names than it may.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMany;

/// What a node is to be told, as of a version.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct News {
    pub(super) version: Version,
    pub(super) callers: Vec<(Target, Option<SpiffeId>)>,
}

/// The names of one node.
#[derive(Debug, Default)]
pub(super) struct Met {
    told: BTreeMap<Lattice, BTreeMap<Target, Option<SpiffeId>>>,
    /// Names in all lattices.
    count: usize,
    /// The epoch at which they were looked at last.
    epoch: u64,
}

impl Met {
    /// Notes names, and says whose they are.
    pub(super) fn meet(
        &mut self,
        registry: &Registry,
        node: &NodeName,
        names: BTreeSet<Target>,
    ) -> Result<News, TooMany> {
        let mut callers = Vec::with_capacity(names.len().min(MOST));
        for name in names {
            let holder = holder(registry, node, &name);
            let of_lattice = self.told.entry(name.lattice.clone()).or_default();
            if of_lattice.insert(name.clone(), holder.clone()).is_none() {
                self.count += 1;
                if self.count > MOST {
                    return Err(TooMany);
                }
            }
            callers.push((name, holder));
        }
        Ok(News { version: registry.version(), callers })
    }

    /// Which of the names are another's now.
    pub(super) fn changed(&mut self, registry: &Registry, node: &NodeName) -> Option<News> {
        let version = registry.version();
        let before = std::mem::replace(&mut self.epoch, version.epoch);
        let mut callers = Vec::new();
        for (lattice, told) in &mut self.told {
            if !registry.names_may_have_changed(lattice, before) {
                continue;
            }
            for (name, told) in told {
                let holder = holder(registry, node, name);
                if *told != holder {
                    callers.push((name.clone(), holder.clone()));
                    *told = holder;
                }
            }
        }
        (!callers.is_empty()).then_some(News { version, callers })
    }
}

/// Whose name it is, as far as the node may know.
fn holder(registry: &Registry, node: &NodeName, name: &Target) -> Option<SpiffeId> {
    registry.caller(name).filter(|_| registry.may_see(node, &name.lattice))
}
