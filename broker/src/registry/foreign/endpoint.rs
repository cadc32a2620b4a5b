//! Where a foreign trust domain serves its bundle, and how the server proves itself there: both said whole by an operator, neither inferred
//! from the other (Federation §5).

use std::fmt;
use std::str::FromStr;

use http::Uri;
use portcullis_identity::SpiffeId;

/// Bytes of a URL.
const MAX_URL: usize = 2048;

/// A bundle endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where.
    pub url: EndpointUrl,
    /// How its server proves itself.
    pub profile: Profile,
}

/// How the server of a bundle endpoint proves itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Profile {
    /// By a certificate of the web's authorities for the URL's host (§5.2.1).
    HttpsWeb,
    /// By an X.509-SVID with exactly this ID (§5.2.2).
    HttpsSpiffe(SpiffeId),
}

/// The URL of a bundle endpoint: `https`, a host, no user, no fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointUrl(Uri);

/// Not the URL of a bundle endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    /// It is longer than any URL should be.
    #[error("a URL of {0} bytes is longer than {MAX_URL}")]
    TooLong(usize),
    /// It cannot be read.
    #[error("`{0}` is not a URL: write `https://HOST/PATH`")]
    Malformed(String),
    /// Federation §5.2.1.1, §5.2.2.1: the scheme must be `https`.
    #[error("`{0}` is not an https URL: bundles are fetched over https alone")]
    NotHttps(String),
    /// There: there must be no user information.
    #[error("the URL holds a user's name or password: bundle endpoints ask for none")]
    User,
    /// A fragment is never sent, so it can only be a mistake.
    #[error("`{0}` has a fragment")]
    Fragment(String),
}

impl EndpointUrl {
    /// The host, as a name or an address; an IPv6 address without its brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        let host = self.0.host().unwrap_or_default();
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port_u16().unwrap_or(443)
    }

    /// What goes into the request's `Host`.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.0.authority().map_or("", http::uri::Authority::as_str)
    }

    /// What goes into the request line.
    #[must_use]
    pub fn path_and_query(&self) -> &str {
        self.0.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)
    }

    /// The URL that `location`, which may be relative to this one, leads to (RFC 9110 §10.2.2).
    ///
    /// # Errors
    /// When that is not one of a bundle endpoint (Federation §5.2.1.4).
    pub fn redirected(&self, location: &str) -> Result<Self, InvalidUrl> {
        if location.starts_with('/') && !location.starts_with("//") {
            return format!("https://{}{location}", self.authority()).parse();
        }
        location.parse()
    }
}

impl FromStr for EndpointUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        if text.len() > MAX_URL {
            return Err(InvalidUrl::TooLong(text.len()));
        }
        // What holds a password is not repeated.
        if text.split(['/', '?', '#']).nth(2).is_some_and(|authority| authority.contains('@')) {
            return Err(InvalidUrl::User);
        }
        if text.contains('#') {
            return Err(InvalidUrl::Fragment(text.to_owned()));
        }
        let uri: Uri = text.parse().map_err(|_| InvalidUrl::Malformed(text.to_owned()))?;
        match uri.scheme() {
            Some(scheme) if *scheme == http::uri::Scheme::HTTPS => {}
            Some(_) => return Err(InvalidUrl::NotHttps(text.to_owned())),
            None => return Err(InvalidUrl::Malformed(text.to_owned())),
        }
        let has_host = uri.authority().is_some_and(|authority| !authority.host().is_empty());
        let port = uri.authority().and_then(|authority| {
            authority.as_str().rsplit_once(']').map_or_else(
                || authority.as_str().split_once(':').map(|(_, port)| port),
                |(_, rest)| rest.strip_prefix(':'),
            )
        });
        if !has_host || port.is_some_and(|port| port.parse::<u16>().is_err()) {
            return Err(InvalidUrl::Malformed(text.to_owned()));
        }
        Ok(Self(uri))
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Result<EndpointUrl, InvalidUrl> {
        text.parse()
    }

    #[test]
    fn an_endpoint_is_an_https_url_with_a_host() {
        let plain = url("https://b.test").unwrap();
        assert_eq!((plain.host(), plain.port(), plain.path_and_query()), ("b.test", 443, "/"));
        let full = url("https://[::1]:8443/bundle?x=1").unwrap();
        assert_eq!((full.host(), full.port(), full.path_and_query()), ("::1", 8443, "/bundle?x=1"));
        assert_eq!(full.authority(), "[::1]:8443");
    }

    #[test]
    fn what_federation_forbids_is_refused() {
        assert_eq!(url("https://u:p@b.test/"), Err(InvalidUrl::User));
        assert_eq!(url("https://u@b.test"), Err(InvalidUrl::User));
        for text in ["http://b.test/", "HTTP://b.test", "ftp://b.test/x", "spiffe://b.test"] {
            assert!(matches!(url(text), Err(InvalidUrl::NotHttps(_))), "{text}");
        }
        for text in [
            "",
            "b.test",
            "/bundle",
            "https://",
            "https:///x",
            "https://b.test:99999/",
            "https://b .test/",
            "//b.test/",
        ] {
            assert!(matches!(url(text), Err(InvalidUrl::Malformed(_))), "{text}: {:?}", url(text));
        }
        assert!(matches!(url("https://b.test/#x"), Err(InvalidUrl::Fragment(_))));
        assert_eq!(url(&format!("https://b.test/{}", "x".repeat(3000))), Err(InvalidUrl::TooLong(3015)));
    }

    #[test]
    fn a_redirection_stays_at_an_endpoint_s_url() {
        let from = url("https://b.test:8443/a").unwrap();
        assert_eq!(from.redirected("/c?d").unwrap().to_string(), "https://b.test:8443/c?d");
        assert_eq!(from.redirected("https://c.test/x").unwrap().to_string(), "https://c.test/x");
        for location in ["http://b.test:8443/a", "//evil.test/", "c", "", "https://u@b.test/", "javascript:1"] {
            assert!(from.redirected(location).is_err(), "{location}");
        }
    }
}
