//! Who calls: a workload that proved its SPIFFE ID, or a component that a host named.

use std::collections::{HashMap, HashSet};

use cedar_policy::{Entity, EntityUid, RestrictedExpression};

use crate::vocabulary::EntityKind;

/// The `HostedComponent` that stands for callers of whom nobody says who they are.
pub const ANONYMOUS: &str = "anonymous";

/// The caller, with its entity prebuilt. The two kinds are different Cedar types: neither is matched by a policy written for
/// the other, even where the names are equal.
#[derive(Debug, Clone)]
pub struct Principal {
    kind: PrincipalKind,
    name: String,
    uid: EntityUid,
    entity: Entity,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum PrincipalKind {
    Workload,
    Hosted,
}

impl PrincipalKind {
    pub(crate) fn entity(self) -> EntityKind {
        match self {
            Self::Workload => EntityKind::Workload,
            Self::Hosted => EntityKind::HostedComponent,
        }
    }
}

impl Principal {
    /// A peer that proved `spiffe_id` itself, with the ID's two parts.
    #[must_use]
    pub fn workload(spiffe_id: &str, trust_domain: &str, path: &str) -> Self {
        let uid = EntityKind::Workload.uid(spiffe_id);
        let attributes = HashMap::from([
            ("trust_domain".to_owned(), RestrictedExpression::new_string(trust_domain.to_owned())),
            ("path".to_owned(), RestrictedExpression::new_string(path.to_owned())),
        ]);
        let parents = HashSet::from([EntityKind::TrustDomain.uid(trust_domain)]);
        let entity = entity(&uid, attributes, parents);
        Self { kind: PrincipalKind::Workload, name: spiffe_id.to_owned(), uid, entity }
    }

    /// A component that a host named, by the SPIFFE ID of that host where it is known.
    #[must_use]
    pub fn hosted(component_id: &str, vouched_by: Option<&str>) -> Self {
        let uid = EntityKind::HostedComponent.uid(component_id);
        let attributes = vouched_by
            .map(|host| ("vouched_by".to_owned(), RestrictedExpression::new_string(host.to_owned())))
            .into_iter()
            .collect();
        let entity = entity(&uid, attributes, HashSet::new());
        Self { kind: PrincipalKind::Hosted, name: component_id.to_owned(), uid, entity }
    }

    /// A caller of whom nothing is known: it meets what is permitted to `HostedComponent::"anonymous"`.
    #[must_use]
    pub fn anonymous() -> Self {
        Self::hosted(ANONYMOUS, None)
    }

    /// The SPIFFE ID of a workload, or the id of a hosted component.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn kind(&self) -> PrincipalKind {
        self.kind
    }

    pub(crate) fn uid(&self) -> &EntityUid {
        &self.uid
    }

    pub(crate) fn entity(&self) -> &Entity {
        &self.entity
    }
}

/// Plain strings always evaluate; were one refused, the attributes would be absent and every policy that reads them would deny.
fn entity(uid: &EntityUid, attributes: HashMap<String, RestrictedExpression>, parents: HashSet<EntityUid>) -> Entity {
    Entity::new(uid.clone(), attributes, parents.clone()).unwrap_or_else(|_| Entity::new_no_attrs(uid.clone(), parents))
}
