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

use crate::{InvalidName, InvalidSpiffeId, NoRandomness, NodeName, id::shown, parse_trust_domain, request::sha256};

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
        SystemRandom::new().fill(secret.as_mut_slice()).map_err(|_unspecified| NoRandomness)?;
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
        let expires_at = self.expires_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
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
        let Wire { td, node, broker, root, secret, exp } = wire;
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
    URL_SAFE_NO_PAD.decode(text).map_err(|_decode| InvalidJoinToken::Damaged)
}

fn decode_array<const N: usize>(text: &str) -> Result<[u8; N], InvalidJoinToken> {
    Zeroizing::new(decode(text)?).as_slice().try_into().map_err(|_length| InvalidJoinToken::Damaged)
}

/// `HOST:PORT` with a DNS name, an IPv4 address or an IPv6 address in brackets.
fn check_address(address: &str) -> Result<(), InvalidJoinToken> {
    let valid = address.rsplit_once(':').is_some_and(|(host, port)| {
        let host_valid = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(inside) => inside.parse::<Ipv6Addr>().is_ok(),
            None => {
                (1..=253).contains(&host.len())
                    && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
            }
        };
        host_valid && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    if valid { Ok(()) } else { Err(InvalidJoinToken::Broker { address: shown(address) }) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token() -> JoinToken {
        JoinToken {
            trust_domain: TrustDomain::new("example.org").unwrap(),
            node: "edge-1".parse().unwrap(),
            broker: "broker.example.org:7443".to_owned(),
            root_spki_sha256: [7; 32],
            secret: JoinSecret::from([9; 16]),
            expires_at: SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600),
        }
    }

    fn forged(json: &str) -> Result<JoinToken, InvalidJoinToken> {
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json)).parse()
    }

    /// Brokers and nodes of different versions have to agree on it.
    #[test]
    fn the_format_is_what_it_was() {
        let revealed = token().reveal();
        let json = URL_SAFE_NO_PAD.decode(revealed.strip_prefix("portcullis-join.v1.").unwrap()).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(
            json,
            json!({
                "td": "example.org",
                "node": "edge-1",
                "broker": "broker.example.org:7443",
                "root": "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc",
                "secret": "CQkJCQkJCQkJCQkJCQkJCQ",
                "exp": 1_767_225_600,
            })
        );
        assert!(revealed.bytes().all(|b| b.is_ascii_graphic()));
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        let shown = format!("{:?}", token());
        assert!(shown.contains("edge-1") && shown.contains("JoinSecret(..)"), "{shown}");
        assert!(!shown.contains("9, 9") && !shown.contains("CQkJ"), "{shown}");
    }

    #[test]
    fn secrets_differ_and_are_stored_hashed() {
        let (one, other) = (JoinSecret::generate().unwrap(), JoinSecret::generate().unwrap());
        assert_ne!(*one.0, *other.0);
        assert_eq!(token().secret_sha256(), sha256(&[9; 16]));
    }

    #[test]
    fn white_space_around_a_token_is_ignored() {
        assert_eq!(format!(" {}\r\n", token().reveal()).parse::<JoinToken>().unwrap().secret(), &[9; 16]);
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let revealed = token().reveal();
        let parse = |text: &str| text.parse::<JoinToken>().unwrap_err();
        assert_eq!(parse(""), InvalidJoinToken::Prefix);
        assert_eq!(parse("portcullis-join.v2.e30"), InvalidJoinToken::Prefix);
        assert_eq!(parse(revealed.trim_end_matches(char::is_alphanumeric)), InvalidJoinToken::Damaged);
        assert_eq!(parse(&format!("{revealed}=")), InvalidJoinToken::Damaged);
        assert_eq!(parse(&revealed.replace("v1.", "v1.!")), InvalidJoinToken::Damaged);
        assert_eq!(parse(&format!("{PREFIX}{}", "A".repeat(3000))), InvalidJoinToken::TooLong { bytes: 3019 });
    }

    #[test]
    fn what_a_token_says_is_checked() {
        let good = json!({
            "td": "example.org", "node": "n", "broker": "b:1", "root": URL_SAFE_NO_PAD.encode([1; 32]),
            "secret": URL_SAFE_NO_PAD.encode([2; 16]), "exp": 1,
        });
        assert!(forged(&good.to_string()).is_ok());
        let with = |field: &str, value: serde_json::Value| {
            let mut json = good.clone();
            json[field] = value;
            forged(&json.to_string()).unwrap_err()
        };
        assert!(matches!(with("td", json!("Example.org")), InvalidJoinToken::TrustDomain(_)));
        assert!(matches!(with("node", json!("../broker")), InvalidJoinToken::Node(_)));
        assert_eq!(with("root", json!(URL_SAFE_NO_PAD.encode([1; 31]))), InvalidJoinToken::Damaged);
        assert_eq!(with("secret", json!(URL_SAFE_NO_PAD.encode([1; 17]))), InvalidJoinToken::Damaged);
        assert_eq!(with("secret", json!("")), InvalidJoinToken::Damaged);
        assert_eq!(with("exp", json!(-1)), InvalidJoinToken::Damaged);
        assert_eq!(with("exp", json!(u64::MAX)), InvalidJoinToken::Damaged);
        assert_eq!(with("extra", json!(1)), InvalidJoinToken::Damaged);
        for address in
            ["", "b", "b:", ":1", "b:0", "b:65536", "b:+1", "b:x", "::1:1", "[::1]", "[b]:1", "a b:1", "http://b:1"]
        {
            assert!(matches!(with("broker", json!(address)), InvalidJoinToken::Broker { .. }), "{address:?}");
        }
        for address in ["[::1]:7443", "127.0.0.1:7443", "localhost:1"] {
            check_address(address).unwrap();
        }
    }

    /// Errors are logged; a damaged token still holds most of its secret.
    #[test]
    fn no_error_repeats_the_secret() {
        let json = json!({"td": "x", "secret": "CQkJCQkJCQkJCQkJCQkJCQ"}).to_string();
        let error = forged(&json).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("CQkJ"));
    }

    proptest! {
        #[test]
        fn a_token_survives_printing(
            td in "[a-z0-9._-]{1,255}",
            node in "[A-Za-z0-9_-]{1,64}",
            host in "[a-z0-9.-]{1,253}",
            port in 1..=u16::MAX,
            root: [u8; 32],
            secret: [u8; 16],
            seconds in 0..=253_402_300_799_u64,
        ) {
            let token = JoinToken {
                trust_domain: TrustDomain::new(td).unwrap(),
                node: node.parse().unwrap(),
                broker: format!("{host}:{port}"),
                root_spki_sha256: root,
                secret: JoinSecret::from(secret),
                expires_at: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
            };
            let JoinToken { trust_domain, node, broker, root_spki_sha256, secret, expires_at } =
                token.reveal().parse().unwrap();
            prop_assert_eq!(&trust_domain, &token.trust_domain);
            prop_assert_eq!(&node, &token.node);
            prop_assert_eq!(&broker, &token.broker);
            prop_assert_eq!(root_spki_sha256, token.root_spki_sha256);
            prop_assert_eq!(&*secret.0, token.secret());
            prop_assert_eq!(expires_at, token.expires_at);
        }
    }
}
