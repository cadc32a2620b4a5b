use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use portcullis_admin::AdminAddress;

use super::{ask, broken, say};
use crate::agent::AgentStatus;
use crate::clock;
use crate::config::Program;
use crate::links::Linked;
use crate::status::Status;

/// Shows how a running sidecar is.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  portcullis-sidecar status --config billing.toml")]
pub(super) struct StatusCommand {
    /// The configuration file of the running sidecar.
    #[arg(long, value_name = "FILE", default_value = "sidecar.toml")]
    config: PathBuf,
    /// Its admin address, `unix:PATH` or `127.0.0.1:PORT`, instead of the configuration's.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
}

impl StatusCommand {
    pub(super) async fn carry_out(self, json: bool) -> ExitCode {
        let address = match self.address() {
            Ok(address) => address,
            Err(error) => return broken(&error),
        };
        let body = match ask::get(&address, "/status").await {
            Ok(body) => body,
            Err(error) => return broken(&format!("{error:#}")),
        };
        if json {
            return say(&String::from_utf8_lossy(&body));
        }
        // What an agent says lacks the component.
        match serde_json::from_slice::<Status>(&body) {
            Ok(status) => say(&table(&status)),
            Err(error) => match serde_json::from_slice::<AgentStatus>(&body) {
                Ok(agent) => say(&agent_table(&agent)),
                Err(_) => broken(&error),
            },
        }
    }

    fn address(&self) -> Result<AdminAddress, String> {
        let Some(admin) = &self.admin else {
            let program = Program::load(&self.config);
            return program
                .map(|program| program.admin().clone())
                .map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
        };
        AdminAddress::parse(admin, Path::new("")).map_err(|error| error.to_string())
    }
}

/// How long until a moment in seconds since 1970.
fn left(not_after: u64) -> String {
    let end: SystemTime = UNIX_EPOCH + Duration::from_secs(not_after);
    let left = end.duration_since(clock::now()).map(|left| Duration::from_secs(left.as_secs()));
    left.map_or_else(|_| "expired".to_owned(), |left| format!("{} left", humantime::format_duration(left)))
}

fn agent_table(status: &AgentStatus) -> String {
    let broker = match &status.broker_error {
        None => format!("{} (connected)", status.broker),
        Some(why) => format!("{} (away: {why})", status.broker),
    };
    let mut rows = vec![
        ("node", format!("{} ({})", status.node_id, left(status.node_not_after))),
        ("broker", broker),
        ("entries", format!("version {}, confirmed {} s ago", status.version, status.state_age_seconds)),
    ];
    rows.extend(status.local.rows(left));
    lines(&rows)
}

fn lines(rows: &[(&str, String)]) -> String {
    rows.iter().map(|(name, value)| format!("{name:<10} {value}")).collect::<Vec<_>>().join("\n")
}

fn listening(status: &Status) -> String {
    let quic = format!("{} (quic)", status.quic);
    match &status.nats {
        None => quic,
        Some(nats) if nats.connected => format!("{quic}, lattice `{}` (nats)", lattice_of(&status.component)),
        Some(nats) => {
            let why = nats.error.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            format!("{quic}, lattice `{}` (nats: not connected{why})", lattice_of(&status.component))
        }
    }
}

fn lattice_of(component: &str) -> &str {
    component.split_once('/').map_or(component, |(lattice, _)| lattice)
}

fn table(status: &Status) -> String {
    let ready = match (&status.not_ready, status.draining) {
        (_, true) => "no: draining".to_owned(),
        (Some(why), false) => format!("no: {why}"),
        (None, false) => "yes".to_owned(),
    };
    let broker = match &status.broker_error {
        None => format!("{} (connected)", status.broker),
        Some(why) => format!("{} (away: {why})", status.broker),
    };
    let audit = status.audit.as_ref().map(|head| match &head.contradiction {
        None => format!("{} records", head.records),
        Some(why) => format!("ALTERED: {why}"),
    });
    let refused = status.refused.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>();
    let mut rows = vec![
        ("component", status.component.clone()),
        ("ready", ready),
        ("identity", format!("{} ({})", status.spiffe_id, left(status.svid_not_after))),
        ("node", format!("{} ({})", status.node_id, left(status.node_not_after))),
        ("broker", broker),
        ("policies", format!("version {}, confirmed {} s ago", status.version, status.state_age_seconds)),
        ("listening", listening(status)),
        ("callers", format!("{} connections, {} calls under way", status.connections, status.calls_underway)),
        ("refused", if refused.is_empty() { "none".to_owned() } else { refused.join(", ") }),
        ("audit log", audit.unwrap_or_else(|| "not heard of yet".to_owned())),
        ("cache", if status.unsealed { "unsealed: its keys lie unencrypted (mode 0600)" } else { "sealed" }.to_owned()),
    ];
    if let Some(nats) = status.nats.as_ref().filter(|nats| !nats.links.is_empty()) {
        let linked: Vec<_> = nats.links.iter().map(linked).collect();
        rows.push(("linked", linked.join("\n           ")));
    }
    if let Some(local) = &status.local {
        rows.extend(local.rows(left));
    }
    lines(&rows)
}

/// `cart (default): test:shop/items, with currency=EUR`
fn linked(link: &Linked) -> String {
    let known = link.config.iter().map(|(key, value)| format!("{key}={value}"));
    let config: Vec<_> = if link.config.is_empty() { link.config_names.clone() } else { known.collect() };
    let config = if config.is_empty() { String::new() } else { format!(", with {}", config.join(" ")) };
    format!("{} ({}): {}{config}", link.source, link.name, link.interfaces.join(", "))
}
