//! Join tokens: what a new node is given so that it can join without trusting whoever answers first.

use std::{
    fmt,
    net::Ipv6Addr,
    str::FromStr,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::Deserialize;
use serde_json::json;
use spiffe::TrustDomain;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{InvalidName, InvalidSpiffeId, NoRandomness, NodeName, parse_trust_domain, request::sha256};

const PREFIX: &str = "portcullis-join.v1.";

/// A token with the longest names stays under 1 KiB.
const MAX_TOKEN_BYTES: usize = 2 * 1024;

/// Why a text is not a join token. The text itself is a secret and never repeated.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum InvalidJoinToken {
    /// It does not look like a join token.
    #[error("not a join token: it starts with `{PREFIX}`")]
    Prefix,
    /// It is too long to be one.
    #[error("join token of {bytes} bytes is longer than {MAX_TOKEN_BYTES}")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// It was cut off or changed on the way.
    #[error("join token is damaged: copy it again, whole")]
    Damaged,
    /// The trust domain in it is none.
    #[error("join token is refused: {0}")]
    TrustDomain(#[from] InvalidSpiffeId),
    /// The node name in it is none.
    #[error("join token is refused: {0}")]
    Node(#[from] InvalidName),
    /// The broker's address in it is none.
    #[error("join token is refused: broker address `{address}` is not `HOST:PORT`")]
    Broker {
        /// What it says.
        address: String,
    },
}

/// The 128 random bits of a join token. Wiped on drop.
#[derive(Clone)]
pub struct JoinSecret(Zeroizing<[u8; 16]>);

impl JoinSecret {
    /// Draws a new secret.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn generate() -> Result<Self, NoRandomness> {
        let mut secret = Zeroizing::new([0; 16]);
        SystemRandom::new()
            .fill(secret.as_mut_slice())
            .map_err(|_unspecified| NoRandomness)?;
        Ok(Self(secret))
    }
}

impl From<[u8; 16]> for JoinSecret {
    fn from(bytes: [u8; 16]) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl fmt::Debug for JoinSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinSecret(..)")
    }
}

/// One node's invitation. Printed by [`Self::reveal`] alone, parsed by `FromStr`.
#[derive(Clone, Debug)]
pub struct JoinToken {
    /// The trust domain to join.
    pub trust_domain: TrustDomain,
    /// The name to join under.
    pub node: NodeName,
    /// Where the broker listens: `HOST:PORT`.
    pub broker: String,
    /// The SHA-256 of the SubjectPublicKeyInfo of the trust domain's root.
    pub root_spki_sha256: [u8; 32],
    /// What proves the invitation.
    pub secret: JoinSecret,
    /// Until when it can be redeemed, in whole seconds.
    pub expires_at: SystemTime,
}

impl JoinToken {
    /// The token as one printable line: a secret, to be written to a file or a pipe and never to a log.
    #[must_use]
    pub fn reveal(&self) -> String {
        let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(self.secret()));
        let expires_at = self
            .expires_at
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        let json = Zeroizing::new(
            json!({
                "td": self.trust_domain.as_str(),
                "node": self.node.as_str(),
                "broker": self.broker,
                "root": URL_SAFE_NO_PAD.encode(self.root_spki_sha256),
                "secret": secret.as_str(),
                "exp": expires_at.as_secs(),
            })
            .to_string(),
        );
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json.as_bytes()))
    }

    /// The secret, to be sent to the broker over the verified connection.
    #[must_use]
    pub fn secret(&self) -> &[u8; 16] {
        &self.secret.0
    }

    /// The SHA-256 of the secret: what the broker stores.
    #[must_use]
    pub fn secret_sha256(&self) -> [u8; 32] {
        sha256(self.secret())
    }
}

impl FromStr for JoinToken {
    type Err = InvalidJoinToken;

    /// White space around the token is ignored: it is read from a file or a pipe.
    fn from_str(text: &str) -> Result<Self, InvalidJoinToken> {
        let text = text.trim();
        if text.len() > MAX_TOKEN_BYTES {
            return Err(InvalidJoinToken::TooLong { bytes: text.len() });
        }
        let encoded = text.strip_prefix(PREFIX).ok_or(InvalidJoinToken::Prefix)?;
        let json = Zeroizing::new(decode(encoded)?);
        // serde's message would repeat parts of the secret.
        let wire: Wire = serde_json::from_slice(&json).map_err(|_parse| InvalidJoinToken::Damaged)?;
        let Wire {
            td,
            node,
            broker,
            root,
            secret,
            exp,
        } = wire;
        let secret = Zeroizing::new(secret);
        check_address(&broker)?;
        Ok(Self {
            trust_domain: parse_trust_domain(&td)?,
            node: NodeName::try_from(node)?,
            broker,
            root_spki_sha256: decode_array(&root)?,
            secret: JoinSecret::from(decode_array(&secret)?),
            expires_at: SystemTime::UNIX_EPOCH
                .checked_add(Duration::from_secs(exp))
                .ok_or(InvalidJoinToken::Damaged)?,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    td: String,
    node: String,
    broker: String,
    /// base64url of the hash.
    root: String,
    /// base64url of the secret.
    secret: String,
    /// Seconds since 1970.
    exp: u64,
}

fn decode(text: &str) -> Result<Vec<u8>, InvalidJoinToken> {
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_decode| InvalidJoinToken::Damaged)
}

fn decode_array<const N: usize>(text: &str) -> Result<[u8; N], InvalidJoinToken> {
    Zeroizing::new(decode(text)?)
        .as_slice()
        .try_into()
        .map_err(|_length| InvalidJoinToken::Damaged)
}

/// `HOST:PORT` with a DNS name, an IPv4 address or an IPv6 address in brackets.
fn check_address(address: &str) -> Result<(), InvalidJoinToken> {
    let valid = address.rsplit_once(':').is_some_and(|(host, port)| {
        let host_valid = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(inside) => inside.parse::<Ipv6Addr>().is_ok(),
            None => {
                (1..=253).contains(&host.len())
                    && host
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
            }
        };
        host_valid && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    if valid {
        Ok(())
    } else {
        Err(InvalidJoinToken::Broker {
            address: address.to_owned(),
        })
    }
}
