//! Why nothing was signed, by who must act.

use portcullis_identity::{InvalidAudience, InvalidRequest};
use tonic::{Code, Status};

use super::vouching::NotVouched;
use crate::admission::NotAdmitted;
use crate::authority::IssueError;
use crate::registry::EntryId;
use crate::wire::InvalidMessage;

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignRefusal {
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
    #[error(transparent)]
    Message(#[from] InvalidMessage),
    #[error("the certificate request is refused: {0}")]
    Request(#[from] InvalidRequest),
    #[error(transparent)]
    Audience(#[from] InvalidAudience),
    /// Whether the entry is another node's or nobody's is no business of this one.
    #[error("this node has no entry `{0}`")]
    NoEntry(EntryId),
    #[error("the entry is for another component digest than `{0}`")]
    Digest(String),
    #[error("the key serves another identity already: each identity has its own")]
    SharedKey,
    #[error("{wanted} tokens in one request: ask for 1 to {limit}")]
    Batch { wanted: usize, limit: usize },
    #[error(transparent)]
    NotVouched(#[from] NotVouched),
    #[error("too many requests: wait a moment")]
    Throttled,
    #[error("the broker has too much to sign: try again")]
    Busy,
    #[error(transparent)]
    Issue(#[from] IssueError),
}

impl From<SignRefusal> for Status {
    fn from(refusal: SignRefusal) -> Self {
        let code = match &refusal {
            SignRefusal::NotAdmitted(refused) => refused.code(),
            SignRefusal::Message(_)
            | SignRefusal::Request(_)
            | SignRefusal::Audience(_)
            | SignRefusal::Batch { .. } => Code::InvalidArgument,
            SignRefusal::NoEntry(_) => Code::NotFound,
            SignRefusal::Digest(_) | SignRefusal::SharedKey | SignRefusal::NotVouched(_) => Code::PermissionDenied,
            SignRefusal::Throttled => Code::ResourceExhausted,
            SignRefusal::Busy => Code::Unavailable,
            SignRefusal::Issue(error) => match error {
                IssueError::Jwt(_) | IssueError::AuthorityKey => Code::InvalidArgument,
                IssueError::ForeignId(_)
                | IssueError::Expired
                | IssueError::NoRandomness(_)
                | IssueError::Encode(_)
                | IssueError::Request(_)
                | IssueError::Svid(_) => Code::Internal,
            },
        };
        Self::new(code, refusal.to_string())
    }
}
