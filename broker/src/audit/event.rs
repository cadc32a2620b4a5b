//! What the log tells. Every text in it is bounded, so that a line is.

use std::net::SocketAddr;

use serde::Serialize;

/// Bytes of a text that somebody else may have written, such as a reason.
const MAX_TEXT: usize = 512;
/// Bytes of a name in which SPIFFE IDs or addresses stand.
const MAX_NAME: usize = 4096;

/// Something that happened. This is the form on disk: fields are added, never given another meaning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Event {
    /// The log begins.
    Begun {
        /// Of this trust domain.
        trust_domain: String,
        /// The registry's version: not that of an empty store where an earlier log is lost.
        version: String,
    },
    /// The broker came up.
    Started {
        /// Its version.
        software: String,
        /// The registry's version.
        version: String,
    },
    /// The store was put back from a backup; what came after that is lost, but for what the records of this version do again.
    Restored {
        /// At whose word.
        by: Actor,
        /// The version from now on.
        version: String,
        /// The version that the backup had.
        backup: String,
        /// The last version before this record; missing where the log told of none.
        #[serde(skip_serializing_if = "Option::is_none")]
        log: Option<String>,
        /// How many changes by operators are lost.
        lost: usize,
    },
    /// The broker went down in order.
    Stopped,
    /// A crash left half a record at the log's end. It was taken out and kept beside the log.
    Repaired {
        /// How much.
        bytes: u64,
        /// SHA-256 of it.
        sha256: String,
        /// The file it is kept in.
        kept: String,
    },
    /// This key signs the heads that nodes are told, from here on.
    HeadKey {
        /// Its name.
        kid: String,
        /// SubjectPublicKeyInfo, base64.
        public_key: String,
    },
    /// An X.509-SVID is about to be handed out.
    X509Issued {
        /// To whom.
        node: String,
        /// Under which entry; missing for a node's own.
        #[serde(skip_serializing_if = "Option::is_none")]
        entry: Option<String>,
        /// For which identity.
        spiffe_id: String,
        /// Serial number, hex.
        serial: String,
        /// Until when, seconds since 1970.
        not_after: u64,
        /// SHA-256 of the public key.
        key_sha256: String,
    },
    /// A JWT-SVID is about to be handed out.
    JwtIssued {
        /// To whom.
        node: String,
        /// Under which entry.
        entry: String,
        /// For which identity.
        spiffe_id: String,
        /// Its `jti`.
        jti: String,
        /// The key that signed it.
        kid: String,
        /// For how many audiences.
        audiences: usize,
        /// Until when, seconds since 1970.
        expires_at: u64,
        /// The host that fetched it for a component which it runs.
        #[serde(skip_serializing_if = "Option::is_none")]
        vouched_by: Option<String>,
    },
    /// An X.509-SVID is about to be handed to an operator, without an entry.
    X509Minted {
        /// Which.
        by: Actor,
        /// For which identity.
        spiffe_id: String,
        /// Serial number, hex.
        serial: String,
        /// Until when, seconds since 1970.
        not_after: u64,
        /// SHA-256 of the public key.
        key_sha256: String,
    },
    /// A JWT-SVID is about to be handed to an operator, without an entry.
    JwtMinted {
        /// Which.
        by: Actor,
        /// For which identity.
        spiffe_id: String,
        /// Its `jti`.
        jti: String,
        /// The key that signed it.
        kid: String,
        /// For how many audiences.
        audiences: usize,
        /// Until when, seconds since 1970.
        expires_at: u64,
    },
    /// Somebody asked for an SVID and has none.
    IssueRefused {
        /// Who.
        node: String,
        /// For what, by its own word.
        entry: String,
        /// Why.
        reason: String,
    },
    /// A record of the registry is about to be changed.
    Changed {
        /// At whose word.
        by: Actor,
        /// The version with the change.
        version: String,
        /// What kind of record.
        kind: String,
        /// Which.
        name: String,
        /// SHA-256 of what is too long to be told, such as a policy's text.
        #[serde(skip_serializing_if = "Option::is_none")]
        sha256: Option<String>,
    },
    /// The changes to this version were not made after all: the store failed.
    NotStored {
        /// Which.
        version: String,
        /// Why.
        reason: String,
    },
    /// Somebody wanted a change and was refused.
    ChangeRefused {
        /// Who.
        by: Actor,
        /// What, in a word.
        command: String,
        /// Why.
        reason: String,
    },
    /// The bundle of a foreign trust domain was fetched, and is believed.
    BundleFetched {
        /// Whose.
        trust_domain: String,
        /// From where, after redirects.
        url: String,
        /// SHA-256 of the server's certificate.
        server_sha256: String,
        /// The document's sequence number.
        #[serde(skip_serializing_if = "Option::is_none")]
        sequence: Option<u64>,
        /// SHA-256 of the document.
        sha256: String,
    },
    /// The bundle of a foreign trust domain was not had, or not believed.
    BundleRefused {
        /// Whose.
        trust_domain: String,
        /// From where.
        url: String,
        /// Why.
        reason: String,
        /// Whether somebody should look: not a mere outage.
        alarm: bool,
    },
    /// An authority of this trust domain is about to be prepared, activated, tainted, retired or removed.
    AuthorityChanged {
        /// At whose word.
        by: Actor,
        /// The version with the change.
        version: String,
        /// What it is then: kind and stage, and whether it is tainted.
        change: String,
        /// Which: the beginning of its public key's SHA-256, as `ca show` has it.
        authority: String,
    },
    /// Somebody is about to join the lattice.
    LatticeJoined {
        /// Who.
        identity: String,
        /// As what.
        class: String,
        /// How it proved itself.
        proof: String,
        /// At which NATS server.
        server: String,
        /// From where, as that server says.
        address: String,
        /// Until when, seconds since 1970.
        until: u64,
    },
    /// Somebody wanted to join the lattice and was refused.
    LatticeRefused {
        /// At which NATS server.
        server: String,
        /// From where, as that server says.
        address: String,
        /// By which name for itself.
        client: String,
        /// Why.
        reason: String,
    },
    /// A session of the lattice is ended before its time.
    LatticeLeft {
        /// Whose.
        identity: String,
        /// From where it came.
        address: String,
        /// Why.
        reason: String,
    },
    /// Refusals that came too fast to be told one by one.
    Unlisted {
        /// How many.
        refusals: u64,
    },
}

/// At whose word something happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Actor {
    /// Somebody at the operator socket, by user id.
    Operator {
        /// As the kernel says.
        uid: Option<u32>,
    },
    /// A node that proved its name.
    Node {
        /// Its name.
        node: String,
    },
    /// A peer with a join token and no certificate.
    Joining {
        /// The node it says to be.
        node: String,
        /// From where.
        address: SocketAddr,
    },
    /// The broker itself, by its own schedule.
    Broker,
}

impl Event {
    /// The kind, as `what` says it in the log.
    pub(super) const fn what(&self) -> &'static str {
        match self {
            Self::Begun { .. } => "begun",
            Self::Started { .. } => "started",
            Self::Restored { .. } => "restored",
            Self::Stopped => "stopped",
            Self::Repaired { .. } => "repaired",
            Self::HeadKey { .. } => "head-key",
            Self::X509Issued { .. } => "x509-issued",
            Self::JwtIssued { .. } => "jwt-issued",
            Self::X509Minted { .. } => "x509-minted",
            Self::JwtMinted { .. } => "jwt-minted",
            Self::IssueRefused { .. } => "issue-refused",
            Self::Changed { .. } => "changed",
            Self::NotStored { .. } => "not-stored",
            Self::ChangeRefused { .. } => "change-refused",
            Self::BundleFetched { .. } => "bundle-fetched",
            Self::BundleRefused { .. } => "bundle-refused",
            Self::AuthorityChanged { .. } => "authority-changed",
            Self::Unlisted { .. } => "unlisted",
            Self::LatticeJoined { .. } => "lattice-joined",
            Self::LatticeRefused { .. } => "lattice-refused",
            Self::LatticeLeft { .. } => "lattice-left",
        }
    }

    /// The event with every text in it cut to a bounded length.
    pub(super) fn bounded(mut self) -> Self {
        let (texts, names) = self.texts();
        texts.into_iter().for_each(|text| cut(text, MAX_TEXT));
        names.into_iter().for_each(|name| cut(name, MAX_NAME));
        self
    }

    /// Those texts whose length may be somebody else's choice: ordinary ones, and names.
    fn texts(&mut self) -> (Vec<&mut String>, Vec<&mut String>) {
        match self {
            Self::Stopped | Self::Unlisted { .. } | Self::Repaired { .. } => (Vec::new(), Vec::new()),
            Self::Begun { trust_domain: one, version: two }
            | Self::Started { software: one, version: two }
            | Self::HeadKey { kid: one, public_key: two }
            | Self::NotStored { version: one, reason: two } => (vec![one, two], Vec::new()),
            Self::Restored { by, version, backup, log, lost: _ } => {
                (by.texts().chain([version, backup]).chain(log).collect(), Vec::new())
            }
            Self::X509Issued { node, entry, spiffe_id, serial, not_after: _, key_sha256 } => {
                ([node, serial, key_sha256].into_iter().chain(entry).collect(), vec![spiffe_id])
            }
            Self::JwtIssued { node, entry, spiffe_id, jti, kid, audiences: _, expires_at: _, vouched_by } => {
                (vec![node, entry, kid, jti], [spiffe_id].into_iter().chain(vouched_by).collect())
            }
            Self::X509Minted { by, spiffe_id, serial, not_after: _, key_sha256 } => {
                (by.texts().chain([serial, key_sha256]).collect(), vec![spiffe_id])
            }
            Self::JwtMinted { by, spiffe_id, jti, kid, audiences: _, expires_at: _ } => {
                (by.texts().chain([jti, kid]).collect(), vec![spiffe_id])
            }
            Self::IssueRefused { node, entry, reason } => (vec![node, entry, reason], Vec::new()),
            Self::Changed { by, version, kind, name, sha256 } => {
                (by.texts().chain([version, kind]).chain(sha256).collect(), vec![name])
            }
            Self::ChangeRefused { by, command, reason } => (by.texts().chain([command, reason]).collect(), Vec::new()),
            Self::BundleFetched { trust_domain, url, server_sha256, sequence: _, sha256 } => {
                (vec![trust_domain, server_sha256, sha256], vec![url])
            }
            Self::BundleRefused { trust_domain, url, reason, alarm: _ } => (vec![trust_domain, reason], vec![url]),
            Self::LatticeJoined { identity, class, proof, server, address, until: _ } => {
                (vec![class, proof, server, address], vec![identity])
            }
            Self::LatticeRefused { server, address, client, reason } => {
                (vec![server, address, client, reason], Vec::new())
            }
            Self::LatticeLeft { identity, address, reason } => (vec![address, reason], vec![identity]),
            Self::AuthorityChanged { by, version, change, authority } => {
                (by.texts().chain([version, change, authority]).collect(), Vec::new())
            }
        }
    }
}

impl Actor {
    fn texts(&mut self) -> impl Iterator<Item = &mut String> {
        match self {
            Self::Node { node } | Self::Joining { node, .. } => Some(node),
            Self::Operator { .. } | Self::Broker => None,
        }
        .into_iter()
    }
}

/// Control characters would take six bytes each as JSON, and mean nothing here.
fn cut(text: &mut String, limit: usize) {
    if text.contains(char::is_control) {
        *text = text.replace(char::is_control, " ");
    }
    if text.len() > limit {
        text.truncate(text.floor_char_boundary(limit));
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_counted_under_the_name_it_has_in_the_log() {
        let text = || "t".to_owned();
        let events = [
            Event::Stopped,
            Event::Unlisted { refusals: 1 },
            Event::Begun { trust_domain: text(), version: text() },
            Event::HeadKey { kid: text(), public_key: text() },
            Event::IssueRefused { node: text(), entry: text(), reason: text() },
            Event::X509Minted {
                by: Actor::Broker,
                spiffe_id: text(),
                serial: text(),
                not_after: 1,
                key_sha256: text(),
            },
        ];
        for event in events {
            assert_eq!(serde_json::to_value(&event).unwrap()["what"], event.what());
        }
    }

    #[test]
    fn a_stranger_s_text_is_cut() {
        for text in ["é".repeat(99_999), "\n".repeat(99_999), "\"".repeat(99_999)] {
            let by = Actor::Node { node: text.clone() };
            let (version, kind, name, sha256) = (text.clone(), text.clone(), text.clone(), Some(text));
            let line = serde_json::to_string(&Event::Changed { by, version, kind, name, sha256 }.bounded()).unwrap();
            assert!(line.len() < super::super::MAX_LINE - 256, "{}", line.len());
            assert!(line.contains('…'));
        }
    }
}
