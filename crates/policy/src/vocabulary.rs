//! The names that policies use: entity types, the ids of entities, the groups of actions.

use std::sync::LazyLock;

use cedar_policy::{EntityId, EntityTypeName, EntityUid};

/// The id of the group that holds every function.
pub(crate) const ANY_ACTION: &str = "any";

/// The entity types of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum EntityKind {
    Workload,
    HostedComponent,
    TrustDomain,
    VirtualComponent,
    Lattice,
    Action,
}

impl EntityKind {
    pub(crate) const ALL: [Self; 6] =
        [Self::Workload, Self::HostedComponent, Self::TrustDomain, Self::VirtualComponent, Self::Lattice, Self::Action];

    /// The type's name in a policy.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Workload => "Workload",
            Self::HostedComponent => "HostedComponent",
            Self::TrustDomain => "TrustDomain",
            Self::VirtualComponent => "VirtualComponent",
            Self::Lattice => "Lattice",
            Self::Action => "Action",
        }
    }

    /// The kind of an entity, or nothing for a type that the schema does not know.
    pub(crate) fn of(uid: &EntityUid) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_name() == uid.type_name())
    }

    /// The entity of this type with that id.
    pub(crate) fn uid(self, id: &str) -> EntityUid {
        EntityUid::from_type_name_and_id(self.type_name().clone(), EntityId::new(id))
    }

    pub(crate) fn type_name(self) -> &'static EntityTypeName {
        static WORKLOAD: LazyLock<EntityTypeName> = LazyLock::new(|| parsed(EntityKind::Workload));
        static HOSTED_COMPONENT: LazyLock<EntityTypeName> = LazyLock::new(|| parsed(EntityKind::HostedComponent));
        static TRUST_DOMAIN: LazyLock<EntityTypeName> = LazyLock::new(|| parsed(EntityKind::TrustDomain));
        static VIRTUAL_COMPONENT: LazyLock<EntityTypeName> = LazyLock::new(|| parsed(EntityKind::VirtualComponent));
        static LATTICE: LazyLock<EntityTypeName> = LazyLock::new(|| parsed(EntityKind::Lattice));
        static ACTION: LazyLock<EntityTypeName> = LazyLock::new(|| parsed(EntityKind::Action));
        match self {
            Self::Workload => &WORKLOAD,
            Self::HostedComponent => &HOSTED_COMPONENT,
            Self::TrustDomain => &TRUST_DOMAIN,
            Self::VirtualComponent => &VIRTUAL_COMPONENT,
            Self::Lattice => &LATTICE,
            Self::Action => &ACTION,
        }
    }
}

#[expect(clippy::expect_used, reason = "each name is a literal of `EntityKind::name` and a Cedar identifier")]
fn parsed(kind: EntityKind) -> EntityTypeName {
    kind.name().parse().expect("an identifier is an entity type name")
}

/// The id of a virtual component's entity.
pub(crate) fn component_entity_id(lattice: &str, id: &str) -> String {
    format!("{lattice}/{id}")
}

/// The entities of a component, by its entity's id, and of its lattice.
pub(crate) fn component_uids(entity_id: &str) -> (EntityUid, EntityUid) {
    let lattice = entity_id.split_once('/').map_or(entity_id, |(lattice, _)| lattice);
    (EntityKind::VirtualComponent.uid(entity_id), EntityKind::Lattice.uid(lattice))
}

/// The id of a function's action.
pub(crate) fn action_id(interface: &str, function: &str) -> String {
    format!("{interface}#{function}")
}

/// The groups an interface's functions are in, nearest first: with its version, without it, `any`.
pub(crate) fn action_groups(interface: &str) -> Vec<&str> {
    match interface.split_once('@') {
        Some((unversioned, _)) => vec![interface, unversioned, ANY_ACTION],
        None => vec![interface, ANY_ACTION],
    }
}
