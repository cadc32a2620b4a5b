//! `ca`: the authorities of the trust domain and how one follows another.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use portcullis_api::v1::{self, change_authority_request::Step};
use portcullis_broker::atomic_file::{self, Existing};
use portcullis_broker::registry::AuthorityId;
use serde::Serialize;

use super::OperatorOptions;
use super::failure::Failure;
use super::operator::{connect, version_name};
use super::screen::{Screen, time};

/// Bytes; a chain has at most six certificates.
const MAX_CHAIN: u64 = 64 << 10;

/// Show the authorities that sign SVIDs, and let one follow another.
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Ca {
    /// List the authorities in the bundle
    Show(Show),
    /// Make the next authority and publish it in the bundle; it signs nothing yet
    Prepare(Prepare),
    /// Let the prepared authority sign, once every node with a valid certificate trusts it; the key of the one before is destroyed
    Activate(Activate),
    /// Have everything replaced that an authority signed, at once; it is trusted meanwhile
    Taint(Change),
    /// Take a tainted authority out of the bundle: nothing that it signed is accepted any more, connections end
    Revoke(Revoke),
    /// Print a certificate request for an upstream authority; its key stays on this disk, the root's never comes here
    Csr(Csr),
    /// Take over the chain that the upstream authority signed and publish its root; `activate` it then
    Install(Install),
}

const EXAMPLES: &str = "Examples:
  portcullis-broker ca prepare && portcullis-broker ca activate ID     another root signs, nothing fails
  portcullis-broker ca taint OLD-ID, and ten seconds later: portcullis-broker ca revoke OLD-ID
  portcullis-broker ca csr --out portcullis.csr, sign it, portcullis-broker ca install chain.pem";

#[derive(Debug, Args)]
pub(crate) struct Show {
    #[command(flatten)]
    options: OperatorOptions,
}

#[derive(Debug, Args)]
pub(crate) struct Prepare {
    /// What it will sign
    #[arg(long, value_enum, default_value = "x509")]
    kind: Kind,
    #[command(flatten)]
    options: OperatorOptions,
}

#[derive(Debug, Args)]
pub(crate) struct Activate {
    /// The authority
    id: AuthorityId,
    /// Do not wait for nodes that have not applied the bundle with it, or are away: they refuse what it signs, the broker too
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    options: OperatorOptions,
}

#[derive(Debug, Args)]
pub(crate) struct Change {
    /// The authority
    id: AuthorityId,
    #[command(flatten)]
    options: OperatorOptions,
}

#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// The authority
    id: AuthorityId,
    /// Revoke although nodes hold nothing else (they are cut off and need new join tokens) or it was tainted less than ten seconds ago
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    options: OperatorOptions,
}

#[derive(Debug, Args)]
pub(crate) struct Csr {
    /// Write the request to this file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    options: OperatorOptions,
}

#[derive(Debug, Args)]
pub(crate) struct Install {
    /// PEM: the certificate for the request first, the self-signed root last
    chain: PathBuf,
    #[command(flatten)]
    options: OperatorOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    X509,
    Jwt,
}

/// All authorities in JSON.
#[derive(Debug, Serialize)]
struct Shown {
    bundle_sequence: u64,
    authorities: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    id: String,
    kind: &'static str,
    stage: &'static str,
    tainted: bool,
    upstream: bool,
    not_before: u64,
    not_after: u64,
    published: String,
}

/// What a step did, in JSON.
#[derive(Debug, Serialize)]
struct Stepped {
    id: String,
    version: String,
}

#[derive(Debug, Serialize)]
struct Requested {
    csr: String,
}

impl Ca {
    pub(crate) async fn execute(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        match self {
            Self::Show(Show { options }) => show(&options, socket, screen).await,
            Self::Prepare(Prepare { kind, options }) => {
                let kind = match kind {
                    Kind::X509 => v1::AuthorityKind::X509,
                    Kind::Jwt => v1::AuthorityKind::Jwt,
                };
                let request = v1::PrepareAuthorityRequest { kind: kind.into() };
                let reply = connect(&options, socket).await?.prepare_authority(request).await?;
                told(reply.into_inner(), "prepared: nodes trust it, it signs nothing yet", &options, screen)
            }
            Self::Activate(Activate { id, force, options }) => {
                let reply = change(&id, Step::Activate, force, (&options, socket)).await?;
                told(reply, "active: it signs from now on", &options, screen)
            }
            Self::Taint(Change { id, options }) => {
                let reply = change(&id, Step::Taint, false, (&options, socket)).await?;
                told(reply, "tainted: nodes replace what it signed", &options, screen)
            }
            Self::Revoke(Revoke { id, force, options }) => {
                let reply = change(&id, Step::Revoke, force, (&options, socket)).await?;
                told(reply, "revoked: nothing that it signed is accepted", &options, screen)
            }
            Self::Csr(command) => command.execute(socket, screen).await,
            Self::Install(Install { chain, options }) => {
                let request = v1::InstallAuthorityRequest { chain: read(&chain)? };
                let reply = connect(&options, socket).await?.install_authority(request).await?;
                told(reply.into_inner(), "prepared: nodes trust its root, it signs nothing yet", &options, screen)
            }
        }
    }
}

impl Csr {
    async fn execute(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        let reply = connect(&self.options, socket).await?.request_authority(v1::RequestAuthorityRequest {}).await?;
        let csr = reply.into_inner().csr;
        if let Some(path) = &self.out {
            atomic_file::write(path, csr.as_bytes(), 0o644, Existing::Replace)
                .map_err(|error| Failure::broken(format!("cannot write `{}`: {error}", path.display())))?;
        }
        match &self.out {
            _ if self.options.json => screen.json(&Requested { csr }),
            Some(path) => screen.line(format!("the request is in {}", path.display())),
            None => screen.line(csr.trim_end()),
        }
    }
}

async fn change(
    id: &AuthorityId,
    step: Step,
    force: bool,
    (options, socket): (&OperatorOptions, Option<PathBuf>),
) -> Result<v1::ChangeAuthorityReply, Failure> {
    let request = v1::ChangeAuthorityRequest { id: id.to_string(), step: step.into(), force };
    Ok(connect(options, socket).await?.change_authority(request).await?.into_inner())
}

fn told(
    reply: v1::ChangeAuthorityReply,
    done: &str,
    options: &OperatorOptions,
    screen: &mut Screen,
) -> Result<(), Failure> {
    let v1::ChangeAuthorityReply { id, version } = reply;
    let version = version_name(version);
    if options.json {
        return screen.json(&Stepped { id, version });
    }
    screen.line(format!("authority {id} is {done} (version {version})"))
}

async fn show(options: &OperatorOptions, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
    let reply = connect(options, socket).await?.list_authorities(v1::ListAuthoritiesRequest {}).await?.into_inner();
    let v1::ListAuthoritiesReply { authorities, bundle_sequence } = reply;
    let authorities: Vec<_> = authorities.into_iter().map(Row::from).collect();
    if options.json {
        return screen.json(&Shown { bundle_sequence, authorities });
    }
    let lines: Vec<_> = authorities
        .iter()
        .map(|row| {
            let stage = if row.tainted { format!("{}, tainted", row.stage) } else { row.stage.to_owned() };
            let root = if row.upstream { "upstream" } else { "own" };
            [row.id.clone(), row.kind.to_owned(), stage, root.to_owned(), time(row.not_after), row.published.clone()]
        })
        .collect();
    screen.table(["AUTHORITY", "SIGNS", "STAGE", "ROOT", "UNTIL", "PUBLISHED"], &lines, "there is no authority")
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    use std::io::Read as _;
    let mut content = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_CHAIN).read_to_end(&mut content));
    read.map_err(|error| Failure::broken(format!("cannot read `{}`: {error}", path.display())))?;
    Ok(content)
}

impl From<v1::Authority> for Row {
    fn from(message: v1::Authority) -> Self {
        let kind = match message.kind() {
            v1::AuthorityKind::X509 => "x509",
            v1::AuthorityKind::Jwt => "jwt",
            v1::AuthorityKind::Unspecified => "?",
        };
        let stage = match message.stage() {
            v1::AuthorityStage::Prepared => "prepared",
            v1::AuthorityStage::Active => "active",
            v1::AuthorityStage::Old => "old",
            v1::AuthorityStage::Unspecified => "?",
        };
        let v1::Authority { id, kind: _, stage: _, tainted, upstream, not_before, not_after, published } = message;
        Self { id, kind, stage, tainted, upstream, not_before, not_after, published: version_name(published) }
    }
}
