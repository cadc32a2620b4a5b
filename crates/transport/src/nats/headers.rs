use std::str::FromStr as _;

use async_nats::{HeaderMap, HeaderName, HeaderValue, Message};

use super::{failure::CallFailed, limits::NatsLimits, status::NatsRefusal};

/// On the empty message that ends a path: the value is not complete, and why, as `403 denied: reason`. Others take it for
/// an end that comes too early, which is what their own writers send when they fail.
const ENDED: &str = "portcullis-ended";

/// On a request of an older end of ours: what the reply subject says now, see [`says_whole`](super::inbox::says_whole).
const WHOLE: &str = "portcullis-whole";

/// The headers of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(HeaderMap);

/// A header cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("header `{name}` cannot be sent: a name is visible ASCII without a colon, a value one line")]
pub struct InvalidHeaderLine {
    /// Its name, escaped.
    pub name: String,
}

/// The headers of a request exceed their limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadersTooLarge {
    /// Too many of them.
    #[error("more than {limit} headers")]
    Count {
        /// The limit.
        limit: usize,
    },
    /// Too long together.
    #[error("headers of more than {limit} bytes")]
    Bytes {
        /// The limit in bytes.
        limit: usize,
    },
}

impl Headers {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a header.
    ///
    /// # Errors
    ///
    /// [`InvalidHeaderLine`] when it would not stay within its line.
    pub fn append(&mut self, name: &str, value: &str) -> Result<(), InvalidHeaderLine> {
        let invalid = || InvalidHeaderLine { name: name.escape_debug().to_string() };
        let line: (HeaderName, HeaderValue) =
            (name.parse().map_err(|_| invalid())?, HeaderValue::from_str(value).map_err(|_| invalid())?);
        if name.is_empty() || value.chars().any(char::is_control) {
            return Err(invalid());
        }
        self.0.append(line.0, line.1);
        Ok(())
    }

    /// The value of the header with exactly this name, if there is one and only one.
    pub fn only(&self, name: &str) -> Option<&str> {
        let mut values = self.iter().filter(|(of, _)| *of == name).map(|(_, value)| value);
        let value = values.next()?;
        values.next().is_none().then_some(value)
    }

    /// Every name with its value, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|(name, values)| values.iter().map(move |value| (name.as_ref(), value.as_str())))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many bytes they take on the wire.
    pub(super) fn wire_length(&self) -> usize {
        let lines: usize = self.iter().map(|(name, value)| name.len() + value.len() + ": \r\n".len()).sum();
        if lines == 0 { 0 } else { lines + "NATS/1.0\r\n\r\n".len() }
    }

    /// Whether the request says that it is whole.
    pub(super) fn say_whole(&self) -> bool {
        self.only(WHOLE) == Some("1")
    }

    pub(super) fn read(headers: Option<HeaderMap>, limits: &NatsLimits) -> Result<Self, HeadersTooLarge> {
        let headers = Self(headers.unwrap_or_default());
        if headers.iter().count() > limits.headers {
            return Err(HeadersTooLarge::Count { limit: limits.headers });
        }
        if headers.wire_length() > limits.header_bytes {
            return Err(HeadersTooLarge::Bytes { limit: limits.header_bytes });
        }
        Ok(headers)
    }

    pub(super) fn to_map(&self) -> Option<HeaderMap> {
        (!self.is_empty()).then(|| self.0.clone())
    }
}

/// The header of a path's end that is no completion.
pub(super) fn ended(refusal: &NatsRefusal) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Ok(value) = refusal.to_string().parse::<HeaderValue>() {
        headers.insert(ENDED, value);
    }
    headers
}

/// Why a path ends that is not complete; `None` where it is.
pub(super) fn ended_by(message: &Message) -> Option<CallFailed> {
    if message.status.is_some_and(|status| !status.is_success()) {
        return Some(CallFailed::GivenUp);
    }
    let value = message.headers.as_ref()?.get(ENDED)?.as_str();
    let (status, description) = value.split_once(' ').unwrap_or((value, ""));
    let refusal = NatsRefusal::read(status.parse().unwrap_or(499), description);
    Some(match refusal.refusal {
        Some(crate::Refusal::Cancelled) => CallFailed::GivenUp,
        _ => CallFailed::Refused(refusal),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Refusal;

    #[test]
    fn a_header_given_twice_is_not_believed() {
        let mut headers = Headers::new();
        headers.append("source-id", "a").unwrap();
        assert_eq!(headers.only("source-id"), Some("a"));
        headers.append("source-id", "b").unwrap();
        assert_eq!(headers.only("source-id"), None);
        assert_eq!(headers.only("Source-Id"), None);
    }

    #[test]
    fn older_ends_say_by_a_header_that_a_request_is_whole() {
        let mut headers = Headers::new();
        assert!(!headers.say_whole() && headers.wire_length() == 0);
        headers.append("portcullis-whole", "1").unwrap();
        assert!(headers.say_whole());
        assert_eq!(headers.wire_length(), "NATS/1.0\r\nportcullis-whole: 1\r\n\r\n".len());
        headers.append("portcullis-whole", "1").unwrap();
        assert!(!headers.say_whole());
    }

    #[test]
    fn headers_stay_within_their_limits() {
        let limits = NatsLimits { headers: 2, header_bytes: 64, ..NatsLimits::default() };
        let read = |lines: &[(&str, &str)]| {
            let mut headers = Headers::new();
            for (name, value) in lines {
                headers.append(name, value).unwrap();
            }
            Headers::read(headers.to_map(), &limits)
        };
        assert!(read(&[("a", "1"), ("b", "2")]).is_ok());
        assert_eq!(read(&[("a", "1"), ("a", "2"), ("a", "3")]), Err(HeadersTooLarge::Count { limit: 2 }));
        assert_eq!(read(&[("a", &"1".repeat(64))]), Err(HeadersTooLarge::Bytes { limit: 64 }));
    }

    #[test]
    fn a_reason_comes_back_from_the_end_of_a_path() {
        let refusal = NatsRefusal::new(Refusal::UpstreamProtocol, "the service closed");
        let mut headers = ended(&refusal);
        let message = |headers| Message {
            subject: "s".into(),
            reply: None,
            payload: bytes::Bytes::new(),
            headers: Some(headers),
            status: None,
            description: None,
            length: 0,
        };
        assert_eq!(ended_by(&message(headers.clone())), Some(CallFailed::Refused(refusal)));
        headers.insert(ENDED, "nonsense");
        assert!(ended_by(&message(headers)).is_some());
        assert_eq!(ended_by(&message(ended(&NatsRefusal::new(Refusal::Cancelled, "")))), Some(CallFailed::GivenUp));
        assert_eq!(ended_by(&message(HeaderMap::new())), None);
    }

    proptest! {
        #[test]
        fn no_header_leaves_its_line(name: String, value: String) {
            let mut headers = Headers::new();
            if headers.append(&name, &value).is_ok() {
                prop_assert!(!value.contains(['\r', '\n']) && !name.contains([':', ' ', '\r', '\n']));
                prop_assert_eq!(headers.only(&name), Some(&*value));
            }
        }
    }
}
