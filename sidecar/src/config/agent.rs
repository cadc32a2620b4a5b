//! What a configuration file makes of the program: a sidecar beside one service, or an agent that gives identities to its machine.

use std::path::{Path, PathBuf};

use portcullis_admin::AdminAddress;
use toml::de::DeTable;

use super::reader::{Reader, Section};
use super::{Config, Mistake, NodeSection, admin, local, node, read};
use crate::files::FilesConfig;
use crate::workload::WorkloadConfig;

/// What is run.
#[derive(Clone, Debug)]
pub enum Program {
    /// Serves a virtual component, and local identities where they are configured.
    Sidecar(Box<Config>),
    /// Local identities alone.
    Agent(Box<AgentConfig>),
}

/// The configuration of an agent: no component, no listener, no upstream.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Who it is to the broker.
    pub node: NodeSection,
    /// The socket for workloads.
    pub workload: Option<WorkloadConfig>,
    /// The socket where wasmCloud hosts fetch identities for their components.
    pub delegated: Option<WorkloadConfig>,
    /// Files for services that cannot use the socket.
    pub files: Vec<FilesConfig>,
    /// Where operators look.
    pub admin: AdminAddress,
}

impl Program {
    /// Reads and parses a file.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn load(path: &Path) -> Result<Self, Vec<Mistake>> {
        Self::parse(&path.display().to_string(), &read(path)?)
    }

    /// Parses a document. It is an agent's where it has `[workload_api]` or `[[files]]` and nothing of a component.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn parse(file: &str, text: &str) -> Result<Self, Vec<Mistake>> {
        let (table, _) = DeTable::parse_recoverable(text);
        let has = |key: &&str| table.get_ref().contains_key(*key);
        if ["workload_api", "files"].iter().any(has) && !["component", "listen", "upstream"].iter().any(has) {
            AgentConfig::parse(file, text).map(|config| Self::Agent(Box::new(config)))
        } else {
            Config::parse(file, text).map(|config| Self::Sidecar(Box::new(config)))
        }
    }

    /// The program with the folder of systemd's credentials.
    #[must_use]
    pub fn with_credentials(mut self, credentials: Option<PathBuf>) -> Self {
        match &mut self {
            Self::Sidecar(config) => config.node.credentials = credentials,
            Self::Agent(config) => config.node.credentials = credentials,
        }
        self
    }

    /// Where operators look.
    #[must_use]
    pub fn admin(&self) -> &AdminAddress {
        match self {
            Self::Sidecar(config) => &config.admin,
            Self::Agent(config) => &config.admin,
        }
    }
}

impl AgentConfig {
    fn parse(file: &str, text: &str) -> Result<Self, Vec<Mistake>> {
        let mut reader = Reader::new(file, text);
        let table = reader.root();
        let base = Path::new(file).parent().unwrap_or_else(|| Path::new("")).to_owned();
        let mut root = Section::root(&table);
        let node = node(root.section("node", &mut reader), &base, &mut reader);
        let workload = local::workload(root.section("workload_api", &mut reader), &base, &mut reader);
        let delegated = local::workload(root.section("delegated_identity", &mut reader), &base, &mut reader);
        let files = local::files(root.sections("files", &mut reader), &base, &mut reader);
        let state = node.as_ref().map(|node| node.state.clone());
        let admin = admin(root.section("admin", &mut reader), &base, state.as_deref(), &mut reader);
        root.finish(&mut reader);
        let mistakes = reader.into_mistakes();
        match (node, admin) {
            (Some(node), Some(admin)) if mistakes.is_empty() => Ok(Self { node, workload, delegated, files, admin }),
            _ => Err(mistakes),
        }
    }
}
