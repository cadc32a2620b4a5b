//! The border between wasm and the lattice: a call that leaves a component, and why it may have no answer.

use std::time::Duration;

use bytes::Bytes;
use portcullis_client::explanation::Explanation;
use portcullis_identity::Target;
use portcullis_transport::Refusal;

/// Which function of which virtual component.
#[derive(Clone, Copy, Debug)]
pub struct Callee<'a> {
    /// Who is called.
    pub target: &'a Target,
    /// The wRPC instance, in the callee's version.
    pub instance: &'a str,
    /// The function in it.
    pub function: &'a str,
}

/// Makes calls for components. The lattice is one; tests bring their own.
pub trait Call: Send + Sync + 'static {
    /// Calls with encoded parameters and gives the encoded result, or fails after `timeout` at the latest.
    fn call(
        &self,
        callee: Callee<'_>,
        params: Bytes,
        timeout: Duration,
    ) -> impl Future<Output = Result<Bytes, CallFailure>> + Send;
}

/// Why a call of a component has no answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct CallFailure {
    /// The whole story in one line.
    pub message: String,
    /// Where the callee's sidecar refused the call: how and why.
    pub refused: Option<Refused>,
}

/// What the callee's sidecar said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// How.
    pub refusal: Refusal,
    /// Why, where it could be asked.
    pub explanation: Option<Explanation>,
}

impl CallFailure {
    /// A failure that is no refusal.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), refused: None }
    }

    /// Whether policy said no.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        self.refused.as_ref().is_some_and(|refused| refused.refusal == Refusal::Denied)
    }
}
