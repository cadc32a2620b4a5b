//! SVIDs, as fast as the broker makes them, for a slice of time; and what the kernel charged the broker for them.

use std::time::{Duration, Instant};

use e2e::{Lab, cpu_seconds};
use portcullis_api::v1::{self, watch_request};

use crate::nodes::{self, AskingNode, Nodes, Stream};
use crate::options::Options;
use crate::outcome::percentile;
use crate::raw;
use crate::report::{Report, Row};

/// Requests of one node that are under way.
const UNDER_WAY: usize = 16;
/// JWT-SVIDs in one request.
const BATCH: usize = 32;

/// A way to get SVIDs, as the table names it.
#[derive(Clone, Copy)]
pub struct Way {
    pub letter: char,
    pub name: &'static str,
    kind: Kind,
    by: By,
}

#[derive(Clone, Copy)]
enum Kind {
    X509,
    Jwt { batch: usize },
}

#[derive(Clone, Copy)]
enum By {
    Stream,
    Call,
}

const WAYS: [Way; 4] = [
    Way { letter: 's', name: "X.509 over the stream", kind: Kind::X509, by: By::Stream },
    Way { letter: 'u', name: "X.509 by single calls", kind: Kind::X509, by: By::Call },
    Way { letter: 'j', name: "JWT by single calls", kind: Kind::Jwt { batch: 1 }, by: By::Call },
    Way { letter: 'b', name: "JWT over the stream, 32 in a request", kind: Kind::Jwt { batch: BATCH }, by: By::Stream },
];

/// What one slice measured, by SVID.
#[derive(Clone, Copy)]
pub struct Slice {
    pub cpu_us: f64,
    pub per_s: f64,
}

pub fn measure(lab: &mut Lab, nodes: &Nodes, options: &Options, report: &mut Report) {
    let ways: Vec<_> = WAYS.into_iter().filter(|way| options.wants(way.letter)).collect();
    let (rounds, length) = (options.rounds().div_ceil(5), options.slice() * 8);
    let raw = raw::Raw::new();
    let mut slices: Vec<Vec<Slice>> = vec![Vec::new(); ways.len()];
    let (mut leafs, mut tokens) = (Vec::new(), Vec::new());
    // One round more: the first warms up.
    for round in 0..=rounds {
        let raws = (raw.leaf(options.slice() * 2), raw.token(options.slice() * 2));
        let driven: Vec<_> = ways.iter().map(|way| slice(lab, nodes, *way, length)).collect();
        if round > 0 {
            leafs.push(raws.0);
            tokens.push(raws.1);
            slices.iter_mut().zip(driven).for_each(|(slices, slice)| slices.push(slice));
        }
    }
    let (leaf, token) = (percentile(&mut leafs, 0.5), percentile(&mut tokens, 0.5));
    report.raw("r CSR parsed, verified, leaf signed", leaf);
    report.raw("r ES256 signature", token);
    for (way, slices) in ways.iter().zip(slices) {
        let median = |of: fn(&Slice) -> f64| percentile(&mut slices.iter().map(of).collect::<Vec<_>>(), 0.5);
        let cpu_us = median(|slice| slice.cpu_us);
        let raw = if matches!(way.kind, Kind::X509) { leaf } else { token };
        report.rows.push(Row {
            name: format!("{} {}", way.letter, way.name),
            cpu_us,
            per_s: Some(median(|slice| slice.per_s)),
            of_raw: Some(raw / cpu_us),
        });
    }
}

fn slice(lab: &mut Lab, nodes: &Nodes, way: Way, length: Duration) -> Slice {
    let broker = lab.broker().pid();
    let streams: Vec<_> = nodes.0.iter().map(|node| lab.block_on(Stream::open(node))).collect();
    let (began, before) = (Instant::now(), cpu_seconds(broker));
    let asking: Vec<_> = nodes
        .0
        .iter()
        .cloned()
        .zip(streams)
        .map(|(node, stream)| match way.by {
            By::Stream => lab.spawn(over_stream(node, stream, way.kind, began + length)),
            By::Call => lab.spawn(by_calls(node, stream, way.kind, began + length)),
        })
        .collect();
    let count: usize = asking.into_iter().map(|asking| lab.block_on(asking).expect("nothing is refused")).sum();
    let (cpu, seconds) = ((cpu_seconds(broker) - before) * 1e6, began.elapsed().as_secs_f64());
    Slice { cpu_us: cpu / count as f64, per_s: count as f64 / seconds }
}

async fn over_stream(node: AskingNode, mut stream: Stream, kind: Kind, until: Instant) -> usize {
    let wanted = node.wanted;
    let message = |number: usize| match kind {
        Kind::X509 => watch_request::Message::Sign(sign(&wanted, number)),
        Kind::Jwt { batch } => watch_request::Message::SignJwts(sign_jwts(&wanted, number, batch)),
    };
    let (mut asked, mut answered, mut count) = (0, 0, 0);
    while asked < UNDER_WAY {
        stream.say(message(asked)).await;
        asked += 1;
    }
    while answered < asked {
        count += stream.answer().await;
        answered += 1;
        if Instant::now() < until {
            stream.say(message(asked)).await;
            asked += 1;
        }
    }
    count
}

/// The stream is open meanwhile, as it is in the field.
async fn by_calls(node: AskingNode, _stream: Stream, kind: Kind, until: Instant) -> usize {
    let asking = (0..UNDER_WAY).map(|lane| {
        let mut node = node.clone();
        tokio::spawn(async move {
            let (mut number, mut count) = (lane, 0);
            while Instant::now() < until {
                count += call(&mut node, kind, number).await;
                number += UNDER_WAY;
            }
            count
        })
    });
    let mut count = 0;
    for asking in asking.collect::<Vec<_>>() {
        count += asking.await.expect("nothing is refused");
    }
    count
}

async fn call(node: &mut AskingNode, kind: Kind, number: usize) -> usize {
    match kind {
        Kind::X509 => {
            let request = sign(&node.wanted, number);
            let signed = node.client.sign_x509(request).await.expect("it is signed").into_inner();
            assert!(!signed.chain.is_empty());
            1
        }
        Kind::Jwt { batch } => {
            let request = sign_jwts(&node.wanted, number, batch);
            let signed = node.client.sign_jwts(request).await.expect("they are signed").into_inner();
            signed.results.iter().map(nodes::token).sum()
        }
    }
}

fn sign(wanted: &[(String, Vec<u8>)], number: usize) -> v1::Sign {
    let (entry, csr) = &wanted[number % wanted.len()];
    v1::Sign { request: number as u64, entry: entry.clone(), csr: csr.clone(), component_digest: String::new() }
}

fn sign_jwts(all: &[(String, Vec<u8>)], number: usize, batch: usize) -> v1::SignJwts {
    let wanted = (number * batch..(number + 1) * batch).map(|number| {
        let (entry, _) = &all[number % all.len()];
        v1::WantedJwt {
            entry: entry.clone(),
            audience: vec!["spiffe://test.example/audience".to_owned()],
            ..Default::default()
        }
    });
    v1::SignJwts { request: number as u64, wanted: wanted.collect() }
}
