//! `nodes`: who joined and who is connected.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use portcullis_api::v1;
use portcullis_identity::NodeName;
use serde::Serialize;

use super::OperatorOptions;
use super::failure::Failure;
use super::operator::{Changed, connect, version_name};
use super::screen::{Screen, cell, time};

/// List the nodes that joined and who of them is connected; remove one.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  portcullis-broker nodes
  portcullis-broker nodes remove billing-sidecar"
)]
pub(crate) struct Nodes {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: OperatorOptions,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// End a node's connections and refuse it until it joins with a new token; its entries stay. A node that joined by certificate stays
    /// barred by its name: remove it once more to let it join again
    Remove(Remove),
}

#[derive(Debug, Args)]
struct Remove {
    /// The node's name
    name: NodeName,
    #[command(flatten)]
    options: OperatorOptions,
}

/// A node's stream, or its absence, in JSON.
#[derive(Debug, Serialize)]
struct Row {
    node: String,
    spiffe_id: String,
    connected: bool,
    kind: String,
    peer_address: String,
    software: String,
    applied: String,
    connected_at: u64,
    certificate_not_after: u64,
    standing: String,
}

impl Nodes {
    pub(crate) async fn execute(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        match self.command {
            Some(Command::Remove(command)) => command.execute(socket, screen).await,
            None => list(&self.options, socket, screen).await,
        }
    }
}

async fn list(options: &OperatorOptions, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
    let reply = connect(options, socket).await?.list_nodes(v1::ListNodesRequest {}).await?;
    let rows: Vec<_> = reply.into_inner().nodes.into_iter().map(Row::from).collect();
    if options.json {
        return screen.json(&rows);
    }
    let lines: Vec<_> = rows
        .iter()
        .map(|row| {
            [
                row.node.clone(),
                if row.connected { "yes" } else { "no" }.to_owned(),
                cell(&row.kind),
                cell(&row.peer_address),
                cell(&row.applied),
                time(row.connected_at),
                time(row.certificate_not_after),
                row.standing.clone(),
            ]
        })
        .collect();
    let heading = ["NODE", "CONNECTED", "KIND", "ADDRESS", "APPLIED", "SINCE", "CERTIFICATE UNTIL", "STANDING"];
    screen.table(heading, &lines, "no node has joined")
}

impl Remove {
    async fn execute(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        let request = v1::RemoveNodeRequest { name: self.name.to_string() };
        let reply = connect(&self.options, socket).await?.remove_node(request).await?.into_inner();
        if self.options.json {
            return screen.json(&Changed { version: version_name(reply.version) });
        }
        screen.line(format!("node {} is removed", self.name))
    }
}

impl From<v1::NodeStatus> for Row {
    fn from(status: v1::NodeStatus) -> Self {
        let v1::NodeStatus {
            name,
            spiffe_id,
            connected,
            peer_address,
            software,
            kind,
            applied,
            connected_at,
            certificate_not_after,
            standing,
        } = status;
        let applied = version_name(applied);
        Self {
            node: name,
            spiffe_id,
            connected,
            kind,
            peer_address,
            software,
            applied,
            connected_at,
            certificate_not_after,
            standing,
        }
    }
}
