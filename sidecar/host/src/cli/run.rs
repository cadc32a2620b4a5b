use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use portcullis_client::{WorkloadSocket, node::read_seal_key};
use portcullis_identity::{ComponentId, JoinToken, Lattice, SealKeyPlace, Target};
use serde_json::{Value as Json, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Form, REFUSED, broken, complain, exit, lines::lines, misused, say};
use crate::{
    Host, HostConfig,
    config::{self, Config},
    outcome::{Outcome, Request},
};

/// A join token is a line; more is some other file.
const TOKEN_BYTES: u64 = 16 << 10;
/// How long to wait for an entry and callees where nothing was said.
const PATIENCE: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "\
The component runs under an entry of this node: that of --lattice and --id, else the only one for its file.
Exit code 3: policy refused a call that the component made, and the component had no place for the reason.

With --stdin every line is a call: an array of arguments, an object of arguments by name, or
{\"call\":\"INTERFACE#FUNCTION\",\"args\":[..]}; and every call is answered by one line: {\"ok\":..}, {\"trap\":..} with
\"refusal\":{\"code\",\"reason\",\"policies\"} where a callee refused, or {\"error\":..} for a line that is no call.

Examples:
  portcullis-host run --state /var/lib/portcullis/shop --join-token-file token \\
      --lattice demo --id checkout --call total --args '[\"acme\"]' checkout.wasm
  portcullis-host run --config host.toml --stdin < calls";

/// Runs a component: makes one call of it, or one for every line of standard input.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Run {
    /// The component's file; needed unless the configuration names it.
    component: Option<PathBuf>,
    /// A configuration file, parts of which the other options replace.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The node's state folder, mode 0700, made where it is missing.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// File with the join token, `-` for standard input; read where the state folder holds no identity yet.
    #[arg(long, value_name = "FILE")]
    join_token_file: Option<PathBuf>,
    /// The broker, where it is not that of the token any more.
    #[arg(long, value_name = "HOST:PORT")]
    broker: Option<String>,
    /// Takes the component's identity from this Workload API instead of from the broker.
    #[arg(long, value_name = "unix:PATH")]
    workload_api: Option<WorkloadSocket>,
    /// The key that seals the keys in the state folder: a file, or credential:NAME for a credential that systemd passes.
    #[arg(long, value_name = "FILE")]
    seal_key_file: Option<SealKeyPlace>,
    /// The component's lattice.
    #[arg(long)]
    lattice: Option<Lattice>,
    /// The component's id in its lattice.
    #[arg(long)]
    id: Option<ComponentId>,
    /// Who serves an import where the lattice has several; may be repeated.
    #[arg(long = "import", value_name = "INTERFACE=LATTICE/ID", value_parser = chosen_import)]
    imports: Vec<(String, Target)>,
    /// Which function to call: INTERFACE#FUNCTION, or FUNCTION where its name is unique. Default: the only one, or `run`.
    #[arg(long, value_name = "NAME")]
    call: Option<String>,
    /// Arguments: a JSON array by position or an object by name.
    #[arg(long, value_name = "JSON", conflicts_with = "stdin")]
    args: Option<String>,
    /// Makes a call for every line of standard input, over the same connections.
    #[arg(long)]
    stdin: bool,
    /// For a whole call of the component [default: 30s].
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    call_timeout: Option<Duration>,
    /// For a call that the component makes [default: 10s].
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    import_timeout: Option<Duration>,
    /// Memory of the component [default: 67108864].
    #[arg(long, value_name = "BYTES")]
    memory_bytes: Option<usize>,
    /// How long to wait for an entry and for those who serve the imports [default: 10s].
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    wait: Option<Duration>,
}

fn chosen_import(text: &str) -> Result<(String, Target), String> {
    let (name, target) = text.split_once('=').ok_or("expected INTERFACE=LATTICE/ID")?;
    config::import(name, target)
}

/// What is left of the command line once it is understood.
struct Job {
    component: PathBuf,
    host: HostConfig,
    work: Work,
}

/// Which calls to make.
enum Work {
    Once(Request),
    Lines(Option<String>),
}

impl Run {
    pub(super) async fn carry_out(self, form: Form, credentials: Option<PathBuf>) -> ExitCode {
        let job = match self.understood(credentials.as_deref()) {
            Ok(job) => job,
            Err(error) => return misused(&error),
        };
        let component = match std::fs::read(&job.component) {
            Ok(component) => component,
            Err(error) => return broken(&format!("cannot read `{}`: {error}", job.component.display())),
        };
        let (stop, ended, tasks) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        if let Err(error) = end_on_signal(&tasks, ended.clone()) {
            return broken(&format!("cannot listen to signals: {error}"));
        }
        let starting = Host::start(job.host, &component, &tasks, stop.clone());
        let code = match ended.run_until_cancelled(Box::pin(starting)).await {
            Some(Ok(host)) => job.work.done(&host, &ended, form).await,
            Some(Err(error)) => broken(&error),
            None => broken(&"stopped before the component was started"),
        };
        ended.cancel();
        stop.cancel();
        tasks.close();
        tasks.wait().await;
        code
    }

    fn understood(self, credentials: Option<&Path>) -> Result<Job, String> {
        let work = match (self.stdin, self.args) {
            (true, _) => Work::Lines(self.call),
            (false, arguments) => {
                let arguments = arguments.map_or_else(|| Ok(json!([])), |text| read_arguments(&text))?;
                Work::Once(Request { function: self.call, arguments })
            }
        };
        let file = match &self.config {
            Some(path) => Config::load(path).map_err(|error| error.to_string())?,
            None => Config::default(),
        };
        let mut limits = file.limits;
        limits.call_timeout = self.call_timeout.or(limits.call_timeout);
        limits.import_timeout = self.import_timeout.or(limits.import_timeout);
        limits.memory_bytes = self.memory_bytes.or(limits.memory_bytes);
        let token = self.join_token_file.or(file.join_token_file).map(|path| join_token(&path)).transpose()?.flatten();
        let certificate = file.certificate.map(|files| files.read().map_err(|error| error.to_string())).transpose()?;
        let seal_key = self.seal_key_file.or(file.seal_key_file);
        let seal_key = seal_key.map(|place| read_seal_key(&place, credentials)).transpose();
        let component = match (self.lattice.or(file.lattice), self.id.or(file.id)) {
            (Some(lattice), Some(id)) => Some(Target { lattice, id }),
            (None, None) => None,
            (Some(_), None) => return Err("with --lattice goes --id".to_owned()),
            (None, Some(_)) => return Err("with --id goes --lattice".to_owned()),
        };
        let mut imports = file.imports;
        imports.extend(self.imports);
        Ok(Job {
            component: self.component.or(file.file).ok_or("which component? name its file")?,
            host: HostConfig {
                state_dir: self
                    .state
                    .or(file.state)
                    .ok_or("where is the node's state? name its folder with --state")?,
                join_token: token,
                certificate,
                broker: self.broker.or(file.broker),
                workload_api: self.workload_api.or(file.workload_api),
                seal_key: seal_key.map_err(|error| error.to_string())?,
                component,
                imports,
                limits: limits.limits(),
                patience: self.wait.or(file.patience).unwrap_or(PATIENCE),
            },
            work,
        })
    }
}

fn read_arguments(text: &str) -> Result<Json, String> {
    portcullis_value::json::parse_json(text.as_bytes(), &portcullis_value::Limits::default())
        .map_err(|error| format!("--args: {error}"))
}

/// The token in a file; nothing where the file is gone, as it may be once the node has joined.
fn join_token(path: &Path) -> Result<Option<JoinToken>, String> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        io::stdin().lock().take(TOKEN_BYTES).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(TOKEN_BYTES).read_to_string(&mut text))
    };
    let path = path.display();
    match read {
        Ok(_) => text.trim().parse().map(Some).map_err(|error| format!("the join token `{path}`: {error}")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot read the join token `{path}`: {error}")),
    }
}

fn end_on_signal(tasks: &TaskTracker, ended: CancellationToken) -> io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tasks.spawn(async move {
        tokio::select! {
            _ = terminate.recv() => ended.cancel(),
            _ = interrupt.recv() => ended.cancel(),
            () = ended.cancelled() => {}
        }
    });
    Ok(())
}

impl Work {
    /// A call that has begun is finished, whatever signal comes: its own timeout ends it.
    async fn done(self, host: &Host, ended: &CancellationToken, form: Form) -> ExitCode {
        match self {
            Self::Once(request) => {
                let outcome = outcome(host, request.function.as_deref(), &request.arguments).await;
                told(&outcome, form)
            }
            Self::Lines(function) => match each_line(host, function.as_deref(), ended).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
                Err(error) => broken(&error),
            },
        }
    }
}

async fn outcome(host: &Host, function: Option<&str>, arguments: &Json) -> Outcome {
    Outcome::of(host.guest(), host.program(), function, arguments).await
}

async fn each_line(host: &Host, function: Option<&str>, ended: &CancellationToken) -> io::Result<()> {
    let values = host.program().limits().values;
    let mut lines = lines(values.bytes)?;
    while let Some(Some(line)) = ended.run_until_cancelled(lines.recv()).await {
        let outcome = match Request::parse(&line?, &values) {
            Ok(Request { function: named, arguments }) => {
                outcome(host, named.as_deref().or(function), &arguments).await
            }
            Err(error) => Outcome::Unusable(error.to_string()),
        };
        say(&outcome.to_line())?;
    }
    Ok(())
}

fn told(outcome: &Outcome, form: Form) -> ExitCode {
    let said = match (outcome, form) {
        (Outcome::Answered(result), Form::Text) => say(result),
        (Outcome::Answered(_) | Outcome::Trapped(_) | Outcome::Unusable(_), Form::Json) => say(&outcome.to_line()),
        (Outcome::Trapped(_) | Outcome::Unusable(_), Form::Text) => Ok(()),
    };
    match outcome {
        Outcome::Answered(_) => exit(said),
        Outcome::Unusable(error) => misused(error),
        Outcome::Trapped(trap) if outcome.is_denied() => {
            complain(&format!("refused: {trap}"));
            ExitCode::from(REFUSED)
        }
        Outcome::Trapped(trap) => broken(trap),
    }
}
