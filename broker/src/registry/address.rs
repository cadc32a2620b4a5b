//! `host:port` under which a sidecar says it listens.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// Bytes; a DNS name has at most 253, a port 5.
const MAX_BYTES: usize = 260;

/// A dialable `host:port`: an IP address (IPv6 in brackets) or a DNS name, and a port that is not 0.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address(String);

/// Not an address to dial.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address to dial: write `host:port`, for instance `10.0.0.7:7500` or `billing.acme.test:7500`")]
pub struct InvalidAddress(String);

impl Address {
    /// The address as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        if text.len() <= MAX_BYTES && (is_socket_address(text) || is_name_and_port(text)) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidAddress(text.chars().take(MAX_BYTES).collect()))
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `0.0.0.0` and `::` are where one listens, not where one dials.
fn is_socket_address(text: &str) -> bool {
    text.parse::<SocketAddr>().is_ok_and(|address| address.port() != 0 && !address.ip().is_unspecified())
}

fn is_name_and_port(text: &str) -> bool {
    let Some((name, port)) = text.rsplit_once(':') else {
        return false;
    };
    // A last label of digits would be a misspelt IPv4 address.
    let numeric_end = name.rsplit('.').next().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    !numeric_end
        && name.split('.').all(is_label)
        && port.parse::<u16>().is_ok_and(|number| number != 0 && number.to_string() == port)
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for good in ["127.0.0.1:7500", "[::1]:7500", "billing:1", "billing.acme.test:65535", "a-b.c:443"] {
            assert_eq!(good.parse::<Address>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn what_cannot_be_dialled_is_refused() {
        let long = format!("{}:1", "a.".repeat(140));
        for bad in [
            "",
            ":",
            "host",
            "host:",
            "host:0",
            "host:65536",
            "host:07500",
            ":7500",
            "1.2.3:7500",
            "256.0.0.1:1",
            "0.0.0.0:7500",
            "[::]:7500",
            "::1:7500",
            "-a:1",
            "a-:1",
            "a..b:1",
            "user@host:1",
            "host:1/path",
            "ho st:1",
            "h\u{f6}st:1",
            &long,
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
