//! Policies: files of them come into force all together or not at all.

use std::collections::BTreeSet;
use std::sync::Arc;

use portcullis_policy::{PolicyFile, PolicySet};

use super::{Plan, policy_file};
use crate::registry::bounds::{self, at_most, no_larger};
use crate::registry::command::Change;
use crate::registry::refusal::Refusal;
use crate::registry::{Registry, document};

/// Bytes of a file's name.
const MAX_NAME: usize = 128;

impl Registry {
    /// Checks only the files that come; those in force stay checked as long as the schema stays.
    pub(super) fn plan_policies(&self, files: &[PolicyFile]) -> Result<Plan, Refusal> {
        let mut names = BTreeSet::new();
        for file in files {
            check_name(&file.name)?;
            no_larger("a policy file", file.text.len(), bounds::POLICY_FILE_BYTES)?;
            if !names.insert(file.name.as_str()) {
                return Err(Refusal::PolicyFileTwice(file.name.clone()));
            }
        }
        let new = names.iter().filter(|name| !self.policies.contains_key(**name)).count();
        at_most(
            "policy files",
            self.policies.len().saturating_add(new),
            bounds::POLICY_FILES,
        )?;
        let together = PolicySet::parse(files, &self.schema).map_err(Refusal::Policies)?;
        let kept: Vec<_> = self
            .policies
            .values()
            .filter(|document| !names.contains(document.name.as_str()))
            .collect();
        let taken: BTreeSet<_> = kept.iter().flat_map(|document| document.set.iter()).collect();
        if together.iter().any(|id| taken.contains(id)) {
            // Parsing them all finds where each id stands.
            let mut all: Vec<_> = kept
                .iter()
                .map(|document| policy_file(&document.name, &document.text))
                .collect();
            all.extend_from_slice(files);
            PolicySet::parse(&all, &self.schema).map_err(Refusal::Policies)?;
        }
        let altered = files
            .iter()
            .filter(|file| self.policies.get(&file.name).is_none_or(|old| old.text != file.text));
        let changes = altered
            .map(|file| document(file, &self.schema).map(|document| Change::Policies(Arc::new(document))))
            .collect::<Result<_, _>>()
            .map_err(Refusal::Policies)?;
        Ok(Plan {
            changes,
            ..Plan::default()
        })
    }

    pub(super) fn plan_policy_removal(&self, name: String) -> Result<Plan, Refusal> {
        if !self.policies.contains_key(&name) {
            return Err(Refusal::NoPolicyFile(name));
        }
        Ok(Plan {
            changes: vec![Change::PoliciesRemoved(name)],
            ..Plan::default()
        })
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
