use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{broken, refused, say};
use crate::scaffold::{Contract, Sample, Scaffold, scaffold};

/// Writes what a new virtual component needs.
#[derive(Debug, Args)]
pub(super) struct New {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    Http(Http),
}

/// WIT, mapping and a configuration for an HTTP service, from sample requests.
#[derive(Debug, Args)]
#[command(
    after_help = "A sample is a line: METHOD PATH[?QUERY] [JSON] -> STATUS [JSON]\n\nExample:\n  portcullis-sidecar new http --package acme:billing@1.0.0 --interface invoices --samples samples.txt billing/\n\nsamples.txt:\n  GET /api/v1/invoices/42?full=true -> 200 {\"id\":\"42\",\"total\":100}\n  POST /api/v1/invoices {\"customer\":\"acme\"} -> 201 {\"id\":\"43\",\"total\":0}\n\nWithout the options the command asks."
)]
struct Http {
    /// Folder to write into; made where it is missing, nothing in it is replaced.
    folder: PathBuf,
    /// WIT package, `namespace:name@version`.
    #[arg(long)]
    package: Option<String>,
    /// WIT interface.
    #[arg(long)]
    interface: Option<String>,
    /// File with samples, `-` for standard input.
    #[arg(long, value_name = "FILE")]
    samples: Option<PathBuf>,
    /// The service.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: String,
}

impl New {
    pub(super) fn carry_out(self, json: bool) -> ExitCode {
        let Kind::Http(http) = self.kind;
        let contract = match http.contract() {
            Ok(contract) => contract,
            Err(error) => return broken(&format!("{error:#}")),
        };
        let made = match scaffold(&contract) {
            Ok(made) => made,
            Err(error) => return refused(&error),
        };
        match http.write(&contract, &made) {
            Ok(files) if json => {
                let files: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
                say(&serde_json::json!({ "instance": made.instance, "functions": made.functions, "files": files })
                    .to_string())
            }
            Ok(files) => {
                let files = files.iter().map(|file| format!("  {}", file.display())).collect::<Vec<_>>().join("\n");
                let count = made.functions.len();
                say(&format!("{count} functions of {}; read and mend:\n{files}", made.instance))
            }
            Err(error) => broken(&format!("{error:#}")),
        }
    }
}

impl Http {
    fn contract(&self) -> anyhow::Result<Contract> {
        let package = match &self.package {
            Some(package) => package.clone(),
            None => asked("WIT package (acme:billing@1.0.0)")?,
        };
        let interface = match &self.interface {
            Some(interface) => interface.clone(),
            None => asked("WIT interface (invoices)")?,
        };
        let text = match &self.samples {
            Some(path) if path.as_os_str() != "-" => {
                std::fs::read_to_string(path).map_err(|error| anyhow::anyhow!("`{}`: {error}", path.display()))?
            }
            Some(_) => std::io::read_to_string(std::io::stdin().lock())?,
            None => lines()?,
        };
        Ok(Contract { package, interface, samples: Sample::parse_all(&text)? })
    }

    fn write(&self, contract: &Contract, made: &Scaffold) -> anyhow::Result<Vec<PathBuf>> {
        let wit = self.folder.join("wit");
        std::fs::create_dir_all(&wit)?;
        let id = contract.package.split([':', '@']).nth(1).unwrap_or("service");
        let config = format!(
            "# portcullis-sidecar check --config {0}\n\n[node]\nstate = \"state\"\njoin_token_file = \"join.token\"\n\n[component]\nlattice = \"default\"\nid = \"{id}\"\nwit = \"wit\"\n\n[listen]\nquic = \"127.0.0.1:7443\"\n\n[upstream.http]\nurl = \"{1}\"\nmapping = \"mapping.toml\"\ncaller_header = \"x-caller\"\n",
            self.folder.join("sidecar.toml").display(),
            self.url,
        );
        let files = [
            (wit.join(format!("{}.wit", contract.interface)), made.wit.as_str()),
            (self.folder.join("mapping.toml"), made.mapping.as_str()),
            (self.folder.join("sidecar.toml"), config.as_str()),
        ];
        if let Some((taken, _)) = files.iter().find(|(path, _)| path.exists()) {
            anyhow::bail!("`{}` is there already; nothing was written", taken.display());
        }
        files.into_iter().map(|(path, text)| fresh(&path, text).map(|()| path)).collect()
    }
}

fn fresh(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = std::fs::File::create_new(path).map_err(|error| anyhow::anyhow!("`{}`: {error}", path.display()))?;
    Ok(file.write_all(text.as_bytes())?)
}

/// One answer of a person, or of whoever writes to standard input.
fn asked(question: &str) -> anyhow::Result<String> {
    prompt(&format!("{question}: "))?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

/// Samples until an empty line.
fn lines() -> anyhow::Result<String> {
    prompt(
        "sample requests, a line each, an empty line at the end\n(GET /v1/items/42?full=true -> 200 {\"id\":\"42\"})\n",
    )?;
    let mut text = String::new();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        if line.trim().is_empty() {
            break;
        }
        text.push_str(&line);
        text.push('\n');
    }
    Ok(text)
}

fn prompt(text: &str) -> anyhow::Result<()> {
    if std::io::stdin().is_terminal() {
        let mut out = std::io::stderr().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
    }
    Ok(())
}
