//! `nats`: the servers of a lattice that ask the broker about every login.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use portcullis_api::v1;
use portcullis_broker::clock;
use portcullis_broker::nats::credentials::Credentials;
use portcullis_broker::nats::folder::Material;
use portcullis_broker::nats::setup::{Certificate, HostsTls, Listener, SetUp, Written};
use portcullis_broker::nats::subjects::{changes, questions};
use portcullis_identity::{Lattice, SpiffeId, TrustDomain, parse_spiffe_id, parse_trust_domain};
use serde::Serialize;

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
#[command(after_help = "Example:
  portcullis-broker nats topics prod spiffe://acme.test/host/one")]
pub(crate) struct Topics {
    /// The host's lattice
    lattice: Lattice,
    /// The host's SPIFFE ID
    #[arg(value_parser = parse_spiffe_id)]
    host: SpiffeId,
}

/// The lattice in JSON.
#[derive(Debug, Serialize)]
struct Seen {
    sessions: Vec<Session>,
    refusals: Vec<Refusal>,
    admissions: Admissions,
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
  portcullis-broker nats credentials --folder /etc/portcullis/nats/broker --name wash --out wash.creds
  wash --ctl-credsfile wash.creds --ctl-tls-ca-file /etc/portcullis/nats-ca.pem get hosts")]
pub(crate) struct NewCredentials {
    /// The broker's folder of the set-up: `nats.folder` in its settings
    #[arg(long, value_name = "DIR")]
    folder: PathBuf,
    /// What the token says of whom it is
    #[arg(long, value_name = "NAME")]
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

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  portcullis-broker nats init --trust-domain acme.test --out /etc/portcullis/nats \\
    --tls-cert /etc/portcullis/nats.pem --tls-key /etc/portcullis/nats.key --tls-ca /etc/portcullis/nats-ca.pem \\
    --nodes-ca /var/lib/portcullis/bundle.pem --hosts-listen 0.0.0.0:4222 --nodes-listen 0.0.0.0:4223
  nats-server -c /etc/portcullis/nats/servers/hosts.conf
  nats-server -c /etc/portcullis/nats/servers/nodes.conf")]
pub(crate) struct Init {
    /// The broker's trust domain
    #[arg(long, value_name = "NAME", value_parser = parse_trust_domain)]
    trust_domain: TrustDomain,
    /// A folder that does not exist yet, for its owner alone
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Where hosts are served
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:4222")]
    hosts_listen: SocketAddr,
    /// Where nodes are served
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:4223")]
    nodes_listen: SocketAddr,
    /// Where the server for hosts listens to the other
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:6222")]
    hosts_route: SocketAddr,
    /// Where the server for nodes listens to the other
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:6223")]
    nodes_route: SocketAddr,
    /// The servers' certificate, PEM, leaf first
    #[arg(long, value_name = "FILE")]
    tls_cert: PathBuf,
    /// Its key, PEM
    #[arg(long, value_name = "FILE")]
    tls_key: PathBuf,
    /// Its authority, PEM: what hosts and the broker are to trust
    #[arg(long, value_name = "FILE")]
    tls_ca: PathBuf,
    /// The authorities of nodes: bundle.pem in the broker's data folder
    #[arg(long, value_name = "FILE")]
    nodes_ca: PathBuf,
    /// Serve hosts in the clear: for a machine of one's own
    #[arg(long)]
    danger_plain_hosts: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What was written, in JSON.
#[derive(Debug, Serialize)]
struct Shown {
    broker_folder: PathBuf,
    hosts_config: PathBuf,
    nodes_config: PathBuf,
    keys: PathBuf,
    sentinel: PathBuf,
    operator: String,
    system_account: String,
    callout_account: String,
    lattice_account: String,
    audience: String,
    /// What the environment of each host holds.
    host_environment: Vec<(String, String)>,
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
        if self.options.json {
            return screen.json(&seen);
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
        ))
    }
}

impl Topics {
    fn execute(self, screen: &mut Screen) -> Result<(), Failure> {
        screen.line(format!("WASMCLOUD_POLICY_TOPIC={}", questions(&self.lattice, Some(&self.host))))?;
        screen.line(format!("WASMCLOUD_POLICY_CHANGES_TOPIC={}", changes(&self.lattice)))
    }
}

impl From<v1::LatticeStatusReply> for Seen {
    fn from(reply: v1::LatticeStatusReply) -> Self {
        let v1::LatticeStatusReply { sessions, refusals, admissions } = reply;
        let session = |message: v1::LatticeSession| {
            let v1::LatticeSession { identity, class, proof, server, address, since, until, course } = message;
            Session { identity, class, proof, server, address, since, until, course }
        };
        let refusal = |message: v1::LatticeRefusal| {
            let v1::LatticeRefusal { at, server, address, client, reason } = message;
            Refusal { at, server, address, client, reason }
        };
        Self {
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

impl Init {
    fn execute(self, screen: &mut Screen) -> Result<(), Failure> {
        let absolute = |path: &PathBuf| {
            std::path::absolute(path).map_err(|error| Failure::broken(format!("`{}`: {error}", path.display())))
        };
        let ca = absolute(&self.tls_ca)?;
        let set_up = SetUp {
            folder: self.out.clone(),
            name: self.trust_domain.to_string(),
            hosts: Listener { clients: self.hosts_listen, route: self.hosts_route },
            nodes: Listener { clients: self.nodes_listen, route: self.nodes_route },
            certificate: Certificate {
                chain: absolute(&self.tls_cert)?,
                key: absolute(&self.tls_key)?,
                ca: ca.clone(),
            },
            nodes_ca: absolute(&self.nodes_ca)?,
            hosts_tls: if self.danger_plain_hosts { HostsTls::DangerPlain } else { HostsTls::Required },
        };
        let written = set_up.write(clock::now()).map_err(|error| Failure::broken(error.to_string()))?;
        let audience = format!("spiffe://{}/nats", self.trust_domain);
        let scheme = if self.danger_plain_hosts { "nats" } else { "tls" };
        let server = format!("{scheme}://{}", self.hosts_listen);
        let environment = self.host_environment(&audience, &ca);
        if self.json {
            return screen.json(&shown(written, audience, environment));
        }
        screen.line(format!("The set-up is in {}; start both servers, they form one cluster:", self.out.display()))?;
        screen.line(format!(
            "  nats-server -c {}\n  nats-server -c {}",
            written.hosts.display(),
            written.nodes.display()
        ))?;
        screen.line("The broker's settings (in the file of `run --config`):")?;
        screen.line(format!(
            "  [nats]\n  servers = [\"{server}\"]\n  folder = \"{}\"\n  ca_file = \"{}\"\n  hosts = [\"spiffe://{}/host/*\"]",
            written.broker.display(),
            ca.display(),
            self.trust_domain,
        ))?;
        screen.line("Each wasmCloud host beside an agent (its entry names the lattice):")?;
        for (name, value) in environment {
            screen.line(format!("  {name}={value}"))?;
        }
        if !self.danger_plain_hosts {
            screen.line("  and TLS on both connections: --ctl-tls --rpc-tls")?;
        }
        screen.line(format!(
            "A client that insists on credentials takes {}: they allow nothing by themselves.",
            written.sentinel.display()
        ))?;
        screen.line(format!(
            "Take {} off this machine: no daemon needs it, whoever has it owns the lattice.",
            written.keys.display()
        ))
    }

    fn host_environment(&self, audience: &str, ca: &std::path::Path) -> Vec<(String, String)> {
        let mut all = vec![
            ("WASMCLOUD_EXPERIMENTAL_FEATURES".to_owned(), "workload-identity-auth".to_owned()),
            ("WASMCLOUD_WORKLOAD_IDENTITY_AUTH_SERVICE_AUDIENCE".to_owned(), audience.to_owned()),
            ("SPIFFE_ENDPOINT_SOCKET".to_owned(), "unix:/run/portcullis/workload.sock".to_owned()),
        ];
        if !self.danger_plain_hosts {
            all.push(("SSL_CERT_FILE".to_owned(), ca.display().to_string()));
        }
        all
    }
}

fn shown(written: Written, audience: String, host_environment: Vec<(String, String)>) -> Shown {
    let Written { broker, hosts, nodes, keys, sentinel, accounts } = written;
    Shown {
        broker_folder: broker,
        hosts_config: hosts,
        nodes_config: nodes,
        keys,
        sentinel,
        operator: accounts.operator,
        system_account: accounts.system,
        callout_account: accounts.callout,
        lattice_account: accounts.lattice,
        audience,
        host_environment,
    }
}
