//! Who is at the other end of the socket, as the kernel says it.
//!
//! A [`Caller`] is the process that connected, pinned by a pidfd and an open `/proc` folder, so that no later process with the same id can
//! stand in for it. An [`Attestor`] reads what is known of it *now*, as [`Selectors`]; it reads the process's state before and after, and
//! believes nothing where the two differ.
//!
//! What it does not know: what a process does with a connection that it gave to another process (the caller is whoever connected); what an
//! interpreter runs (`unix:path:/usr/bin/python3` is every Python program). It reads no container engine: labels and images are unknown.

mod cgroup;
mod digests;
mod executable;
mod process;
mod selectors;

use std::sync::Arc;

use tokio::sync::Semaphore;

pub(crate) use digests::Digests;
pub(crate) use process::Caller;
pub use selectors::Selectors;

use process::{Owner, State};

/// Attestations at a time: each is a handful of system calls, and one that hashes keeps a thread busy.
const AT_A_TIME: usize = 8;
/// Supplementary groups beyond these earn no selector.
const MAX_GROUPS: usize = 64;

/// Why nothing can be said about a caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAttested {
    /// It is gone.
    #[error("the calling process has ended")]
    Ended,
    /// It runs as another user or group than when it connected.
    #[error("the calling process changed its user or group since it connected")]
    OtherOwner,
    /// It changed while it was looked at.
    #[error("the calling process changed while it was attested")]
    Changing,
    /// `/proc` does not answer as it should.
    #[error("the calling process cannot be read: {0}")]
    Unreadable(String),
}

/// Which costly selectors are worth having.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// All but the digest of the executable.
    WithoutDigest,
    /// All.
    WithDigest,
}

/// Reads what is known of callers.
#[derive(Debug)]
pub(crate) struct Attestor {
    digests: Arc<Digests>,
    running: Arc<Semaphore>,
}

impl Attestor {
    pub(crate) fn new() -> Self {
        Self { digests: Arc::new(Digests::default()), running: Arc::new(Semaphore::new(AT_A_TIME)) }
    }

    /// What is known of `caller` now.
    ///
    /// # Errors
    /// When it is gone or cannot be believed.
    pub(crate) async fn attest(&self, caller: Arc<Caller>, depth: Depth) -> Result<Selectors, NotAttested> {
        let unreadable = |error: &dyn std::fmt::Display| NotAttested::Unreadable(error.to_string());
        let permit = Arc::clone(&self.running).acquire_owned().await.map_err(|error| unreadable(&error))?;
        let digests = Arc::clone(&self.digests);
        let work = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            selectors_of(&caller, depth, &digests)
        });
        work.await.map_err(|error| unreadable(&error))?
    }
}

/// Looks, looks again, and believes what did not change between.
fn selectors_of(caller: &Caller, depth: Depth, digests: &Digests) -> Result<Selectors, NotAttested> {
    let before = caller.state()?;
    let Owner { uid, gid, .. } = before.owner;
    if (uid, gid) != caller.credentials() {
        return Err(NotAttested::OtherOwner);
    }
    let mut selectors = Selectors::default();
    selectors.add("unix:uid", uid);
    selectors.add("unix:gid", gid);
    for group in before.owner.groups.iter().take(MAX_GROUPS) {
        selectors.add("unix:supplementary_gid", group);
    }
    let State { executable, cgroup, .. } = &before;
    if let Some(executable) = executable {
        if let Some(path) = executable.path(caller) {
            selectors.add("unix:path", path);
        }
        if depth == Depth::WithDigest
            && let Some(digest) = digests.sha256(caller, executable)
        {
            selectors.add("unix:sha256", digest);
        }
    }
    for (name, value) in cgroup::selectors(cgroup) {
        selectors.add(name, value);
    }
    if caller.state()? != before {
        return Err(NotAttested::Changing);
    }
    Ok(selectors)
}

#[cfg(test)]
mod tests;
