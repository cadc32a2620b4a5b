//! How a command fails: what it says and which exit code it has.

use std::io::Write as _;
use std::process::ExitCode;

/// A command that did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: Kind,
    message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Broken,
    Misused,
    Refused,
}

impl Failure {
    /// A file, the network or the broker does not work.
    pub(crate) fn broken(message: impl Into<String>) -> Self {
        Self { kind: Kind::Broken, message: message.into() }
    }

    /// The command line makes no sense.
    pub(crate) fn misused(message: impl Into<String>) -> Self {
        Self { kind: Kind::Misused, message: message.into() }
    }

    /// The broker says no.
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self { kind: Kind::Refused, message: message.into() }
    }

    /// The broker says no, and everything was printed already.
    pub(crate) fn refused_silently() -> Self {
        Self::refused(String::new())
    }

    /// Tells the user, and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        if !self.message.is_empty() {
            // Nobody reads it where standard error is closed; the exit code tells.
            let _ = writeln!(std::io::stderr().lock(), "error: {}", self.message);
        }
        match self.kind {
            Kind::Broken => ExitCode::from(1),
            Kind::Misused => ExitCode::from(2),
            Kind::Refused => ExitCode::from(3),
        }
    }
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        use tonic::Code;
        let message = status.message();
        match status.code() {
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::FailedPrecondition
            | Code::ResourceExhausted
            | Code::OutOfRange => Self::refused(message),
            code @ (Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss) => Self::broken(format!("the broker failed ({code:?}): {message}")),
        }
    }
}
