//! Joining by a certificate of another authority, which the operator accepts for that: `x509pop_ca` in the set-up.
//!
//! What a certificate says becomes a node's name by a template of one segment. The value it fills in must be a name as it stands: nothing
//! is cut, folded or replaced, so that no two holders get one name and no name leaves its place in a SPIFFE ID.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use portcullis_identity::{JoinCertificate, NodeName};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, crypto};

/// Hex digits of a fingerprint in a name: 160 bits.
const FINGERPRINT_DIGITS: usize = 40;

/// How nodes join by certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct X509Pop {
    /// PEM; every certificate in it is an authority whose leaves may join.
    pub ca: PathBuf,
    /// What they are called.
    pub name: NameTemplate,
}

/// A node's name with one variable: `{cn}`, `{dns}` or `{fingerprint}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameTemplate {
    before: String,
    variable: Variable,
    after: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variable {
    CommonName,
    DnsName,
    Fingerprint,
}

/// Not a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a template for node names: write letters, digits, `_`, `-` and exactly one of {{cn}}, {{dns}}, {{fingerprint}}, for instance `edge-{{cn}}`"
)]
pub struct InvalidTemplate(String);

/// The certificate gives no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Nameless {
    #[error("the certificate does not have exactly one {0}")]
    Missing(&'static str),
    #[error(transparent)]
    Name(#[from] portcullis_identity::InvalidName),
}

impl Default for NameTemplate {
    /// `x509-{fingerprint}`: what no two keys share.
    fn default() -> Self {
        Self { before: "x509-".to_owned(), variable: Variable::Fingerprint, after: String::new() }
    }
}

impl FromStr for NameTemplate {
    type Err = InvalidTemplate;

    fn from_str(text: &str) -> Result<Self, InvalidTemplate> {
        let invalid = || InvalidTemplate(text.chars().take(80).collect());
        let (before, rest) = text.split_once('{').ok_or_else(invalid)?;
        let (variable, after) = rest.split_once('}').ok_or_else(invalid)?;
        let variable = match variable {
            "cn" => Variable::CommonName,
            "dns" => Variable::DnsName,
            "fingerprint" => Variable::Fingerprint,
            _ => return Err(invalid()),
        };
        let literal = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        if !literal(before) || !literal(after) || before.len().saturating_add(after.len()) > FINGERPRINT_DIGITS / 2 {
            return Err(invalid());
        }
        Ok(Self { before: before.to_owned(), variable, after: after.to_owned() })
    }
}

impl fmt::Display for NameTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variable = match self.variable {
            Variable::CommonName => "cn",
            Variable::DnsName => "dns",
            Variable::Fingerprint => "fingerprint",
        };
        write!(f, "{}{{{variable}}}{}", self.before, self.after)
    }
}

impl NameTemplate {
    /// The name of who holds `certificate`.
    pub(crate) fn fill(&self, certificate: &JoinCertificate) -> Result<NodeName, Nameless> {
        let value = match self.variable {
            Variable::CommonName => certificate.common_name().ok_or(Nameless::Missing("common name"))?.to_owned(),
            Variable::DnsName => certificate.dns_name().ok_or(Nameless::Missing("DNS name"))?.to_owned(),
            Variable::Fingerprint => {
                let hex: String = certificate.public_key_sha256().iter().map(|byte| format!("{byte:02x}")).collect();
                hex.chars().take(FINGERPRINT_DIGITS).collect()
            }
        };
        // A value that is a name by itself cannot change what the rest of the template means.
        let value: NodeName = value.parse()?;
        Ok(format!("{}{value}{}", self.before, self.after).parse()?)
    }
}

/// The authorities whose leaves may join, ready to verify.
pub(crate) struct Attestor {
    verifier: Arc<dyn ClientCertVerifier>,
    name: NameTemplate,
}

impl fmt::Debug for Attestor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attestor").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why nobody can join by certificate.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the join authorities in `{}`: {cause}", path.display())]
pub struct AttestorError {
    path: PathBuf,
    cause: String,
}

impl Attestor {
    /// Reads the authorities.
    pub(crate) fn open(set_up: &X509Pop) -> Result<Self, AttestorError> {
        let verifier = verifier(&set_up.ca).map_err(|cause| AttestorError { path: set_up.ca.clone(), cause })?;
        Ok(Self { verifier, name: set_up.name.clone() })
    }

    /// The name of who holds the leaf of `chain`, when an accepted authority vouches for it at `now`. That it *is* held is proved elsewhere.
    pub(crate) fn attest(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<NodeName, String> {
        // Bounds before signatures; then the same bytes are verified and read.
        let certificate = JoinCertificate::parse_chain(chain).map_err(|error| error.to_string())?;
        let (leaf, above) = chain.split_first().ok_or("no certificate")?;
        let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        self.verifier.verify_client_cert(leaf, above, now).map_err(|error| error.to_string())?;
        self.name.fill(&certificate).map_err(|error| error.to_string())
    }
}

fn verifier(path: &Path) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())? {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() {
        return Err("it holds no certificate".to_owned());
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(crypto::ring::default_provider()))
        .build()
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn certificate(common_name: &str) -> JoinCertificate {
        let mut params = CertificateParams::new(vec!["a.acme.test".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        JoinCertificate::parse_chain(&[der]).unwrap()
    }

    fn template(text: &str) -> NameTemplate {
        text.parse().unwrap()
    }

    #[test]
    fn a_template_has_one_variable_and_is_one_segment() {
        for text in ["{cn}", "edge-{cn}", "{dns}", "x509-{fingerprint}", "{cn}_x"] {
            assert_eq!(template(text).to_string(), text);
        }
        for text in
            ["", "edge", "{cn", "cn}", "{ou}", "{cn}{cn}", "{cn}/x", "../{cn}", "a.b{cn}", "{{cn}}", "{CN}", "{ cn }"]
        {
            assert!(text.parse::<NameTemplate>().is_err(), "{text}");
        }
        assert!(format!("{}{{cn}}", "a".repeat(21)).parse::<NameTemplate>().is_err());
    }

    #[test]
    fn a_value_is_taken_as_it_stands_or_not_at_all() {
        assert_eq!(template("edge-{cn}").fill(&certificate("host_1")).unwrap().as_str(), "edge-host_1");
        for name in ["a.b", "a/b", "..", "", "a b", "ä", "a%2fb", "a\0b", "{cn}"] {
            assert!(matches!(template("{cn}").fill(&certificate(name)), Err(Nameless::Name(_))), "{name:?}");
        }
        let long = "a".repeat(64);
        template("{cn}").fill(&certificate(&long)).unwrap();
        assert!(template("x{cn}").fill(&certificate(&long)).is_err());
        assert!(template("{dns}").fill(&certificate("x")).is_err(), "a DNS name with dots is no node name");
        let own = template("x509-{fingerprint}").fill(&certificate("x")).unwrap();
        assert_eq!(own.as_str().len(), 45);
    }
}
