//! A mistake in a policy file, for the person who has to mend it.

use std::fmt;

/// One mistake, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file's name.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// The id of the policy, where it has got one.
    pub policy: Option<String>,
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, policy, message, hint } = self;
        write!(f, "{file}:{line}:{column}: ")?;
        if let Some(policy) = policy {
            write!(f, "policy `{policy}`: ")?;
        }
        f.write_str(message)?;
        match hint {
            Some(hint) => write!(f, " (hint: {hint})"),
            None => Ok(()),
        }
    }
}
