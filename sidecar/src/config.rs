//! The sidecar's configuration: one TOML file, parsed into types, every mistake told at once.
//!
//! Relative paths are relative to the file. Nothing here opens a file but the configuration itself.

mod agent;
mod local;
mod nats;
mod node;
mod reader;
mod splice;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis_admin::AdminAddress;
use portcullis_identity::Target;

pub use agent::{AgentConfig, Program};
pub use nats::{NatsSection, UnreadCredentials};
pub use node::{IdentitySection, NodeSection};
pub use reader::Mistake;
pub use splice::{SpliceAddress, SpliceSection, StreamEncoding};

use crate::files::FilesConfig;
use crate::workload::WorkloadConfig;
use node::{identity, node};
use reader::{Reader, Section};

/// A sidecar's whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who the sidecar is to the broker.
    pub node: NodeSection,
    /// Where its identity comes from, where that is not the broker.
    pub identity: Option<IdentitySection>,
    /// The virtual component it serves.
    pub component: ComponentSection,
    /// Where callers reach it.
    pub listen: ListenSection,
    /// Where it is called over NATS, too.
    pub nats: Option<NatsSection>,
    /// What stands behind it.
    pub upstream: UpstreamSection,
    /// What callers may take.
    pub limits: LimitsSection,
    /// The socket of the Workload API, for what runs beside the sidecar.
    pub workload: Option<WorkloadConfig>,
    /// Identities as files.
    pub files: Vec<FilesConfig>,
    /// Where operators look.
    pub admin: AdminAddress,
    /// Which decisions are recorded besides denials.
    pub record_allowed: bool,
}

/// `[component]`.
#[derive(Clone, Debug)]
pub struct ComponentSection {
    /// `LATTICE/ID`.
    pub target: Target,
    /// WIT folder: what `check` checks against.
    pub wit: Option<PathBuf>,
    /// Policy files for `check`.
    pub policies: Vec<PathBuf>,
}

/// `[listen]`.
#[derive(Clone, Debug)]
pub struct ListenSection {
    /// UDP address of the QUIC listener.
    pub quic: SocketAddr,
    /// `host:port` told to callers; empty: the address bound.
    pub advertise: Vec<String>,
}

/// `[upstream.http]` or `[upstream.splice]`.
#[derive(Clone, Debug)]
pub enum UpstreamSection {
    /// HTTP/JSON.
    Http(HttpSection),
    /// Framed wRPC.
    Splice(SpliceSection),
}

/// `[upstream.http]`.
#[derive(Clone, Debug)]
pub struct HttpSection {
    /// `http://host:port/prefix`.
    pub url: String,
    /// Mapping file; without it the default mapping.
    pub mapping: Option<PathBuf>,
    /// CA certificates (PEM) for `https`.
    pub ca_file: Option<PathBuf>,
    /// Fixed headers.
    pub headers: Vec<(String, String)>,
    /// File (0600) with the service's credentials.
    pub credentials_file: Option<PathBuf>,
    /// Header that carries the caller's SPIFFE ID.
    pub caller_header: Option<String>,
    /// For one exchange.
    pub timeout: Duration,
    /// For one TCP (and TLS) connection.
    pub connect_timeout: Duration,
    /// How long an idle connection is kept: shorter than the service keeps it.
    pub idle_timeout: Duration,
    /// Of a response body.
    pub max_response_bytes: usize,
    /// Idle connections kept.
    pub max_idle: usize,
    /// u64 and s64 as JSON strings in requests.
    pub int64_as_string: bool,
}

/// `[limits]`: what callers may take.
#[derive(Clone, Copy, Debug)]
pub struct LimitsSection {
    /// Of one call's parameters and of its result, in bytes.
    pub value_bytes: usize,
    /// Nesting of values.
    pub value_depth: usize,
    /// Elements, fields and cases in one call's parameters.
    pub value_items: usize,
    /// Calls under way in all.
    pub calls: usize,
    /// Calls under way of one SPIFFE ID.
    pub calls_per_peer: usize,
    /// Calls under way of one function.
    pub calls_per_function: usize,
    /// Parameter bytes held in memory in all.
    pub bytes_in_flight: usize,
    /// Connections in all.
    pub connections: usize,
    /// New connections a second from one address.
    pub connections_per_second: usize,
    /// For the wRPC header to arrive.
    pub header_timeout: Duration,
    /// For a whole call of values.
    pub call_timeout: Duration,
    /// For calls to finish when the sidecar stops.
    pub drain_timeout: Duration,
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            value_bytes: 4 << 20,
            value_depth: 64,
            value_items: 1_000_000,
            calls: 4096,
            calls_per_peer: 256,
            calls_per_function: 1024,
            bytes_in_flight: 256 << 20,
            connections: 1024,
            connections_per_second: 50,
            header_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(20),
        }
    }
}

impl Config {
    /// Reads and parses a file.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn load(path: &Path) -> Result<Self, Vec<Mistake>> {
        Self::parse(&path.display().to_string(), &read(path)?)
    }

    /// Parses a document; `file` is its path, for messages and relative paths.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn parse(file: &str, text: &str) -> Result<Self, Vec<Mistake>> {
        let mut reader = Reader::new(file, text);
        let table = reader.root();
        let base = Path::new(file).parent().unwrap_or_else(|| Path::new("")).to_owned();
        let mut root = Section::root(&table);
        let node = node(root.section("node", &mut reader), &base, &mut reader);
        let identity = identity(root.section("identity", &mut reader), &base, &mut reader);
        let component = component(root.section("component", &mut reader), &base, &mut reader);
        let listen = listen(root.section("listen", &mut reader), &mut reader);
        let nats = nats::nats(root.section("nats", &mut reader), &base, &mut reader);
        let upstream = upstream(root.section("upstream", &mut reader), &base, &mut reader);
        let limits = limits(root.section("limits", &mut reader), &mut reader);
        let workload = local::workload(root.section("workload_api", &mut reader), &base, &mut reader);
        let files = local::files(root.sections("files", &mut reader), &base, &mut reader);
        if identity.is_some() && (workload.is_some() || !files.is_empty()) {
            let message =
                "[identity] with [workload_api] or [[files]]: the machine has a Workload API already".to_owned();
            reader.mistake(None, message, Some("keep [identity], or run an agent of its own".to_owned()));
        }
        let state = node.as_ref().map(|node| node.state.clone());
        let admin = admin(root.section("admin", &mut reader), &base, state.as_deref(), &mut reader);
        let mut records = root.section("records", &mut reader);
        let record_allowed = records.boolean("allowed", &mut reader).unwrap_or(false);
        records.finish(&mut reader);
        root.finish(&mut reader);
        let mistakes = reader.into_mistakes();
        match (node, component, listen, upstream, admin) {
            (Some(node), Some(component), Some(listen), Some(upstream), Some(admin)) if mistakes.is_empty() => {
                Ok(Self {
                    node,
                    identity,
                    component,
                    listen,
                    nats,
                    upstream,
                    limits,
                    workload,
                    files,
                    admin,
                    record_allowed,
                })
            }
            _ => Err(mistakes),
        }
    }
}

fn read(path: &Path) -> Result<String, Vec<Mistake>> {
    std::fs::read_to_string(path).map_err(|error| {
        let message = format!("cannot be read: {error}");
        vec![Mistake { file: path.display().to_string(), line: None, message, hint: None }]
    })
}

fn component(mut section: Section<'_, '_>, base: &Path, reader: &mut Reader<'_>) -> Option<ComponentSection> {
    let lattice = section.required("lattice", reader);
    let id = section.required("id", reader);
    let wit = section.text("wit", reader).map(|found| base.join(found.value));
    let policies = section.texts("policies", reader).into_iter().map(|found| base.join(found.value)).collect();
    section.finish(reader);
    Some(ComponentSection { target: Target { lattice: lattice?, id: id? }, wit, policies })
}

fn listen(mut section: Section<'_, '_>, reader: &mut Reader<'_>) -> Option<ListenSection> {
    let quic = section.required("quic", reader);
    let mut advertise = Vec::new();
    for found in section.texts("advertise", reader) {
        if found.value.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) {
            advertise.push(found.value);
        } else {
            reader.mistake(Some(found.at), format!("`{}` is not HOST:PORT", found.value), None);
        }
    }
    section.finish(reader);
    let quic: SocketAddr = quic?;
    if quic.ip().is_unspecified() && advertise.is_empty() {
        let hint = Some("add `advertise = [\"HOST:PORT\"]`, the address callers reach".to_owned());
        reader.mistake(None, format!("`listen.quic` is `{quic}`, which callers cannot dial"), hint);
    }
    Some(ListenSection { quic, advertise })
}

fn upstream(mut section: Section<'_, '_>, base: &Path, reader: &mut Reader<'_>) -> Option<UpstreamSection> {
    let http = section.section("http", reader);
    let splice = section.section("splice", reader);
    section.finish(reader);
    match (http.is_present(), splice.is_present()) {
        (true, false) => http_upstream(http, base, reader).map(UpstreamSection::Http),
        (false, true) => splice::read(splice, base, reader).map(UpstreamSection::Splice),
        (false, false) => {
            let hint = Some("add a table [upstream.http] or [upstream.splice]".to_owned());
            reader.mistake(None, "there is no upstream".to_owned(), hint);
            None
        }
        (true, true) => {
            reader.mistake(None, "there are two upstreams: keep [upstream.http] or [upstream.splice]".to_owned(), None);
            None
        }
    }
}

fn http_upstream(mut section: Section<'_, '_>, base: &Path, reader: &mut Reader<'_>) -> Option<HttpSection> {
    let url = section.required_text("url", reader);
    let http = HttpSection {
        url: url.as_ref().map(|url| url.value.clone()).unwrap_or_default(),
        mapping: section.text("mapping", reader).map(|found| base.join(found.value)),
        ca_file: section.text("ca_file", reader).map(|found| base.join(found.value)),
        headers: section.pairs("headers", reader).into_iter().map(|(name, found)| (name, found.value)).collect(),
        credentials_file: section.text("credentials_file", reader).map(|found| base.join(found.value)),
        caller_header: section.text("caller_header", reader).map(|found| found.value),
        timeout: section.duration("timeout", reader).unwrap_or(Duration::from_secs(10)),
        connect_timeout: section.duration("connect_timeout", reader).unwrap_or(Duration::from_secs(2)),
        idle_timeout: section.duration("idle_timeout", reader).unwrap_or(Duration::from_secs(4)),
        max_response_bytes: size(&mut section, "max_response_bytes", 1..=1 << 30, reader).unwrap_or(4 << 20),
        max_idle: size(&mut section, "max_idle", 0..=4096, reader).unwrap_or(64),
        int64_as_string: section.boolean("int64_as_string", reader).unwrap_or(false),
    };
    section.finish(reader);
    url.map(|_| http)
}

fn limits(mut section: Section<'_, '_>, reader: &mut Reader<'_>) -> LimitsSection {
    let default = LimitsSection::default();
    let limits = LimitsSection {
        value_bytes: size(&mut section, "value_bytes", 1..=1 << 30, reader).unwrap_or(default.value_bytes),
        value_depth: size(&mut section, "value_depth", 1..=1000, reader).unwrap_or(default.value_depth),
        value_items: size(&mut section, "value_items", 1..=1 << 30, reader).unwrap_or(default.value_items),
        calls: size(&mut section, "calls", 1..=1 << 20, reader).unwrap_or(default.calls),
        calls_per_peer: size(&mut section, "calls_per_peer", 1..=1 << 20, reader).unwrap_or(default.calls_per_peer),
        calls_per_function: size(&mut section, "calls_per_function", 1..=1 << 20, reader)
            .unwrap_or(default.calls_per_function),
        bytes_in_flight: size(&mut section, "bytes_in_flight", 1..=1 << 40, reader).unwrap_or(default.bytes_in_flight),
        connections: size(&mut section, "connections", 1..=1 << 20, reader).unwrap_or(default.connections),
        connections_per_second: size(&mut section, "connections_per_second", 1..=1 << 20, reader)
            .unwrap_or(default.connections_per_second),
        header_timeout: section.duration("header_timeout", reader).unwrap_or(default.header_timeout),
        call_timeout: section.duration("call_timeout", reader).unwrap_or(default.call_timeout),
        drain_timeout: section.duration("drain_timeout", reader).unwrap_or(default.drain_timeout),
    };
    section.finish(reader);
    limits
}

fn admin(
    mut section: Section<'_, '_>,
    base: &Path,
    state: Option<&Path>,
    reader: &mut Reader<'_>,
) -> Option<AdminAddress> {
    let listen = section.text("listen", reader);
    section.finish(reader);
    let Some(listen) = listen else {
        return state.map(|state| AdminAddress::Unix(state.join("admin.sock")));
    };
    AdminAddress::parse(&listen.value, base)
        .map_err(|error| reader.mistake(Some(listen.at), format!("`admin.listen`: {error}"), None))
        .ok()
}

fn size(
    section: &mut Section<'_, '_>,
    key: &'static str,
    range: std::ops::RangeInclusive<u64>,
    reader: &mut Reader<'_>,
) -> Option<usize> {
    section.number(key, range, reader).and_then(|number| usize::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use portcullis_identity::SealKeyPlace;

    use super::*;

    const GOOD: &str = r#"
[node]
state = "state"
join_token_file = "token"
seal_key_file = "seal.key"

[component]
lattice = "demo"
id = "billing"
wit = "wit"
policies = ["policy.cedar"]

[listen]
quic = "127.0.0.1:0"

[upstream.http]
url = "http://127.0.0.1:8080"
caller_header = "x-caller"
headers = { accept = "application/json" }
timeout = "3s"

[limits]
calls_per_peer = 8
"#;

    #[test]
    fn a_good_file_becomes_types_with_paths_beside_it() {
        let config = Config::parse("/etc/portcullis/billing.toml", GOOD).unwrap();
        assert_eq!(config.node.state, Path::new("/etc/portcullis/state"));
        assert_eq!(config.node.seal_key, Some(SealKeyPlace::File("/etc/portcullis/seal.key".into())));
        assert_eq!(config.component.target.to_string(), "demo/billing");
        assert_eq!(config.admin, AdminAddress::Unix("/etc/portcullis/state/admin.sock".into()));
        assert_eq!(config.limits.calls_per_peer, 8);
        assert_eq!(config.limits.calls, LimitsSection::default().calls);
        let UpstreamSection::Http(http) = config.upstream else { panic!("not http") };
        assert_eq!(http.timeout, Duration::from_secs(3));
        assert_eq!(http.headers, [("accept".to_owned(), "application/json".to_owned())]);
    }

    #[test]
    fn every_mistake_is_told_at_once_with_its_line() {
        let text = r#"[node]
stat = "state"
[component]
lattice = "de mo"
id = "vc"
[listen]
quic = "0.0.0.0:7443"
[upstream.splice]
address = "udp:1"
idle_timeout = "5 parsecs"
[limits]
calls = 0
connections = "many"
[admin]
listen = "10.0.0.1:80"
[extra]
"#;
        let mistakes = Config::parse("s.toml", text).unwrap_err();
        let lines: Vec<_> = mistakes.iter().filter_map(|mistake| mistake.line).collect();
        for line in [2, 4, 5, 9, 10, 12, 13, 15, 16] {
            assert!(lines.contains(&line), "line {line} is not among {mistakes:#?}");
        }
        let all = mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(all.contains("`node.state` is missing"), "{all}");
        assert!(all.contains("did you mean `state`?"), "{all}");
        assert!(all.contains("callers cannot dial"), "{all}");
    }

    #[test]
    fn broken_syntax_is_a_mistake_with_a_line() {
        let mistakes = Config::parse("s.toml", "[node]\nstate = \n").unwrap_err();
        assert_eq!(mistakes.first().and_then(|mistake| mistake.line), Some(2));
    }
}
