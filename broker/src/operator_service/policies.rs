//! Policy files: whether they hold, and what an operator is told of that.

use portcullis_api::v1;
use tonic::{Response, Status};

use super::OperatorService;
use super::answer::{decision, failed, invalid};
use crate::audit::Actor;
use crate::ledger::CommandError;
use crate::nats::Question;
use crate::registry::{Command, Refusal, Registry};
use crate::wire;

impl OperatorService {
    pub(super) async fn put_policy_files(
        &self,
        by: Actor,
        request: v1::PutPoliciesRequest,
    ) -> Result<Response<v1::PutPoliciesReply>, Status> {
        let kind = request.kind();
        let files = wire::policy_files(request);
        let names: Vec<_> = files.iter().map(|file| file.name.clone()).collect();
        let command = match kind {
            v1::PolicyKind::Calls => Command::PutPolicies(files),
            v1::PolicyKind::Admissions => Command::PutAdmissions(files),
        };
        self.policies_reply(&names, self.0.ledger.execute(by, command).await.map(drop))
    }

    pub(super) async fn check_policy_files(
        &self,
        request: v1::PutPoliciesRequest,
    ) -> Result<Response<v1::PutPoliciesReply>, Status> {
        let kind = request.kind();
        let files = wire::policy_files(request);
        let check = self.read(Registry::policy_check);
        let check = move || match kind {
            v1::PolicyKind::Calls => check.changes(&files).map(drop),
            v1::PolicyKind::Admissions => check.admission_changes(&files).map(drop),
        };
        // Checking may take as long as there are policies.
        let checked = self.0.tracker.spawn_blocking(check).await.map_err(|_| CommandError::Closed);
        self.policies_reply(&[], checked.and_then(|checked| checked.map_err(CommandError::from)))
    }

    pub(super) fn policy_files(&self) -> v1::ListPoliciesReply {
        let file = |name: &String, text: &String| v1::PolicyFile { name: name.clone(), text: text.clone() };
        self.read(|registry| v1::ListPoliciesReply {
            files: registry.policies().map(|document| file(&document.name, &document.text)).collect(),
            version: Some(registry.version().into()),
            admissions: registry.admission_files().map(|document| file(&document.name, &document.text)).collect(),
        })
    }

    pub(super) fn explain_admission(&self, request: v1::ExplainAdmissionRequest) -> Result<v1::ExplainReply, Status> {
        let v1::ExplainAdmissionRequest { question, host } = request;
        let host = if host.is_empty() { None } else { Some(wire::spiffe_id(&host).map_err(|error| invalid(&error))?) };
        let question = Question::parse(question.as_bytes());
        let question = question.map_err(|malformed| Status::invalid_argument(malformed.to_string()))?;
        let admission = question.admission(host.as_ref());
        let policies = self.read(|registry| std::sync::Arc::clone(registry.admissions()));
        Ok(decision(&policies.decide(&admission)))
    }

    fn policies_reply(
        &self,
        names: &[String],
        result: Result<(), CommandError>,
    ) -> Result<Response<v1::PutPoliciesReply>, Status> {
        let problems = match result {
            Ok(()) => Vec::new(),
            Err(CommandError::Refused(Refusal::Policies(problems))) => problems,
            Err(error) => return Err(failed(&error)),
        };
        let of_these = |registry: &Registry| {
            let calls = registry.policies().filter(|document| names.contains(&document.name));
            let admissions = registry.admission_files().filter(|document| names.contains(&document.name));
            let admissions = admissions.flat_map(|document| document.set.iter().map(str::to_owned));
            calls.flat_map(|document| document.set.iter().map(str::to_owned)).chain(admissions).collect()
        };
        let policy_ids = if problems.is_empty() { self.read(of_these) } else { Vec::new() };
        Ok(Response::new(v1::PutPoliciesReply {
            problems: problems.into_iter().map(wire::problem_message).collect(),
            version: Some(self.read(Registry::version).into()),
            policy_ids,
        }))
    }
}
