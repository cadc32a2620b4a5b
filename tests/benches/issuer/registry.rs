//! A full registry: as many entries as a broker takes, and a thousand policies.

use std::fmt::Write as _;
use std::time::Instant;

use e2e::{Lab, WIT};
use portcullis_api::v1;

use crate::nodes::NODES;
use crate::options::Options;
use crate::report::Report;

/// Entries in one request.
const BATCH: usize = 1000;
/// Entries of one node.
const OF_A_NODE: usize = 100;
/// Policies, ten for each of a hundred components.
const POLICIES: usize = 1000;
const OF_A_COMPONENT: usize = 10;

/// Registers what is missing; returns the entries of the nodes that will ask, by node.
pub fn fill(lab: &Lab, options: &Options, report: &mut Report) -> Vec<Vec<String>> {
    let (entries, policies) = if options.quick { (NODES * 10, 20) } else { (100_000, POLICIES) };
    put_policies(lab, policies);
    let present = lab.operator(async |mut operator| operator.status(v1::StatusRequest {}).await).unwrap().entries;
    let missing = entries - usize::try_from(present).unwrap();
    let of_a_node = OF_A_NODE.min(entries / NODES);
    let wanted: Vec<_> = (0..missing).map(|number| entry(number / of_a_node, number)).collect();
    let (began, mut ids) = (Instant::now(), Vec::with_capacity(missing));
    for batch in wanted.chunks(BATCH) {
        let request = v1::CreateEntriesRequest { entries: batch.to_vec() };
        let reply = lab.operator(async |mut operator| operator.create_entries(request).await).unwrap();
        ids.extend(reply.ids);
    }
    report.figure("entries registered", "entries", ids.len() as f64);
    report.figure("their registration, 1000 in a request", "s", began.elapsed().as_secs_f64());
    ids.chunks(of_a_node).take(NODES).map(<[String]>::to_vec).collect()
}

fn entry(node: usize, number: usize) -> v1::CreateEntryRequest {
    v1::CreateEntryRequest {
        node: format!("node-{node}"),
        spiffe_id: format!("spiffe://test.example/service/region-{}/workload-{number}", node % 7),
        selectors: vec![format!("unix:uid:{number}"), format!("unix:path:/usr/lib/service/bin/workload-{number}")],
        ..v1::CreateEntryRequest::default()
    }
}

/// Policies of other components, a file for each.
fn put_policies(lab: &Lab, count: usize) {
    let files = (0..count / OF_A_COMPONENT).map(|component| {
        register(lab, component);
        let mut text = String::new();
        for number in 0..OF_A_COMPONENT {
            writeln!(
                text,
                "@id(\"other-{component}-{number}\") permit (principal == Workload::\"spiffe://test.example/service/caller-{number}\", action, resource == VirtualComponent::\"demo/other-{component}\") when {{ context.transport == \"quic\" }};"
            )
            .unwrap();
        }
        v1::PolicyFile { name: format!("other-{component}.cedar"), text }
    });
    let request = v1::PutPoliciesRequest { files: files.collect(), ..Default::default() };
    let reply = lab.operator(async |mut operator| operator.put_policies(request).await).unwrap();
    assert_eq!(reply.problems, [], "the policies are wrong");
}

fn register(lab: &Lab, number: usize) {
    let request = v1::RegisterComponentRequest {
        target: Some(v1::Target { lattice: "demo".to_owned(), id: format!("other-{number}") }),
        wit: vec![v1::WitFile { path: "shop.wit".to_owned(), text: WIT.to_owned() }],
        upstream: v1::Upstream::Typed.into(),
        ..v1::RegisterComponentRequest::default()
    };
    lab.operator(async |mut operator| operator.register_component(request).await).unwrap();
}
