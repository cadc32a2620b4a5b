//! `seal-key`: the key that seals the CA keys on disk. Works without a broker.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use portcullis_broker::seal_key;
use serde::Serialize;

use super::failure::Failure;
use super::screen::Screen;

/// Make the key that seals the CA keys on disk.
#[derive(Debug, Subcommand)]
pub(crate) enum SealKey {
    /// Make a key in a new file, mode 0600. Without the key a sealed data folder is lost: keep a copy away from the backups of that folder
    New(New),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  portcullis-broker seal-key new --out /etc/portcullis/seal.key
  systemd-creds encrypt --name=portcullis-seal /etc/portcullis/seal.key /etc/credstore.encrypted/portcullis-seal")]
pub(crate) struct New {
    /// The file; one that exists is kept
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A new key in JSON; never the key itself.
#[derive(Debug, Serialize)]
struct Made {
    file: PathBuf,
    key_id: String,
}

impl SealKey {
    pub(crate) fn execute(self, screen: &mut Screen) -> Result<(), Failure> {
        let Self::New(New { out, json }) = self;
        let id = seal_key::make(&out).map_err(|error| Failure::broken(error.to_string()))?;
        if json {
            return screen.json(&Made { file: out, key_id: id.to_string() });
        }
        screen.line(format!("seal key {id} is in {}", out.display()))
    }
}
