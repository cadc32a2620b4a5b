//! `[node]` and `[identity]`: who the process is to the broker, and to everybody else.

use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis_client::WorkloadSocket;
use portcullis_client::node::{CertificateFiles, CertificateSettings};
use portcullis_identity::{SealKeyPlace, parse_trust_domain};

use super::reader::{Reader, Section};

/// `[node]`.
#[derive(Clone, Debug)]
pub struct NodeSection {
    /// Folder of the on-disk cache.
    pub state: PathBuf,
    /// File with the join token; read at the first start only.
    pub join_token_file: Option<PathBuf>,
    /// The certificate by which the node joins, where it has no token.
    pub certificate: Option<CertificateFiles>,
    /// `host:port` of the broker where it is not that of the token any more.
    pub broker: Option<String>,
    /// How old policy may grow while the broker is away.
    pub policy_max_age: Duration,
    /// The key that seals the keys in the cache.
    pub seal_key: Option<SealKeyPlace>,
    /// The folder of the credentials that systemd passes: not in the file, but told by who runs the program.
    pub credentials: Option<PathBuf>,
}

/// `[identity]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentitySection {
    /// The Workload API that gives the component's SVIDs, and the bundles by which callers are known.
    pub workload_api: WorkloadSocket,
}

pub(super) fn node(mut section: Section<'_, '_>, base: &Path, reader: &mut Reader<'_>) -> Option<NodeSection> {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let state = section.required_text("state", reader).map(|found| base.join(found.value));
    let token = section.text("join_token_file", reader);
    let broker = section.text("broker", reader).map(|found| found.value);
    let certificate = certificate(&mut section, base, broker.clone(), reader);
    if let (Some(found), Some(_)) = (&token, &certificate) {
        let message = "`node` has a join token and a certificate: keep one".to_owned();
        reader.mistake(Some(found.at.clone()), message, None);
    }
    let policy_max_age = section.duration("policy_max_age", reader).unwrap_or(DAY);
    let seal_key = section.parsed("seal_key_file", reader).map(|place: SealKeyPlace| place.below(base));
    section.finish(reader);
    let join_token_file = token.map(|found| base.join(found.value));
    Some(NodeSection {
        state: state?,
        join_token_file,
        certificate,
        broker,
        policy_max_age,
        seal_key,
        credentials: None,
    })
}

/// `certificate`, `key`, `bundle` and `trust_domain`: all of them or none.
fn certificate(
    section: &mut Section<'_, '_>,
    base: &Path,
    broker: Option<String>,
    reader: &mut Reader<'_>,
) -> Option<CertificateFiles> {
    let trust_domain = section.text("trust_domain", reader).and_then(|found| {
        let parsed = parse_trust_domain(&found.value);
        parsed.map_err(|error| reader.mistake(Some(found.at), format!("`node.trust_domain`: {error}"), None)).ok()
    });
    let mut path = |key| section.text(key, reader).map(|found| base.join(found.value));
    let settings = CertificateSettings {
        certificate: path("certificate"),
        key: path("key"),
        bundle: path("bundle"),
        trust_domain,
        broker,
    };
    settings.complete().map_err(|error| reader.mistake(section.at(), error.to_string(), None)).ok().flatten()
}

/// `[identity]`; nothing where the table is not there.
pub(super) fn identity(mut section: Section<'_, '_>, base: &Path, reader: &mut Reader<'_>) -> Option<IdentitySection> {
    if !section.is_present() {
        return None;
    }
    let workload_api = section.required::<WorkloadSocket>("workload_api", reader).map(|socket| socket.below(base));
    section.finish(reader);
    Some(IdentitySection { workload_api: workload_api? })
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    const REST: &str = r#"
[component]
lattice = "demo"
id = "billing"
[listen]
quic = "127.0.0.1:0"
[upstream.splice]
address = "tcp:127.0.0.1:1"
"#;

    fn parsed(node: &str) -> Result<Config, String> {
        let text = format!("[node]\nstate = \"state\"\n{node}\n{REST}");
        let told =
            |mistakes: Vec<crate::config::Mistake>| mistakes.iter().map(|mistake| format!("{mistake}\n")).collect();
        Config::parse("/etc/s.toml", &text).map_err(told)
    }

    const CERTIFICATE: &str =
        "certificate = \"m.pem\"\nkey = \"m.key\"\nbundle = \"b.pem\"\ntrust_domain = \"a.test\"\n";

    #[test]
    fn a_node_joins_by_token_or_by_certificate_and_says_all_of_it() {
        let good = parsed(&format!("{CERTIFICATE}broker = \"b.test:7440\"")).unwrap();
        assert!(good.node.certificate.is_some() && good.node.join_token_file.is_none());
        let missing = parsed(CERTIFICATE).unwrap_err();
        assert!(missing.contains("`node.broker` is missing"), "{missing}");
        let missing = parsed("certificate = \"m.pem\"\nbroker = \"b.test:1\"").unwrap_err();
        assert!(missing.contains("`node.key` is missing"), "{missing}");
        let both = parsed(&format!("{CERTIFICATE}broker = \"b.test:1\"\njoin_token_file = \"t\"")).unwrap_err();
        assert!(both.contains("a join token and a certificate"), "{both}");
        let upper = parsed(&format!("{}broker = \"b:1\"", CERTIFICATE.replace("a.test", "A.test"))).unwrap_err();
        assert!(upper.contains("`node.trust_domain`"), "{upper}");
    }

    #[test]
    fn an_identity_from_elsewhere_is_a_socket_of_this_machine() {
        let good = parsed("[identity]\nworkload_api = \"unix:api.sock\"").unwrap();
        assert_eq!(good.identity.unwrap().workload_api.to_string(), "unix:/etc/api.sock");
        for wrong in ["tcp:127.0.0.1:1", "/run/api.sock", "unix:"] {
            let wrong = parsed(&format!("[identity]\nworkload_api = \"{wrong}\"")).unwrap_err();
            assert!(wrong.contains("`identity.workload_api`"), "{wrong}");
        }
        let both = parsed("[identity]\nworkload_api = \"unix:/a\"\n[workload_api]\nsocket = \"b\"").unwrap_err();
        assert!(both.contains("has a Workload API already"), "{both}");
    }
}
