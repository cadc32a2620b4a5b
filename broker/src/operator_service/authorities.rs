//! What operators do to authorities, and what they revoke.

use portcullis_api::v1::{self, change_authority_request::Step};
use portcullis_identity::{NodeName, SerialNumber};
use tonic::{Code, Status};

use super::OperatorService;
use super::answer::{failed, invalid};
use crate::audit::Actor;
use crate::authority::AuthorityError;
use crate::clock::unix_seconds;
use crate::registry::{
    AuthorityId, AuthorityKind, AuthorityRecord, Command, Material, Registry, Revoke, Stage, Taint, Version,
};
use crate::succession::{Laggards, StepError};
use crate::wire::{self, InvalidMessage};

impl OperatorService {
    pub(super) fn authorities(&self) -> v1::ListAuthoritiesReply {
        self.read(|registry| v1::ListAuthoritiesReply {
            authorities: registry.authorities().map(|record| authority_message(record)).collect(),
            bundle_sequence: registry.bundle().sequence,
        })
    }

    pub(super) async fn prepare(
        &self,
        by: &Actor,
        kind: v1::AuthorityKind,
    ) -> Result<v1::ChangeAuthorityReply, Status> {
        let kind = match kind {
            v1::AuthorityKind::X509 => AuthorityKind::X509,
            v1::AuthorityKind::Jwt => AuthorityKind::Jwt,
            v1::AuthorityKind::Unspecified => return Err(Status::invalid_argument("say which kind of authority")),
        };
        let id = self.0.prepare(by, kind).await.map_err(|error| step_failed(&error))?;
        Ok(self.changed(&id))
    }

    pub(super) async fn change(
        &self,
        by: &Actor,
        message: v1::ChangeAuthorityRequest,
    ) -> Result<v1::ChangeAuthorityReply, Status> {
        let step = message.step();
        let v1::ChangeAuthorityRequest { id, step: _, force } = message;
        let id: AuthorityId = wire::parse(&id).map_err(|error| invalid(&error))?;
        let laggards = if force { Laggards::LeaveBehind } else { Laggards::Wait };
        let taken = match step {
            Step::Activate => self.0.activate(by, &id, laggards).await,
            Step::Taint => self.0.taint(by, &id).await,
            Step::Revoke => self.0.revoke_authority(by, &id, laggards).await,
            Step::Unspecified => return Err(Status::invalid_argument("say which step the authority is to take")),
        };
        taken.map_err(|error| step_failed(&error))?;
        Ok(self.changed(&id))
    }

    pub(super) async fn install_chain(&self, by: &Actor, chain: &[u8]) -> Result<v1::ChangeAuthorityReply, Status> {
        let id = self.0.install(by, chain).await.map_err(|error| step_failed(&error))?;
        Ok(self.changed(&id))
    }

    pub(super) fn request_chain(&self) -> Result<v1::RequestAuthorityReply, Status> {
        let csr = self.0.authority.keys().request().map_err(|error| step_failed(&error.into()))?;
        Ok(v1::RequestAuthorityReply { csr })
    }

    fn changed(&self, id: &AuthorityId) -> v1::ChangeAuthorityReply {
        v1::ChangeAuthorityReply { id: id.to_string(), version: Some(self.read(Registry::version).into()) }
    }

    pub(super) async fn revoke_svids(&self, by: Actor, message: v1::RevokeRequest) -> Result<Version, Status> {
        use v1::revoke_request::What;
        let revoke = match message.what {
            Some(What::Serial(serial)) => {
                let serial =
                    SerialNumber::new(&serial).map_err(|error| invalid(&InvalidMessage::new(error.to_string())))?;
                Revoke::Certificate(serial)
            }
            Some(What::Entry(id)) => Revoke::Entry(wire::parse(&id).map_err(|error| invalid(&error))?),
            Some(What::Node(name)) => Revoke::Node(wire::parse(&name).map_err(|error| invalid(&error))?),
            None => return Err(Status::invalid_argument("say what to revoke")),
        };
        let node: Option<NodeName> = if let Revoke::Node(name) = &revoke { Some(name.clone()) } else { None };
        let outcome = self.execute(by, Command::Revoke(revoke)).await?;
        self.0.refresh_trust(crate::clock::now());
        if let Some(node) = node {
            self.0.presence.disconnect(&node);
        }
        Ok(outcome.version)
    }

    pub(super) fn revocations(&self) -> v1::ListRevocationsReply {
        let revocations = self.read(|registry| std::sync::Arc::clone(registry.revocations()));
        v1::ListRevocationsReply {
            revocations: revocations.values().map(|revocation| wire::revocation_message(revocation)).collect(),
        }
    }
}

fn authority_message(record: &AuthorityRecord) -> v1::Authority {
    let kind = match record.kind() {
        AuthorityKind::X509 => v1::AuthorityKind::X509,
        AuthorityKind::Jwt => v1::AuthorityKind::Jwt,
    };
    let stage = match record.stage {
        Stage::Prepared => v1::AuthorityStage::Prepared,
        Stage::Active => v1::AuthorityStage::Active,
        Stage::Old => v1::AuthorityStage::Old,
    };
    v1::Authority {
        id: record.id.to_string(),
        kind: kind.into(),
        stage: stage.into(),
        tainted: record.taint == Taint::Tainted,
        upstream: matches!(record.material, Material::Upstream { .. }),
        not_before: unix_seconds(record.not_before),
        not_after: unix_seconds(record.not_after),
        published: Some(record.published.into()),
    }
}

fn step_failed(error: &StepError) -> Status {
    let code = match error {
        StepError::Command(error) => return failed(error),
        StepError::Behind { .. } | StepError::Held { .. } | StepError::Recent { .. } => Code::FailedPrecondition,
        StepError::Authority(
            AuthorityError::NoRequest
            | AuthorityError::EmptyChain
            | AuthorityError::OtherKey
            | AuthorityError::Chain(_)
            | AuthorityError::Unusable(_)
            | AuthorityError::Bundle(_),
        ) => Code::InvalidArgument,
        StepError::Authority(
            AuthorityError::Folder { .. }
            | AuthorityError::File(_)
            | AuthorityError::Expired { .. }
            | AuthorityError::NoneActive { .. }
            | AuthorityError::Issue(_),
        ) => Code::Internal,
    };
    Status::new(code, error.to_string())
}
