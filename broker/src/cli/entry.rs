//! `entry`: registration entries.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use portcullis_api::v1;
use portcullis_identity::{Lattice, NodeName, Target};
use ring::digest::{Context, SHA256};
use serde::Serialize;

use super::OperatorOptions;
use super::failure::Failure;
use super::operator::{Changed, connect, target_message, version_name};
use super::screen::{Screen, cell};

#[derive(Debug, Subcommand)]
pub(crate) enum Entry {
    /// Let a node have an identity for a component or another workload
    Create(Create),
    /// Take that back; what was issued lives on until it expires
    Remove(Remove),
    /// List the entries
    List(List),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  portcullis-broker entry create --node host-1 --component prod/checkout --digest-of checkout.wasm
  portcullis-broker entry create --node host-1 --component dev/checkout --danger-any-digest
  portcullis-broker entry create --node laptop --spiffe-id spiffe://acme.test/people/ada --lattice prod")]
#[command(group = clap::ArgGroup::new("holder").required(true).args(["component", "spiffe_id"]))]
#[command(group = clap::ArgGroup::new("which").args(["digest", "digest_of", "danger_any_digest"]))]
pub(crate) struct Create {
    /// The node whose child it is
    #[arg(long, value_name = "NAME")]
    node: NodeName,
    /// A wasm component: earns spiffe://TRUST-DOMAIN/component/LATTICE/ID
    #[arg(long, value_name = "LATTICE/ID", requires = "which")]
    component: Option<Target>,
    /// Any other workload, by its whole SPIFFE ID
    #[arg(long, value_name = "ID")]
    spiffe_id: Option<String>,
    /// With --spiffe-id: the lattice whose virtual components it sees and may call
    #[arg(long, value_name = "NAME", conflicts_with = "component")]
    lattice: Option<Lattice>,
    /// Only this file of the component: sha256:HEX
    #[arg(long, value_name = "DIGEST")]
    digest: Option<String>,
    /// Only this file of the component; its digest is taken now
    #[arg(long, value_name = "FILE")]
    digest_of: Option<PathBuf>,
    /// Whatever the host runs under that name: for development only
    #[arg(long)]
    danger_any_digest: bool,
    /// Lifetime of its X.509-SVIDs, for instance 30m [default: the broker's, 1h]
    #[arg(long, value_name = "DURATION")]
    ttl: Option<humantime::Duration>,
    #[command(flatten)]
    options: OperatorOptions,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  portcullis-broker entry remove e1-17")]
pub(crate) struct Remove {
    /// The entry's id, as `entry list` shows it
    id: String,
    #[command(flatten)]
    options: OperatorOptions,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    options: OperatorOptions,
}

/// An entry in JSON.
#[derive(Debug, Serialize)]
struct Row {
    id: String,
    node: String,
    spiffe_id: String,
    digest: Option<String>,
    danger_any_digest: bool,
    ttl_seconds: u32,
    lattice: Option<String>,
}

impl Entry {
    pub(crate) async fn execute(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        match self {
            Self::Create(command) => command.execute(socket, screen).await,
            Self::Remove(command) => command.execute(socket, screen).await,
            Self::List(command) => command.execute(socket, screen).await,
        }
    }
}

impl Create {
    async fn execute(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        let component_digest = match &self.digest_of {
            Some(path) => digest_of(path)?,
            None => self.digest.unwrap_or_default(),
        };
        let request = v1::CreateEntryRequest {
            node: self.node.to_string(),
            component: self.component.as_ref().map(target_message),
            spiffe_id: self.spiffe_id.unwrap_or_default(),
            component_digest,
            danger_any_digest: self.danger_any_digest,
            x509_ttl_seconds: ttl_seconds(self.ttl)?,
            lattice: self.lattice.map(|lattice| lattice.to_string()).unwrap_or_default(),
        };
        let reply = connect(&self.options, socket).await?.create_entry(request).await?.into_inner();
        let row = Row::from(reply.entry.unwrap_or_default());
        if self.options.json {
            return screen.json(&row);
        }
        screen.line(format!("entry {}: {} on node {}", row.id, row.spiffe_id, row.node))
    }
}

impl Remove {
    async fn execute(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        let request = v1::RemoveEntryRequest { id: self.id.clone() };
        let reply = connect(&self.options, socket).await?.remove_entry(request).await?.into_inner();
        if self.options.json {
            return screen.json(&Changed { version: version_name(reply.version) });
        }
        screen.line(format!("entry {} is removed", self.id))
    }
}

impl List {
    async fn execute(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        let reply = connect(&self.options, socket).await?.list_entries(v1::ListEntriesRequest {}).await?;
        let rows: Vec<_> = reply.into_inner().entries.into_iter().map(Row::from).collect();
        if self.options.json {
            return screen.json(&rows);
        }
        let lines: Vec<_> = rows
            .iter()
            .map(|row| {
                let digest = if row.danger_any_digest { "danger: any" } else { row.digest.as_deref().unwrap_or("-") };
                [
                    row.id.clone(),
                    row.node.clone(),
                    row.spiffe_id.clone(),
                    cell(row.lattice.as_deref().unwrap_or_default()),
                    humantime::format_duration(std::time::Duration::from_secs(row.ttl_seconds.into())).to_string(),
                    digest.to_owned(),
                ]
            })
            .collect();
        screen.table(["ENTRY", "NODE", "SPIFFE ID", "LATTICE", "TTL", "DIGEST"], &lines, "there is no entry")
    }
}

impl From<v1::Entry> for Row {
    fn from(entry: v1::Entry) -> Self {
        let v1::Entry { id, spiffe_id, node, component_digest, danger_any_digest, x509_ttl_seconds, lattice, .. } =
            entry;
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        Self {
            id,
            node,
            spiffe_id,
            digest: some(component_digest),
            danger_any_digest,
            ttl_seconds: x509_ttl_seconds,
            lattice: some(lattice),
        }
    }
}

/// Whole seconds; 0 leaves it to the broker.
pub(crate) fn ttl_seconds(ttl: Option<humantime::Duration>) -> Result<u32, Failure> {
    let Some(ttl) = ttl else { return Ok(0) };
    u32::try_from(ttl.as_secs())
        .ok()
        .filter(|seconds| *seconds > 0)
        .ok_or_else(|| Failure::misused(format!("a lifetime of {ttl} is too short or too long")))
}

fn digest_of(path: &Path) -> Result<String, Failure> {
    let unreadable = |error: std::io::Error| Failure::broken(format!("cannot read `{}`: {error}", path.display()));
    let mut file = File::open(path).map_err(unreadable)?;
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = file.read(&mut buffer).map_err(unreadable)?;
        match buffer.get(..read) {
            None | Some([]) => break,
            Some(bytes) => context.update(bytes),
        }
    }
    let hex: String = context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("sha256:{hex}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wasm");
        std::fs::write(&path, "abc").unwrap();
        let expected = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest_of(&path).unwrap(), expected);
    }
}
