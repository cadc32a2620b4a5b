//! `status`: the broker in numbers.

use std::path::PathBuf;

use clap::Args;
use portcullis_api::v1;
use serde::Serialize;

use super::OperatorOptions;
use super::failure::Failure;
use super::operator::{connect, version_name};
use super::screen::{Screen, time};

/// Show the broker's state in numbers.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  portcullis-broker status --json")]
pub(crate) struct Status {
    #[command(flatten)]
    options: OperatorOptions,
}

/// The state in JSON.
#[derive(Debug, Serialize)]
struct Shown {
    trust_domain: String,
    version: String,
    software: String,
    control_address: String,
    root_not_after: u64,
    signing_not_after: u64,
    components: u64,
    entries: u64,
    policies: u64,
    nodes_connected: u64,
    /// The CA keys lie on disk unencrypted.
    unsealed: bool,
}

impl Status {
    pub(crate) async fn execute(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        let reply = connect(&self.options, socket).await?.status(v1::StatusRequest {}).await?.into_inner();
        let shown = Shown::from(reply);
        if self.options.json {
            return screen.json(&shown);
        }
        let keys = if shown.unsealed { "unsealed (not encrypted on disk)" } else { "sealed" };
        let lines = [
            ("trust domain", shown.trust_domain),
            ("version", shown.version),
            ("software", shown.software),
            ("control address", shown.control_address),
            ("root until", time(shown.root_not_after)),
            ("signing until", time(shown.signing_not_after)),
            ("CA keys", keys.to_owned()),
            ("components", shown.components.to_string()),
            ("entries", shown.entries.to_string()),
            ("policies", shown.policies.to_string()),
            ("nodes connected", shown.nodes_connected.to_string()),
        ];
        lines.iter().try_for_each(|(name, value)| screen.line(format!("{name:<16} {value}")))
    }
}

impl From<v1::StatusReply> for Shown {
    fn from(reply: v1::StatusReply) -> Self {
        let v1::StatusReply {
            trust_domain,
            version,
            software,
            root_not_after,
            signing_not_after,
            components,
            entries,
            nodes_connected,
            policies,
            unsealed,
            control_address,
        } = reply;
        Self {
            trust_domain,
            version: version_name(version),
            software,
            control_address,
            root_not_after,
            signing_not_after,
            components,
            entries,
            policies,
            nodes_connected,
            unsealed,
        }
    }
}
