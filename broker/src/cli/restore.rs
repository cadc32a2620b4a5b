//! `restore`: a store that was put back from a backup is made one that nodes believe.

use std::path::PathBuf;

use clap::Args;
use portcullis_broker::config::DEFAULT_DATA_FOLDER;
use portcullis_broker::restore::{Restored, restore};
use serde_json::json;

use super::failure::Failure;
use super::screen::Screen;

#[derive(Debug, Args)]
#[command(
    after_help = "Stop the broker, put the backup's `store.redb` into the data folder, run this, start the broker. Leave the folders `ca` and `audit` as they \
are where they survived: the audit log tells who joined since the backup, who was shut out and what was revoked, and that is done again. \
Whatever else operators changed since is listed, and lost. Join tokens that nobody redeemed are void.

Examples:
  portcullis-broker restore --trust-domain acme.test --data /var/lib/portcullis"
)]
pub(crate) struct Restore {
    /// The trust domain of the store
    #[arg(long, value_name = "NAME")]
    trust_domain: String,
    /// The broker's data folder
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DATA_FOLDER)]
    data: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Restore {
    pub(crate) fn execute(self, screen: &mut Screen) -> Result<(), Failure> {
        let trust_domain = portcullis_identity::parse_trust_domain(&self.trust_domain)
            .map_err(|error| Failure::misused(error.to_string()))?;
        let uid = Some(rustix::process::getuid().as_raw());
        let restored = restore(&self.data, &trust_domain, uid).map_err(|error| Failure::broken(error.to_string()))?;
        if self.json { screen.json(&json(&restored)) } else { show(&restored, screen) }
    }
}

fn json(restored: &Restored) -> serde_json::Value {
    let Restored { version, backup, log, readmitted, shut_out, revocations, lost } = restored;
    let names = |nodes: &[portcullis_identity::NodeName]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>();
    let lost = lost.iter().map(
        |lost| json!({ "version": lost.version.to_string(), "kind": lost.kind, "name": lost.name, "uid": lost.uid }),
    );
    json!({
        "version": version.to_string(),
        "backup": backup.to_string(),
        "log": log.map(|log| log.to_string()),
        "readmitted": names(readmitted),
        "shut_out": names(shut_out),
        "revocations": revocations,
        "lost": lost.collect::<Vec<_>>(),
    })
}

fn show(restored: &Restored, screen: &mut Screen) -> Result<(), Failure> {
    let Restored { version, backup, log, readmitted, shut_out, revocations, lost } = restored;
    let log = log.map_or_else(|| "is not there".to_owned(), |log| format!("goes to {log}"));
    screen.line(format!("restored: version {version} from now on; the backup has {backup}, the audit log {log}"))?;
    for node in readmitted {
        screen.line(format!("node {node} joined since: it is a node again"))?;
    }
    for node in shut_out {
        screen.line(format!("node {node} was shut out since: it is again"))?;
    }
    if *revocations > 0 {
        screen.line(format!("{revocations} revocations since are in force again"))?;
    }
    for lost in lost {
        screen.line(format!("lost: {} {} (version {})", lost.kind, lost.name, lost.version))?;
    }
    Ok(())
}
