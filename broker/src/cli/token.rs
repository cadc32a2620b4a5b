//! `token`: join tokens.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use portcullis_api::v1;
use portcullis_broker::atomic_file::{self, Existing};
use portcullis_identity::NodeName;
use serde::Serialize;

use super::OperatorOptions;
use super::failure::Failure;
use super::operator::connect;
use super::screen::{Screen, time};

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a join token for one node; it is shown once
    Create(Create),
}

#[derive(Debug, Args)]
#[command(
    after_help = "A token is a secret: write it to a file (--out, mode 0600) or pipe it, and give it to the node in a file.

Examples:
  portcullis-broker token create --node billing-sidecar --out billing.token
  portcullis-broker token create --node host-1 --ttl 1h --broker broker.acme.test:7440 | ssh host-1 'umask 077; cat > host.token'"
)]
pub(crate) struct Create {
    /// The node it is for
    #[arg(long, value_name = "NAME")]
    node: NodeName,
    /// How long it can be redeemed
    #[arg(long, value_name = "DURATION", default_value = "10m")]
    ttl: humantime::Duration,
    /// Under which address the node reaches the broker [default: what the broker advertises]
    #[arg(long, value_name = "HOST:PORT")]
    broker: Option<String>,
    /// Write the token to this file, mode 0600, and not to standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    options: OperatorOptions,
}

/// A token in JSON.
#[derive(Debug, Serialize)]
struct Made {
    node: String,
    expires_at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
}

impl Token {
    pub(crate) async fn execute(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        let Self::Create(command) = self;
        command.execute(socket, screen).await
    }
}

impl Create {
    async fn execute(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        let request = v1::CreateJoinTokenRequest {
            node: self.node.to_string(),
            ttl_seconds: super::entry::ttl_seconds(Some(self.ttl))?,
            broker_address: self.broker.unwrap_or_default(),
        };
        let reply = connect(&self.options, socket).await?.create_join_token(request).await?.into_inner();
        let v1::CreateJoinTokenReply { token, expires_at } = reply;
        let mut made = Made { node: self.node.to_string(), expires_at, token: Some(token), file: None };
        if let Some(path) = self.out {
            let text = made.token.take().map(|token| format!("{token}\n")).unwrap_or_default();
            atomic_file::write(&path, text.as_bytes(), 0o600, Existing::Replace)
                .map_err(|error| Failure::broken(format!("cannot write `{}`: {error}", path.display())))?;
            made.file = Some(path);
        }
        if self.options.json {
            return screen.json(&made);
        }
        match (made.token, made.file) {
            (Some(token), _) => screen.line(token),
            (None, Some(path)) => {
                let until = time(expires_at);
                screen.line(format!("token for node {} in {}, to be redeemed until {until}", self.node, path.display()))
            }
            (None, None) => Ok(()),
        }
    }
}
