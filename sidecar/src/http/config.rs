//! What an operator says about the HTTP service, and what becomes of it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use portcullis_value::json::Int64;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::credentials;
use super::mapping::header_names::{forbidden, same};

/// The HTTP service and how it is called.
#[derive(Clone, Debug)]
pub struct HttpUpstreamConfig {
    /// `http://host:port/prefix` or `https://…`: the only source of scheme, authority and path prefix.
    pub base_url: String,
    /// PEM certificates that the service's certificate must chain to: required for `https`, because no system roots are used.
    pub ca_file: Option<PathBuf>,
    /// Headers that every request carries.
    pub headers: Vec<(String, String)>,
    /// A file of mode 0600 with the service's credentials: lines `bearer TOKEN`, `basic USER:PASSWORD` or `header NAME: VALUE`.
    pub credentials_file: Option<PathBuf>,
    /// The header that carries the caller's SPIFFE ID. Nothing else can set it.
    pub caller_header: Option<String>,
    /// How `u64` and `s64` are written where the mapping says nothing.
    pub int64: Int64,
    /// For a whole exchange: connection, TLS handshake, request, answer.
    pub timeout: Duration,
    /// For a TCP connection.
    pub connect_timeout: Duration,
    /// How long an idle connection is kept. Shorter than what the service keeps, so that the service never closes one under a request.
    pub idle_timeout: Duration,
    /// The largest answer body, in bytes.
    pub max_response_bytes: usize,
    /// How many idle connections are kept.
    pub max_idle: usize,
}

impl HttpUpstreamConfig {
    /// The configuration for a service with the default limits.
    #[must_use]
    pub fn new(base_url: impl Into<String>) -> Self {
        Self {
            base_url: base_url.into(),
            ca_file: None,
            headers: Vec::new(),
            credentials_file: None,
            caller_header: None,
            int64: Int64::Number,
            timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(2),
            // Common servers keep a connection for five seconds (Apache, Node.js) or longer.
            idle_timeout: Duration::from_secs(4),
            max_response_bytes: 4 << 20,
            max_idle: 32,
        }
    }
}

/// One mistake in the configuration of an HTTP service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfigMistake {
    /// The field of [`HttpUpstreamConfig`].
    pub key: &'static str,
    /// What is wrong with it.
    pub message: String,
    /// What to do about it, where something useful can be said.
    pub hint: Option<&'static str>,
}

impl HttpConfigMistake {
    fn new(key: &'static str, message: impl Into<String>) -> Self {
        Self { key, message: message.into(), hint: None }
    }

    fn hint(mut self, hint: &'static str) -> Self {
        self.hint = Some(hint);
        self
    }
}

impl fmt::Display for HttpConfigMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.key, self.message)?;
        if let Some(hint) = self.hint {
            write!(f, " (hint: {hint})")?;
        }
        Ok(())
    }
}

impl std::error::Error for HttpConfigMistake {}

/// The parts of the configuration that every request is made of.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
    /// The path of the base URL, without the slash at its end.
    pub(super) prefix: String,
    /// Host, fixed headers and credentials.
    pub(super) headers: HeaderMap,
    pub(super) caller_header: Option<HeaderName>,
    pub(super) tls: ClientConfig,
}

impl Service {
    /// Checks a configuration and reads the files it names.
    pub(super) fn open(config: &HttpUpstreamConfig) -> Result<Self, Vec<HttpConfigMistake>> {
        let mut mistakes = Vec::new();
        let base = noted(base_url(&config.base_url), &mut mistakes);
        let https = base.as_ref().is_some_and(|(scheme, _, _)| *scheme == Scheme::HTTPS);
        let tls = noted(tls(config, https), &mut mistakes);
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers {
            if let Some((name, value)) = noted(fixed_header(name, value, &headers), &mut mistakes) {
                headers.append(name, value);
            }
        }
        for (name, value) in noted(credentials(config), &mut mistakes).unwrap_or_default() {
            if headers.keys().any(|other| same(other, &name)) {
                mistakes
                    .push(HttpConfigMistake::new("headers", format!("header `{name}` is also among the credentials")));
            }
            headers.insert(name, value);
        }
        let caller_header = config.caller_header.as_deref();
        let caller_header = caller_header.and_then(|name| noted(self::caller_header(name, &headers), &mut mistakes));
        for (key, limit) in [("max_response_bytes", config.max_response_bytes), ("max_idle", config.max_idle)] {
            if limit == 0 {
                mistakes.push(HttpConfigMistake::new(key, "cannot be 0"));
            }
        }
        for (key, limit) in [("timeout", config.timeout), ("connect_timeout", config.connect_timeout)] {
            if limit.is_zero() {
                mistakes.push(HttpConfigMistake::new(key, "cannot be 0"));
            }
        }
        let (Some((scheme, authority, prefix)), Some(tls), []) = (base, tls, mistakes.as_slice()) else {
            return Err(mistakes);
        };
        if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
            headers.insert(header::HOST, host);
        }
        Ok(Self { scheme, authority, prefix, headers, caller_header, tls })
    }

    /// Whether the service's own headers include one of this name, or one that the service could take for it.
    pub(super) fn sets(&self, name: &HeaderName) -> bool {
        self.headers.keys().chain(&self.caller_header).any(|own| same(own, name))
    }
}

fn noted<T>(result: Result<T, HttpConfigMistake>, mistakes: &mut Vec<HttpConfigMistake>) -> Option<T> {
    result.map_err(|mistake| mistakes.push(mistake)).ok()
}

fn base_url(url: &str) -> Result<(Scheme, Authority, String), HttpConfigMistake> {
    let wrong = |message: String| HttpConfigMistake::new("base_url", message).hint("http://host:port/prefix");
    let uri: Uri = url.parse().map_err(|error| wrong(format!("`{url}` is not a URL: {error}")))?;
    let parts = uri.into_parts();
    let scheme = parts.scheme.filter(|scheme| [Scheme::HTTP, Scheme::HTTPS].contains(scheme));
    let (Some(scheme), Some(authority)) = (scheme, parts.authority) else {
        return Err(wrong(format!("`{url}` is not an http or https URL")));
    };
    if authority.as_str().contains('@') {
        let mistake = HttpConfigMistake::new("base_url", "credentials do not belong into a URL");
        return Err(mistake.hint("put them into a file of mode 0600 and name it in credentials_file"));
    }
    let path = parts.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
    let prefix = path.path().trim_end_matches('/');
    let proper = prefix.split('/').skip(1).all(|segment| !matches!(segment, "" | "." | ".."));
    if path.query().is_some() || url.contains('#') || !proper {
        return Err(wrong(format!(
            "`{url}` must end in a plain path, without query, fragment, empty segments and dots"
        )));
    }
    Ok((scheme, authority, prefix.to_owned()))
}

fn fixed_header(name: &str, value: &str, others: &HeaderMap) -> Result<(HeaderName, HeaderValue), HttpConfigMistake> {
    let wrong = |message: String| HttpConfigMistake::new("headers", message);
    let parsed = HeaderName::try_from(name).map_err(|_| wrong(format!("`{name}` is not a header name")))?;
    if let Some(reason) = forbidden(&parsed) {
        return Err(wrong(format!("header `{name}` cannot be set: {reason}")));
    }
    if parsed == header::CONTENT_TYPE {
        return Err(wrong("the content type belongs to a route of the mapping".to_owned()));
    }
    if parsed == header::AUTHORIZATION {
        let mistake = wrong("a secret does not belong into the configuration".to_owned());
        return Err(mistake.hint("put it into a file of mode 0600 and name it in credentials_file"));
    }
    if others.keys().any(|other| same(other, &parsed)) {
        return Err(wrong(format!("header `{name}` is set twice")));
    }
    let visible = value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let value = HeaderValue::from_str(value).ok().filter(|_| visible);
    Ok((parsed, value.ok_or_else(|| wrong(format!("header `{name}` can only hold visible ASCII and spaces")))?))
}

fn credentials(config: &HttpUpstreamConfig) -> Result<Vec<(HeaderName, HeaderValue)>, HttpConfigMistake> {
    let Some(path) = &config.credentials_file else {
        return Ok(Vec::new());
    };
    credentials::read(path).map_err(|error| HttpConfigMistake {
        key: "credentials_file",
        message: format!("`{}`: {error}", path.display()),
        hint: error.hint(),
    })
}

fn caller_header(name: &str, others: &HeaderMap) -> Result<HeaderName, HttpConfigMistake> {
    let wrong = |message: String| HttpConfigMistake::new("caller_header", message);
    let parsed = HeaderName::try_from(name).map_err(|_| wrong(format!("`{name}` is not a header name")))?;
    if let Some(reason) = forbidden(&parsed) {
        return Err(wrong(format!("header `{name}` cannot be set: {reason}")));
    }
    if [header::CONTENT_TYPE, header::AUTHORIZATION, header::COOKIE].contains(&parsed) {
        return Err(wrong(format!("header `{name}` has another meaning")));
    }
    if others.keys().any(|other| same(other, &parsed)) {
        return Err(wrong(format!("header `{name}` is already a fixed header or a credential")));
    }
    Ok(parsed)
}

/// TLS towards the service: 1.2 and 1.3, because the service is old; with nothing trusted but the CA file.
fn tls(config: &HttpUpstreamConfig, https: bool) -> Result<ClientConfig, HttpConfigMistake> {
    let wrong = |message: String| HttpConfigMistake::new("ca_file", message);
    let mut roots = RootCertStore::empty();
    match &config.ca_file {
        None if https => {
            let mistake =
                wrong("https needs the certificates that the service's certificate is checked against".to_owned());
            return Err(mistake.hint("name a PEM file with the CA's certificate; system roots are not used"));
        }
        Some(_) if !https => return Err(wrong("it has no use without an https base URL".to_owned())),
        None => {}
        Some(path) => {
            let unreadable = |error: &dyn fmt::Display| wrong(format!("`{}`: {error}", path.display()));
            let certificates = CertificateDer::pem_file_iter(path).map_err(|error| unreadable(&error))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| unreadable(&error))?;
                roots.add(certificate).map_err(|error| unreadable(&error))?;
            }
            if roots.is_empty() {
                return Err(unreadable(&"it holds no certificate"));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| wrong(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::legacy::testdata;

    fn mistakes(config: &HttpUpstreamConfig) -> Vec<String> {
        Service::open(config).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_base_url_is_scheme_authority_and_a_plain_path() {
        for (url, expected) in [
            ("http://localhost", ("http", "localhost", "")),
            ("http://localhost:80/", ("http", "localhost:80", "")),
            ("HTTP://[::1]:8080/a/b/", ("http", "[::1]:8080", "/a/b")),
            ("https://billing.internal/v1", ("https", "billing.internal", "/v1")),
        ] {
            let (scheme, authority, prefix) = base_url(url).unwrap();
            assert_eq!((scheme.as_str(), authority.as_str(), prefix.as_str()), expected, "{url}");
        }
        for (url, expected) in [
            ("localhost:80", "is not an http or https URL"),
            ("/v1", "is not an http or https URL"),
            ("ftp://localhost", "is not an http or https URL"),
            ("http://", "is not a URL"),
            ("http://a b", "is not a URL"),
            ("http://user:secret@localhost", "credentials do not belong into a URL"),
            ("http://localhost/a?b=c", "must end in a plain path"),
            ("http://localhost/a#b", "must end in a plain path"),
            ("http://localhost/a/../b", "must end in a plain path"),
            ("http://localhost/a//b", "must end in a plain path"),
        ] {
            let mistake = base_url(url).unwrap_err().to_string();
            assert!(mistake.contains(expected), "{url}: {mistake}");
            assert!(!mistake.contains("secret"), "{mistake}");
        }
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let config = HttpUpstreamConfig {
            headers: vec![
                ("host".to_owned(), "x".to_owned()),
                ("transfer-encoding".to_owned(), "chunked".to_owned()),
                ("content-type".to_owned(), "text/plain".to_owned()),
                ("authorization".to_owned(), "Bearer x".to_owned()),
                ("no name".to_owned(), "x".to_owned()),
                ("x-a".to_owned(), "é".to_owned()),
                ("x-b".to_owned(), "1".to_owned()),
                ("x_b".to_owned(), "2".to_owned()),
            ],
            credentials_file: Some(PathBuf::from("/nowhere/credentials")),
            caller_header: Some("connection".to_owned()),
            timeout: Duration::ZERO,
            connect_timeout: Duration::ZERO,
            max_response_bytes: 0,
            max_idle: 0,
            ..HttpUpstreamConfig::new("https://localhost")
        };
        let expected = [
            "`ca_file`: https needs the certificates",
            "`headers`: header `host` cannot be set",
            "`headers`: header `transfer-encoding` cannot be set",
            "`headers`: the content type belongs to a route",
            "`headers`: a secret does not belong into the configuration",
            "`headers`: `no name` is not a header name",
            "`headers`: header `x-a` can only hold visible ASCII and spaces",
            "`headers`: header `x_b` is set twice",
            "`credentials_file`: `/nowhere/credentials`: ",
            "`caller_header`: header `connection` cannot be set",
            "`max_response_bytes`: cannot be 0",
            "`max_idle`: cannot be 0",
            "`timeout`: cannot be 0",
            "`connect_timeout`: cannot be 0",
        ];
        let found = mistakes(&config);
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}");
        }
    }

    #[test]
    fn the_caller_header_is_nobody_elses() {
        for (name, expected) in [
            ("x-site", "already a fixed header"),
            ("X_Site", "already a fixed header"),
            ("x-key", "already a fixed header or a credential"),
            ("authorization", "has another meaning"),
            ("cookie", "has another meaning"),
            ("content-type", "has another meaning"),
            ("traceparent", "cannot be set"),
            ("a b", "is not a header name"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let config = HttpUpstreamConfig {
                headers: vec![("x-site".to_owned(), "1".to_owned())],
                credentials_file: Some(credentials::tests::file(&folder, "header x-key: 1\n", 0o600)),
                caller_header: Some(name.to_owned()),
                ..HttpUpstreamConfig::new("http://localhost")
            };
            let [mistake] = mistakes(&config).try_into().unwrap();
            assert!(mistake.contains(expected), "{name}: {mistake}");
        }
    }

    #[test]
    fn a_fixed_header_and_a_credential_cannot_share_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let config = HttpUpstreamConfig {
            headers: vec![("X-Key".to_owned(), "1".to_owned())],
            credentials_file: Some(credentials::tests::file(&folder, "header x_key: 1\n", 0o600)),
            ..HttpUpstreamConfig::new("http://localhost")
        };
        assert_eq!(mistakes(&config), ["`headers`: header `x_key` is also among the credentials"]);
    }

    #[test]
    fn the_ca_file_holds_certificates_and_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty.pem");
        std::fs::write(&empty, "nothing\n").unwrap();
        for (url, ca_file, expected) in [
            ("https://localhost", empty, "it holds no certificate"),
            ("https://localhost", testdata("service.key"), "it holds no certificate"),
            ("https://localhost", testdata("absent.pem"), "absent.pem`: "),
            ("http://localhost", testdata("ca.pem"), "it has no use without an https base URL"),
        ] {
            let config = HttpUpstreamConfig { ca_file: Some(ca_file), ..HttpUpstreamConfig::new(url) };
            let [mistake] = mistakes(&config).try_into().unwrap();
            assert!(mistake.contains(expected), "{mistake}");
        }
        let config =
            HttpUpstreamConfig { ca_file: Some(testdata("ca.pem")), ..HttpUpstreamConfig::new("https://localhost") };
        assert_eq!(Service::open(&config).unwrap().headers.get("host").unwrap(), "localhost");
    }
}
