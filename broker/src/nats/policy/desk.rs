//! What the rest of the broker asks the policy service.

use std::time::Duration;

use portcullis_identity::{Lattice, SpiffeId};
use tokio::sync::{mpsc, oneshot};

use super::judge::Job;
use super::memory::Asker;
use crate::config::Nats;
use crate::nats::member::lattice_of_host;
use crate::registry::Registry;

/// For the judge to look.
const DEADLINE: Duration = Duration::from_secs(2);

/// A way to the policy service. It does not keep it alive.
#[derive(Debug)]
pub(crate) struct PolicyDesk {
    jobs: mpsc::WeakSender<Job>,
    settings: Nats,
}

impl PolicyDesk {
    pub(super) fn new(jobs: &mpsc::Sender<Job>, settings: Nats) -> Self {
        Self { jobs: jobs.downgrade(), settings }
    }

    /// Whether a token for `audience` lets its holder join the lattice.
    pub(crate) fn joins(&self, audience: &str) -> bool {
        self.settings.audience.as_str() == audience
    }

    /// The lattice of a host.
    pub(crate) fn lattice_of(&self, registry: &Registry, id: &SpiffeId) -> Option<Lattice> {
        lattice_of_host(registry, &self.settings, id)
    }

    /// Whether `host`, asking on its own topic, was allowed to start `component`, and that holds still.
    pub(crate) async fn allowed_start(&self, lattice: Lattice, host: SpiffeId, component: &str) -> bool {
        let Some(jobs) = self.jobs.upgrade() else { return false };
        let (reply, answer) = oneshot::channel();
        let asker = Asker { lattice, host: Some(host) };
        let job = Job::Started { asker, component: component.to_owned(), reply };
        if jobs.try_send(job).is_err() {
            return false;
        }
        tokio::time::timeout(DEADLINE, answer).await.is_ok_and(|answer| answer.unwrap_or(false))
    }
}
