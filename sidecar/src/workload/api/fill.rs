//! Templates make their entries when a caller is attested who meets them.

use std::sync::Arc;
use std::time::Duration;

use tonic::Status;
use tracing::info;

use super::{Shared, known};
use crate::workload::connection::Workload;
use crate::workload::{Filling, Identities, Selectors, Snapshot};

/// How long a caller waits for an entry that is made for it, and for its SVID.
const PATIENCE: Duration = Duration::from_secs(5);

impl<I: Identities> Shared<I> {
    /// Attests the caller. Where it meets templates that have no entry for it yet, these are made first: the snapshot has them, or they cannot
    /// be had now and the log says why.
    pub(super) async fn filled(&self, workload: &Workload) -> Result<(Arc<Snapshot>, Selectors), Status> {
        let mut snapshots = self.identities.snapshots();
        let snapshot = known(snapshots.borrow_and_update().clone())?;
        let selectors = self.attest(workload, &snapshot).await?;
        let mut coming = Vec::new();
        for filling in fitting(&snapshot, &selectors, workload) {
            match self.identities.fill(filling.clone()).await {
                Ok(()) => coming.push(filling),
                Err(error) => {
                    let (uid, pid, template) = (workload.caller.uid(), workload.caller.pid(), filling.template);
                    info!(uid, pid, template, id = %filling.spiffe_id, %error, "a template makes no entry");
                }
            }
        }
        if coming.is_empty() {
            return Ok((snapshot, selectors));
        }
        let there = |now: &Option<Arc<Snapshot>>| {
            now.as_ref().is_some_and(|now| coming.iter().all(|filling| now.has(filling, &selectors)))
        };
        // What does not come in time is told of as an SVID that is on its way.
        let _ = tokio::time::timeout(PATIENCE, snapshots.wait_for(there)).await;
        let now = known(snapshots.borrow().clone())?;
        Ok((now, selectors))
    }
}

/// The entries to make; of a template that does not apply the log says why.
fn fitting(snapshot: &Snapshot, selectors: &Selectors, workload: &Workload) -> Vec<Filling> {
    let mut fitting = Vec::new();
    for filling in snapshot.fillings(selectors) {
        match filling {
            Ok(filling) => fitting.push(filling),
            Err((template, unfit)) => {
                let (uid, pid) = (workload.caller.uid(), workload.caller.pid());
                info!(uid, pid, template, %unfit, "a template does not apply to a workload");
            }
        }
    }
    fitting
}
