//! Policy files: whether they hold, and what an operator is told of that.

use portcullis_api::v1;
use portcullis_policy::PolicyFile;
use tonic::{Response, Status};

use super::OperatorService;
use super::answer::failed;
use crate::ledger::CommandError;
use crate::registry::{Refusal, Registry};
use crate::wire;

impl OperatorService {
    pub(super) async fn check_policies(&self, files: Vec<PolicyFile>) -> Result<(), CommandError> {
        let check = self.read(Registry::policy_check);
        // Checking may take as long as there are policies.
        let checked = self.0.tracker.spawn_blocking(move || check.changes(&files).map(drop)).await;
        checked.map_err(|_| CommandError::Closed)?.map_err(CommandError::from)
    }

    pub(super) fn policies_reply(
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
            let documents = registry.policies().filter(|document| names.contains(&document.name));
            documents.flat_map(|document| document.set.iter().map(str::to_owned)).collect()
        };
        let policy_ids = if problems.is_empty() { self.read(of_these) } else { Vec::new() };
        Ok(Response::new(v1::PutPoliciesReply {
            problems: problems.into_iter().map(wire::problem_message).collect(),
            version: Some(self.read(Registry::version).into()),
            policy_ids,
        }))
    }
}
