//! How a broker is set up: a TOML file, which the command line overrides, parsed into one checked value.

mod federation;
mod nats;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis_admin::{AdminAddress, InvalidAddress};
use portcullis_identity::{SealKeyPlace, TrustDomain, parse_trust_domain};
use serde::Deserialize;

use crate::registry::Address;
use crate::succession::Lifetimes;
use crate::ttl::Ttl;
use crate::x509pop::{InvalidTemplate, NameTemplate, X509Pop};

pub use self::federation::{
    BundleEndpoint, CertificateFiles, EndpointSettings, Federation, FederationSettings, Oidc, OidcSettings,
};
pub use self::nats::{IdPattern, InvalidPattern, KeyClass, KeyHolder, KeySettings, Nats, NatsSettings, TokenUse};

/// Where a broker keeps its data unless told otherwise, below the working folder.
pub const DEFAULT_DATA_FOLDER: &str = "portcullis-data";
/// The operator socket's name in the data folder.
pub const OPERATOR_SOCKET: &str = "operator.sock";
/// The admin socket's name in the data folder.
pub const ADMIN_SOCKET: &str = "admin.sock";
/// Ten years: a root outlives most machines; it is rotated by command, or by a shorter lifetime.
const CA_LIFETIME: Duration = Duration::from_secs(3650 * 24 * 3600);
/// Tokens live minutes; whoever copies the keys elsewhere has half of this to see the next.
const JWT_KEY_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
const DEFAULT_LISTEN: &str = "127.0.0.1:7440";

/// The set-up of a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The trust domain it is the authority of.
    pub trust_domain: TrustDomain,
    /// Keys, store and, by default, the operator socket.
    pub data: PathBuf,
    /// Where nodes are served.
    pub listen: SocketAddr,
    /// Under which address nodes reach it; `None`: the one it listens on.
    pub advertise: Option<Address>,
    /// The operator socket.
    pub operator_socket: PathBuf,
    /// Where `/live`, `/ready`, `/status` and `/metrics` are served.
    pub admin: AdminAddress,
    /// Who may use the operator socket, beside root and the broker's own user.
    pub operator_uids: Vec<u32>,
    /// Lifetime of nodes' and the broker's own SVIDs.
    pub node_ttl: Ttl,
    /// Lifetime of entries' SVIDs where the entry does not say.
    pub svid_ttl: Ttl,
    /// Lifetime of a root of our own; the next is prepared at half of it.
    pub ca_lifetime: Duration,
    /// Lifetime of a key that signs JWT-SVIDs.
    pub jwt_key_lifetime: Duration,
    /// The key that seals CA files; `None`: they lie plain.
    pub seal_key: Option<SealKeyPlace>,
    /// The folder of the credentials that systemd passes.
    pub credentials: Option<PathBuf>,
    /// Whose certificates let nodes join; `None`: nobody's.
    pub x509pop: Option<X509Pop>,
    /// What is fetched from foreign trust domains and served to them.
    pub federation: Federation,
    /// The lattice whose servers ask this broker who may join; `None`: none.
    pub nats: Option<Nats>,
}

/// Settings as they are written, also with `-` for `_`; what is missing has a default or comes from elsewhere.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `trust_domain = "acme.test"`
    #[serde(alias = "trust-domain")]
    pub trust_domain: Option<String>,
    /// `data = "/var/lib/portcullis"`; a relative path is one below the working folder.
    pub data: Option<PathBuf>,
    /// `listen = "0.0.0.0:7440"`
    pub listen: Option<String>,
    /// `advertise = "broker.acme.test:7440"`
    pub advertise: Option<String>,
    /// `operator_socket = "/run/portcullis/operator.sock"`
    #[serde(alias = "operator-socket")]
    pub operator_socket: Option<PathBuf>,
    /// `admin = "127.0.0.1:9440"`, or `"unix:/run/portcullis/admin.sock"`
    pub admin: Option<String>,
    /// `operator_uids = [1000]`
    #[serde(alias = "operator-uids")]
    pub operator_uids: Option<Vec<u32>>,
    /// `node_ttl = "1h"`
    #[serde(alias = "node-ttl")]
    pub node_ttl: Option<String>,
    /// `svid_ttl = "1h"`
    #[serde(alias = "svid-ttl")]
    pub svid_ttl: Option<String>,
    /// `ca_lifetime = "3650d"`
    #[serde(alias = "ca-lifetime")]
    pub ca_lifetime: Option<String>,
    /// `jwt_key_lifetime = "30d"`
    #[serde(alias = "jwt-key-lifetime")]
    pub jwt_key_lifetime: Option<String>,
    /// `seal_key_file = "/etc/portcullis/seal.key"`, or `"credential:NAME"` for one that systemd passes.
    #[serde(alias = "seal-key-file")]
    pub seal_key_file: Option<String>,
    /// `$CREDENTIALS_DIRECTORY`: not a setting, but where the process was told to look.
    #[serde(skip)]
    pub credentials: Option<PathBuf>,
    /// `x509pop_ca = "/etc/portcullis/machines.pem"`
    #[serde(alias = "x509pop-ca")]
    pub x509pop_ca: Option<PathBuf>,
    /// `x509pop_name = "edge-{cn}"`
    #[serde(alias = "x509pop-name")]
    pub x509pop_name: Option<String>,
    /// `[federation]`
    pub federation: Option<FederationSettings>,
    /// `[bundle_endpoint]`
    #[serde(alias = "bundle-endpoint")]
    pub bundle_endpoint: Option<EndpointSettings>,
    /// `[oidc]`
    pub oidc: Option<OidcSettings>,
    /// `[nats]`
    pub nats: Option<NatsSettings>,
}

/// Every mistake of a set-up at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct InvalidConfig(Vec<String>);

impl Settings {
    /// Reads a TOML file's text.
    ///
    /// # Errors
    /// When it is not TOML, or has a key that does not exist; the message has line and column.
    pub fn parse(file: &Path, text: &str) -> Result<Self, InvalidConfig> {
        toml::from_str(text).map_err(|error| InvalidConfig(vec![format!("{}: {error}", file.display())]))
    }

    /// These settings, and where one is missing that of `others`.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            trust_domain: self.trust_domain.or(others.trust_domain),
            data: self.data.or(others.data),
            listen: self.listen.or(others.listen),
            advertise: self.advertise.or(others.advertise),
            operator_socket: self.operator_socket.or(others.operator_socket),
            admin: self.admin.or(others.admin),
            operator_uids: self.operator_uids.or(others.operator_uids),
            node_ttl: self.node_ttl.or(others.node_ttl),
            svid_ttl: self.svid_ttl.or(others.svid_ttl),
            ca_lifetime: self.ca_lifetime.or(others.ca_lifetime),
            jwt_key_lifetime: self.jwt_key_lifetime.or(others.jwt_key_lifetime),
            seal_key_file: self.seal_key_file.or(others.seal_key_file),
            credentials: self.credentials.or(others.credentials),
            x509pop_ca: self.x509pop_ca.or(others.x509pop_ca),
            x509pop_name: self.x509pop_name.or(others.x509pop_name),
            federation: self.federation.or(others.federation),
            bundle_endpoint: self.bundle_endpoint.or(others.bundle_endpoint),
            oidc: self.oidc.or(others.oidc),
            nats: self.nats.or(others.nats),
        }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// Every setting that is missing or not understood.
    pub fn check(self) -> Result<Config, InvalidConfig> {
        let mut problems = Vec::new();
        let trust_domain = self.trust_domain.as_deref().map(parse_trust_domain).transpose();
        let trust_domain = note(&mut problems, "trust_domain", trust_domain).flatten();
        if trust_domain.is_none() && problems.is_empty() {
            problems.push("trust_domain is missing: give --trust-domain, for instance `acme.test`".to_owned());
        }
        let listen = note(&mut problems, "listen", socket_address(self.listen.as_deref().unwrap_or(DEFAULT_LISTEN)));
        let advertise = note(&mut problems, "advertise", self.advertise.as_deref().map(str::parse).transpose());
        let node_ttl = note(&mut problems, "node_ttl", ttl(self.node_ttl.as_deref()));
        let svid_ttl = note(&mut problems, "svid_ttl", ttl(self.svid_ttl.as_deref()));
        let seal_key = note(&mut problems, "seal_key_file", self.seal_key_file.as_deref().map(str::parse).transpose());
        let ca_lifetime = note(&mut problems, "ca_lifetime", lifetime(self.ca_lifetime.as_deref(), CA_LIFETIME));
        let jwt_key_lifetime =
            note(&mut problems, "jwt_key_lifetime", lifetime(self.jwt_key_lifetime.as_deref(), JWT_KEY_LIFETIME));
        let x509pop = note(&mut problems, "x509pop_name", x509pop(self.x509pop_ca, self.x509pop_name.as_deref()));
        let broken = problems.len();
        let federation = federation::check(self.federation, self.bundle_endpoint, self.oidc, &mut problems);
        let nats = self.nats.and_then(|settings| nats::check(settings, trust_domain.as_ref(), &mut problems));
        let data = self.data.unwrap_or_else(|| PathBuf::from(DEFAULT_DATA_FOLDER));
        let operator_socket = self.operator_socket.unwrap_or_else(|| data.join(OPERATOR_SOCKET));
        let operator_uids = self.operator_uids.unwrap_or_default();
        let admin = note(&mut problems, "admin", admin(self.admin.as_deref(), &data));
        let (Some(ca_lifetime), Some(jwt_key_lifetime), Some(x509pop)) = (ca_lifetime, jwt_key_lifetime, x509pop)
        else {
            return Err(InvalidConfig(problems));
        };
        if problems.len() > broken {
            return Err(InvalidConfig(problems));
        }
        match (trust_domain, listen, advertise, node_ttl, svid_ttl, seal_key, admin) {
            (
                Some(trust_domain),
                Some(listen),
                Some(advertise),
                Some(node_ttl),
                Some(svid_ttl),
                Some(seal_key),
                Some(admin),
            ) => Ok(Config {
                trust_domain,
                data,
                listen,
                advertise,
                operator_socket,
                admin,
                operator_uids,
                node_ttl,
                svid_ttl,
                ca_lifetime,
                jwt_key_lifetime,
                seal_key,
                credentials: self.credentials,
                x509pop,
                federation,
                nats,
            }),
            _ => Err(InvalidConfig(problems)),
        }
    }
}

impl Config {
    pub(crate) fn lifetimes(&self) -> Lifetimes {
        Lifetimes { x509: self.ca_lifetime, jwt: self.jwt_key_lifetime }
    }

    /// A set-up with nothing but a trust domain and a data folder.
    ///
    /// # Errors
    /// When the trust domain is not one.
    pub fn new(trust_domain: &str, data: &Path) -> Result<Self, InvalidConfig> {
        let settings = Settings {
            trust_domain: Some(trust_domain.to_owned()),
            data: Some(data.to_owned()),
            ..Settings::default()
        };
        settings.check()
    }
}

fn note<T, E: ToString>(problems: &mut Vec<String>, setting: &str, result: Result<T, E>) -> Option<T> {
    result.map_err(|error| problems.push(format!("{setting}: {}", error.to_string()))).ok()
}

fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is not an address and port: write `{DEFAULT_LISTEN}` or `[::]:7440`"))
}

fn admin(text: Option<&str>, data: &Path) -> Result<AdminAddress, InvalidAddress> {
    text.map_or_else(
        || Ok(AdminAddress::Unix(data.join(ADMIN_SOCKET))),
        |text| AdminAddress::parse(text, Path::new("")),
    )
}

fn x509pop(ca: Option<PathBuf>, name: Option<&str>) -> Result<Option<X509Pop>, String> {
    match (ca, name) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err("needs x509pop_ca: the authorities whose certificates are accepted".to_owned()),
        (Some(ca), None) => Ok(Some(X509Pop { ca, name: NameTemplate::default() })),
        (Some(ca), Some(name)) => {
            name.parse().map(|name| Some(X509Pop { ca, name })).map_err(|error: InvalidTemplate| error.to_string())
        }
    }
}

fn ttl(text: Option<&str>) -> Result<Ttl, String> {
    let Some(text) = text else { return Ok(Ttl::DEFAULT) };
    let duration: Duration = humantime::parse_duration(text).map_err(|error| format!("`{text}`: {error}"))?;
    Ttl::try_from(duration.as_secs()).map_err(|error| error.to_string())
}

/// `default` is also the longest; below an hour there is no time to tell everybody of the next.
fn lifetime(text: Option<&str>, default: Duration) -> Result<Duration, String> {
    const SHORTEST: Duration = Duration::from_secs(3600);
    let Some(text) = text else { return Ok(default) };
    let lifetime = humantime::parse_duration(text).map_err(|error| format!("`{text}`: {error}"))?;
    if (SHORTEST..=CA_LIFETIME).contains(&lifetime) {
        Ok(lifetime)
    } else {
        Err(format!("`{text}` is not between 1 hour and 10 years"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trust_domain_and_a_folder_are_enough() {
        let config = Config::new("acme.test", Path::new("/data")).unwrap();
        assert_eq!(config.listen, "127.0.0.1:7440".parse().unwrap());
        assert_eq!(config.operator_socket, Path::new("/data/operator.sock"));
        assert_eq!(config.svid_ttl, Ttl::DEFAULT);
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let file = Settings::parse(Path::new("b.toml"), "trust_domain = 'a.test'\nlisten = '127.0.0.1:1'").unwrap();
        let line = Settings { listen: Some("127.0.0.1:2".to_owned()), ..Settings::default() };
        let config = line.or(file).check().unwrap();
        assert_eq!(config.listen.port(), 2);
        assert_eq!(config.trust_domain.as_str(), "a.test");
    }

    #[test]
    fn every_mistake_is_listed() {
        let text = "trust_domain = 'A.test'\nlisten = 'here'\nadvertise = ':1'\nnode_ttl = '3s'\nsvid_ttl = 'soon'\nseal-key-file = 'credential:'\nca-lifetime = '1m'";
        let error = Settings::parse(Path::new("b.toml"), text).unwrap().check().unwrap_err().to_string();
        assert_eq!(error.lines().count(), 7, "{error}");
    }

    #[test]
    fn an_unknown_key_is_a_mistake_with_its_place() {
        let error =
            Settings::parse(Path::new("b.toml"), "trust_domain = 'a.test'\nlisen = 'x'").unwrap_err().to_string();
        assert!(error.starts_with("b.toml: ") && error.contains("line 2") && error.contains("lisen"), "{error}");
    }
}
