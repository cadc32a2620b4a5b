//! What is wrong with a mapping, with the line it is wrong at.

use std::fmt;
use std::ops::Range;

/// One mistake in a mapping, as `check` prints it: `FILE:LINE: MESSAGE (hint: HINT)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingProblem {
    /// The file as the operator named it, or the WIT interface where no file is involved.
    pub file: String,
    /// The line, counted from 1; none where the mistake is in no line of the file.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do about it, where something useful can be said.
    pub hint: Option<String>,
}

impl fmt::Display for MappingProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        write!(f, " {}", self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, " (hint: {hint})")?;
        }
        Ok(())
    }
}

impl std::error::Error for MappingProblem {}

/// A thing read from a line of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) line: usize,
}

/// The mistakes found so far in one file.
#[derive(Debug)]
pub(super) struct Problems {
    file: String,
    /// Byte offset at which each line begins.
    lines: Vec<usize>,
    found: Vec<MappingProblem>,
}

impl Problems {
    pub(super) fn new(file: &str, text: &str) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file: file.to_owned(), lines, found: Vec::new() }
    }

    /// The line, counted from 1, in which a span begins.
    pub(super) fn line(&self, span: &Range<usize>) -> usize {
        self.lines.partition_point(|start| *start <= span.start)
    }

    pub(super) fn report(&mut self, line: impl Into<Option<usize>>, message: impl Into<String>) {
        self.push(line.into(), message.into(), None);
    }

    pub(super) fn report_with_hint(
        &mut self,
        line: impl Into<Option<usize>>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.push(line.into(), message.into(), Some(hint.into()));
    }

    fn push(&mut self, line: Option<usize>, message: String, hint: Option<String>) {
        self.found.push(MappingProblem { file: self.file.clone(), line, message, hint });
    }

    /// How many were found up to now; a step that must not go on after a mistake compares two counts.
    pub(super) fn count(&self) -> usize {
        self.found.len()
    }

    /// The mistakes in the order of the file.
    pub(super) fn into_sorted(mut self) -> Vec<MappingProblem> {
        self.found.sort_by_key(|problem| problem.line);
        self.found
    }
}
