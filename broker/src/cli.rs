//! The command line. Exit codes: 0 done, 1 broken (files, network, the broker unreachable), 2 misused, 3 refused or denied.

mod audit;
mod ca;
mod completion;
mod component;
mod entry;
mod explain;
mod failure;
mod follow;
mod grant;
mod mint;
mod nats;
mod node;
mod operator;
mod policy;
mod restore;
mod revoke;
mod run;
mod screen;
mod seal_key;
mod status;
mod token;
mod trust_domain;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use self::failure::Failure;
use self::screen::Screen;

/// The Portcullis control plane: issues identities, keeps the registry and the policies.
#[derive(Debug, Parser)]
#[command(name = "portcullis-broker", version, after_help = EXIT_CODES, propagate_version = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 broken (a file, the network, a broker that does not answer), 2 misused, \
                          3 refused by the broker or denied by policy.";

/// What `main` reads from the environment.
#[derive(Debug)]
pub(crate) struct Environment {
    /// `PORTCULLIS_BROKER_SOCKET`
    pub(crate) socket: Option<PathBuf>,
    /// `PORTCULLIS_LOG`, else `RUST_LOG`
    pub(crate) log: Option<String>,
    /// `CREDENTIALS_DIRECTORY`
    pub(crate) credentials: Option<PathBuf>,
    /// `SSL_CERT_FILE`
    pub(crate) ssl_cert_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a broker
    Run(run::Run),
    /// Answer a lattice's logins beside a broker that runs
    Follow(follow::Follow),
    /// Register, remove and list virtual components
    #[command(subcommand)]
    Component(component::Component),
    /// Create, remove and list registration entries: which node may have which identity
    #[command(subcommand)]
    Entry(entry::Entry),
    /// Make join tokens
    #[command(subcommand)]
    Token(token::Token),
    /// Put, check, remove and list policies
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Grant callers on a component, and take grants back
    #[command(subcommand)]
    Grant(grant::Grant),
    /// Say whether a call would be allowed, and by which policies
    Explain(explain::Explain),
    /// List the nodes that joined and who of them is connected; remove one
    Nodes(node::Nodes),
    /// Show the authorities that sign SVIDs, and let one follow another
    #[command(subcommand)]
    Ca(ca::Ca),
    /// Refuse SVIDs that are not expired
    #[command(subcommand)]
    Revoke(revoke::Revoke),
    /// Sign X.509-SVIDs without an entry
    #[command(subcommand)]
    X509(mint::X509),
    /// Sign JWT-SVIDs without an entry
    #[command(subcommand)]
    Jwt(mint::Jwt),
    /// Trust foreign trust domains, refresh and remove them
    #[command(subcommand)]
    TrustDomain(trust_domain::TrustDomain),
    /// Set up the NATS servers of a lattice, and show who is connected
    #[command(subcommand)]
    Nats(nats::Nats),
    /// Show what the broker did, and check that nobody altered the record of it
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Make a store that was put back from a backup one that nodes believe
    Restore(restore::Restore),
    /// Show the broker's state in numbers
    Status(status::Status),
    /// Make the key that seals the CA keys on disk
    #[command(subcommand)]
    SealKey(seal_key::SealKey),
    /// Print the completion script of a shell
    Completion(completion::Completion),
}

/// What every operator's command takes.
#[derive(Debug, Args)]
struct OperatorOptions {
    /// The operator socket of the broker [default: $PORTCULLIS_BROKER_SOCKET, else portcullis-data/operator.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Does what the arguments say.
pub(crate) fn run(arguments: Arguments, environment: Environment) -> ExitCode {
    let mut screen = Screen::new();
    let result = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(Box::pin(dispatch(arguments.command, environment, &mut screen))),
        Err(error) => Err(Failure::broken(format!("cannot start: {error}"))),
    };
    let flushed = screen.flush();
    match result.and(flushed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn dispatch(command: Command, environment: Environment, screen: &mut Screen) -> Result<(), Failure> {
    let socket = environment.socket.clone();
    match command {
        Command::Run(run) => run.execute(environment).await,
        Command::Follow(follow) => follow.execute(environment).await,
        Command::Component(command) => command.execute(socket, screen).await,
        Command::Entry(command) => command.execute(socket, screen).await,
        Command::Token(command) => command.execute(socket, screen).await,
        Command::Policy(command) => command.execute(socket, screen).await,
        Command::Grant(command) => command.execute(socket, screen).await,
        Command::Explain(command) => command.execute(socket, screen).await,
        Command::Nodes(command) => command.execute(socket, screen).await,
        Command::Ca(command) => command.execute(socket, screen).await,
        Command::Revoke(command) => command.execute(socket, screen).await,
        Command::X509(command) => command.execute(socket, screen).await,
        Command::Jwt(command) => command.execute(socket, screen).await,
        Command::TrustDomain(command) => command.execute(socket, screen).await,
        Command::Nats(command) => command.execute(socket, screen).await,
        Command::Audit(command) => command.execute(screen).await,
        Command::Restore(command) => command.execute(screen),
        Command::Status(command) => command.execute(socket, screen).await,
        Command::SealKey(command) => command.execute(screen),
        Command::Completion(command) => command.execute(screen),
    }
}
