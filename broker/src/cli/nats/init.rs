//! `nats init`: a set-up of servers, and what everybody else has to be told of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use portcullis_broker::clock;
use portcullis_broker::nats::setup::{
    Certificate, HostPort, HostsTls, Listener, Named, Names, SetUp, Written, parse_server_name,
};
use portcullis_identity::{Lattice, TrustDomain, parse_trust_domain};
use rustls::pki_types::ServerName;
use serde::Serialize;

use crate::cli::failure::Failure;
use crate::cli::screen::Screen;

/// Where an agent gives hosts their tokens, in the examples of its manual.
const AGENT_SOCKET: &str = "unix:/run/portcullis/api/workload.sock";

#[derive(Debug, Args)]
#[command(after_help = "The certificate has to name both servers, and to be an SVID: sidecars refuse a server that
is none of the trust domain's. An entry with --dns and an agent's [[files]] make it and renew it.

Examples:
  portcullis-broker nats init --trust-domain acme.test --out /etc/portcullis/nats \\
    --tls-cert /etc/nats/svid/svid.pem --tls-key /etc/nats/svid/svid_key.pem \\
    --tls-ca /etc/nats/svid/bundle.pem --nodes-ca /etc/nats/svid/bundle.pem \\
    --hosts-listen 0.0.0.0:4222 --hosts-name nats.acme.test \\
    --nodes-listen 0.0.0.0:4223 --nodes-name nats.acme.test --lattice prod
  nats-server -c /etc/portcullis/nats/servers/hosts.conf
  nats-server -c /etc/portcullis/nats/servers/nodes.conf")]
pub(crate) struct Init {
    /// The broker's trust domain
    #[arg(long, value_name = "NAME", value_parser = parse_trust_domain)]
    trust_domain: TrustDomain,
    /// A folder that does not exist yet; what is in it is for its owner alone
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
    /// What hosts and the broker call the server for hosts, and the other server from another machine [default: the
    /// address where it listens; localhost where that is every address]
    #[arg(long, value_name = "NAME", value_parser = parse_server_name)]
    hosts_name: Option<ServerName<'static>>,
    /// What sidecars call the server for nodes, and the other server from another machine [default: as of the other]
    #[arg(long, value_name = "NAME", value_parser = parse_server_name)]
    nodes_name: Option<ServerName<'static>>,
    /// The servers' certificate, PEM, leaf first: an SVID with their DNS names
    #[arg(long, value_name = "FILE")]
    tls_cert: PathBuf,
    /// Its key, PEM
    #[arg(long, value_name = "FILE")]
    tls_key: PathBuf,
    /// Its authority, PEM: what hosts and the broker are to trust
    #[arg(long, value_name = "FILE")]
    tls_ca: PathBuf,
    /// The authorities of nodes, PEM: the bundle beside the servers' SVID, or bundle.pem in the broker's data folder,
    /// which may be missing until the broker starts
    #[arg(long, value_name = "FILE")]
    nodes_ca: PathBuf,
    /// Serve hosts in the clear: for a machine of one's own
    #[arg(long)]
    danger_plain_hosts: bool,
    /// The lattice that is printed for hosts; the servers serve any
    #[arg(long, value_name = "NAME", default_value = "default")]
    lattice: Lattice,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What was written, and what others have to be told, in JSON.
#[derive(Debug, Serialize)]
struct Told {
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
    /// `[nats]` of the broker.
    broker_settings: BrokerSettings,
    /// `[nats]` of each sidecar.
    sidecar_settings: SidecarSettings,
    /// What the environment of each host holds.
    host_environment: BTreeMap<&'static str, String>,
    /// What does not fit yet.
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct BrokerSettings {
    servers: [String; 1],
    folder: PathBuf,
    ca_file: PathBuf,
    hosts: [String; 1],
    danger_plain: bool,
}

#[derive(Debug, Serialize)]
struct SidecarSettings {
    servers: [String; 1],
    server_id: String,
    tls_first: bool,
}

impl Init {
    pub(crate) fn execute(self, screen: &mut Screen) -> Result<(), Failure> {
        let set_up = self.set_up()?;
        let named = set_up.check().map_err(|error| Failure::misused(error.to_string()))?;
        let names = Names { hosts: self.hosts_name.clone(), nodes: self.nodes_name.clone() };
        let notes = self.notes(&set_up, &named, &names);
        let written = set_up.write_as(&names, clock::now()).map_err(|error| Failure::broken(error.to_string()))?;
        let server_id = named.svid().map_or_else(|| self.default_id(), ToString::to_string);
        let told = self.told(&set_up, &names, (written, server_id, notes));
        if self.json { screen.json(&told) } else { self.print(&told, screen) }
    }

    fn set_up(&self) -> Result<SetUp, Failure> {
        let absolute = |path: &PathBuf| {
            std::path::absolute(path).map_err(|error| Failure::broken(format!("`{}`: {error}", path.display())))
        };
        Ok(SetUp {
            folder: self.out.clone(),
            name: self.trust_domain.to_string(),
            hosts: Listener { clients: self.hosts_listen, route: self.hosts_route },
            nodes: Listener { clients: self.nodes_listen, route: self.nodes_route },
            certificate: Certificate {
                chain: absolute(&self.tls_cert)?,
                key: absolute(&self.tls_key)?,
                ca: absolute(&self.tls_ca)?,
            },
            nodes_ca: absolute(&self.nodes_ca)?,
            hosts_tls: if self.danger_plain_hosts { HostsTls::DangerPlain } else { HostsTls::Required },
        })
    }

    /// For whom login tokens are meant, and who the servers are, unless something else is said.
    fn default_id(&self) -> String {
        format!("spiffe://{}/nats", self.trust_domain)
    }

    fn notes(&self, set_up: &SetUp, named: &Named, names: &Names) -> Vec<String> {
        let mut notes = Vec::new();
        match named.svid() {
            None => notes.push(format!(
                "the servers' certificate is no SVID: hosts and the broker accept it, sidecars do not; an entry for \
                 `{}` with --dns and an agent's [[files]] make one",
                self.default_id()
            )),
            Some(id) if !id.is_member_of(&self.trust_domain) => {
                notes.push(format!("the servers are `{id}`, of another trust domain: sidecars refuse them"));
            }
            Some(_) => {}
        }
        let mut missing: Vec<_> = set_up.looked_for(names).into_iter().map(|place| place.name().clone()).collect();
        missing.dedup();
        missing.retain(|name| !named.is_called(name));
        let lacks = |name: &ServerName<'_>| {
            let name = name.to_str();
            format!("the servers' certificate does not name `{name}`: who looks for the server there refuses it")
        };
        notes.extend(missing.iter().map(lacks));
        if !set_up.nodes_ca.exists() {
            let path = set_up.nodes_ca.display();
            notes.push(format!("`{path}` is not there yet: the server for nodes starts once it is"));
        }
        notes
    }

    fn told(&self, set_up: &SetUp, names: &Names, (written, server_id, notes): (Written, String, Vec<String>)) -> Told {
        let Written { broker, hosts: hosts_config, nodes: nodes_config, keys, sentinel, accounts } = written;
        let hosts = HostPort::of(names.hosts.as_ref(), set_up.hosts.clients);
        let nodes = HostPort::of(names.nodes.as_ref(), set_up.nodes.clients);
        let (scheme, audience) = (if self.danger_plain_hosts { "nats" } else { "tls" }, self.default_id());
        Told {
            broker_folder: broker.clone(),
            hosts_config,
            nodes_config,
            keys,
            sentinel,
            operator: accounts.operator,
            system_account: accounts.system,
            callout_account: accounts.callout,
            lattice_account: accounts.lattice,
            host_environment: self.host_environment(&hosts, &audience, &set_up.certificate.ca),
            audience,
            broker_settings: BrokerSettings {
                servers: [format!("{scheme}://{hosts}")],
                folder: broker,
                ca_file: set_up.certificate.ca.clone(),
                hosts: [format!("spiffe://{}/host/*", self.trust_domain)],
                danger_plain: self.danger_plain_hosts && !hosts.is_loopback(),
            },
            sidecar_settings: SidecarSettings { servers: [format!("tls://{nodes}")], server_id, tls_first: true },
            notes,
        }
    }

    fn host_environment(&self, hosts: &HostPort, audience: &str, ca: &Path) -> BTreeMap<&'static str, String> {
        let mut all = BTreeMap::from([
            ("SPIFFE_ENDPOINT_SOCKET", AGENT_SOCKET.to_owned()),
            ("WASMCLOUD_EXPERIMENTAL_FEATURES", "workload-identity-auth".to_owned()),
            ("WASMCLOUD_LATTICE", self.lattice.to_string()),
            ("WASMCLOUD_NATS_HOST", hosts.host()),
            ("WASMCLOUD_NATS_PORT", hosts.port().to_string()),
            ("WASMCLOUD_WORKLOAD_IDENTITY_AUTH_SERVICE_AUDIENCE", audience.to_owned()),
        ]);
        if !self.danger_plain_hosts {
            all.insert("SSL_CERT_FILE", ca.display().to_string());
            all.insert("WASMCLOUD_CTL_TLS", "true".to_owned());
            all.insert("WASMCLOUD_RPC_TLS", "true".to_owned());
        }
        all
    }

    fn print(&self, told: &Told, screen: &mut Screen) -> Result<(), Failure> {
        let Told { hosts_config, nodes_config, keys, sentinel, broker_settings, sidecar_settings, .. } = told;
        screen.line(format!("The set-up is in {}; start both servers, they form one cluster:", self.out.display()))?;
        screen.line(format!(
            "  nats-server -c {}\n  nats-server -c {}",
            hosts_config.display(),
            nodes_config.display()
        ))?;
        let BrokerSettings { servers: [server], folder, ca_file, hosts: [hosts], danger_plain } = broker_settings;
        screen.line(format!(
            "The broker's settings (in the file of `run --config`):\n  [nats]\n  servers = [\"{server}\"]\n  \
             folder = \"{}\"\n  ca_file = \"{}\"\n  hosts = [\"{hosts}\"]",
            folder.display(),
            ca_file.display(),
        ))?;
        if *danger_plain {
            screen.line("  danger_plain = true")?;
        }
        let SidecarSettings { servers: [server], server_id, tls_first } = sidecar_settings;
        screen.line(format!(
            "Each sidecar's configuration:\n  [nats]\n  servers = [\"{server}\"]\n  server_id = \"{server_id}\"\n  \
             tls_first = {tls_first}"
        ))?;
        screen.line("The environment of each wasmCloud host beside an agent (its entry names the lattice):")?;
        for (name, value) in &told.host_environment {
            screen.line(format!("  {name}={value}"))?;
        }
        screen.line(format!(
            "A client that insists on credentials takes {}: they allow nothing by themselves.",
            sentinel.display()
        ))?;
        screen.line(format!(
            "Take {} off this machine: no daemon needs it, whoever has it owns the lattice.",
            keys.display()
        ))?;
        screen.line(
            "The servers read their certificates when they start. Reload both (SIGHUP) when these were renewed, and \
             between `ca prepare` and `ca activate`.",
        )?;
        told.notes.iter().try_for_each(|note| screen.line(format!("Not in order yet: {note}")))
    }
}
