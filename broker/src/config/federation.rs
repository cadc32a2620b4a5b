//! Settings of what the broker fetches from the web and serves to it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::federation::Bounds;

/// What is fetched and served; by default nothing is served.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Federation {
    /// The web's authorities, PEM; `None`: those of the system.
    pub ca_file: Option<PathBuf>,
    /// How often bundles are fetched.
    pub bounds: Bounds,
    /// Where our bundle is served.
    pub endpoint: Option<BundleEndpoint>,
    /// Where OpenID Connect discovery is served.
    pub oidc: Option<Oidc>,
}

/// Where our bundle is served to foreign trust domains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleEndpoint {
    /// The address.
    pub listen: SocketAddr,
    /// The path.
    pub path: String,
    /// A certificate of the web; `None`: the broker proves itself by its SVID (`https_spiffe`).
    pub certificate: Option<CertificateFiles>,
}

/// Where OpenID Connect discovery is served (OpenID Connect Discovery 1.0 §4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oidc {
    /// The issuer's URL, without a slash at its end: `iss` of the tokens.
    pub issuer: String,
    /// The path of that URL; empty or beginning with a slash.
    pub path: String,
    /// The address.
    pub listen: SocketAddr,
    /// The certificate of the issuer's host.
    pub certificate: CertificateFiles,
}

/// A certificate that somebody else renews.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM, leaf first.
    pub chain: PathBuf,
    /// PEM, mode 0600.
    pub key: PathBuf,
}

/// `[federation]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FederationSettings {
    /// `ca_file = "/etc/ssl/certs/ca-certificates.crt"`
    #[serde(alias = "ca-file")]
    pub ca_file: Option<PathBuf>,
    /// `min_refresh = "60s"`: not more often, whatever a publisher wishes.
    #[serde(alias = "min-refresh")]
    pub min_refresh: Option<String>,
    /// `max_refresh = "1h"`: not less often.
    #[serde(alias = "max-refresh")]
    pub max_refresh: Option<String>,
}

/// `[bundle_endpoint]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointSettings {
    /// `listen = "0.0.0.0:8443"`
    pub listen: String,
    /// `profile = "https_web"` or `"https_spiffe"`
    pub profile: String,
    /// `path = "/"`
    pub path: Option<String>,
    /// `cert_file = "/etc/portcullis/web.pem"`
    #[serde(alias = "cert-file")]
    pub cert_file: Option<PathBuf>,
    /// `key_file = "/etc/portcullis/web.key"`
    #[serde(alias = "key-file")]
    pub key_file: Option<PathBuf>,
}

/// `[oidc]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcSettings {
    /// `issuer = "https://oidc.acme.test"`
    pub issuer: String,
    /// `listen = "0.0.0.0:443"`
    pub listen: String,
    /// `cert_file = "/etc/portcullis/web.pem"`
    #[serde(alias = "cert-file")]
    pub cert_file: PathBuf,
    /// `key_file = "/etc/portcullis/web.key"`
    #[serde(alias = "key-file")]
    pub key_file: PathBuf,
}

/// Checks the three tables together; every mistake is noted.
pub(super) fn check(
    federation: Option<FederationSettings>,
    endpoint: Option<EndpointSettings>,
    oidc: Option<OidcSettings>,
    problems: &mut Vec<String>,
) -> Federation {
    let FederationSettings { ca_file, min_refresh, max_refresh } = federation.unwrap_or_default();
    let default = Bounds::default();
    let floor = super::note(problems, "federation.min_refresh", duration(min_refresh.as_deref(), default.floor));
    let ceiling = super::note(problems, "federation.max_refresh", duration(max_refresh.as_deref(), default.ceiling));
    let bounds =
        Bounds { floor: floor.unwrap_or(default.floor), ceiling: ceiling.unwrap_or(default.ceiling), ..default };
    if bounds.floor > bounds.ceiling {
        problems.push("federation.min_refresh: it is longer than max_refresh".to_owned());
    }
    let endpoint = endpoint.and_then(|endpoint| super::note(problems, "bundle_endpoint", endpoint.check()));
    let oidc = oidc.and_then(|oidc| super::note(problems, "oidc", oidc.check()));
    Federation { ca_file, bounds, endpoint, oidc }
}

impl EndpointSettings {
    fn check(self) -> Result<BundleEndpoint, String> {
        let Self { listen, profile, path, cert_file, key_file } = self;
        let certificate = match (profile.as_str(), cert_file, key_file) {
            ("https_web", Some(chain), Some(key)) => Some(CertificateFiles { chain, key }),
            ("https_web", ..) => return Err("https_web needs cert_file and key_file".to_owned()),
            ("https_spiffe", None, None) => None,
            ("https_spiffe", ..) => {
                return Err("with https_spiffe the broker proves itself by its SVID: leave out cert_file and key_file"
                    .to_owned());
            }
            (other, ..) => return Err(format!("`{other}` is not a profile: write `https_web` or `https_spiffe`")),
        };
        let path = path.unwrap_or_else(|| "/".to_owned());
        if !is_path(&path) {
            return Err(format!("`{path}` is not a path: write `/` or `/bundle`"));
        }
        Ok(BundleEndpoint { listen: super::socket_address(&listen)?, path, certificate })
    }
}

impl OidcSettings {
    fn check(self) -> Result<Oidc, String> {
        let Self { issuer, listen, cert_file: chain, key_file: key } = self;
        // OpenID Connect Discovery §3: https, without query and fragment; §4.1: a slash at the end is taken off.
        let rest = issuer.strip_prefix("https://").filter(|rest| !rest.contains(['?', '#', '@']));
        let path = rest.and_then(|rest| rest.split_once('/')).map(|(_, path)| format!("/{path}")).unwrap_or_default();
        let is_good = rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && !rest.ends_with('/'));
        if !is_good || (!path.is_empty() && !is_path(&path)) {
            return Err(format!(
                "`{issuer}` is not an issuer: write `https://HOST` or `https://HOST/PATH`, without a slash at its end"
            ));
        }
        let listen = super::socket_address(&listen)?;
        Ok(Oidc { issuer, path, listen, certificate: CertificateFiles { chain, key } })
    }
}

fn is_path(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    path.starts_with('/') && path.bytes().all(plain)
}

fn duration(text: Option<&str>, default: Duration) -> Result<Duration, String> {
    let Some(text) = text else { return Ok(default) };
    let duration = humantime::parse_duration(text).map_err(|error| format!("`{text}`: {error}"))?;
    if duration < Duration::from_secs(1) { Err(format!("`{text}` is less than a second")) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Settings;

    fn parse(text: &str) -> Result<super::Federation, String> {
        let text = format!("trust_domain = 'acme.test'\n{text}");
        let settings = Settings::parse(Path::new("b.toml"), &text).map_err(|error| error.to_string())?;
        settings.check().map(|config| config.federation).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_is_served_unless_it_is_said() {
        assert_eq!(parse("").unwrap(), super::Federation::default());
    }

    #[test]
    fn both_profiles_are_served() {
        let web = "[bundle_endpoint]\nlisten = '0.0.0.0:1'\nprofile = 'https_web'\ncert_file = 'a'\nkey-file = 'b'";
        assert!(parse(web).unwrap().endpoint.unwrap().certificate.is_some());
        let spiffe = "[bundle_endpoint]\nlisten = '0.0.0.0:1'\nprofile = 'https_spiffe'\npath = '/bundle'";
        let endpoint = parse(spiffe).unwrap().endpoint.unwrap();
        assert_eq!((endpoint.certificate, endpoint.path.as_str()), (None, "/bundle"));
    }

    #[test]
    fn an_issuer_is_a_url_and_its_path_is_known() {
        let oidc = |issuer: &str| {
            parse(&format!("[oidc]\nissuer = '{issuer}'\nlisten = '0.0.0.0:1'\ncert_file = 'a'\nkey_file = 'b'"))
        };
        assert_eq!(oidc("https://o.test").unwrap().oidc.unwrap().path, "");
        assert_eq!(oidc("https://o.test:1/a/b").unwrap().oidc.unwrap().path, "/a/b");
        for bad in [
            "http://o.test",
            "https://",
            "https:///x",
            "https://o.test/",
            "https://o.test?x",
            "https://u@o.test",
            "o.test",
        ] {
            assert!(oidc(bad).unwrap_err().contains("is not an issuer"), "{bad}");
        }
    }

    #[test]
    fn every_mistake_is_told() {
        let text =
            "[federation]\nmin_refresh = '0s'\nmax_refresh = 'x'\n[bundle_endpoint]\nlisten = 'x'\nprofile = 'web'";
        let error = parse(text).unwrap_err();
        assert_eq!(error.lines().count(), 3, "{error}");
        assert!(parse("[federation]\nmin_refresh = '2h'").unwrap_err().contains("longer"));
    }
}
