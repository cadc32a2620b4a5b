//! What every step of compiling one route works on.

use super::params::Params;
use super::problem::{Located, Problems};
use crate::http::route::slot::Slot;

/// The parameters of one function, and where mistakes go.
#[derive(Debug)]
pub(super) struct Compiler<'f, 'p> {
    pub(super) params: Params<'f>,
    pub(super) problems: &'p mut Problems,
    /// Where the route begins, for mistakes that are in no line of their own; none for the default mapping.
    pub(super) line: Option<usize>,
}

impl Compiler<'_, '_> {
    /// The slot of a parameter as the operator wrote it. From then on it is used.
    pub(super) fn take(&mut self, written: &Located<String>) -> Option<Slot> {
        self.params.take(written, self.problems)
    }

    pub(super) fn report(&mut self, line: impl Into<Option<usize>>, message: impl Into<String>) {
        self.problems.report(line, message);
    }

    pub(super) fn report_with_hint(
        &mut self,
        line: impl Into<Option<usize>>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.problems.report_with_hint(line, message, hint);
    }
}
