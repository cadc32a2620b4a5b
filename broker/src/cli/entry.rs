//! `entry`: registration entries.

mod row;

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use portcullis_api::v1;
use portcullis_identity::{Lattice, NodeName, Target};
use ring::digest::{Context, SHA256};

use self::row::Row;
use super::OperatorOptions;
use super::failure::Failure;
use super::operator::{Changed, connect, target_message, version_name};
use super::screen::{Screen, cell};

#[derive(Debug, Subcommand)]
pub(crate) enum Entry {
    /// Let a node have an identity for a component or another workload
    Create(Create),
    /// Alter what an entry says; what is not given stays
    Update(Update),
    /// Remove an entry, or a template with its entries; what was issued lives on until it expires
    #[command(visible_alias = "delete")]
    Remove(Remove),
    /// List the entries
    List(List),
    /// Show one entry whole
    Show(Show),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  portcullis-broker entry create --node host-1 --component prod/checkout --digest-of checkout.wasm
  portcullis-broker entry create --node host-1 --component dev/checkout --danger-any-digest
  portcullis-broker entry create --node laptop --spiffe-id spiffe://acme.test/people/ada --lattice prod
  portcullis-broker entry create --node db-1 --spiffe-id spiffe://acme.test/redis --selector unix:uid:999 --dns redis.acme.test
  portcullis-broker entry create --node db-1 --spiffe-id 'spiffe://acme.test/svc/{systemd:id}' --selector unix:gid:27")]
#[command(group = clap::ArgGroup::new("holder").required(true).args(["component", "spiffe_id"]))]
#[command(group = clap::ArgGroup::new("which").args(["digest", "digest_of", "danger_any_digest"]))]
pub(crate) struct Create {
    /// The node whose child it is
    #[arg(long, value_name = "NAME")]
    node: NodeName,
    /// A wasm component: earns spiffe://TRUST-DOMAIN/component/LATTICE/ID
    #[arg(long, value_name = "LATTICE/ID", requires = "which")]
    component: Option<Target>,
    /// Any other workload, by its whole SPIFFE ID; segments {unix:uid}, {unix:gid} and {systemd:id} are filled in with
    /// what is attested, and make an entry for each workload
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
    /// What must be attested of the workload, all of it; none: the node itself holds the identity
    #[arg(long = "selector", value_name = "KIND:VALUE")]
    selectors: Vec<String>,
    /// Lifetime of its X.509-SVIDs, for instance 30m [default: the broker's, 1h]
    #[arg(long, alias = "ttl", value_name = "DURATION")]
    x509_ttl: Option<humantime::Duration>,
    /// Lifetime of its JWT-SVIDs [default: 5m]
    #[arg(long, value_name = "DURATION")]
    jwt_ttl: Option<humantime::Duration>,
    /// Tells a workload with several identities which one this is
    #[arg(long, value_name = "TEXT", default_value = "")]
    hint: String,
    /// A DNS name in its X.509-SVIDs; may be given several times
    #[arg(long = "dns", value_name = "NAME")]
    dns_names: Vec<String>,
    /// A foreign trust domain whose bundle it sees; may be given several times
    #[arg(long, value_name = "TRUST-DOMAIN")]
    federates_with: Vec<String>,
    /// It may administer the trust domain, for services that ask
    #[arg(long)]
    admin: bool,
    #[command(flatten)]
    options: OperatorOptions,
}

#[derive(Debug, Args)]
#[command(after_help = "A list that is given replaces the old one; give it once, empty, to clear it.
Node, SPIFFE ID and digest never change: create another entry and remove this one.

Examples:
  portcullis-broker entry update e1-17 --x509-ttl 30m --hint primary
  portcullis-broker entry update e1-17 --selector unix:uid:999 --selector unix:path:/usr/bin/redis-server
  portcullis-broker entry update e1-17 --dns ''")]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub(crate) struct Update {
    /// The entry's id, as `entry list` shows it
    id: String,
    /// What must be attested of the workload, all of it
    #[arg(long = "selector", value_name = "KIND:VALUE", group = "what")]
    selectors: Option<Vec<String>>,
    /// Lifetime of its X.509-SVIDs
    #[arg(long, alias = "ttl", value_name = "DURATION", group = "what")]
    x509_ttl: Option<humantime::Duration>,
    /// Lifetime of its JWT-SVIDs
    #[arg(long, value_name = "DURATION", group = "what")]
    jwt_ttl: Option<humantime::Duration>,
    /// Tells a workload with several identities which one this is; empty: none
    #[arg(long, value_name = "TEXT", group = "what")]
    hint: Option<String>,
    /// A DNS name in its X.509-SVIDs; may be given several times
    #[arg(long = "dns", value_name = "NAME", group = "what")]
    dns_names: Option<Vec<String>>,
    /// A foreign trust domain whose bundle it sees; may be given several times
    #[arg(long, value_name = "TRUST-DOMAIN", group = "what")]
    federates_with: Option<Vec<String>>,
    /// Whether it may administer the trust domain
    #[arg(long, value_name = "BOOL", group = "what")]
    admin: Option<bool>,
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
    /// Only those of this node
    #[arg(long, value_name = "NAME")]
    node: Option<NodeName>,
    #[command(flatten)]
    options: OperatorOptions,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The entry's id, as `entry list` shows it
    id: String,
    #[command(flatten)]
    options: OperatorOptions,
}

impl Entry {
    pub(crate) async fn execute(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        match self {
            Self::Create(command) => command.execute(socket, screen).await,
            Self::Update(command) => command.execute(socket, screen).await,
            Self::Remove(command) => command.execute(socket, screen).await,
            Self::List(command) => command.execute(socket, screen).await,
            Self::Show(command) => command.execute(socket, screen).await,
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
            x509_ttl_seconds: ttl_seconds(self.x509_ttl)?,
            lattice: self.lattice.map(|lattice| lattice.to_string()).unwrap_or_default(),
            selectors: self.selectors,
            jwt_ttl_seconds: ttl_seconds(self.jwt_ttl)?,
            hint: self.hint,
            dns_names: self.dns_names,
            federates_with: self.federates_with,
            admin: self.admin,
        };
        let reply = connect(&self.options, socket).await?.create_entry(request).await?.into_inner();
        let row = Row::from(reply.entry.unwrap_or_default());
        if self.options.json {
            return screen.json(&row);
        }
        screen.line(format!("entry {}: {} on node {}", row.id, row.spiffe_id, row.node))
    }
}

impl Update {
    async fn execute(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        let seconds = |ttl: Option<humantime::Duration>| ttl.map(|ttl| ttl_seconds(Some(ttl))).transpose();
        let request = v1::UpdateEntryRequest {
            id: self.id,
            x509_ttl_seconds: seconds(self.x509_ttl)?,
            jwt_ttl_seconds: seconds(self.jwt_ttl)?,
            hint: self.hint,
            selectors: self.selectors.map(list),
            dns_names: self.dns_names.map(list),
            federates_with: self.federates_with.map(list),
            admin: self.admin,
        };
        let reply = connect(&self.options, socket).await?.update_entry(request).await?.into_inner();
        let row = Row::from(reply.entry.unwrap_or_default());
        if self.options.json {
            return screen.json(&row);
        }
        screen.line(format!("entry {} is updated", row.id))
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
        let node = self.node.map(|node| node.to_string()).unwrap_or_default();
        let request = v1::ListEntriesRequest { id: String::new(), node };
        let reply = connect(&self.options, socket).await?.list_entries(request).await?;
        let rows: Vec<_> = reply.into_inner().entries.into_iter().map(Row::from).collect();
        if self.options.json {
            return screen.json(&rows);
        }
        let lines: Vec<_> = rows
            .iter()
            .map(|row| {
                [
                    row.id.clone(),
                    row.node.clone(),
                    row.spiffe_id.clone(),
                    cell(row.lattice.as_deref().unwrap_or_default()),
                    row::duration(row.ttl_seconds),
                    row.file().to_owned(),
                    cell(&row.selectors.join(" ")),
                ]
            })
            .collect();
        let heading = ["ENTRY", "NODE", "SPIFFE ID", "LATTICE", "TTL", "DIGEST", "SELECTORS"];
        screen.table(heading, &lines, "there is no entry")
    }
}

impl Show {
    async fn execute(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        let request = v1::ListEntriesRequest { id: self.id, node: String::new() };
        let reply = connect(&self.options, socket).await?.list_entries(request).await?.into_inner();
        let row = Row::from(reply.entries.into_iter().next().unwrap_or_default());
        if self.options.json {
            return screen.json(&row);
        }
        row.lines().into_iter().try_for_each(|(name, value)| screen.line(format!("{name:<16}{value}")))
    }
}

/// A list as it was given; one empty value means none.
fn list(values: Vec<String>) -> v1::Texts {
    v1::Texts { values: values.into_iter().filter(|value| !value.is_empty()).collect() }
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
