use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use portcullis_api::read_wit_folder;
use portcullis_api::v1::WitFile;
use portcullis_client::CallError;
use portcullis_client::node::read_seal_key;
use portcullis_identity::{SealKeyPlace, SpiffeId, Target};
use portcullis_value::WitSource;

use super::{MISUSED, REFUSED, complain, refused, say};
use crate::config::{Config, NatsSection};
use crate::invoke::{Invocation, InvokeError, Way, invoke};

/// Calls a function of a component and prints its result as JSON.
#[derive(Debug, Args)]
#[command(
    after_help = "The call is made under an identity of the node whose state folder is named.\nExit codes: 1 there is no answer, 2 the command line or the configuration is wrong, 3 the callee's sidecar refused the call.\n\nExample:\n  portcullis-sidecar invoke --state /var/lib/portcullis/billing demo/billing 'acme:billing/invoices@1.0.0#get' '{\"id\":\"42\"}'\n  portcullis-sidecar invoke --config billing.toml --over nats --wit wit/ demo/checkout total '[\"acme\"]'   (on a wasmCloud host)"
)]
pub(super) struct Invoke {
    /// The virtual component, or with --wit the component on a host: LATTICE/ID.
    target: Target,
    /// INTERFACE#FUNCTION, or the function alone where its name is unique.
    function: String,
    /// A JSON object by parameter names, or an array by position.
    #[arg(default_value = "{}")]
    arguments: String,
    /// Takes the state folder from this configuration.
    #[arg(long, value_name = "FILE", conflicts_with = "state")]
    config: Option<PathBuf>,
    /// The state folder of a sidecar or host on this machine.
    #[arg(long, value_name = "DIR", required_unless_present = "config")]
    state: Option<PathBuf>,
    /// The key that seals that folder's keys, where --state names it and they are sealed; credential:NAME for one that systemd passes.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    seal_key_file: Option<SealKeyPlace>,
    /// Which of the node's identities to call with.
    #[arg(long = "as", value_name = "SPIFFE-ID", value_parser = spiffe_id)]
    identity: Option<SpiffeId>,
    /// Straight to the component's sidecar, or over the lattice that the configuration names under [nats].
    #[arg(long, value_enum, default_value = "quic")]
    over: Over,
    /// The WIT of a component on a host, which the broker does not know.
    #[arg(long, value_name = "FOLDER")]
    wit: Option<PathBuf>,
    /// For the whole call, with everything that comes before it.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Over {
    Quic,
    Nats,
}

/// Over what the call goes, or what is missing for it.
fn way(over: Over, nats: Option<&NatsSection>, wit: Option<&Path>) -> Result<Way, Failure> {
    let misused = |why: &str| Err(Failure::Misused(why.to_owned()));
    match (over, nats) {
        (Over::Quic, _) if wit.is_some() => misused("--wit is for components on hosts: add --over nats"),
        (Over::Quic, _) => Ok(Way::Quic),
        (Over::Nats, None) => misused("--over nats takes the lattice from [nats] of a --config"),
        (Over::Nats, Some(nats)) => {
            let settings = nats.settings().map_err(|error| Failure::broken(&error))?;
            let hosted = wit.map(|folder| read_wit_folder(folder).map(sources)).transpose();
            Ok(Way::Nats { settings, hosted: hosted.map_err(|error| Failure::broken(&error))? })
        }
    }
}

fn sources(files: Vec<WitFile>) -> Vec<WitSource> {
    files.into_iter().map(|WitFile { path, text }| WitSource { path, text }).collect()
}

fn spiffe_id(text: &str) -> Result<SpiffeId, String> {
    portcullis_identity::parse_spiffe_id(text).map_err(|error| error.to_string())
}

impl Invoke {
    pub(super) async fn carry_out(self, json: bool, credentials: Option<PathBuf>) -> ExitCode {
        match self.result(credentials).await {
            Ok(result) if json => say(&format!("{{\"result\":{result}}}")),
            Ok(result) => say(&result),
            Err(failure) => failure.tell(json),
        }
    }

    async fn result(self, credentials: Option<PathBuf>) -> Result<String, Failure> {
        let (state_dir, seal_key, nats) = match (self.state, self.config) {
            (Some(state), _) => (state, self.seal_key_file, None),
            (None, Some(config)) => {
                let config = Config::load(&config).map_err(|mistakes| {
                    Failure::Misused(mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
                })?;
                (config.node.state, config.node.seal_key, config.nats)
            }
            (None, None) => return Err(Failure::Misused("a state folder is needed".to_owned())),
        };
        let seal_key = seal_key.map(|place| read_seal_key(&place, credentials.as_deref())).transpose();
        let invocation = Invocation {
            way: way(self.over, nats.as_ref(), self.wit.as_deref())?,
            state_dir,
            seal_key: seal_key.map_err(|error| Failure::broken(&error))?,
            target: self.target,
            function: self.function,
            arguments: self.arguments,
            identity: self.identity,
            deadline: self.timeout,
        };
        invoke(invocation).await.map_err(Failure::Invoked)
    }
}

/// Why there is no result.
#[derive(Debug)]
enum Failure {
    /// The command line asks for something that cannot be, or names a configuration that cannot be used.
    Misused(String),
    /// A file cannot be read.
    Broken(String),
    /// The call failed or was refused.
    Invoked(InvokeError),
}

impl Failure {
    fn broken(error: &dyn std::fmt::Display) -> Self {
        Self::Broken(error.to_string())
    }

    fn tell(self, json: bool) -> ExitCode {
        match self {
            Self::Misused(why) => unanswered(&why, ExitCode::from(MISUSED), json),
            Self::Broken(why) => unanswered(&why, ExitCode::FAILURE, json),
            Self::Invoked(InvokeError::Call(CallError::Refused { peer, refusal, explanation })) if json => {
                let explanation = explanation.unwrap_or_default();
                let policies: Vec<_> = explanation.policies.iter().map(|policy| policy.id.as_str()).collect();
                let told = serde_json::json!({
                    "refused": { "by": peer, "refusal": refusal.name(), "reason": explanation.reason, "policies": policies }
                });
                say(&told.to_string());
                ExitCode::from(REFUSED)
            }
            Self::Invoked(error @ InvokeError::Call(CallError::Refused { .. })) => refused(&error),
            Self::Invoked(error) => unanswered(&error, ExitCode::FAILURE, json),
        }
    }
}

fn unanswered(why: &dyn std::fmt::Display, code: ExitCode, json: bool) -> ExitCode {
    if json {
        say(&serde_json::json!({ "error": why.to_string() }).to_string());
    } else {
        complain(&format!("error: {why}"));
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_go_over_nats_is_misuse() {
        assert!(matches!(way(Over::Nats, None, None), Err(Failure::Misused(_))));
        assert!(matches!(way(Over::Quic, None, Some(Path::new("wit"))), Err(Failure::Misused(_))));
        assert!(matches!(way(Over::Quic, None, None), Ok(Way::Quic)));
    }
}
