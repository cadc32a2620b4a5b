//! Settings of the lattice: which NATS servers ask this broker who may join, and who is what there.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use async_nats::ServerAddr;
use portcullis_identity::{Audience, ComponentId, Lattice, SpiffeId, TrustDomain, is_reserved, parse_spiffe_id};
use serde::Deserialize;

use crate::nats::key::{Owner, PublicKey};

/// Servers of one cluster.
const MAX_SERVERS: usize = 32;
/// Identities, or patterns of them, in one list.
const MAX_LISTED: usize = 1024;
/// A host's session unless told otherwise.
const SESSION: Duration = Duration::from_secs(3600);
/// Below this a lattice does little but log in.
const SHORTEST_SESSION: Duration = Duration::from_secs(10);
/// A right that was taken away must not outlive a day where the broker was away.
const LONGEST_SESSION: Duration = Duration::from_secs(24 * 3600);

/// The lattice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nats {
    /// The servers, `tls://HOST:PORT` or `nats://HOST:PORT`.
    pub servers: Vec<String>,
    /// What `nats init` wrote for the broker.
    pub folder: PathBuf,
    /// The authorities of the servers' certificates; `None`: those of the system.
    pub ca_file: Option<PathBuf>,
    /// For whom login tokens must be meant.
    pub audience: Audience,
    /// How long a login by token or key lasts, at most.
    pub session: Duration,
    /// Whether a login token is good once.
    pub tokens: TokenUse,
    /// Which identities are hosts.
    pub hosts: Vec<IdPattern>,
    /// Which identities may call wasm components on hosts.
    pub component_callers: Vec<IdPattern>,
    /// Members without SVID.
    pub keys: Vec<KeyHolder>,
}

/// How often one login token is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenUse {
    /// Once while it lives.
    Once,
    /// As often as it is shown: for issuers that hand the same one out twice.
    DangerMany,
}

/// One identity, or all directly below a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdPattern {
    /// Exactly this.
    Exactly(SpiffeId),
    /// `spiffe://TD/PATH/*`: one further segment.
    Below {
        /// `spiffe://TD/PATH/`
        prefix: String,
    },
}

/// Not a SPIFFE ID or the pattern of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is refused: write a SPIFFE ID, or one whose last segment is `*`: {reason}")]
pub struct InvalidPattern {
    text: String,
    reason: String,
}

impl IdPattern {
    /// Whether `id` is meant.
    #[must_use]
    pub fn matches(&self, id: &SpiffeId) -> bool {
        match self {
            Self::Exactly(exact) => exact == id,
            Self::Below { prefix } => {
                id.to_string().strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && !rest.contains('/'))
            }
        }
    }
}

impl FromStr for IdPattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let parent = text.strip_suffix("/*");
        let id = parse_spiffe_id(parent.unwrap_or(text));
        let id =
            id.map_err(|error| InvalidPattern { text: text.chars().take(256).collect(), reason: error.to_string() })?;
        Ok(match parent {
            Some(parent) => Self::Below { prefix: format!("{parent}/") },
            None => Self::Exactly(id),
        })
    }
}

/// A member of the lattice that proves itself by an nkey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyHolder {
    /// Its key.
    pub key: PublicKey,
    /// What it is called.
    pub identity: SpiffeId,
    /// Its lattice.
    pub lattice: Lattice,
    /// What it is.
    pub class: KeyClass,
}

/// What a member without SVID is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyClass {
    /// `wash` in an operator's hands.
    Operator,
    /// wadm.
    Wadm,
    /// A stock provider of this id.
    Provider(ComponentId),
}

/// `[nats]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NatsSettings {
    /// `servers = ["tls://nats-1.acme.test:4222"]`
    pub servers: Vec<String>,
    /// `folder = "/etc/portcullis/nats/broker"`
    pub folder: PathBuf,
    /// `ca_file = "/etc/portcullis/nats-ca.pem"`
    #[serde(alias = "ca-file")]
    pub ca_file: Option<PathBuf>,
    /// `audience = "spiffe://acme.test/nats"`
    pub audience: Option<String>,
    /// `session = "1h"`
    pub session: Option<String>,
    /// `danger_reuse_tokens = true`
    #[serde(alias = "danger-reuse-tokens")]
    pub danger_reuse_tokens: Option<bool>,
    /// `danger_plain = true`: no TLS to servers on other machines.
    #[serde(alias = "danger-plain")]
    pub danger_plain: Option<bool>,
    /// `hosts = ["spiffe://acme.test/host/*"]`
    #[serde(default)]
    pub hosts: Vec<String>,
    /// `component_callers = ["spiffe://acme.test/virtual/prod/billing"]`
    #[serde(default, alias = "component-callers")]
    pub component_callers: Vec<String>,
    /// `[[nats.key]]`
    #[serde(default)]
    pub key: Vec<KeySettings>,
}

/// `[[nats.key]]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySettings {
    /// `nkey = "UA…"`: the public key of the user.
    pub nkey: String,
    /// `identity = "spiffe://acme.test/wadm"`
    pub identity: String,
    /// `lattice = "prod"`
    pub lattice: String,
    /// `class = "wadm"`, `"operator"` or `"provider"`
    pub class: String,
    /// `id = "http-server"`: of a provider.
    pub id: Option<String>,
}

/// Checks the table; every mistake is noted.
pub(super) fn check(
    settings: NatsSettings,
    trust_domain: Option<&TrustDomain>,
    problems: &mut Vec<String>,
) -> Option<Nats> {
    let NatsSettings { servers, folder, ca_file, audience, session, .. } = settings;
    let before = problems.len();
    let danger_plain = settings.danger_plain.unwrap_or_default();
    if servers.is_empty() || servers.len() > MAX_SERVERS {
        problems.push(format!("nats.servers: name 1 to {MAX_SERVERS} servers"));
    }
    for server in &servers {
        super::note(problems, "nats.servers", server_address(server, danger_plain));
    }
    if folder.as_os_str().is_empty() {
        problems.push("nats.folder is missing: `portcullis-broker nats init` makes it".to_owned());
    }
    let default_audience = || trust_domain.map(|name| format!("spiffe://{name}/nats")).unwrap_or_default();
    let audience =
        super::note(problems, "nats.audience", Audience::try_from(audience.unwrap_or_else(default_audience)));
    let session = super::note(problems, "nats.session", session_length(session.as_deref()));
    let tokens = if settings.danger_reuse_tokens == Some(true) { TokenUse::DangerMany } else { TokenUse::Once };
    let hosts = patterns(problems, "nats.hosts", &settings.hosts, trust_domain);
    let component_callers = patterns(problems, "nats.component_callers", &settings.component_callers, trust_domain);
    let keys = key_holders(problems, settings.key, trust_domain);
    let (Some(audience), Some(session)) = (audience, session) else { return None };
    (problems.len() == before).then_some(Nats {
        servers,
        folder,
        ca_file,
        audience,
        session,
        tokens,
        hosts,
        component_callers,
        keys,
    })
}

fn server_address(text: &str, danger_plain: bool) -> Result<(), String> {
    let address: ServerAddr = text.parse().map_err(|_| format!("`{text}` is not a server: write `tls://HOST:PORT`"))?;
    if address.has_user_pass() || address.username().is_some() {
        return Err("a server's address holds credentials: leave them out".to_owned());
    }
    let local = address.host().trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match address.scheme() {
        "tls" => Ok(()),
        "nats" if local || danger_plain => Ok(()),
        "nats" => Err(format!("`{text}` is not on this machine: write `tls://`, or set danger_plain")),
        _ => Err(format!("`{text}` is not a server: write `tls://HOST:PORT`")),
    }
}

fn session_length(text: Option<&str>) -> Result<Duration, String> {
    let Some(text) = text else { return Ok(SESSION) };
    let length = humantime::parse_duration(text).map_err(|error| format!("`{text}`: {error}"))?;
    if (SHORTEST_SESSION..=LONGEST_SESSION).contains(&length) {
        Ok(length)
    } else {
        Err(format!("`{text}` is not between 10 seconds and 24 hours"))
    }
}

fn patterns(
    problems: &mut Vec<String>,
    setting: &str,
    texts: &[String],
    trust_domain: Option<&TrustDomain>,
) -> Vec<IdPattern> {
    if texts.len() > MAX_LISTED {
        problems.push(format!("{setting}: {} are more than {MAX_LISTED}: use patterns", texts.len()));
    }
    let foreign = |text: &str| trust_domain.is_some_and(|name| !text.starts_with(&format!("spiffe://{name}/")));
    let mut parse = |text: &String| {
        if foreign(text) {
            problems.push(format!("{setting}: `{text}` is not of this trust domain"));
            return None;
        }
        super::note(problems, setting, text.parse())
    };
    texts.iter().filter_map(&mut parse).collect()
}

fn key_holders(
    problems: &mut Vec<String>,
    settings: Vec<KeySettings>,
    trust_domain: Option<&TrustDomain>,
) -> Vec<KeyHolder> {
    let mut holders: Vec<KeyHolder> = Vec::new();
    for settings in settings.into_iter().take(MAX_LISTED) {
        let Some(holder) = super::note(problems, "nats.key", settings.check(trust_domain)) else { continue };
        if holders.iter().any(|other| other.key == holder.key) {
            problems.push(format!("nats.key: `{}` is there twice", holder.key));
        }
        holders.push(holder);
    }
    holders
}

impl KeySettings {
    fn check(self, trust_domain: Option<&TrustDomain>) -> Result<KeyHolder, String> {
        let Self { nkey, identity, lattice, class, id } = self;
        let key = PublicKey::parse(Owner::User, &nkey).map_err(|error| error.to_string())?;
        let identity = parse_spiffe_id(&identity).map_err(|error| error.to_string())?;
        let own = trust_domain.is_none_or(|name| identity.is_member_of(name));
        if !own || is_reserved(&identity) || identity.path().is_empty() {
            return Err(format!(
                "`{identity}` is no identity that can be given: it is foreign, reserved or without path"
            ));
        }
        let lattice = lattice.parse().map_err(|error: portcullis_identity::InvalidName| error.to_string())?;
        let class = match (class.as_str(), id) {
            ("operator", None) => KeyClass::Operator,
            ("wadm", None) => KeyClass::Wadm,
            ("provider", Some(id)) => {
                KeyClass::Provider(id.parse().map_err(|error: portcullis_identity::InvalidName| error.to_string())?)
            }
            ("provider", None) => return Err("a provider needs its `id`".to_owned()),
            ("operator" | "wadm", Some(_)) => return Err("only a provider has an `id`".to_owned()),
            (other, _) => return Err(format!("`{other}` is no class: write `operator`, `wadm` or `provider`")),
        };
        Ok(KeyHolder { key, identity, lattice, class })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Settings;
    use crate::nats::key::SigningKey;

    fn parse(text: &str) -> Result<Nats, String> {
        let text = format!("trust_domain = 'acme.test'\n[nats]\n{text}");
        let settings = Settings::parse(Path::new("b.toml"), &text).map_err(|error| error.to_string())?;
        settings.check().map(|config| config.nats.unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn servers_and_a_folder_are_enough() {
        let nats = parse("servers = ['tls://n:4222']\nfolder = '/n'").unwrap();
        assert_eq!(nats.audience.as_str(), "spiffe://acme.test/nats");
        assert_eq!((nats.session, nats.tokens), (SESSION, TokenUse::Once));
        assert!(nats.hosts.is_empty() && nats.keys.is_empty());
    }

    #[test]
    fn what_is_said_in_the_clear_stays_on_the_machine() {
        let server = |url: &str, more: &str| parse(&format!("servers = ['{url}']\nfolder = '/n'\n{more}"));
        for good in ["nats://127.0.0.1:4222", "nats://[::1]:4222", "tls://nats.acme.test:4222"] {
            server(good, "").unwrap();
        }
        for bad in ["nats://10.0.0.1:4222", "nats://localhost.evil.test:1", "tls://u:p@n:1", "ws://n:1", "http://n"] {
            server(bad, "").unwrap_err();
        }
        server("nats://10.0.0.1:4222", "danger-plain = true").unwrap();
    }

    #[test]
    fn a_pattern_stands_for_one_further_segment() {
        let pattern: IdPattern = "spiffe://acme.test/host/*".parse().unwrap();
        let id = |path: &str| parse_spiffe_id(&format!("spiffe://acme.test{path}")).unwrap();
        assert!(pattern.matches(&id("/host/a")));
        for other in ["/host", "/host/a/b", "/hosts/a", "/x/host/a"] {
            assert!(!pattern.matches(&id(other)), "{other}");
        }
        for bad in ["spiffe://acme.test/*/x", "spiffe://acme.test/h*", "*", "https://acme.test/*"] {
            bad.parse::<IdPattern>().unwrap_err();
        }
    }

    #[test]
    fn every_mistake_is_told() {
        let key = SigningKey::generate(Owner::User);
        let bad = "servers = []\nfolder = ''\nsession = '1s'\nhosts = ['spiffe://other.test/h']\n\
                   [[nats.key]]\nnkey = 'x'\nidentity = 'spiffe://acme.test/w'\nlattice = 'p'\nclass = 'wadm'";
        let error = parse(bad).unwrap_err();
        assert_eq!(error.lines().count(), 5, "{error}");
        let with = |class: &str, more: &str| {
            parse(&format!(
                "servers = ['tls://n:1']\nfolder = '/n'\n[[nats.key]]\nnkey = '{}'\nidentity = 'spiffe://acme.test/w'\nlattice = 'p'\nclass = '{class}'\n{more}",
                key.public()
            ))
        };
        with("wadm", "").unwrap();
        with("provider", "id = 'http'").unwrap();
        for (class, more) in [("root", ""), ("provider", ""), ("wadm", "id = 'x'"), ("provider", "id = 'vc'")] {
            with(class, more).unwrap_err();
        }
    }
}
