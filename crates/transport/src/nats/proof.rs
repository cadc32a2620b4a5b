use std::{fmt, future::Future, pin::Pin, sync::Arc};

use super::link::Link;

type Judgement = Pin<Box<dyn Future<Output = Result<(), Unproved>> + Send>>;

/// What a connection has to show before a [`Session`](super::Session) uses it. A link that was asked ends with its
/// connection: async-nats would make another one under it by itself, perhaps to another server, of which nobody knows
/// anything.
#[derive(Clone)]
pub struct Proof(Arc<dyn Fn(Link) -> Judgement + Send + Sync>);

/// Why a connection is of no use.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Unproved(#[from] Box<dyn std::error::Error + Send + Sync>);

impl Proof {
    /// `judge` looks at a link; it may call over it, and has to end in its own time.
    pub fn new<F, E>(judge: impl Fn(Link) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        Self(Arc::new(move |link| {
            let judged = judge(link);
            Box::pin(async move { judged.await.map_err(|error| Unproved(error.into())) })
        }))
    }

    pub(super) async fn ask(&self, link: &Link) -> Result<(), Unproved> {
        (self.0)(link.clone()).await
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proof").finish_non_exhaustive()
    }
}
