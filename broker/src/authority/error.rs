//! Why there is no authority, and why one did not sign.

use std::path::PathBuf;

use portcullis_identity::{
    InvalidAuthority, InvalidBundle, InvalidRequest, InvalidSvid, JwtNotSigned, NoRandomness, PeerRefused, SpiffeId,
};

use super::CaFileError;

/// Why there is no certificate authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The folder of the keys cannot be used.
    #[error("cannot use the CA folder `{}`: {cause}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the file system said.
        cause: std::io::Error,
    },
    /// One of its files cannot be read, written or believed.
    #[error(transparent)]
    File(#[from] CaFileError),
    /// The authority's time is over: nothing that it signed is valid.
    #[error(
        "the {kind} authority expired, and no other took its place: make a new trust domain or restore a newer data folder"
    )]
    Expired {
        /// Which.
        kind: &'static str,
    },
    /// Nothing signs.
    #[error("no {kind} authority is active")]
    NoneActive {
        /// Of which kind.
        kind: &'static str,
    },
    /// A certificate of our own could not be made.
    #[error("cannot make a CA certificate: {0}")]
    Issue(#[from] IssueError),
    /// A root of ours is not one by the X509-SVID profile.
    #[error("the root certificate is not usable: {0}")]
    Bundle(#[from] InvalidBundle),
    /// A certificate is not one of an authority.
    #[error("the CA certificate is not usable: {0}")]
    Unusable(InvalidAuthority),
    /// A chain came, and nobody asked for one.
    #[error("no request waits for a chain: `ca csr` makes one")]
    NoRequest,
    /// A chain of nothing.
    #[error("the chain needs the signing certificate first and the self-signed root last")]
    EmptyChain,
    /// A chain for somebody else.
    #[error("the first certificate of the chain is not for the key of the request")]
    OtherKey,
    /// A chain by which no SVID would be accepted.
    #[error("no peer would accept what the chain vouches for: {0}")]
    Chain(String),
}

/// Why a certificate was not issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The SPIFFE ID belongs to another trust domain, or has no path.
    #[error("`{0}` is not a workload of this trust domain")]
    ForeignId(SpiffeId),
    /// A workload asked for a certificate on a key of the authority itself.
    #[error("the key is one of the authority's own")]
    AuthorityKey,
    /// Every certificate above the leaf is expired.
    #[error("the signing certificate expired")]
    Expired,
    /// The system gave no random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// The encoder refused.
    #[error("cannot encode the certificate: {0}")]
    Encode(#[from] rcgen::Error),
    /// Our own request.
    #[error(transparent)]
    Request(#[from] InvalidRequest),
    /// Our own certificate.
    #[error(transparent)]
    Svid(#[from] InvalidSvid),
    /// A token that cannot be.
    #[error(transparent)]
    Jwt(#[from] JwtNotSigned),
}

impl From<PeerRefused> for AuthorityError {
    fn from(refused: PeerRefused) -> Self {
        Self::Chain(refused.reason().to_string())
    }
}
