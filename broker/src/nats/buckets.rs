//! The two buckets of each lattice in which hosts keep links and configuration. Hosts would make them by themselves, but whoever may make a
//! stream may have it publish anything anywhere; so the broker makes them, before the first host comes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use portcullis_identity::Lattice;
use serde::Deserialize;

use super::callout::Callout;
use super::connect::connect;
use super::member::hosts_lattices;
use super::{PAUSE, subjects};

/// The name of the connection, while it is needed.
const CONNECTION: &str = "lattice";
/// For JetStream to answer.
const ANSWER: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    error: Option<Problem>,
}

#[derive(Deserialize)]
struct Problem {
    code: u16,
    #[serde(default)]
    description: String,
}

/// Makes the buckets of every lattice that has a host, until the broker stops.
pub(super) async fn keep(callout: Arc<Callout>) {
    let mut versions = callout.ground.registry.versions();
    let mut made: BTreeSet<Lattice> = BTreeSet::new();
    let mut client = None;
    loop {
        let lattices = callout.ground.registry.read(|registry| hosts_lattices(registry, &callout.settings));
        let mut failed = false;
        for lattice in lattices.difference(&made.clone()) {
            let Some(client) = connected(&mut client, &callout).await else {
                failed = true;
                break;
            };
            match ensure(client, lattice).await {
                Ok(()) => {
                    tracing::info!(%lattice, "the lattice's buckets are there");
                    made.insert(lattice.clone());
                }
                Err(problem) => {
                    tracing::warn!(%lattice, problem, "the lattice's buckets cannot be made");
                    failed = true;
                }
            }
        }
        // Hosts of new lattices are rare; and one that is kept may end for good, without anybody looking.
        client = None;
        if failed {
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        callout.ways.left(CONNECTION);
        if versions.changed().await.is_err() {
            return;
        }
    }
}

async fn connected<'c>(client: &'c mut Option<Client>, callout: &Callout) -> Option<&'c Client> {
    if client.is_none() {
        match connect(&callout.settings, CONNECTION, &callout.material.users.lattice).await {
            Ok(new) => {
                callout.ways.connected(CONNECTION, new.clone());
                *client = Some(new);
            }
            Err(error) => callout.ways.failed(CONNECTION, &error),
        }
    }
    client.as_ref()
}

async fn ensure(client: &Client, lattice: &Lattice) -> Result<(), String> {
    for bucket in subjects::buckets(lattice) {
        let answer = ask(client, format!("$JS.API.STREAM.INFO.KV_{bucket}"), String::new()).await?;
        match answer.error {
            None => continue,
            Some(Problem { code: 404, .. }) => {}
            Some(Problem { description, .. }) => return Err(description),
        }
        let answer = ask(client, format!("$JS.API.STREAM.CREATE.KV_{bucket}"), stream(&bucket).to_string()).await?;
        if let Some(Problem { description, .. }) = answer.error {
            return Err(description);
        }
    }
    Ok(())
}

async fn ask(client: &Client, subject: String, question: String) -> Result<Answer, String> {
    let answer = tokio::time::timeout(ANSWER, client.request(subject, question.into())).await;
    let answer = answer.map_err(|_| "JetStream does not answer".to_owned())?.map_err(|error| error.to_string())?;
    serde_json::from_slice(&answer.payload).map_err(|error| error.to_string())
}

/// A bucket as hosts would make it (ADR-8), with one value per key.
fn stream(bucket: &str) -> serde_json::Value {
    serde_json::json!({
        "name": format!("KV_{bucket}"),
        "subjects": [format!("$KV.{bucket}.>")],
        "retention": "limits", "storage": "file", "discard": "new", "num_replicas": 1,
        "max_consumers": -1, "max_msgs": -1, "max_bytes": -1, "max_age": 0, "max_msgs_per_subject": 1, "max_msg_size": -1,
        "duplicate_window": 120_000_000_000_u64,
        "allow_rollup_hdrs": true, "deny_delete": true, "deny_purge": false, "allow_direct": true,
    })
}
