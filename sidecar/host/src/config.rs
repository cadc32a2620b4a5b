//! The host's configuration: a TOML file, each part of which an argument of the program may replace.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use portcullis_client::{
    WorkloadSocket,
    node::{CertificateFiles, CertificateSettings},
};
use portcullis_identity::{ComponentId, Lattice, SealKeyPlace, Target, parse_trust_domain};
use portcullis_value::Limits;
use serde::Deserialize;

use crate::{HostLimits, InterfaceName};

/// The configuration of a host, as far as it was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Folder of the node's on-disk cache.
    pub state: Option<PathBuf>,
    /// File with the join token; read at the first start only.
    pub join_token_file: Option<PathBuf>,
    /// The certificate by which the node joins, where it has no token.
    pub certificate: Option<CertificateFiles>,
    /// `host:port` of the broker where it is not that of the token any more.
    pub broker: Option<String>,
    /// The Workload API that gives the component's identity, where that is not the broker.
    pub workload_api: Option<WorkloadSocket>,
    /// The key that seals the keys in the cache.
    pub seal_key_file: Option<SealKeyPlace>,
    /// How long to wait for an entry and for those who serve the imports.
    pub patience: Option<Duration>,
    /// The component's file.
    pub file: Option<PathBuf>,
    /// The component's lattice.
    pub lattice: Option<Lattice>,
    /// The component's id in it.
    pub id: Option<ComponentId>,
    /// Who serves an import.
    pub imports: BTreeMap<String, Target>,
    /// What the component may take.
    pub limits: LimitsSection,
}

/// `[limits]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitsSection {
    /// For a whole call.
    pub call_timeout: Option<Duration>,
    /// For a call to a virtual component.
    pub import_timeout: Option<Duration>,
    /// Linear memory, in bytes.
    pub memory_bytes: Option<usize>,
    /// Of the values of one call, in bytes.
    pub value_bytes: Option<usize>,
    /// Nesting of values.
    pub value_depth: Option<usize>,
    /// Elements, fields and cases in the values of one call.
    pub value_items: Option<usize>,
}

impl LimitsSection {
    /// The limits, with the defaults where nothing was said.
    #[must_use]
    pub fn limits(&self) -> HostLimits {
        let default = HostLimits::default();
        HostLimits {
            call_timeout: self.call_timeout.unwrap_or(default.call_timeout),
            import_timeout: self.import_timeout.unwrap_or(default.import_timeout),
            memory_bytes: self.memory_bytes.unwrap_or(default.memory_bytes),
            values: Limits {
                bytes: self.value_bytes.unwrap_or(default.values.bytes),
                depth: self.value_depth.unwrap_or(default.values.depth),
                items: self.value_items.unwrap_or(default.values.items),
            },
        }
    }
}

/// A configuration that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {message}")]
pub struct InvalidConfig {
    /// As the user named it.
    pub file: String,
    /// What is wrong, with its place.
    pub message: String,
}

impl Config {
    /// Reads and parses a file.
    ///
    /// # Errors
    /// The first mistake in it.
    pub fn load(path: &Path) -> Result<Self, InvalidConfig> {
        let text = std::fs::read_to_string(path).map_err(|error| InvalidConfig {
            file: path.display().to_string(),
            message: format!("cannot be read: {error}"),
        })?;
        Self::parse(path, &text)
    }

    /// Parses a document; paths in it are relative to its folder.
    ///
    /// # Errors
    /// The first mistake in it.
    pub fn parse(path: &Path, text: &str) -> Result<Self, InvalidConfig> {
        let invalid = |message: String| InvalidConfig { file: path.display().to_string(), message };
        let document: Document =
            toml::from_str(text).map_err(|error| invalid(error.to_string().trim_end().to_owned()))?;
        document.into_config(path.parent().unwrap_or_else(|| Path::new(""))).map_err(invalid)
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Document {
    node: Node,
    identity: Identity,
    component: Component,
    imports: BTreeMap<String, String>,
    limits: WireLimits,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Node {
    state: Option<PathBuf>,
    join_token_file: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    bundle: Option<PathBuf>,
    trust_domain: Option<String>,
    broker: Option<String>,
    seal_key_file: Option<String>,
    wait: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Identity {
    workload_api: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Component {
    file: Option<PathBuf>,
    lattice: Option<String>,
    id: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct WireLimits {
    call_timeout: Option<String>,
    import_timeout: Option<String>,
    memory_bytes: Option<usize>,
    value_bytes: Option<usize>,
    value_depth: Option<usize>,
    value_items: Option<usize>,
}

impl Document {
    fn into_config(self, folder: &Path) -> Result<Config, String> {
        let Self { node, identity, component, imports, limits } = self;
        let Node { state, join_token_file, certificate, key, bundle, trust_domain, broker, seal_key_file, wait } = node;
        let Identity { workload_api } = identity;
        let Component { file, lattice, id } = component;
        let WireLimits { call_timeout, import_timeout, memory_bytes, value_bytes, value_depth, value_items } = limits;
        let beside = |path: PathBuf| folder.join(path);
        let seal_key =
            seal_key_file.map(|text| text.parse().map(|place: SealKeyPlace| place.below(folder))).transpose();
        let trust_domain = trust_domain.map(|name| parse_trust_domain(&name)).transpose();
        let certificate = CertificateSettings {
            certificate: certificate.map(beside),
            key: key.map(beside),
            bundle: bundle.map(beside),
            trust_domain: trust_domain.map_err(|error| format!("`node.trust_domain`: {error}"))?,
            broker: broker.clone(),
        };
        let certificate = certificate.complete().map_err(|error| error.to_string())?;
        if certificate.is_some() && join_token_file.is_some() {
            return Err("`node` has a join token and a certificate: keep one".to_owned());
        }
        let workload_api = workload_api.map(|text| text.parse().map(|socket: WorkloadSocket| socket.below(folder)));
        let lattice = lattice.map(|name| name.parse().map_err(|error| format!("`component.lattice`: {error}")));
        let id = id.map(|name| name.parse().map_err(|error| format!("`component.id`: {error}")));
        Ok(Config {
            state: state.map(beside),
            join_token_file: join_token_file.map(beside),
            certificate,
            broker,
            workload_api: workload_api.transpose().map_err(|error| format!("`identity.workload_api`: {error}"))?,
            seal_key_file: seal_key.map_err(|error| format!("`node.seal_key_file`: {error}"))?,
            patience: duration("node.wait", wait)?,
            file: file.map(beside),
            lattice: lattice.transpose()?,
            id: id.transpose()?,
            imports: imports.iter().map(|(name, target)| import(name, target)).collect::<Result<_, _>>()?,
            limits: LimitsSection {
                call_timeout: duration("limits.call_timeout", call_timeout)?,
                import_timeout: duration("limits.import_timeout", import_timeout)?,
                memory_bytes,
                value_bytes,
                value_depth,
                value_items,
            },
        })
    }
}

fn duration(key: &str, text: Option<String>) -> Result<Option<Duration>, String> {
    let parsed = text.map(|text| humantime::parse_duration(&text).map_err(|error| format!("`{key}`: {error}")));
    parsed.transpose()
}

/// A choice of who serves an import.
///
/// # Errors
/// When the name is no interface or the target no `LATTICE/ID`.
pub(crate) fn import(name: &str, target: &str) -> Result<(String, Target), String> {
    let name: InterfaceName = name.parse().map_err(|error| format!("{error}"))?;
    let target = target.parse().map_err(|error| format!("`{name}`: {error}"))?;
    Ok((name.to_string(), target))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("/etc/host.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_full_file_says_everything() {
        let config = parsed(
            r#"
            [node]
            state = "state"
            join_token_file = "/run/token"
            broker = "broker:7443"
            seal_key_file = "seal.key"
            wait = "1m"

            [identity]
            workload_api = "unix:///run/api.sock"

            [component]
            file = "checkout.wasm"
            lattice = "demo"
            id = "checkout"

            [imports]
            "acme:billing/invoices@1.0.0" = "demo/billing"

            [limits]
            call_timeout = "2s"
            memory_bytes = 1048576
            "#,
        )
        .unwrap();
        assert_eq!(config.state, Some("/etc/state".into()));
        assert_eq!(config.join_token_file, Some("/run/token".into()));
        assert_eq!(config.seal_key_file, Some(SealKeyPlace::File("/etc/seal.key".into())));
        assert_eq!(config.patience, Some(Duration::from_secs(60)));
        assert_eq!(config.workload_api.unwrap().to_string(), "unix:/run/api.sock");
        assert_eq!(config.file, Some("/etc/checkout.wasm".into()));
        assert_eq!(config.imports["acme:billing/invoices@1.0.0"], "demo/billing".parse().unwrap());
        let limits = config.limits.limits();
        assert_eq!((limits.call_timeout, limits.memory_bytes), (Duration::from_secs(2), 1 << 20));
        assert_eq!(limits.import_timeout, HostLimits::default().import_timeout);
    }

    #[test]
    fn an_empty_file_says_nothing() {
        assert_eq!(parsed(""), Ok(Config::default()));
        assert_eq!(Config::default().limits.limits(), HostLimits::default());
    }

    #[test]
    fn a_mistake_is_told_with_its_place() {
        for (text, said) in [
            ("[node]\nstat = \"x\"", "line 2"),
            ("[component]\nlattice = \"a/b\"", "`component.lattice`"),
            ("[node]\nwait = \"soon\"", "`node.wait`"),
            ("[node]\nseal_key_file = \"credential:a/b\"", "`node.seal_key_file`"),
            ("[imports]\nbilling = \"demo/billing\"", "`billing` is not an interface name"),
            ("[imports]\n\"a:b/c\" = \"billing\"", "`a:b/c`"),
            ("[limits]\nmemory_bytes = -1", "line 2"),
            ("[", "line 1"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.starts_with("/etc/host.toml: ") && error.contains(said), "{error}");
        }
    }
}
