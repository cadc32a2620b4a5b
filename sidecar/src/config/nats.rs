//! `[nats]`: the lattice on which the component is called, too.

use std::path::{Path, PathBuf};

use portcullis_client::lattice::{LatticeSettings, NatsSecurity};
use portcullis_identity::parse_spiffe_id;
use portcullis_transport::nats::NatsServer;

use super::reader::{Reader, Section};

/// `[nats]`.
#[derive(Clone, Debug)]
pub struct NatsSection {
    /// Servers of one cluster, tried in turn.
    pub servers: Vec<NatsServer>,
    /// How the connection is secured.
    pub security: NatsSecurity,
    /// Whether calls are taken where a component on a host would take them, and every caller is anonymous.
    pub plain_addresses: bool,
    /// A credentials file that goes with the certificate, as servers in operator mode want it.
    pub credentials_file: Option<PathBuf>,
}

impl NatsSection {
    /// The settings, once the credentials file is read.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn settings(&self) -> Result<LatticeSettings, UnreadCredentials> {
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).map_err(|cause| UnreadCredentials { path: path.clone(), cause })
        };
        let credentials = self.credentials_file.as_ref().map(read).transpose()?.map(Into::into);
        Ok(LatticeSettings { servers: self.servers.clone(), security: self.security.clone(), credentials })
    }
}

/// The credentials file.
#[derive(Debug, thiserror::Error)]
#[error("cannot read `{}`: {cause}", path.display())]
pub struct UnreadCredentials {
    /// Which.
    path: PathBuf,
    /// Why.
    cause: std::io::Error,
}

/// Nothing where the table is not there, and after a mistake.
pub(super) fn nats(mut section: Section<'_, '_>, base: &Path, reader: &mut Reader<'_>) -> Option<NatsSection> {
    if !section.is_present() {
        return None;
    }
    let before = reader.count();
    let mut servers = Vec::new();
    for found in section.texts("servers", reader) {
        match found.value.parse::<NatsServer>() {
            Ok(server) => servers.push(server),
            Err(error) => reader.mistake(Some(found.at), format!("`nats.servers`: {error}"), None),
        }
    }
    let told = reader.count() > before;
    let server_id = section.text("server_id", reader).and_then(|found| {
        let parsed = parse_spiffe_id(&found.value);
        parsed.map_err(|error| reader.mistake(Some(found.at), format!("`nats.server_id`: {error}"), None)).ok()
    });
    let first = section.boolean("tls_first", reader);
    let plain = section.boolean("danger_plain", reader).unwrap_or(false);
    let plain_addresses = section.boolean("danger_plain_addresses", reader).unwrap_or(false);
    let credentials_file = section.text("credentials_file", reader).map(|found| base.join(found.value));
    let at = section.at();
    section.finish(reader);
    if servers.is_empty() && !told {
        let hint = Some("add `servers = [\"nats://HOST:4222\"]`".to_owned());
        reader.mistake(at.clone(), "`nats` names no server".to_owned(), hint);
    }
    let security = match (server_id, plain) {
        (Some(server_id), false) => NatsSecurity::Tls { server_id, first: first.unwrap_or(false) },
        (None, true) if first.is_none() => NatsSecurity::DangerPlain,
        (None, false) => {
            let hint = Some("add `server_id`, the SPIFFE ID in its certificate; or `danger_plain = true`".to_owned());
            reader.mistake(at, "`nats` does not say who its servers are".to_owned(), hint);
            return None;
        }
        (_, true) => {
            reader.mistake(at, "`nats.danger_plain` with TLS settings: keep one".to_owned(), None);
            return None;
        }
    };
    Some(NatsSection { servers, security, plain_addresses, credentials_file })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(text: &str) -> Vec<String> {
        let mut reader = Reader::new("s.toml", text);
        let table = reader.root();
        let section = Section::root(&table).section("nats", &mut reader);
        nats(section, Path::new(""), &mut reader);
        reader.into_mistakes().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_server_that_cannot_be_read_is_one_mistake() {
        for (servers, said) in [
            ("servers = [\"nats://here:4222\"]", None),
            ("servers = [\"http://here\"]", Some("`nats.servers`: ")),
            ("servers = \"nats://here:4222\"", Some("not a list of strings")),
            ("servers = []", Some("`nats` names no server")),
            ("", Some("`nats` names no server")),
        ] {
            let mistakes = mistakes(&format!("[nats]\n{servers}\ndanger_plain = true\n"));
            assert_eq!(mistakes.len(), usize::from(said.is_some()), "{mistakes:?}");
            assert!(said.is_none_or(|said| mistakes.iter().all(|mistake| mistake.contains(said))), "{mistakes:?}");
        }
    }
}
