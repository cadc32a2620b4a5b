//! The gRPC service that operators speak to, on the broker's own machine.

mod answer;
mod authorities;
mod join_token;
mod lattice;
mod mint;
mod policies;
mod trust_domain;

use std::sync::Arc;

use portcullis_api::v1;
use portcullis_identity::{NodeName, Target};
use portcullis_policy::Transport;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Response, Status};

use self::answer::{failed, invalid, refusal_status};
use crate::audit::Actor;
use crate::broker::Broker;
use crate::ledger::Outcome;
use crate::registry::{Command, EntryId, Explanation, GrantChange, GrantDirection, Question, Refusal, Registry};
use crate::wire;

/// Serves operators.
#[derive(Debug)]
pub(crate) struct OperatorService(pub(crate) Arc<Broker>);

impl OperatorService {
    async fn execute(&self, by: Actor, command: Command) -> Result<Outcome, Status> {
        self.0.ledger.execute(by, command).await.map_err(|error| failed(&error))
    }

    fn read<T>(&self, look: impl FnOnce(&Registry) -> T) -> T {
        self.0.ledger.read(look)
    }

    /// The entry that a command made, found or altered.
    fn entry_of(&self, outcome: &Outcome) -> Option<v1::Entry> {
        self.read(|registry| {
            let id = outcome.entries.first()?;
            let template = || registry.template(id).map(|template| wire::template::entry_message(template));
            registry.entry(id).map(|entry| wire::entry_message(entry)).or_else(template)
        })
    }

    fn explain(&self, message: v1::ExplainRequest) -> Result<v1::ExplainReply, Status> {
        let v1::ExplainRequest { principal, target, instance, function, params_json, transport } = message;
        let target = wire::target(target).map_err(|error| invalid(&error))?;
        let question = Question {
            principal: wire::spiffe_id(&principal).map_err(|error| invalid(&error))?,
            instance,
            function,
            params_json: if params_json.is_empty() { None } else { Some(params_json) },
            transport: wire::parse_optional(&transport).map_err(|error| invalid(&error))?.unwrap_or(Transport::Quic),
        };
        let served = self.read(|registry| registry.served(&target).cloned());
        let served = served.ok_or_else(|| refusal_status(&Refusal::NoComponent(target)))?;
        let explanation =
            Explanation::of(&served, &question).map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(answer::explanation_message(&explanation))
    }
}

#[tonic::async_trait]
impl v1::operator_server::Operator for OperatorService {
    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusReply>, Status> {
        Ok(Response::new(answer::status(&self.0)))
    }

    async fn register_component(
        &self,
        request: Request<v1::RegisterComponentRequest>,
    ) -> Result<Response<v1::RegisterComponentReply>, Status> {
        let by = operator(&request);
        let registration =
            wire::registration(request.into_inner(), self.0.ttls.entry).map_err(|error| invalid(&error))?;
        let target = registration.target.clone();
        let outcome = self.execute(by, Command::RegisterComponent(Box::new(registration))).await?;
        Ok(Response::new(v1::RegisterComponentReply {
            record: self.read(|registry| registry.peer_record(&target).map(|record| wire::record_message(record))),
            entry: outcome.entries.first().map(ToString::to_string).unwrap_or_default(),
            version: Some(outcome.version.into()),
        }))
    }

    async fn remove_component(
        &self,
        request: Request<v1::RemoveComponentRequest>,
    ) -> Result<Response<v1::RemoveComponentReply>, Status> {
        let by = operator(&request);
        let target: Target = wire::target(request.into_inner().target).map_err(|error| invalid(&error))?;
        let outcome = self.execute(by, Command::RemoveComponent(target)).await?;
        Ok(Response::new(v1::RemoveComponentReply { version: Some(outcome.version.into()) }))
    }

    async fn list_components(
        &self,
        _: Request<v1::ListComponentsRequest>,
    ) -> Result<Response<v1::ListComponentsReply>, Status> {
        let components =
            self.read(|registry| registry.all_served().map(|served| answer::registered_component(served)).collect());
        Ok(Response::new(v1::ListComponentsReply { components }))
    }

    async fn create_entry(
        &self,
        request: Request<v1::CreateEntryRequest>,
    ) -> Result<Response<v1::CreateEntryReply>, Status> {
        let by = operator(&request);
        let entry = wire::new_entry(request.into_inner(), self.0.ttls.entry).map_err(|error| invalid(&error))?;
        let outcome = self.execute(by, Command::CreateEntry(Box::new(entry))).await?;
        let entry = self.entry_of(&outcome);
        Ok(Response::new(v1::CreateEntryReply { entry, version: Some(outcome.version.into()) }))
    }

    async fn create_entries(
        &self,
        request: Request<v1::CreateEntriesRequest>,
    ) -> Result<Response<v1::CreateEntriesReply>, Status> {
        let by = operator(&request);
        let default_ttl = self.0.ttls.entry;
        let entries = request.into_inner().entries.into_iter().map(|entry| wire::new_entry(entry, default_ttl));
        let entries = entries.collect::<Result<Vec<_>, _>>().map_err(|error| invalid(&error))?;
        let outcome = self.execute(by, Command::CreateEntries(entries)).await?;
        let ids = outcome.entries.iter().map(ToString::to_string).collect();
        Ok(Response::new(v1::CreateEntriesReply { ids, version: Some(outcome.version.into()) }))
    }

    async fn update_entry(
        &self,
        request: Request<v1::UpdateEntryRequest>,
    ) -> Result<Response<v1::UpdateEntryReply>, Status> {
        let by = operator(&request);
        let amendment = wire::amendment(request.into_inner(), self.0.ttls.entry).map_err(|error| invalid(&error))?;
        let outcome = self.execute(by, Command::AmendEntry(Box::new(amendment))).await?;
        let entry = self.entry_of(&outcome);
        Ok(Response::new(v1::UpdateEntryReply { entry, version: Some(outcome.version.into()) }))
    }

    async fn remove_entry(
        &self,
        request: Request<v1::RemoveEntryRequest>,
    ) -> Result<Response<v1::RemoveEntryReply>, Status> {
        let by = operator(&request);
        let id = wire::parse(&request.into_inner().id).map_err(|error| invalid(&error))?;
        let outcome = self.execute(by, Command::RemoveEntry(id)).await?;
        Ok(Response::new(v1::RemoveEntryReply { version: Some(outcome.version.into()) }))
    }

    async fn list_entries(
        &self,
        request: Request<v1::ListEntriesRequest>,
    ) -> Result<Response<v1::ListEntriesReply>, Status> {
        let v1::ListEntriesRequest { id, node } = request.into_inner();
        let id: Option<EntryId> = wire::parse_optional(&id).map_err(|error| invalid(&error))?;
        let node: Option<NodeName> = wire::parse_optional(&node).map_err(|error| invalid(&error))?;
        let entries = self.read(|registry| answer::entries(registry, id.as_ref(), node.as_ref()));
        if let (Some(id), true) = (id, entries.is_empty()) {
            return Err(refusal_status(&Refusal::NoEntry(id)));
        }
        Ok(Response::new(v1::ListEntriesReply { entries }))
    }

    async fn create_join_token(
        &self,
        request: Request<v1::CreateJoinTokenRequest>,
    ) -> Result<Response<v1::CreateJoinTokenReply>, Status> {
        self.make_token(operator(&request), request.into_inner()).await.map(Response::new)
    }

    async fn list_nodes(&self, _: Request<v1::ListNodesRequest>) -> Result<Response<v1::ListNodesReply>, Status> {
        Ok(Response::new(v1::ListNodesReply { nodes: answer::nodes(&self.0) }))
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeReply>, Status> {
        let by = operator(&request);
        let node: NodeName = wire::parse(&request.into_inner().name).map_err(|error| invalid(&error))?;
        let outcome = self.execute(by, Command::RemoveNode(node.clone())).await?;
        self.0.presence.disconnect(&node);
        Ok(Response::new(v1::RemoveNodeReply { version: Some(outcome.version.into()) }))
    }

    async fn put_policies(
        &self,
        request: Request<v1::PutPoliciesRequest>,
    ) -> Result<Response<v1::PutPoliciesReply>, Status> {
        let by = operator(&request);
        self.put_policy_files(by, request.into_inner()).await
    }

    async fn check_policies(
        &self,
        request: Request<v1::PutPoliciesRequest>,
    ) -> Result<Response<v1::PutPoliciesReply>, Status> {
        self.check_policy_files(request.into_inner()).await
    }

    async fn remove_policies(
        &self,
        request: Request<v1::RemovePoliciesRequest>,
    ) -> Result<Response<v1::RemovePoliciesReply>, Status> {
        let by = operator(&request);
        let outcome = self.execute(by, Command::RemovePolicies(request.into_inner().file)).await?;
        Ok(Response::new(v1::RemovePoliciesReply { version: Some(outcome.version.into()) }))
    }

    async fn list_policies(
        &self,
        _: Request<v1::ListPoliciesRequest>,
    ) -> Result<Response<v1::ListPoliciesReply>, Status> {
        Ok(Response::new(self.policy_files()))
    }

    async fn add_trust_domain(
        &self,
        request: Request<v1::AddTrustDomainRequest>,
    ) -> Result<Response<v1::AddTrustDomainReply>, Status> {
        let by = operator(&request);
        self.add_domain(by, request.into_inner()).await.map(Response::new)
    }

    async fn remove_trust_domain(
        &self,
        request: Request<v1::RemoveTrustDomainRequest>,
    ) -> Result<Response<v1::RemoveTrustDomainReply>, Status> {
        let by = operator(&request);
        let name = wire::trust_domain(&request.into_inner().name).map_err(|error| invalid(&error))?;
        let outcome = self.execute(by, Command::RemoveDomain(name)).await?;
        Ok(Response::new(v1::RemoveTrustDomainReply { version: Some(outcome.version.into()) }))
    }

    async fn refresh_trust_domain(
        &self,
        request: Request<v1::RefreshTrustDomainRequest>,
    ) -> Result<Response<v1::RefreshTrustDomainReply>, Status> {
        self.refresh_domain(&request.into_inner().name).await.map(Response::new)
    }

    async fn list_trust_domains(
        &self,
        request: Request<v1::ListTrustDomainsRequest>,
    ) -> Result<Response<v1::ListTrustDomainsReply>, Status> {
        self.list_domains(&request.into_inner().name).map(Response::new)
    }

    async fn change_grant(
        &self,
        request: Request<v1::ChangeGrantRequest>,
    ) -> Result<Response<v1::ChangeGrantReply>, Status> {
        let by = operator(&request);
        let v1::ChangeGrantRequest { target, spiffe_id, granted } = request.into_inner();
        let change = GrantChange {
            target: wire::target(target).map_err(|error| invalid(&error))?,
            spiffe_id: wire::spiffe_id(&spiffe_id).map_err(|error| invalid(&error))?,
            direction: if granted { GrantDirection::Give } else { GrantDirection::TakeBack },
        };
        let outcome = self.execute(by, Command::ChangeGrant(change)).await?;
        Ok(Response::new(v1::ChangeGrantReply { version: Some(outcome.version.into()) }))
    }

    async fn list_authorities(
        &self,
        _: Request<v1::ListAuthoritiesRequest>,
    ) -> Result<Response<v1::ListAuthoritiesReply>, Status> {
        Ok(Response::new(self.authorities()))
    }

    async fn prepare_authority(
        &self,
        request: Request<v1::PrepareAuthorityRequest>,
    ) -> Result<Response<v1::ChangeAuthorityReply>, Status> {
        let by = operator(&request);
        self.prepare(&by, request.into_inner().kind()).await.map(Response::new)
    }

    async fn change_authority(
        &self,
        request: Request<v1::ChangeAuthorityRequest>,
    ) -> Result<Response<v1::ChangeAuthorityReply>, Status> {
        let by = operator(&request);
        self.change(&by, request.into_inner()).await.map(Response::new)
    }

    async fn request_authority(
        &self,
        _: Request<v1::RequestAuthorityRequest>,
    ) -> Result<Response<v1::RequestAuthorityReply>, Status> {
        self.request_chain().map(Response::new)
    }

    async fn install_authority(
        &self,
        request: Request<v1::InstallAuthorityRequest>,
    ) -> Result<Response<v1::ChangeAuthorityReply>, Status> {
        let by = operator(&request);
        self.install_chain(&by, &request.into_inner().chain).await.map(Response::new)
    }

    async fn revoke(&self, request: Request<v1::RevokeRequest>) -> Result<Response<v1::RevokeReply>, Status> {
        let version = self.revoke_svids(operator(&request), request.into_inner()).await?;
        Ok(Response::new(v1::RevokeReply { version: Some(version.into()) }))
    }

    async fn list_revocations(
        &self,
        _: Request<v1::ListRevocationsRequest>,
    ) -> Result<Response<v1::ListRevocationsReply>, Status> {
        Ok(Response::new(self.revocations()))
    }

    async fn lattice_status(
        &self,
        _: Request<v1::LatticeStatusRequest>,
    ) -> Result<Response<v1::LatticeStatusReply>, Status> {
        Self::lattice_status(self).map(Response::new)
    }

    async fn mint_x509(&self, request: Request<v1::MintX509Request>) -> Result<Response<v1::MintX509Reply>, Status> {
        let by = operator(&request);
        Self::mint_x509(self, by, request.into_inner()).await.map(Response::new)
    }

    async fn mint_jwt(&self, request: Request<v1::MintJwtRequest>) -> Result<Response<v1::MintJwtReply>, Status> {
        let by = operator(&request);
        Self::mint_jwt(self, by, request.into_inner()).await.map(Response::new)
    }

    async fn explain_admission(
        &self,
        request: Request<v1::ExplainAdmissionRequest>,
    ) -> Result<Response<v1::ExplainReply>, Status> {
        Self::explain_admission(self, request.into_inner()).map(Response::new)
    }

    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Result<Response<v1::ExplainReply>, Status> {
        Self::explain(self, request.into_inner()).map(Response::new)
    }
}

/// Who asks: the user at the other end of the socket, as the kernel says.
fn operator<T>(request: &Request<T>) -> Actor {
    let peer = request.extensions().get::<UdsConnectInfo>().and_then(|peer| peer.peer_cred);
    Actor::Operator { uid: peer.map(|peer| peer.uid()) }
}
