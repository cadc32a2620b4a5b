//! How soon an operator's change is in force.

use std::time::{Duration, Instant};

use bytes::Bytes;
use e2e::{Behaviour, Caller, Daemon, ITEMS, Lab, LegacyService, SidecarSetup};
use portcullis_api::v1;
use portcullis_client::node::PeerRecord;
use portcullis_client::peers::FunctionName;
use portcullis_identity::Leaf;

use crate::options::Options;
use crate::report::Report;

const CALLER: &str = "spiffe://test.example/component/demo/caller";
const COUNT: FunctionName<'static> = FunctionName { instance: ITEMS, function: "count" };
/// A node waits a little between two renewals of one identity.
const PAUSE: Duration = Duration::from_millis(300);

/// A component, its sidecar, and somebody who calls it.
pub struct Scene {
    caller: Caller,
    record: PeerRecord,
    _sidecar: Daemon,
    _service: LegacyService,
}

impl Scene {
    pub fn set(lab: &Lab) -> Self {
        let service = LegacyService::start(Behaviour::Answer(200, "3".to_owned()));
        let sidecar = lab.sidecar(&SidecarSetup::http("shop", service.address));
        let caller = lab.caller("caller");
        let record = lab.record(&caller, "shop");
        Self { caller, record, _sidecar: sidecar, _service: service }
    }

    pub fn measure(&mut self, lab: &Lab, options: &Options, report: &mut Report) {
        let count = if options.quick { 3 } else { 100 };
        let mut svids = Vec::new();
        let mut policies = Vec::new();
        for number in 0..count {
            svids.push(self.svid(lab, number));
            policies.push(self.policy(lab, number));
            // Between two changes, so that each finds everything at rest.
            std::thread::sleep(PAUSE);
        }
        report.latency("c entry changed → new SVID on its node", svids);
        report.latency("c policy changed → felt by a caller", policies);
    }

    /// Milliseconds until the caller holds an SVID with a new name in it.
    fn svid(&self, lab: &Lab, number: usize) -> f64 {
        let entries = self.caller.node.state().borrow().entries.clone();
        let name = format!("n{number}.example");
        let request = v1::UpdateEntryRequest {
            id: entries.keys().next().unwrap().clone(),
            dns_names: Some(v1::Texts { values: vec![name.clone()] }),
            ..v1::UpdateEntryRequest::default()
        };
        let mut renewals = self.caller.identity.renewals();
        renewals.mark_unchanged();
        let identity = &self.caller.identity;
        let began = Instant::now();
        lab.operator(async |mut operator| operator.update_entry(request).await).unwrap();
        lab.block_on(async {
            loop {
                renewals.changed().await.unwrap();
                let leaf = identity.svid().chain()[0].clone();
                Leaf::parse(&leaf).unwrap();
                if leaf.windows(name.len()).any(|window| window == name.as_bytes()) {
                    break;
                }
            }
        });
        began.elapsed().as_secs_f64() * 1e3
    }

    /// Milliseconds until the caller is let in, or not any more.
    fn policy(&self, lab: &Lab, number: usize) -> f64 {
        let (effect, answered) = if number.is_multiple_of(2) { ("permit", true) } else { ("forbid", false) };
        let text = format!("@id(\"change\") {effect} (principal == Workload::\"{CALLER}\", action, resource);");
        let file = v1::PolicyFile { name: "change.cedar".to_owned(), text };
        let request = v1::PutPoliciesRequest { files: vec![file], ..Default::default() };
        let began = Instant::now();
        let reply = lab.operator(async |mut operator| operator.put_policies(request).await).unwrap();
        assert_eq!(reply.problems, []);
        while self.is_answered(lab) != answered {
            assert!(began.elapsed() < e2e::PATIENCE, "the policy never came into force");
        }
        began.elapsed().as_secs_f64() * 1e3
    }

    fn is_answered(&self, lab: &Lab) -> bool {
        lab.block_on(self.caller.peers.call(&self.record, COUNT, Bytes::new(), Duration::from_secs(5))).is_ok()
    }
}
