//! What servers are asked and told over the system account.

use std::time::Duration;

use async_nats::Client;
use serde::Deserialize;
use tokio_stream::StreamExt as _;

use super::super::callout::Callout;
use super::super::sessions::Place;

/// Connections in one answer of a server.
const PAGE: u64 = 1024;
/// How long a server takes to list its connections, at most.
const LISTING: Duration = Duration::from_secs(2);

#[derive(Deserialize)]
pub(super) struct ServerWire {
    pub(super) id: String,
}

/// `CONNZ`
#[derive(Deserialize)]
struct Listing {
    server: ServerWire,
    data: ListingData,
}

#[derive(Deserialize)]
struct ListingData {
    #[serde(default)]
    total: u64,
    #[serde(default)]
    connections: Vec<ConnectionWire>,
}

#[derive(Deserialize)]
pub(super) struct ConnectionWire {
    pub(super) cid: u64,
    #[serde(default)]
    pub(super) ip: String,
    #[serde(default)]
    pub(super) authorized_user: String,
    #[serde(default)]
    pub(super) start: String,
}

impl Callout {
    pub(super) async fn servers(&self, client: &Client) -> Vec<String> {
        let inbox = client.new_inbox();
        let Ok(mut answers) = client.subscribe(inbox.clone()).await else { return Vec::new() };
        let ask = serde_json::json!({"auth": true, "acc": self.material.lattice.as_str(), "limit": 1}).to_string();
        if client.publish_with_reply("$SYS.REQ.SERVER.PING.CONNZ", inbox, ask.into()).await.is_err() {
            return Vec::new();
        }
        let mut servers = Vec::new();
        let gather = async {
            while let Some(message) = answers.next().await {
                if let Ok(listing) = serde_json::from_slice::<Listing>(&message.payload) {
                    servers.push(listing.server.id);
                }
            }
        };
        // Nobody says how many there are.
        let _ = tokio::time::timeout(Duration::from_millis(500), gather).await;
        servers
    }

    pub(super) async fn connections(&self, client: &Client, server: &str) -> Option<Vec<ConnectionWire>> {
        let mut all = Vec::new();
        loop {
            let ask = serde_json::json!({"auth": true, "acc": self.material.lattice.as_str(), "limit": PAGE, "offset": all.len()});
            let asked = client.request(format!("$SYS.REQ.SERVER.{server}.CONNZ"), ask.to_string().into());
            let answer = tokio::time::timeout(LISTING, asked).await.ok()?.ok()?;
            let Listing { server: _, data } = serde_json::from_slice(&answer.payload).ok()?;
            let last = data.connections.is_empty();
            all.extend(data.connections);
            if last || u64::try_from(all.len()).unwrap_or(u64::MAX) >= data.total {
                return Some(all);
            }
        }
    }
}

pub(super) async fn order(client: &Client, Place { server, number }: &Place, what: &str) {
    let subject = format!("$SYS.REQ.SERVER.{server}.{what}");
    let order = serde_json::json!({"cid": number}).to_string();
    // A server drops an order that nobody waits for; what it says to it is in the events that follow.
    if let Err(error) = client.publish_with_reply(subject, client.new_inbox(), order.into()).await {
        tracing::error!(%error, server, number, what, "an order to a server of the lattice was not sent");
    }
}

/// Orders are written at once, many together.
pub(super) async fn flush(client: &Client) {
    if let Err(error) = client.flush().await {
        tracing::error!(%error, "orders to the servers of the lattice were not sent");
    }
}
