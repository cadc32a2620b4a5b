//! Where identities come from: the border between the Workload API and the node.

use std::future::Future;
use std::sync::Arc;
use std::time::SystemTime;

use portcullis_identity::SpiffeId;
use tokio::sync::watch;

use super::{Filling, Snapshot};

/// A source of identities.
pub trait Identities: Send + Sync + 'static {
    /// What may be handed out now, and every change of it; nothing while it is not known yet.
    fn snapshots(&self) -> watch::Receiver<Option<Arc<Snapshot>>>;

    /// Has an entry made for an attested caller. It comes with a later snapshot.
    fn fill(&self, filling: Filling) -> impl Future<Output = Result<(), TokenRefused>> + Send;

    /// JWT-SVIDs, one for each that is wanted, in order.
    fn tokens(&self, wanted: Vec<WantedToken>) -> impl Future<Output = Result<Vec<Token>, TokenRefused>> + Send;

    /// Validates a JWT-SVID by all rules of JWT-SVID.md, with the bundle of the trust domain of its subject.
    ///
    /// # Errors
    /// What is wrong with it.
    fn validate(&self, token: &str, audience: &str, now: SystemTime) -> Result<TokenClaims, InvalidToken>;
}

/// A JWT-SVID that somebody wants.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WantedToken {
    /// The entry's id.
    pub entry: String,
    /// At least one.
    pub audience: Vec<String>,
    /// The entry of the host that fetches it for a component which it runs.
    pub vouched_by: Option<String>,
}

/// A signed JWT-SVID. It is a bearer token: never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// JWS compact serialisation.
    pub text: String,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// What a valid JWT-SVID says.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenClaims {
    /// Its subject.
    pub spiffe_id: SpiffeId,
    /// All of its claims.
    pub claims: serde_json::Map<String, serde_json::Value>,
}

/// Why there is no token, or no entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefused {
    /// The broker cannot be asked now.
    #[error("the broker cannot be reached")]
    Unavailable,
    /// It says no.
    #[error("{0}")]
    Refused(String),
}

/// Why a token is not believed. The reason may be shown to the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidToken(pub String);
