//! `trust-domain`: foreign trust domains, and what they need of ours.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use portcullis_api::v1;
use serde::Serialize;

use super::OperatorOptions;
use super::failure::Failure;
use super::operator::{Changed, connect, version_name};
use super::screen::{Screen, cell, time};

#[derive(Debug, Subcommand)]
pub(crate) enum TrustDomain {
    /// Trust a foreign trust domain: by a bundle that is fetched and kept fresh, or by one from a file
    Add(Add),
    /// End the trust; every node forgets the bundle at once
    Remove(Named),
    /// Fetch a bundle now
    Refresh(Named),
    /// Show one trust domain, also the own one; with --document its bundle, for the other side
    Show(Show),
    /// List the own trust domain and the foreign ones
    List(List),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Only those workloads meet a foreign trust domain whose entries federate with it, and policies decide what its members may call.

Examples:
  portcullis-broker trust-domain add partner.test --bundle-endpoint https://partner.test/bundle --profile https_web
  portcullis-broker trust-domain add partner.test --bundle-endpoint https://10.1.2.3:8443/ --profile https_spiffe \\
      --endpoint-id spiffe://partner.test/spire/server --bundle first.json
  portcullis-broker trust-domain add partner.test --bundle partner.json"
)]
pub(crate) struct Add {
    /// The trust domain
    name: String,
    /// Where it serves its bundle
    #[arg(long, value_name = "URL", requires = "profile")]
    bundle_endpoint: Option<String>,
    /// How the endpoint proves itself: by a certificate of the web, or by an X.509-SVID
    #[arg(long, requires = "bundle_endpoint")]
    profile: Option<Profile>,
    /// With https_spiffe: the endpoint's SPIFFE ID [default: spiffe://NAME/portcullis/broker]
    #[arg(long, value_name = "ID", requires = "bundle_endpoint")]
    endpoint_id: Option<String>,
    /// A SPIFFE bundle document: alone the whole trust; with an endpoint the first one, by which https_spiffe proves itself
    #[arg(long, value_name = "FILE", required_unless_present = "bundle_endpoint")]
    bundle: Option<PathBuf>,
    #[command(flatten)]
    options: OperatorOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Profile {
    #[value(name = "https_web")]
    HttpsWeb,
    #[value(name = "https_spiffe")]
    HttpsSpiffe,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  portcullis-broker trust-domain refresh partner.test")]
pub(crate) struct Named {
    /// The trust domain
    name: String,
    #[command(flatten)]
    options: OperatorOptions,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  portcullis-broker trust-domain show acme.test --document > acme.json")]
pub(crate) struct Show {
    /// The trust domain
    name: String,
    /// Print the bundle document alone
    #[arg(long)]
    document: bool,
    #[command(flatten)]
    options: OperatorOptions,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    options: OperatorOptions,
}

/// A trust domain, in JSON.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    own: bool,
    bundle_endpoint: String,
    profile: &'static str,
    endpoint_id: String,
    x509_authorities: u32,
    jwt_authorities: u32,
    sequence: u64,
    refresh_hint_seconds: u32,
    received_at: u64,
    fetched_at: u64,
    due_at: u64,
    problem: String,
    alarm: bool,
    #[serde(skip)]
    document: String,
}

/// The outcome of a refresh, in JSON.
#[derive(Debug, Serialize)]
struct Refreshed {
    changed: bool,
    #[serde(flatten)]
    row: Row,
}

impl TrustDomain {
    pub(crate) async fn execute(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        match self {
            Self::Add(command) => command.execute(socket, screen).await,
            Self::Remove(command) => command.remove(socket, screen).await,
            Self::Refresh(command) => command.refresh(socket, screen).await,
            Self::Show(command) => command.execute(socket, screen).await,
            Self::List(command) => command.execute(socket, screen).await,
        }
    }
}

impl Add {
    async fn execute(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|error| Failure::broken(format!("cannot read `{}`: {error}", path.display())))
        };
        let profile = match self.profile {
            None => v1::BundleProfile::Unspecified,
            Some(Profile::HttpsWeb) => v1::BundleProfile::HttpsWeb,
            Some(Profile::HttpsSpiffe) => v1::BundleProfile::HttpsSpiffe,
        };
        let request = v1::AddTrustDomainRequest {
            name: self.name,
            bundle_endpoint: self.bundle_endpoint.unwrap_or_default(),
            profile: profile.into(),
            endpoint_id: self.endpoint_id.unwrap_or_default(),
            bundle: self.bundle.as_ref().map(read).transpose()?.unwrap_or_default(),
        };
        let reply = connect(&self.options, socket).await?.add_trust_domain(request).await?.into_inner();
        let row = Row::from(reply.domain.unwrap_or_default());
        if self.options.json {
            return screen.json(&row);
        }
        screen.line(format!("trust domain {} is registered", row.name))?;
        match (row.problem.as_str(), row.x509_authorities, row.jwt_authorities) {
            ("", x509, jwt) => screen.line(format!("trusted: {x509} X.509 and {jwt} JWT authorities")),
            (problem, 0, 0) => screen.line(format!("nobody of it is trusted yet: {problem}")),
            (problem, ..) => screen.line(format!("the given bundle is in force; the endpoint's is not: {problem}")),
        }
    }
}

impl Named {
    async fn remove(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        let request = v1::RemoveTrustDomainRequest { name: self.name.clone() };
        let reply = connect(&self.options, socket).await?.remove_trust_domain(request).await?.into_inner();
        if self.options.json {
            return screen.json(&Changed { version: version_name(reply.version) });
        }
        screen.line(format!("trust domain {} is trusted no more", self.name))
    }

    async fn refresh(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        let request = v1::RefreshTrustDomainRequest { name: self.name };
        let reply = connect(&self.options, socket).await?.refresh_trust_domain(request).await?.into_inner();
        let refreshed = Refreshed { changed: reply.changed, row: Row::from(reply.domain.unwrap_or_default()) };
        if self.options.json {
            return screen.json(&refreshed);
        }
        let Row { name, sequence, .. } = &refreshed.row;
        let what = if refreshed.changed { "another bundle is in force" } else { "the bundle in force is the latest" };
        screen.line(format!("{name}: {what}, sequence {sequence}"))
    }
}

impl Show {
    async fn execute(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        let request = v1::ListTrustDomainsRequest { name: self.name };
        let reply = connect(&self.options, socket).await?.list_trust_domains(request).await?.into_inner();
        let row = Row::from(reply.domains.into_iter().next().unwrap_or_default());
        if self.document {
            return match row.document.as_str() {
                "" => Err(Failure::refused(format!("there is no bundle of `{}` yet", row.name))),
                document => screen.line(document.trim_end()),
            };
        }
        if self.options.json {
            return screen.json(&row);
        }
        let lines = [
            ("trust domain", if row.own { format!("{} (own)", row.name) } else { row.name.clone() }),
            ("endpoint", cell(&row.bundle_endpoint)),
            ("profile", cell(row.profile)),
            ("endpoint id", cell(&row.endpoint_id)),
            ("authorities", format!("{} X.509, {} JWT", row.x509_authorities, row.jwt_authorities)),
            ("sequence", row.sequence.to_string()),
            ("refresh hint", format!("{} s", row.refresh_hint_seconds)),
            ("received", time(row.received_at)),
            ("confirmed", time(row.fetched_at)),
            ("due", time(row.due_at)),
            ("problem", row.problem_shown()),
        ];
        lines.iter().try_for_each(|(name, value)| screen.line(format!("{name:<14} {value}")))
    }
}

impl List {
    async fn execute(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        let request = v1::ListTrustDomainsRequest::default();
        let reply = connect(&self.options, socket).await?.list_trust_domains(request).await?.into_inner();
        let rows: Vec<_> = reply.domains.into_iter().map(Row::from).collect();
        if self.options.json {
            return screen.json(&rows);
        }
        let lines: Vec<_> = rows
            .iter()
            .map(|row| {
                let keys = format!("{}+{}", row.x509_authorities, row.jwt_authorities);
                let from = if row.own { "own".to_owned() } else { cell(&row.bundle_endpoint) };
                [row.name.clone(), from, keys, row.sequence.to_string(), time(row.fetched_at), row.problem_shown()]
            })
            .collect();
        let heading = ["TRUST DOMAIN", "ENDPOINT", "X509+JWT", "SEQUENCE", "CONFIRMED", "PROBLEM"];
        screen.table(heading, &lines, "there is none")
    }
}

impl Row {
    fn problem_shown(&self) -> String {
        if self.alarm { format!("ALARM: {}", self.problem) } else { cell(&self.problem) }
    }
}

impl From<v1::TrustDomainStatus> for Row {
    fn from(status: v1::TrustDomainStatus) -> Self {
        let profile = match status.profile() {
            v1::BundleProfile::Unspecified => "",
            v1::BundleProfile::HttpsWeb => "https_web",
            v1::BundleProfile::HttpsSpiffe => "https_spiffe",
        };
        let v1::TrustDomainStatus {
            name,
            own,
            bundle_endpoint,
            profile: _,
            endpoint_id,
            document,
            x509_authorities,
            jwt_authorities,
            sequence,
            refresh_hint_seconds,
            received_at,
            fetched_at,
            due_at,
            problem,
            alarm,
        } = status;
        Self {
            name,
            own,
            bundle_endpoint,
            profile,
            endpoint_id,
            x509_authorities,
            jwt_authorities,
            sequence,
            refresh_hint_seconds,
            received_at,
            fetched_at,
            due_at,
            problem,
            alarm,
            document: String::from_utf8_lossy(&document).into_owned(),
        }
    }
}
