//! `x509 mint`, `jwt mint`: SVIDs without an entry.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use portcullis_api::v1;
use portcullis_broker::atomic_file::{self, Existing};
use portcullis_identity::{PrivateKey, key_request};
use serde::Serialize;
use zeroize::Zeroizing;

use super::OperatorOptions;
use super::entry::ttl_seconds;
use super::failure::Failure;
use super::operator::connect;
use super::screen::{Screen, time};

/// Characters to a line (RFC 7468 §2).
const LINE: usize = 64;

#[derive(Debug, Subcommand)]
pub(crate) enum X509 {
    /// Sign an X.509-SVID without an entry; nothing renews it
    Mint(MintX509),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Jwt {
    /// Sign a JWT-SVID without an entry
    Mint(MintJwt),
}

#[derive(Debug, Args)]
#[command(after_help = "The key is made here and goes nowhere else. The audit log says who minted what.

Examples:
  portcullis-broker x509 mint --spiffe-id spiffe://acme.test/migration --ttl 10m --out migration/
  portcullis-broker x509 mint --spiffe-id spiffe://acme.test/probe --json | jq -r .chain")]
pub(crate) struct MintX509 {
    /// Whose: any workload of this trust domain, never the broker's or a node's
    #[arg(long, value_name = "ID")]
    spiffe_id: String,
    /// How long it lives, at most 24h [default: the broker's, 1h]
    #[arg(long, value_name = "DURATION")]
    ttl: Option<humantime::Duration>,
    /// A DNS name in it; may be given several times
    #[arg(long = "dns", value_name = "NAME")]
    dns_names: Vec<String>,
    /// Write svid.pem, svid_key.pem and bundle.pem into this folder, mode 0600, and print no key
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    #[command(flatten)]
    options: OperatorOptions,
}

#[derive(Debug, Args)]
#[command(after_help = "A token is a secret: write it to a file (--out, mode 0600) or pipe it.

Example:
  portcullis-broker jwt mint --spiffe-id spiffe://acme.test/probe --audience https://vault.acme.test --out probe.jwt")]
pub(crate) struct MintJwt {
    /// Whose: any workload of this trust domain, never the broker's or a node's
    #[arg(long, value_name = "ID")]
    spiffe_id: String,
    /// For whom it is meant; may be given several times, and once is best
    #[arg(long, value_name = "TEXT", required = true)]
    audience: Vec<String>,
    /// How long it lives, at most 1h [default: 5m]
    #[arg(long, value_name = "DURATION")]
    ttl: Option<humantime::Duration>,
    /// Write the token to this file, mode 0600, and not to standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    options: OperatorOptions,
}

/// An X.509-SVID in JSON.
#[derive(Debug, Serialize)]
struct MintedX509<'a> {
    spiffe_id: &'a str,
    not_after: u64,
    chain: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    bundle: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    folder: Option<&'a Path>,
}

/// A JWT-SVID in JSON.
#[derive(Debug, Serialize)]
struct MintedJwt<'a> {
    spiffe_id: &'a str,
    expires_at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a Path>,
}

impl X509 {
    pub(crate) async fn execute(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        let Self::Mint(command) = self;
        command.execute(socket, screen).await
    }
}

impl Jwt {
    pub(crate) async fn execute(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        let Self::Mint(command) = self;
        command.execute(socket, screen).await
    }
}

impl MintX509 {
    async fn execute(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        let key = PrivateKey::generate().map_err(|error| Failure::broken(error.to_string()))?;
        let csr = key_request(&key).map_err(|error| Failure::broken(error.to_string()))?;
        let ttl_seconds = ttl_seconds(self.ttl)?;
        let request =
            v1::MintX509Request { spiffe_id: self.spiffe_id.clone(), csr, ttl_seconds, dns_names: self.dns_names };
        let reply = connect(&self.options, socket).await?.mint_x509(request).await?.into_inner();
        let v1::MintX509Reply { chain, bundle, not_after } = reply;
        let pems = |ders: &[Vec<u8>]| ders.iter().map(|der| pem("CERTIFICATE", der).to_string()).collect::<String>();
        let (chain, bundle, key) = (pems(&chain), pems(&bundle), pem("PRIVATE KEY", key.pkcs8()));
        if let Some(folder) = &self.out {
            write(&folder.join("svid.pem"), &chain)?;
            write(&folder.join("svid_key.pem"), &key)?;
            write(&folder.join("bundle.pem"), &bundle)?;
        }
        let folder = self.out.as_deref();
        if self.options.json {
            let key = folder.is_none().then_some(key.as_str());
            let (chain, bundle) = (chain.as_str(), bundle.as_str());
            return screen.json(&MintedX509 { spiffe_id: &self.spiffe_id, not_after, chain, key, bundle, folder });
        }
        match folder {
            Some(folder) => {
                screen.line(format!("{} in {}, until {}", self.spiffe_id, folder.display(), time(not_after)))
            }
            None => screen.line(format!("{chain}{}", key.trim_end())),
        }
    }
}

impl MintJwt {
    async fn execute(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        let ttl_seconds = ttl_seconds(self.ttl)?;
        let request = v1::MintJwtRequest { spiffe_id: self.spiffe_id.clone(), audience: self.audience, ttl_seconds };
        let reply = connect(&self.options, socket).await?.mint_jwt(request).await?.into_inner();
        let v1::MintJwtReply { token, expires_at } = reply;
        let file = self.out.as_deref();
        if let Some(path) = file {
            write(path, &format!("{token}\n"))?;
        }
        if self.options.json {
            let token = file.is_none().then_some(token.as_str());
            return screen.json(&MintedJwt { spiffe_id: &self.spiffe_id, expires_at, token, file });
        }
        match file {
            Some(path) => {
                screen.line(format!("token of {} in {}, until {}", self.spiffe_id, path.display(), time(expires_at)))
            }
            None => screen.line(token),
        }
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    atomic_file::write(path, text.as_bytes(), 0o600, Existing::Replace)
        .map_err(|error| Failure::broken(format!("cannot write `{}`: {error}", path.display())))
}

fn pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    let text = Zeroizing::new(STANDARD.encode(der));
    let mut pem = Zeroizing::new(String::with_capacity(text.len() + text.len() / LINE + 2 * label.len() + 40));
    pem.push_str(&format!("-----BEGIN {label}-----\n"));
    for line in text.as_bytes().chunks(LINE) {
        pem.extend(line.iter().copied().map(char::from));
        pem.push('\n');
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}
