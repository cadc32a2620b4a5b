use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{REFUSED, complain, refused, say};
use crate::check;
use crate::config::Mistake;

/// Checks the configuration, WIT, mapping and policies offline and prints every mistake.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 3: there are mistakes.\n\nExample:\n  portcullis-sidecar check --config billing.toml"
)]
pub(super) struct Check {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "sidecar.toml")]
    config: PathBuf,
}

#[derive(Serialize)]
struct Line<'a> {
    file: &'a str,
    line: Option<usize>,
    message: &'a str,
    hint: Option<&'a str>,
}

impl Check {
    pub(super) fn carry_out(self, json: bool) -> ExitCode {
        match check::check(&self.config) {
            Ok(checked) if json => say(&serde_json::json!({ "ok": checked }).to_string()),
            Ok(checked) => {
                checked.skipped.iter().for_each(|skipped| complain(&format!("not checked: {skipped}")));
                if checked.component.is_empty() {
                    return say("agent: no mistakes");
                }
                say(&format!(
                    "{}: {} interfaces, {} functions, {} policies: no mistakes",
                    checked.component, checked.interfaces, checked.functions, checked.policies
                ))
            }
            Err(mistakes) if json => {
                let lines: Vec<_> = mistakes.iter().map(line).collect();
                say(&serde_json::json!({ "mistakes": lines }).to_string());
                ExitCode::from(REFUSED)
            }
            Err(mistakes) => {
                mistakes.iter().for_each(|mistake| complain(&mistake.to_string()));
                refused(&format!("{} mistakes", mistakes.len()))
            }
        }
    }
}

fn line(mistake: &Mistake) -> Line<'_> {
    let Mistake { file, line, message, hint } = mistake;
    Line { file, line: *line, message, hint: hint.as_deref() }
}
