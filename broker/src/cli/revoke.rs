//! `revoke`: SVIDs that are refused although they are not expired.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use portcullis_api::v1::{self, revocation, revoke_request::What};
use portcullis_broker::registry::EntryId;
use portcullis_identity::{NodeName, SerialNumber};
use serde::Serialize;

use super::OperatorOptions;
use super::failure::Failure;
use super::operator::{Changed, connect, version_name};
use super::screen::{Screen, time};

/// Refuse SVIDs from now on, on every node, although they are not expired; connections end within a second.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  portcullis-broker revoke svid 5d:0a:..:7f
  portcullis-broker revoke entry e1-4       its holder asks for a new one by itself; `entry remove` takes the right to
  portcullis-broker revoke node edge-7      it needs a new join token")]
pub(crate) enum Revoke {
    /// One X.509-SVID
    Svid(Svid),
    /// Everything that was issued so far for an entry's SPIFFE ID, X.509 and JWT; the entry stays
    Entry(OfEntry),
    /// A node: it is removed, and everything that was issued to it and for its entries so far is refused
    Node(OfNode),
    /// List what is revoked and not expired yet
    List(List),
}

#[derive(Debug, Args)]
pub(crate) struct Svid {
    /// Its serial number, in hexadecimal
    serial: SerialNumber,
    #[command(flatten)]
    options: OperatorOptions,
}

#[derive(Debug, Args)]
pub(crate) struct OfEntry {
    /// The entry's id
    id: EntryId,
    #[command(flatten)]
    options: OperatorOptions,
}

#[derive(Debug, Args)]
pub(crate) struct OfNode {
    /// The node's name
    name: NodeName,
    #[command(flatten)]
    options: OperatorOptions,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    options: OperatorOptions,
}

/// A revocation in JSON.
#[derive(Debug, Serialize)]
struct Row {
    serial: Option<String>,
    spiffe_id: Option<String>,
    issued_until: u64,
    until: u64,
}

impl Revoke {
    pub(crate) async fn execute(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        let (what, name, options) = match self {
            Self::Svid(Svid { serial, options }) => {
                (What::Serial(serial.as_bytes().to_vec()), format!("certificate {serial}"), options)
            }
            Self::Entry(OfEntry { id, options }) => {
                (What::Entry(id.to_string()), format!("everything issued so far for entry {id}"), options)
            }
            Self::Node(OfNode { name, options }) => (What::Node(name.to_string()), format!("node {name}"), options),
            Self::List(List { options }) => return list(&options, socket, screen).await,
        };
        let reply = connect(&options, socket).await?.revoke(v1::RevokeRequest { what: Some(what) }).await?;
        let version = version_name(reply.into_inner().version);
        if options.json {
            return screen.json(&Changed { version });
        }
        screen.line(format!("{name} is revoked (version {version})"))
    }
}

async fn list(options: &OperatorOptions, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
    let reply = connect(options, socket).await?.list_revocations(v1::ListRevocationsRequest {}).await?;
    let rows: Vec<_> = reply.into_inner().revocations.into_iter().map(Row::from).collect();
    if options.json {
        return screen.json(&rows);
    }
    let lines: Vec<_> = rows
        .iter()
        .map(|row| {
            let what = row.serial.clone().or_else(|| row.spiffe_id.clone()).unwrap_or_default();
            [what, time(row.issued_until), time(row.until)]
        })
        .collect();
    screen.table(["REVOKED", "ISSUED UNTIL", "FORGOTTEN AFTER"], &lines, "nothing is revoked")
}

impl From<v1::Revocation> for Row {
    fn from(message: v1::Revocation) -> Self {
        let v1::Revocation { what, issued_until, until } = message;
        let (serial, spiffe_id) = match what {
            Some(revocation::What::Serial(serial)) => {
                (Some(serial.iter().map(|byte| format!("{byte:02x}")).collect()), None)
            }
            Some(revocation::What::SpiffeId(id)) => (None, Some(id)),
            None => (None, None),
        };
        Self { serial, spiffe_id, issued_until, until }
    }
}
