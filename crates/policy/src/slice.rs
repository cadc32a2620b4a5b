//! The policies that one component's sidecar needs, as they travel.

use std::collections::BTreeSet;

use cedar_policy::{Policy, PolicyId};

use crate::source::check_size;

/// One policy as it travels: its id and its text, annotations included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyText {
    /// Unique within a set.
    pub id: String,
    /// Cedar, as the operator wrote it.
    pub text: String,
}

/// Every policy whose resource scope could match one component. A decision by the slice is the decision by the whole set.
///
/// The default is the empty slice, which denies everything.
#[derive(Debug, Clone, Default)]
pub struct Slice {
    texts: Vec<PolicyText>,
    policies: Vec<Policy>,
}

/// A slice that cannot be read. Whoever gets one must deny, not skip what it does not understand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSlice {
    /// A policy's text is not one Cedar policy.
    #[error("policy `{id}` cannot be read: {message}")]
    Policy {
        /// The policy's id.
        id: String,
        /// What the parser says.
        message: String,
    },
    /// Two policies have one id.
    #[error("policy id `{0}` is there twice")]
    DuplicateId(String),
}

impl Slice {
    /// Reads a slice as it was sent; ids and annotations are those of the set it was cut from.
    ///
    /// # Errors
    ///
    /// Where one policy cannot be read or an id is there twice: then nothing of the slice may be used.
    pub fn parse(texts: &[PolicyText]) -> Result<Self, InvalidSlice> {
        let mut seen = BTreeSet::new();
        let mut policies = Vec::with_capacity(texts.len());
        for PolicyText { id, text } in texts {
            if !seen.insert(id) {
                return Err(InvalidSlice::DuplicateId(id.clone()));
            }
            let invalid = |message: String| InvalidSlice::Policy { id: id.clone(), message };
            check_size(text).map_err(|error| invalid(error.to_string()))?;
            let policy = Policy::parse(Some(PolicyId::new(id)), text).map_err(|errors| invalid(errors.to_string()))?;
            policies.push(policy);
        }
        Ok(Self { texts: texts.to_vec(), policies })
    }

    /// The policies for the wire, in the order of the files they come from.
    #[must_use]
    pub fn policies(&self) -> &[PolicyText] {
        &self.texts
    }

    /// How many policies there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there is none, so that everything is denied.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    pub(crate) fn from_parts(parts: impl IntoIterator<Item = (PolicyText, Policy)>) -> Self {
        let (texts, policies) = parts.into_iter().unzip();
        Self { texts, policies }
    }

    pub(crate) fn cedar(&self) -> &[Policy] {
        &self.policies
    }
}
