//! What an operator is told: listings, and refusals as gRPC codes.

use std::collections::BTreeMap;

use portcullis_api::v1;
use portcullis_identity::{NodeName, node_id};
use portcullis_policy::Verdict;
use tonic::{Code, Status};

use crate::broker::Broker;
use crate::clock::unix_seconds;
use crate::ledger::CommandError;
use crate::presence::Connection;
use crate::registry::{AuthorityRefusal, EntryId, Explanation, Refusal, Registry, Served, Template};
use crate::wire::{self, InvalidMessage};

/// The broker in numbers.
pub(super) fn status(broker: &Broker) -> v1::StatusReply {
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let authority = &broker.authority;
    broker.ledger.read(|registry| v1::StatusReply {
        trust_domain: registry.trust_domain().to_string(),
        version: Some(registry.version().into()),
        software: env!("CARGO_PKG_VERSION").to_owned(),
        root_not_after: unix_seconds(authority.root_not_after()),
        signing_not_after: unix_seconds(authority.signing_not_after()),
        components: count(registry.component_count()),
        entries: count(registry.entries().len()),
        nodes_connected: count(broker.presence.node_count()),
        policies: count(registry.policy_count()),
        unsealed: !authority.is_sealed(),
        control_address: broker.control_address.to_string(),
    })
}

/// Every node that joined: one line per open stream, or one that says there is none.
pub(super) fn nodes(broker: &Broker) -> Vec<v1::NodeStatus> {
    let mut connections: BTreeMap<NodeName, Vec<Connection>> = BTreeMap::new();
    for connection in broker.presence.connections() {
        connections.entry(connection.node.clone()).or_default().push(connection);
    }
    broker.ledger.read(|registry| {
        let statuses = registry.nodes().flat_map(|node| {
            let absent = v1::NodeStatus {
                name: node.name.to_string(),
                spiffe_id: node_id(registry.trust_domain(), &node.name).to_string(),
                standing: node.standing.name().to_owned(),
                ..v1::NodeStatus::default()
            };
            match connections.get(&node.name) {
                Some(streams) => streams.iter().map(|stream| node_status(&absent, stream)).collect(),
                None => vec![absent],
            }
        });
        statuses.collect()
    })
}

fn node_status(absent: &v1::NodeStatus, connection: &Connection) -> v1::NodeStatus {
    v1::NodeStatus {
        connected: true,
        peer_address: connection.address.to_string(),
        software: connection.software.clone(),
        kind: connection.kind.name().to_owned(),
        applied: connection.applied.map(Into::into),
        connected_at: unix_seconds(connection.since),
        certificate_not_after: unix_seconds(connection.not_after),
        ..absent.clone()
    }
}

/// Every entry, or those of one name or node; templates come first.
pub(super) fn entries(registry: &Registry, id: Option<&EntryId>, node: Option<&NodeName>) -> Vec<v1::Entry> {
    let asked = |template: &&std::sync::Arc<Template>| {
        id.is_none_or(|id| template.id == *id) && node.is_none_or(|node| template.node == *node)
    };
    let templates = registry.templates().filter(asked).map(|template| wire::template::entry_message(template));
    templates.chain(made_entries(registry, id, node)).collect()
}

fn made_entries(registry: &Registry, id: Option<&EntryId>, node: Option<&NodeName>) -> Vec<v1::Entry> {
    let message = |entry: &std::sync::Arc<crate::registry::Entry>| wire::entry_message(entry);
    match (id, node) {
        (Some(id), node) => registry
            .entry(id)
            .filter(|entry| node.is_none_or(|node| entry.node == *node))
            .map(message)
            .into_iter()
            .collect(),
        (None, Some(node)) => registry.entries_of(node).map(message).collect(),
        (None, None) => registry.entries().map(message).collect(),
    }
}

/// A component with its grants.
pub(super) fn registered_component(served: &Served) -> v1::RegisteredComponent {
    v1::RegisteredComponent {
        record: Some(wire::record_message(&served.record)),
        upstream: wire::upstream_message(served.component.upstream).into(),
        grants: served.grants.iter().map(ToString::to_string).collect(),
    }
}

/// A decision with its reasons.
pub(super) fn explanation_message(explanation: &Explanation) -> v1::ExplainReply {
    let mut reply = decision(&explanation.verdict);
    if explanation.params_missing {
        reply.summary.push_str("; policies read parameters of this function, and none were given");
    }
    reply
}

/// A verdict with its reasons.
pub(super) fn decision(verdict: &Verdict) -> v1::ExplainReply {
    let reason = |policy: &portcullis_policy::PolicyRef| v1::Reason {
        policy: policy.id().to_owned(),
        advice: policy.advice().unwrap_or_default().to_owned(),
    };
    v1::ExplainReply {
        allowed: verdict.is_allowed(),
        reasons: verdict.reasons().iter().map(reason).collect(),
        errors: verdict.errors().iter().map(ToString::to_string).collect(),
        summary: verdict.summary(),
    }
}

/// A command that did nothing, as a gRPC status.
pub(super) fn failed(error: &CommandError) -> Status {
    match error {
        CommandError::Refused(refusal) => refusal_status(refusal),
        CommandError::Store(error) => Status::internal(error.to_string()),
        CommandError::Unaudited(error) => Status::unavailable(error.to_string()),
        CommandError::Closed => Status::unavailable(error.to_string()),
    }
}

/// A refusal as a gRPC status; the message is the refusal's own.
pub(super) fn refusal_status(refusal: &Refusal) -> Status {
    let code = match refusal {
        Refusal::Wit(_)
        | Refusal::UnknownInterface { .. }
        | Refusal::NoInterface
        | Refusal::Schema(_)
        | Refusal::ForeignId(_)
        | Refusal::Announced(_)
        | Refusal::NoPath(_)
        | Refusal::OwnTrustDomain(_)
        | Refusal::ForeignTemplate(_)
        | Refusal::Unfit(_)
        | Refusal::Selector(_)
        | Refusal::PolicyFileName(_)
        | Refusal::PolicyFileTwice(_)
        | Refusal::OwnDomain(_)
        | Refusal::NoBundle(_)
        | Refusal::Policies(_)
        | Refusal::TooLarge { .. }
        | Refusal::TokenLifetime(_) => Code::InvalidArgument,
        Refusal::ReservedId(_) | Refusal::NotServed { .. } => Code::PermissionDenied,
        Refusal::ComponentExists(_)
        | Refusal::EntryExists { .. }
        | Refusal::DomainExists(_)
        | Refusal::OtherKind(_) => Code::AlreadyExists,
        Refusal::NoComponent(_)
        | Refusal::NoEntry(_)
        | Refusal::NoNode(_)
        | Refusal::NoPolicyFile(_)
        | Refusal::NoDomain(_)
        | Refusal::NotGranted { .. } => Code::NotFound,
        Refusal::Authority(AuthorityRefusal::Unknown(_)) => Code::NotFound,
        Refusal::Authority(AuthorityRefusal::Exists(_)) => Code::AlreadyExists,
        Refusal::Breaks(_)
        | Refusal::Token(_)
        | Refusal::Rejoin(_)
        | Refusal::Join(_)
        | Refusal::NoSeed(_)
        | Refusal::Bundle(_)
        | Refusal::IsTemplate(_)
        | Refusal::TemplateAmongEntries(_)
        | Refusal::Authority(
            AuthorityRefusal::Waiting { .. }
            | AuthorityRefusal::NotPrepared { .. }
            | AuthorityRefusal::Expired(_)
            | AuthorityRefusal::Active(_)
            | AuthorityRefusal::NotTainted(_),
        ) => Code::FailedPrecondition,
        Refusal::TooMany { .. } => Code::ResourceExhausted,
    };
    Status::new(code, refusal.to_string())
}

/// A message that cannot be, as a gRPC status.
pub(super) fn invalid(error: &InvalidMessage) -> Status {
    Status::invalid_argument(error.to_string())
}
