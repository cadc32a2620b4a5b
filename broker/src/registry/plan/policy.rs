//! Policies: files of them come into force all together or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portcullis_policy::{AdmissionSet, PolicyFile, PolicySet, Problem, Schema};

use super::{Plan, policy_file};
use crate::registry::Registry;
use crate::registry::bounds::{self, at_most, no_larger};
use crate::registry::command::Change;
use crate::registry::record::{AdmissionDocument, PolicyDocument};
use crate::registry::refusal::Refusal;

/// Bytes of a file's name.
const MAX_NAME: usize = 128;

/// What policy files are checked against, apart from the registry, so that a long check holds nobody up.
#[derive(Debug)]
pub struct PolicyCheck {
    schema: Arc<Schema>,
    in_force: BTreeMap<String, Arc<PolicyDocument>>,
    admissions: BTreeMap<String, Arc<AdmissionDocument>>,
}

impl PolicyCheck {
    /// What putting `files` would change.
    ///
    /// Only the files that come are checked; those in force stay checked as long as the schema stays.
    ///
    /// # Errors
    /// Every mistake of every file; or a name or size that no policy file has.
    pub fn changes(&self, files: &[PolicyFile]) -> Result<Vec<Change>, Refusal> {
        let names = self.names(files, |name| self.admissions.contains_key(name))?;
        let (mut documents, mut problems) = (Vec::new(), Vec::new());
        for file in files.iter().filter(|file| self.is_new(file)) {
            match PolicyDocument::parse(file, &self.schema) {
                Ok(document) => documents.push(Arc::new(document)),
                Err(of_file) => problems.extend(of_file),
            }
        }
        let altered: BTreeSet<_> = documents.iter().map(|document| document.name.as_str()).collect();
        let stays = self.in_force.values().filter(|old| !altered.contains(old.name.as_str()));
        let mut ids: BTreeSet<_> = stays.flat_map(|old| old.set.iter()).collect();
        let unique = documents.iter().flat_map(|document| document.set.iter()).all(|id| ids.insert(id));
        if !unique || !problems.is_empty() {
            return Err(Refusal::Policies(self.every_problem(files, &names, problems)));
        }
        Ok(documents.into_iter().map(Change::Policies).collect())
    }

    /// The same for policies that say what hosts may start. All of them are checked together: there are few.
    ///
    /// # Errors
    /// As for [`Self::changes`].
    pub fn admission_changes(&self, files: &[PolicyFile]) -> Result<Vec<Change>, Refusal> {
        let names = self.names(files, |name| self.in_force.contains_key(name))?;
        let kept = self.admissions.values().filter(|old| !names.contains(old.name.as_str()));
        let mut all: Vec<_> = kept.map(|old| policy_file(&old.name, &old.text)).collect();
        all.extend_from_slice(files);
        AdmissionSet::parse(&all).map_err(Refusal::Policies)?;
        let is_new = |file: &&PolicyFile| self.admissions.get(&file.name).is_none_or(|old| old.text != file.text);
        let documents = files.iter().filter(is_new).map(AdmissionDocument::parse);
        let documents = documents.collect::<Result<Vec<_>, _>>().map_err(Refusal::Policies)?;
        Ok(documents.into_iter().map(|document| Change::Admissions(Arc::new(document))).collect())
    }

    /// The names of `files`, each once and none of the other kind.
    fn names<'f>(
        &self,
        files: &'f [PolicyFile],
        other_kind: impl Fn(&str) -> bool,
    ) -> Result<BTreeSet<&'f str>, Refusal> {
        let mut names = BTreeSet::new();
        for file in files {
            check_name(&file.name)?;
            no_larger("a policy file", file.text.len(), bounds::POLICY_FILE_BYTES)?;
            if !names.insert(file.name.as_str()) {
                return Err(Refusal::PolicyFileTwice(file.name.clone()));
            }
            if other_kind(&file.name) {
                return Err(Refusal::OtherKind(file.name.clone()));
            }
        }
        let held = |name: &str| self.in_force.contains_key(name) || self.admissions.contains_key(name);
        let new = names.iter().filter(|name| !held(name)).count();
        let present = self.in_force.len().saturating_add(self.admissions.len());
        at_most("policy files", present.saturating_add(new), bounds::POLICY_FILES)?;
        Ok(names)
    }

    fn is_new(&self, file: &PolicyFile) -> bool {
        self.in_force.get(&file.name).is_none_or(|old| old.text != file.text)
    }

    /// Parsing all files at once finds where an id stands that is used twice; parsing one finds only the `others`.
    fn every_problem(&self, files: &[PolicyFile], names: &BTreeSet<&str>, others: Vec<Problem>) -> Vec<Problem> {
        let kept = self.in_force.values().filter(|old| !names.contains(old.name.as_str()));
        let mut all: Vec<_> = kept.map(|old| policy_file(&old.name, &old.text)).collect();
        all.extend_from_slice(files);
        PolicySet::parse(&all, &self.schema).err().unwrap_or(others)
    }
}

impl Registry {
    /// What policy files are checked against now.
    #[must_use]
    pub fn policy_check(&self) -> PolicyCheck {
        PolicyCheck {
            schema: Arc::clone(&self.schema),
            in_force: self.policies.clone(),
            admissions: self.admission_files.clone(),
        }
    }

    pub(super) fn plan_policies(&self, files: &[PolicyFile]) -> Result<Plan, Refusal> {
        Ok(Plan { changes: self.policy_check().changes(files)?, ..Plan::default() })
    }

    pub(super) fn plan_admissions(&self, files: &[PolicyFile]) -> Result<Plan, Refusal> {
        Ok(Plan { changes: self.policy_check().admission_changes(files)?, ..Plan::default() })
    }

    pub(super) fn plan_policy_removal(&self, name: String) -> Result<Plan, Refusal> {
        let change = if self.policies.contains_key(&name) {
            Change::PoliciesRemoved(name)
        } else if self.admission_files.contains_key(&name) {
            Change::AdmissionsRemoved(name)
        } else {
            return Err(Refusal::NoPolicyFile(name));
        };
        Ok(Plan { changes: vec![change], ..Plan::default() })
    }
}

fn check_name(name: &str) -> Result<(), Refusal> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if (1..=MAX_NAME).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(allowed) {
        Ok(())
    } else {
        Err(Refusal::PolicyFileName(name.chars().take(MAX_NAME).collect()))
    }
}
