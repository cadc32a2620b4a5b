//! `policy`: Cedar policies.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use portcullis_api::v1;
use serde::Serialize;

use super::OperatorOptions;
use super::explain::Decision;
use super::failure::Failure;
use super::operator::{Changed, connect, version_name};
use super::screen::{Screen, cell};

#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Put policy files in force: all of them, or none and every mistake
    Put(Files),
    /// Check policy files against what is registered; nothing changes
    Check(Files),
    /// Take a policy file out of force
    Remove(Remove),
    /// List the policy files in force, or print them
    List(List),
    /// Say whether a host's question would be allowed, and by which policies. Exit code 0: allowed; 3: denied
    Admit(Admit),
}

#[derive(Debug, Args)]
#[command(after_help = "A file is known by its name without the folder; putting it again replaces it.

Examples:
  portcullis-broker policy check policies/
  portcullis-broker policy put policies/billing.cedar policies/base.cedar
  portcullis-broker policy put --admission admissions/")]
pub(crate) struct Files {
    /// Policy files, or folders of *.cedar files
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// They say what wasmCloud hosts may start and serve, not who may call virtual components
    #[arg(long)]
    admission: bool,
    #[command(flatten)]
    options: OperatorOptions,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  portcullis-broker policy remove billing.cedar")]
pub(crate) struct Remove {
    /// The file's name, as `policy list` shows it
    file: String,
    #[command(flatten)]
    options: OperatorOptions,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  portcullis-broker policy admit question.json --host spiffe://acme.test/host/one")]
pub(crate) struct Admit {
    /// The question as hosts send it, JSON
    #[arg(value_name = "FILE")]
    question: PathBuf,
    /// The SPIFFE ID of the host, where it asks on a topic of its own
    #[arg(long, value_name = "ID")]
    host: Option<String>,
    #[command(flatten)]
    options: OperatorOptions,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Print the policies themselves
    #[arg(long)]
    text: bool,
    #[command(flatten)]
    options: OperatorOptions,
}

/// The outcome of `put` and `check`, in JSON.
#[derive(Debug, Serialize)]
struct Checked {
    problems: Vec<Problem>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    policies: Vec<String>,
    version: String,
}

/// A mistake, in JSON.
#[derive(Debug, Serialize)]
struct Problem {
    file: String,
    line: u32,
    column: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    policy: String,
    message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    hint: String,
}

/// A file, in JSON.
#[derive(Debug, Serialize)]
struct Row {
    file: String,
    /// `calls` or `admissions`
    kind: &'static str,
    text: String,
}

/// What to do with files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Put,
    Check,
}

impl Policy {
    pub(crate) async fn execute(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        match self {
            Self::Put(files) => files.execute(Purpose::Put, socket, screen).await,
            Self::Check(files) => files.execute(Purpose::Check, socket, screen).await,
            Self::Remove(command) => command.execute(socket, screen).await,
            Self::List(command) => command.execute(socket, screen).await,
            Self::Admit(command) => command.execute(socket, screen).await,
        }
    }
}

impl Files {
    async fn execute(self, purpose: Purpose, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        let kind = if self.admission { v1::PolicyKind::Admissions } else { v1::PolicyKind::Calls };
        let request = v1::PutPoliciesRequest { files: read(&self.paths)?, kind: kind.into() };
        let count = request.files.len();
        let mut operator = connect(&self.options, socket).await?;
        let reply = match purpose {
            Purpose::Put => operator.put_policies(request).await?,
            Purpose::Check => operator.check_policies(request).await?,
        };
        let v1::PutPoliciesReply { problems, version, policy_ids } = reply.into_inner();
        let checked = Checked {
            problems: problems.into_iter().map(Problem::from).collect(),
            policies: policy_ids,
            version: version_name(version),
        };
        if self.options.json {
            screen.json(&checked)?;
        } else if checked.problems.is_empty() {
            screen.line(match purpose {
                Purpose::Put => format!("{} policies of {count} files are in force", checked.policies.len()),
                Purpose::Check => format!("{count} files are in order"),
            })?;
        } else {
            checked.problems.iter().try_for_each(|problem| screen.line(problem.to_string()))?;
        }
        match (checked.problems.len(), purpose) {
            (0, _) => Ok(()),
            (_, _) if self.options.json => Err(Failure::refused_silently()),
            (mistakes, purpose) => {
                let plural = if mistakes == 1 { "" } else { "s" };
                let unchanged = if purpose == Purpose::Put { "; nothing was changed" } else { "" };
                Err(Failure::refused(format!("{mistakes} mistake{plural}{unchanged}")))
            }
        }
    }
}

impl Remove {
    async fn execute(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        let request = v1::RemovePoliciesRequest { file: self.file.clone() };
        let reply = connect(&self.options, socket).await?.remove_policies(request).await?.into_inner();
        if self.options.json {
            return screen.json(&Changed { version: version_name(reply.version) });
        }
        screen.line(format!("{} is out of force", self.file))
    }
}

impl List {
    async fn execute(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        let reply = connect(&self.options, socket).await?.list_policies(v1::ListPoliciesRequest {}).await?;
        let v1::ListPoliciesReply { files, version: _, admissions } = reply.into_inner();
        let of = |kind| move |v1::PolicyFile { name, text }: v1::PolicyFile| Row { file: name, kind, text };
        let rows: Vec<_> =
            files.into_iter().map(of("calls")).chain(admissions.into_iter().map(of("admissions"))).collect();
        if self.options.json {
            return screen.json(&rows);
        }
        if self.text {
            return rows.iter().try_for_each(|row| screen.line(format!("// {}\n{}", row.file, row.text.trim_end())));
        }
        let line = |row: &Row| [cell(&row.file), row.kind.to_owned(), row.text.lines().count().to_string()];
        let lines: Vec<_> = rows.iter().map(line).collect();
        screen.table(["FILE", "ABOUT", "LINES"], &lines, "no policy is in force: every call is denied")
    }
}

impl Admit {
    async fn execute(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        let question = std::fs::read_to_string(&self.question)
            .map_err(|error| Failure::broken(format!("cannot read `{}`: {error}", self.question.display())))?;
        let request = v1::ExplainAdmissionRequest { question, host: self.host.unwrap_or_default() };
        let reply = connect(&self.options, socket).await?.explain_admission(request).await?.into_inner();
        Decision::from(reply).show(&self.options, screen)
    }
}

impl From<v1::PolicyProblem> for Problem {
    fn from(problem: v1::PolicyProblem) -> Self {
        let v1::PolicyProblem { file, line, column, policy, message, hint } = problem;
        Self { file, line, column, policy, message, hint }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { file, line, column, policy, message, hint } = self;
        write!(f, "{file}:{line}:{column}: ")?;
        if !policy.is_empty() {
            write!(f, "policy `{policy}`: ")?;
        }
        f.write_str(message)?;
        if hint.is_empty() { Ok(()) } else { write!(f, "\n  hint: {hint}") }
    }
}

fn read(paths: &[PathBuf]) -> Result<Vec<v1::PolicyFile>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            for file in cedar_files(path)? {
                files.push(read_file(&file)?);
            }
        } else {
            files.push(read_file(path)?);
        }
    }
    Ok(files)
}

fn cedar_files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let unreadable = |error: std::io::Error| Failure::broken(format!("cannot read `{}`: {error}", folder.display()));
    let entries = std::fs::read_dir(folder).map_err(unreadable)?;
    let paths =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    let is_cedar = |path: &PathBuf| path.is_file() && path.extension().is_some_and(|extension| extension == "cedar");
    let mut files: Vec<_> = paths.into_iter().filter(is_cedar).collect();
    files.sort();
    if files.is_empty() {
        return Err(Failure::misused(format!("`{}` holds no *.cedar file", folder.display())));
    }
    Ok(files)
}

fn read_file(path: &Path) -> Result<v1::PolicyFile, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::broken(format!("cannot read `{}`: {error}", path.display())))?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(v1::PolicyFile { name, text })
}
