use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use portcullis_client::CallError;
use portcullis_client::node::PeerRecord;
use portcullis_client::peers::FunctionName;
use tokio::task::JoinHandle;

use crate::{Caller, ITEMS, Lab};

const COUNT: FunctionName<'static> = FunctionName { instance: ITEMS, function: "count" };

/// Calls `count` without a pause until told to stop; the first failure ends it. The service must answer `3`.
#[derive(Debug)]
pub struct Load {
    done: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
    running: Vec<JoinHandle<Result<(), CallError>>>,
}

impl Load {
    pub fn start(lab: &Lab, caller: &Caller, record: &PeerRecord) -> Self {
        let (done, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let running = (0..4).map(|_| {
            let (peers, record) = (caller.peers.clone(), record.clone());
            let (done, calls) = (Arc::clone(&done), Arc::clone(&calls));
            lab.spawn(async move {
                while !done.load(Ordering::Acquire) {
                    let answer = peers.call(&record, COUNT, Bytes::new(), Duration::from_secs(10)).await?;
                    assert_eq!(answer, &b"\x03"[..]);
                    calls.fetch_add(1, Ordering::Relaxed);
                    // Leaves the machine's cores to the other tests.
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                Ok(())
            })
        });
        let running = running.collect();
        Self { done, calls, running }
    }

    /// How many calls were answered so far.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// How many calls were answered; none may have failed.
    pub fn end(self, lab: &Lab) -> usize {
        self.done.store(true, Ordering::Release);
        for running in self.running {
            lab.block_on(running).unwrap().unwrap();
        }
        self.calls.load(Ordering::Relaxed)
    }
}
