//! `component`: virtual components.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use portcullis_api::{WitFolderError, read_wit_folder, v1};
use portcullis_identity::{NodeName, Target};
use serde::Serialize;

use super::OperatorOptions;
use super::failure::Failure;
use super::operator::{Changed, connect, target_message, target_name, version_name};
use super::screen::{Screen, cell};

#[derive(Debug, Subcommand)]
pub(crate) enum Component {
    /// Register a virtual component, or alter one with --replace
    Register(Register),
    /// Remove a virtual component, with its grants and its entries
    Remove(Remove),
    /// List the virtual components
    List(List),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  portcullis-broker component register prod/billing --wit wit/ --node billing-sidecar
  portcullis-broker component register prod/cache --wit wit/ --interface acme:cache/store@1.0.0 --upstream splice
  portcullis-broker component register prod/rates --wit wit/ --spiffe-id spiffe://bank.example/virtual/prod/rates --address rates.bank.example:7443")]
pub(crate) struct Register {
    /// LATTICE/ID
    target: Target,
    /// The WIT folder: *.wit, dependencies in deps/
    #[arg(long, value_name = "DIR")]
    wit: PathBuf,
    /// An interface it serves, for instance acme:billing/invoices@1.0.0; may be repeated [default: every exported one]
    #[arg(long = "interface", value_name = "NAME")]
    interfaces: Vec<String>,
    /// The SPIFFE ID of who serves it [default: spiffe://TRUST-DOMAIN/virtual/LATTICE/ID]
    #[arg(long, value_name = "ID")]
    spiffe_id: Option<String>,
    /// HOST:PORT where its sidecar is reached, if it is of another trust domain; may be repeated. Callers' entries federate with that domain
    #[arg(long = "address", value_name = "HOST:PORT", requires = "spiffe_id", conflicts_with = "node")]
    addresses: Vec<String>,
    /// Whether its sidecar decodes values (typed) or passes bytes (splice)
    #[arg(long, value_enum, default_value = "typed")]
    upstream: Upstream,
    /// The node that serves it: makes an entry for it
    #[arg(long, value_name = "NAME")]
    node: Option<NodeName>,
    /// Lifetime of its X.509-SVIDs, for instance 30m [default: the broker's, 1h]
    #[arg(long, value_name = "DURATION", requires = "node")]
    ttl: Option<humantime::Duration>,
    /// Alter a component that is registered differently
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    options: OperatorOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Upstream {
    Typed,
    Splice,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  portcullis-broker component remove prod/billing")]
pub(crate) struct Remove {
    /// LATTICE/ID
    target: Target,
    #[command(flatten)]
    options: OperatorOptions,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    options: OperatorOptions,
}

/// A component in JSON.
#[derive(Debug, Serialize)]
struct Row {
    component: String,
    spiffe_id: String,
    upstream: &'static str,
    interfaces: Vec<String>,
    addresses: Vec<String>,
    grants: Vec<String>,
}

/// The answer to a registration, in JSON.
#[derive(Debug, Serialize)]
struct Registered {
    component: String,
    spiffe_id: String,
    interfaces: Vec<String>,
    entry: Option<String>,
    version: String,
}

impl Component {
    pub(crate) async fn execute(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        match self {
            Self::Register(command) => command.execute(socket, screen).await,
            Self::Remove(command) => command.execute(socket, screen).await,
            Self::List(command) => command.execute(socket, screen).await,
        }
    }
}

impl Register {
    async fn execute(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        let upstream = match self.upstream {
            Upstream::Typed => v1::Upstream::Typed,
            Upstream::Splice => v1::Upstream::Splice,
        };
        let request = v1::RegisterComponentRequest {
            target: Some(target_message(&self.target)),
            wit: read_wit_folder(&self.wit).map_err(|error| unreadable(&error))?,
            interfaces: self.interfaces,
            spiffe_id: self.spiffe_id.unwrap_or_default(),
            upstream: upstream.into(),
            node: self.node.map(|node| node.to_string()).unwrap_or_default(),
            x509_ttl_seconds: super::entry::ttl_seconds(self.ttl)?,
            replace: self.replace,
            addresses: self.addresses,
        };
        let reply = connect(&self.options, socket).await?.register_component(request).await?.into_inner();
        let record = reply.record.unwrap_or_default();
        let registered = Registered {
            component: target_name(record.target.as_ref()),
            spiffe_id: record.spiffe_id,
            interfaces: record.interfaces,
            entry: Some(reply.entry).filter(|entry| !entry.is_empty()),
            version: version_name(reply.version),
        };
        if self.options.json {
            return screen.json(&registered);
        }
        screen.line(format!("{} is registered as {}", registered.component, registered.spiffe_id))?;
        for interface in &registered.interfaces {
            screen.line(format!("  serves {interface}"))?;
        }
        registered.entry.map_or(Ok(()), |entry| screen.line(format!("  entry {entry}")))
    }
}

impl Remove {
    async fn execute(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        let request = v1::RemoveComponentRequest { target: Some(target_message(&self.target)) };
        let reply = connect(&self.options, socket).await?.remove_component(request).await?.into_inner();
        if self.options.json {
            return screen.json(&Changed { version: version_name(reply.version) });
        }
        screen.line(format!("{} is removed", self.target))
    }
}

impl List {
    async fn execute(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        let reply = connect(&self.options, socket).await?.list_components(v1::ListComponentsRequest {}).await?;
        let rows: Vec<_> = reply.into_inner().components.into_iter().map(Row::from).collect();
        if self.options.json {
            return screen.json(&rows);
        }
        let lines: Vec<_> = rows
            .iter()
            .map(|row| {
                [
                    row.component.clone(),
                    row.spiffe_id.clone(),
                    row.upstream.to_owned(),
                    row.interfaces.join(", "),
                    cell(&row.addresses.join(", ")),
                    row.grants.len().to_string(),
                ]
            })
            .collect();
        let heading = ["COMPONENT", "SPIFFE ID", "UPSTREAM", "INTERFACES", "ADDRESSES", "GRANTS"];
        screen.table(heading, &lines, "no virtual component is registered")
    }
}

impl From<v1::RegisteredComponent> for Row {
    fn from(component: v1::RegisteredComponent) -> Self {
        let upstream = match component.upstream() {
            v1::Upstream::Typed => "typed",
            v1::Upstream::Splice => "splice",
            v1::Upstream::Unspecified => "unknown",
        };
        let v1::RegisteredComponent { record, upstream: _, grants } = component;
        let v1::PeerRecord { target, spiffe_id, interfaces, addresses } = record.unwrap_or_default();
        Self { component: target_name(target.as_ref()), spiffe_id, upstream, interfaces, addresses, grants }
    }
}

fn unreadable(error: &WitFolderError) -> Failure {
    match error {
        WitFolderError::Unreadable { .. } => Failure::broken(error.to_string()),
        WitFolderError::Empty(_) | WitFolderError::TooMany(_) | WitFolderError::TooLarge { .. } => {
            Failure::misused(error.to_string())
        }
    }
}
