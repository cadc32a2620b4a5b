//! DNS names that an X.509-SVID carries beside its SPIFFE ID.

use std::fmt;
use std::str::FromStr;

/// RFC 1035 §2.3.4, written without the final dot.
const MAX_BYTES: usize = 253;
const MAX_LABEL_BYTES: usize = 63;
/// Names in one certificate; each may be 253 bytes, and peers read at most 8 KiB of certificate.
const MAX_NAMES: usize = 16;

/// A host's name, in lower case (RFC 1123 §2.1). Never a wildcard: one workload does not speak for hosts nobody named.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DnsName(Box<str>);

/// Not a name for a certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDnsName {
    /// It is not a host's name.
    #[error(
        "`{0}` is not a DNS name: write lower-case labels of letters, digits and inner `-`, joined by dots, without wildcard or final dot"
    )]
    Malformed(String),
    /// A certificate would become too long to be read by peers.
    #[error("{0} DNS names on one entry are more than {MAX_NAMES}")]
    TooMany(usize),
}

impl DnsName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DnsName {
    type Err = InvalidDnsName;

    fn from_str(text: &str) -> Result<Self, InvalidDnsName> {
        let label = |label: &str| {
            (1..=MAX_LABEL_BYTES).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        // A last label of digits is read as an IP address by some.
        let numeric_end = text.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
        if text.len() <= MAX_BYTES && text.split('.').all(label) && !numeric_end {
            Ok(Self(text.into()))
        } else {
            Err(InvalidDnsName::Malformed(text.chars().take(80).flat_map(char::escape_debug).collect()))
        }
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The names of one entry, in canonical order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsNames(Box<[DnsName]>);

impl DnsNames {
    /// In canonical order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &DnsName> {
        self.0.iter()
    }

    /// In canonical order.
    #[must_use]
    pub fn as_slice(&self) -> &[DnsName] {
        &self.0
    }
}

impl TryFrom<Vec<String>> for DnsNames {
    type Error = InvalidDnsName;

    /// One that is given twice counts once.
    fn try_from(texts: Vec<String>) -> Result<Self, InvalidDnsName> {
        if texts.len() > MAX_NAMES {
            return Err(InvalidDnsName::TooMany(texts.len()));
        }
        let mut names = texts.iter().map(|text| text.parse()).collect::<Result<Vec<DnsName>, _>>()?;
        names.sort();
        names.dedup();
        Ok(Self(names.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_a_name_and_nothing_else_is_one() {
        for text in ["redis", "redis.acme.test", "a-1.b2.c", "xn--bcher-kva.example", "1.a"] {
            assert_eq!(text.parse::<DnsName>().unwrap().as_str(), text);
        }
        let long = format!("{}.test", "a".repeat(64));
        let longest = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
        longest.parse::<DnsName>().unwrap();
        let longer = format!("{longest}d");
        for text in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "-a",
            "a-",
            "A.test",
            "*.acme.test",
            "a_b",
            "ä.test",
            "10.0.0.1",
            "a.1",
            "a b",
            "a\0",
            "a/b",
            "a:1",
            &long,
            &longer,
        ] {
            assert!(text.parse::<DnsName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn names_are_sorted_counted_and_kept_once() {
        let names = |texts: &[&str]| DnsNames::try_from(texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>());
        assert_eq!(names(&["b", "a", "b"]), names(&["a", "b"]));
        let many: Vec<_> = (0..17).map(|number| format!("h{number}")).collect();
        assert_eq!(DnsNames::try_from(many), Err(InvalidDnsName::TooMany(17)));
    }
}
