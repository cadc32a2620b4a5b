//! `nats`: the servers of a lattice that ask the broker about every login.

mod init;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use portcullis_api::v1;
use portcullis_broker::clock;
use portcullis_broker::nats::credentials::Credentials;
use portcullis_broker::nats::folder::Material;
use portcullis_broker::nats::subjects::{changes, questions};
use portcullis_identity::{Lattice, SpiffeId, is_reserved, parse_spiffe_id};
use serde::Serialize;

use self::init::Init;
use super::OperatorOptions;
use super::failure::Failure;
use super::operator::connect;
use super::screen::{Screen, cell, time};

/// The NATS servers of a lattice, which ask the broker about every login.
#[derive(Debug, Subcommand)]
pub(crate) enum Nats {
    /// Write a set-up of two clustered servers in operator mode: one for hosts, one for nodes, who show a certificate. Works without a
    /// broker; nothing is started
    Init(Box<Init>),
    /// Make credentials for a member without SVID: `wash`, wadm, a stock provider. They allow nothing until the broker's settings name
    /// their key. Works without a broker
    Credentials(NewCredentials),
    /// Show who is connected to the lattice's servers, who was refused lately and why, and what hosts asked
    Status(Status),
    /// Print the topics under which a host asks what it may start, and proves by that who it is. Works without a broker
    Topics(Topics),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  portcullis-broker nats status
  portcullis-broker nats status --json | jq -r '.refusals[].reason'")]
pub(crate) struct Status {
    #[command(flatten)]
    options: OperatorOptions,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  portcullis-broker nats topics prod spiffe://acme.test/host/one
  portcullis-broker nats topics prod spiffe://acme.test/host/one --json")]
pub(crate) struct Topics {
    /// The host's lattice
    lattice: Lattice,
    /// The host's SPIFFE ID
    #[arg(value_parser = parse_spiffe_id)]
    host: SpiffeId,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The lattice in JSON.
#[derive(Debug, Serialize)]
struct Seen {
    connections: Vec<Connection>,
    sessions: Vec<Session>,
    refusals: Vec<Refusal>,
    admissions: Admissions,
}

/// One of the broker's own.
#[derive(Debug, Serialize)]
struct Connection {
    name: String,
    connected: bool,
    /// Why it is not; empty where it is.
    problem: String,
}

#[derive(Debug, Serialize)]
struct Admissions {
    allowed: u64,
    denied: u64,
    malformed: u64,
    undecided: u64,
    dropped: u64,
    overridden: u64,
    remembered: u64,
}

#[derive(Debug, Serialize)]
struct Session {
    identity: String,
    class: String,
    proof: String,
    server: String,
    address: String,
    since: u64,
    until: u64,
    course: String,
}

#[derive(Debug, Serialize)]
struct Refusal {
    at: u64,
    server: String,
    address: String,
    client: String,
    reason: String,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  portcullis-broker nats credentials --folder /etc/portcullis/nats/broker \\
    --name wash --out wash.creds
  wash --ctl-credsfile wash.creds --ctl-tls-ca-file /etc/portcullis/bundle.pem get hosts")]
pub(crate) struct NewCredentials {
    /// The broker's folder of the set-up: `nats.folder` in its settings
    #[arg(long, value_name = "DIR")]
    folder: PathBuf,
    /// Whose they are: the last segment of its SPIFFE ID
    #[arg(long, value_name = "NAME", value_parser = parse_holder)]
    name: String,
    /// A file that does not exist yet, for its owner alone
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// New credentials in JSON.
#[derive(Debug, Serialize)]
struct Issued {
    nkey: String,
}

impl Nats {
    pub(crate) async fn execute(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        match self {
            Self::Init(init) => init.execute(screen),
            Self::Credentials(new) => new.execute(screen),
            Self::Status(status) => status.execute(socket, screen).await,
            Self::Topics(topics) => topics.execute(screen),
        }
    }
}

impl NewCredentials {
    fn execute(self, screen: &mut Screen) -> Result<(), Failure> {
        let broken = |error: &dyn std::fmt::Display| Failure::broken(error.to_string());
        let material = Material::read(&self.folder).map_err(|error| broken(&error))?;
        let made = Credentials::issue(&material, &self.name, clock::now()).map_err(|error| broken(&error))?;
        made.write(&self.out)
            .map_err(|error| Failure::broken(format!("cannot write `{}`: {error}", self.out.display())))?;
        let nkey = made.key().to_string();
        if self.json {
            return screen.json(&Issued { nkey });
        }
        screen
            .line(format!("The credentials are in {}. The broker's settings have to name them:", self.out.display()))?;
        screen.line(format!(
            "  [[nats.key]]\n  nkey = \"{nkey}\"\n  identity = \"spiffe://TRUST-DOMAIN/{}\"\n  lattice = \"LATTICE\"\n  \
             class = \"operator\"   # or \"wadm\"; or \"provider\", with its `id`",
            self.name
        ))
    }
}

impl Status {
    async fn execute(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        let reply = connect(&self.options, socket).await?.lattice_status(v1::LatticeStatusRequest {}).await?;
        let seen = Seen::from(reply.into_inner());
        let lost = seen.connections.iter().find(|connection| !connection.connected);
        let health = match lost {
            None => Ok(()),
            Some(Connection { name, problem, .. }) => {
                Err(Failure::broken(format!("the broker's connection `{name}` to the lattice's servers: {problem}")))
            }
        };
        if self.options.json {
            screen.json(&seen)?;
            return health;
        }
        let sessions = seen.sessions.iter().map(|session| {
            let Session { identity, class, proof, server: _, address, since, until, course } = session;
            [identity.clone(), cell(class), cell(proof), cell(address), time(*since), time(*until), course.clone()]
        });
        let heading = ["IDENTITY", "CLASS", "PROOF", "ADDRESS", "SINCE", "UNTIL", "COURSE"];
        screen.table(heading, &sessions.collect::<Vec<_>>(), "nobody is connected to the lattice")?;
        let refusals = seen.refusals.iter().map(|refusal| {
            let Refusal { at, server, address, client, reason } = refusal;
            [time(*at), cell(server), cell(address), cell(client), reason.clone()]
        });
        let heading = ["REFUSED AT", "SERVER", "ADDRESS", "CLIENT", "REASON"];
        screen.line("")?;
        screen.table(heading, &refusals.collect::<Vec<_>>(), "nobody was refused")?;
        let Admissions { allowed, denied, malformed, undecided, dropped, overridden, remembered } = &seen.admissions;
        screen.line("")?;
        screen.line(format!(
            "Hosts asked what they may start: {allowed} allowed, {denied} denied, {malformed} malformed, {undecided} undecided, \
             {dropped} dropped, {overridden} answered otherwise later; {remembered} answers are remembered"
        ))?;
        health
    }
}

impl Topics {
    fn execute(self, screen: &mut Screen) -> Result<(), Failure> {
        let environment = BTreeMap::from([
            ("WASMCLOUD_POLICY_TOPIC", questions(&self.lattice, Some(&self.host))),
            ("WASMCLOUD_POLICY_CHANGES_TOPIC", changes(&self.lattice)),
        ]);
        if self.json {
            return screen.json(&environment);
        }
        // The topic first.
        environment.iter().rev().try_for_each(|(name, value)| screen.line(format!("{name}={value}")))
    }
}

impl From<v1::LatticeStatusReply> for Seen {
    fn from(reply: v1::LatticeStatusReply) -> Self {
        let v1::LatticeStatusReply { sessions, refusals, admissions, connections } = reply;
        let connection = |message: v1::LatticeConnection| {
            let v1::LatticeConnection { name, connected, problem } = message;
            Connection { name, connected, problem }
        };
        let session = |message: v1::LatticeSession| {
            let v1::LatticeSession { identity, class, proof, server, address, since, until, course } = message;
            Session { identity, class, proof, server, address, since, until, course }
        };
        let refusal = |message: v1::LatticeRefusal| {
            let v1::LatticeRefusal { at, server, address, client, reason } = message;
            Refusal { at, server, address, client, reason }
        };
        Self {
            connections: connections.into_iter().map(connection).collect(),
            sessions: sessions.into_iter().map(session).collect(),
            refusals: refusals.into_iter().map(refusal).collect(),
            admissions: admissions.unwrap_or_default().into(),
        }
    }
}

impl From<v1::Admissions> for Admissions {
    fn from(message: v1::Admissions) -> Self {
        let v1::Admissions { allowed, denied, malformed, undecided, dropped, overridden, remembered } = message;
        Self { allowed, denied, malformed, undecided, dropped, overridden, remembered }
    }
}

/// One segment of a SPIFFE ID, and none that means something else.
fn parse_holder(text: &str) -> Result<String, String> {
    let id = parse_spiffe_id(&format!("spiffe://trust-domain/{text}"));
    if text.contains('/') || !id.is_ok_and(|id| !is_reserved(&id)) {
        return Err("it is no segment of a SPIFFE ID: letters, digits, `.`, `-` and `_`, not `portcullis`".to_owned());
    }
    Ok(text.to_owned())
}
