//! A set-up of two clustered servers in operator mode that ask the broker about every login: one listener for hosts, one for nodes.
//!
//! Hosts have no client certificate, and a listener asks for one from all or from none; hence two. Nothing secret is shared between the
//! broker and the servers: these hold signed public names, the broker signs.

mod accounts;
mod certificate;
mod check;
mod names;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::pki_types::ServerName;
use serde_json::json;

pub use self::certificate::{Certificate, Named, UnusableFile};
pub use self::check::InvalidSetUp;
pub use self::names::{HostPort, Names, parse_server_name};
use super::brokers;
use super::claims::{Proof, UserClaims};
use super::credentials;
use super::folder::{self, AccountNames};
use super::key::{Owner, PublicKey, SealingKey, SigningKey};
use super::permissions::{PermissionClaims, Permissions};
use super::subjects;
use super::token::{self, Claims, TokenRefused};
use crate::atomic_file::{self, Existing};
use crate::clock;

/// The broker's part, below the set-up's folder.
pub const BROKER: &str = "broker";
/// The servers' part.
pub const SERVERS: &str = "servers";
/// What no daemon needs.
pub const KEYS: &str = "keys";
/// What the servers keep.
pub const STORES: &str = "jetstream";

/// What to write.
#[derive(Debug, Clone)]
pub struct SetUp {
    /// Where; made, and refused where it holds something.
    pub folder: PathBuf,
    /// The operator's name.
    pub name: String,
    /// The listener for hosts.
    pub hosts: Listener,
    /// The listener for nodes.
    pub nodes: Listener,
    /// The servers' certificate and key, PEM.
    pub certificate: Certificate,
    /// The authorities of nodes: the broker's `bundle.pem`.
    pub nodes_ca: PathBuf,
    /// Whether hosts are served in the clear: for a machine of one's own.
    pub hosts_tls: HostsTls,
}

/// Where a server listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// For clients.
    pub clients: SocketAddr,
    /// For the other server.
    pub route: SocketAddr,
}

/// How hosts are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostsTls {
    /// With TLS.
    Required,
    /// In the clear.
    DangerPlain,
}

/// What was written.
#[derive(Debug)]
pub struct Written {
    /// The broker's folder: `nats.folder`.
    pub broker: PathBuf,
    /// The configuration of the server for hosts.
    pub hosts: PathBuf,
    /// The configuration of the server for nodes.
    pub nodes: PathBuf,
    /// Seeds to take away.
    pub keys: PathBuf,
    /// Credentials that allow nothing, for clients that insist on some.
    pub sentinel: PathBuf,
    /// The accounts.
    pub accounts: AccountNames,
}

/// Why nothing was written, or not everything.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// The folder holds something.
    #[error("`{}` exists already: it may be the set-up of servers that run", .0.display())]
    Exists(PathBuf),
    /// A path that a server could not read from its configuration.
    #[error("`{}` cannot stand in a configuration: it has quotes or control characters", .0.display())]
    Path(PathBuf),
    /// A file.
    #[error("cannot write `{}`: {cause}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A token.
    #[error("cannot sign: {0}")]
    Token(#[from] TokenRefused),
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    NoRandomness,
}

struct Keys {
    operator: SigningKey,
    system: SigningKey,
    callout: SigningKey,
    callout_signing: SigningKey,
    lattice: SigningKey,
    lattice_signing: SigningKey,
    seal: SealingKey,
}

impl SetUp {
    /// Writes it, for servers that are called by their addresses.
    ///
    /// # Errors
    /// When the folder exists or a file cannot be written.
    pub fn write(&self, now: SystemTime) -> Result<Written, SetUpError> {
        self.write_as(&Names::default(), now)
    }

    /// Writes it, for servers of these names.
    ///
    /// # Errors
    /// When the folder exists or a file cannot be written.
    pub fn write_as(&self, names: &Names, now: SystemTime) -> Result<Written, SetUpError> {
        let folder = std::path::absolute(&self.folder)
            .map_err(|cause| SetUpError::Write { path: self.folder.clone(), cause })?;
        let now = clock::unix_seconds(now);
        let account = || SigningKey::generate(Owner::Account);
        let keys = Keys {
            operator: SigningKey::generate(Owner::Operator),
            system: account(),
            callout: account(),
            callout_signing: account(),
            lattice: account(),
            lattice_signing: account(),
            seal: SealingKey::generate(),
        };
        make_folders(&folder)?;
        let accounts = AccountNames {
            operator: keys.operator.public().to_string(),
            system: keys.system.public().to_string(),
            callout: keys.callout.public().to_string(),
            lattice: keys.lattice.public().to_string(),
        };
        let written = Written {
            broker: folder.join(BROKER),
            hosts: folder.join(SERVERS).join("hosts.conf"),
            nodes: folder.join(SERVERS).join("nodes.conf"),
            keys: folder.join(KEYS),
            sentinel: folder.join(SERVERS).join("sentinel.creds"),
            accounts,
        };
        let callout_user = write_broker(&written, &keys, now)?;
        write_seeds(&written.keys, &keys)?;
        self.write_servers(&folder, &written, &keys, (names, &callout_user, now))?;
        Ok(written)
    }

    fn write_servers(
        &self,
        folder: &Path,
        written: &Written,
        keys: &Keys,
        (names, callout_user, now): (&Names, &PublicKey, u64),
    ) -> Result<(), SetUpError> {
        let sentinel = SigningKey::generate(Owner::User);
        let claims = UserClaims::new(PermissionClaims::nothing(), keys.callout.public(), Proof::Bearer);
        let named = |name: &str, claims| Claims { name: name.to_owned(), ..claims };
        let sentinel_jwt = token::encode(
            named("sentinel", Claims::about(sentinel.public().as_str(), now, claims)),
            &keys.callout_signing,
        )?;
        put(&written.sentinel, &credentials::text(&sentinel_jwt, &sentinel))?;
        let common = accounts::conf(&self.name, keys, &sentinel_jwt, (callout_user, now))?;
        put(&folder.join(SERVERS).join("accounts.conf"), &common)?;
        let password = password()?;
        let hosts = (&written.hosts, self.hosts, (self.nodes, names.nodes.as_ref()));
        let nodes = (&written.nodes, self.nodes, (self.hosts, names.hosts.as_ref()));
        for (path, own, other) in [hosts, nodes] {
            let store = folder.join(STORES).join(path.file_stem().unwrap_or_default());
            let tls = if *path == written.nodes { self.nodes_tls()? } else { self.hosts_tls()? };
            let cluster = self.cluster(own, other, &password)?;
            let text = format!(
                "# Written by `portcullis-broker nats init`.\n\
                 server_name: {name}\nlisten: \"{listen}\"\ninclude \"accounts.conf\"\n\
                 authorization {{ timeout: 5 }}\n{tls}{cluster}\
                 jetstream {{ store_dir: {store} }}\n",
                name = json!(format!("portcullis-{}", path.file_stem().unwrap_or_default().to_string_lossy())),
                listen = own.clients,
                store = quoted(&store)?,
            );
            put(path, &text)?;
        }
        Ok(())
    }

    fn hosts_tls(&self) -> Result<String, SetUpError> {
        let Certificate { chain, key, ca: _ } = &self.certificate;
        Ok(match self.hosts_tls {
            HostsTls::DangerPlain => "# Hosts are served in the clear.\n".to_owned(),
            HostsTls::Required => {
                format!("tls {{ cert_file: {}, key_file: {}, timeout: 5 }}\n", quoted(chain)?, quoted(key)?)
            }
        })
    }

    fn nodes_tls(&self) -> Result<String, SetUpError> {
        let Certificate { chain, key, ca: _ } = &self.certificate;
        Ok(format!(
            "tls {{ cert_file: {}, key_file: {}, ca_file: {}, verify: true, handshake_first: true, min_version: \"1.3\", timeout: 5 }}\n",
            quoted(chain)?,
            quoted(key)?,
            quoted(&self.nodes_ca)?,
        ))
    }

    /// Neither server tells its clients of the other: no host could join where nodes are served, and would try first when it comes again.
    /// Between machines the servers prove themselves to each other by certificate, too, and each looks for the other's name in it.
    fn cluster(
        &self,
        own: Listener,
        (other, name): (Listener, Option<&ServerName<'static>>),
        password: &str,
    ) -> Result<String, SetUpError> {
        let Certificate { chain, key, ca } = &self.certificate;
        let tls = if self.routes_by_certificate() {
            let (chain, key, ca) = (quoted(chain)?, quoted(key)?, quoted(ca)?);
            format!("  tls {{ cert_file: {chain}, key_file: {key}, ca_file: {ca}, verify: true, timeout: 5 }}\n")
        } else {
            String::new()
        };
        let other = HostPort::of(name.filter(|_| self.routes_by_certificate()), other.route);
        Ok(format!(
            "cluster {{\n  name: portcullis\n  listen: \"{}\"\n  no_advertise: true\n{tls}  authorization {{ user: route, password: \"{password}\", timeout: 5 }}\n  routes: [\"nats://route:{password}@{}\"]\n}}\n",
            own.route, other,
        ))
    }
}

fn make_folders(folder: &Path) -> Result<(), SetUpError> {
    let failed = |path: &Path, cause| SetUpError::Write { path: path.to_owned(), cause };
    let make = |path: &Path, mode| fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(SetUpError::Exists(folder.to_owned()));
    }
    // The parts may get owners of their own; these pass, and see nothing else.
    make(folder, 0o711).map_err(|cause| failed(folder, cause))?;
    for path in [BROKER, SERVERS, KEYS, STORES].map(|part| folder.join(part)) {
        make(&path, 0o700).map_err(|cause| failed(&path, cause))?;
    }
    Ok(())
}

/// Returns the user that servers ask.
fn write_broker(written: &Written, keys: &Keys, now: u64) -> Result<PublicKey, SetUpError> {
    let names = serde_json::to_string_pretty(&written.accounts).map_err(io::Error::other);
    let path = written.broker.join(folder::ACCOUNTS);
    let names = names.map_err(|cause| SetUpError::Write { path: path.clone(), cause })?;
    put(&path, &names)?;
    for (name, seed) in [
        (folder::CALLOUT_SIGNING, keys.callout_signing.reveal()),
        (folder::LATTICE_SIGNING, keys.lattice_signing.reveal()),
        (folder::CALLOUT_SEAL, keys.seal.reveal()),
    ] {
        put(&written.broker.join(name), &seed)?;
    }
    let mut callout = Permissions::default();
    callout.inbox(subjects::BROKER_INBOX);
    callout.subscribe_in("$SYS.REQ.USER.AUTH", "portcullis");
    // Where servers wait for an answer.
    callout.publish("_INBOX.>");
    callout.publish("_R_.>");
    callout.publish("$SYS._INBOX.>");
    // Brokers among themselves.
    callout.publish(brokers::ALL);
    callout.subscribe(brokers::ALL);
    let user = user("callout", folder::CALLOUT_USER, &callout, (&keys.callout, &written.broker, now))?;
    let mut system = Permissions::default();
    system.inbox(subjects::BROKER_INBOX);
    for order in ["KICK", "LDM", "CONNZ", "ACCOUNTZ"] {
        system.publish(format!("$SYS.REQ.SERVER.*.{order}"));
    }
    for event in ["CONNECT", "DISCONNECT"] {
        system.subscribe(format!("$SYS.ACCOUNT.{}.{event}", keys.lattice.public()));
    }
    self::user("system", folder::SYSTEM_USER, &system, (&keys.system, &written.broker, now))?;
    self::user("lattice", folder::LATTICE_USER, &subjects::broker(), (&keys.lattice, &written.broker, now))?;
    Ok(user)
}

/// Writes the credentials of a user of the broker.
fn user(
    name: &str,
    file: &str,
    permissions: &Permissions,
    (account, folder, now): (&SigningKey, &Path, u64),
) -> Result<PublicKey, SetUpError> {
    let key = SigningKey::generate(Owner::User);
    let claims = UserClaims::new(permissions.claims(), account.public(), Proof::Key).signed_by_account();
    let claims = Claims { name: format!("portcullis-{name}"), ..Claims::about(key.public().as_str(), now, claims) };
    put(&folder.join(file), &credentials::text(&token::encode(claims, account)?, &key))?;
    Ok(key.public().clone())
}

fn write_seeds(folder: &Path, keys: &Keys) -> Result<(), SetUpError> {
    for (name, key) in [
        ("operator.nk", &keys.operator),
        ("system.nk", &keys.system),
        ("callout.nk", &keys.callout),
        ("lattice.nk", &keys.lattice),
    ] {
        put(&folder.join(name), &key.reveal())?;
    }
    Ok(())
}

fn put(path: &Path, text: &str) -> Result<(), SetUpError> {
    atomic_file::write(path, text.as_bytes(), 0o600, Existing::Keep)
        .map_err(|cause| SetUpError::Write { path: path.to_owned(), cause })
}

/// A path as a server's configuration quotes it.
fn quoted(path: &Path) -> Result<String, SetUpError> {
    let text = path.to_str().filter(|text| !text.contains(['"', '\\']) && !text.contains(char::is_control));
    text.map(|text| format!("\"{text}\"")).ok_or_else(|| SetUpError::Path(path.to_owned()))
}

fn password() -> Result<String, SetUpError> {
    let mut bytes = [0_u8; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| SetUpError::NoRandomness)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use rcgen::{CertificateParams, KeyPair};

    use super::super::folder::{FolderError, Material};
    use super::*;

    fn set_up(folder: &Path) -> SetUp {
        let listener =
            |port| Listener { clients: ([127, 0, 0, 1], port).into(), route: ([127, 0, 0, 1], port + 2).into() };
        SetUp {
            folder: folder.join("nats"),
            name: "acme".to_owned(),
            hosts: listener(4222),
            nodes: listener(4223),
            certificate: Certificate { chain: "c.pem".into(), key: "k.pem".into(), ca: "ca.pem".into() },
            nodes_ca: "bundle.pem".into(),
            hosts_tls: HostsTls::Required,
        }
    }

    /// The same, whose certificate is there, and names `localhost`.
    fn certified(folder: &Path) -> SetUp {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let file = |name: &str, text: String| {
            fs::write(folder.join(name), text).unwrap();
            folder.join(name)
        };
        let certificate = Certificate {
            chain: file("c.pem", certificate.pem()),
            key: file("k.pem", key.serialize_pem()),
            ca: file("ca.pem", certificate.pem()),
        };
        SetUp { certificate, ..set_up(folder) }
    }

    #[test]
    fn what_no_server_starts_with_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let good = certified(folder.path());
        let named = good.check().unwrap();
        let name = |text: &str| parse_server_name(text).unwrap();
        assert!(named.svid().is_none() && named.is_called(&name("localhost")) && !named.is_called(&name("nats")));
        let file = |name: &str, text: &str| {
            fs::write(folder.path().join(name), text).unwrap();
            folder.path().join(name)
        };
        let with = |certificate| SetUp { certificate, ..good.clone() };
        let Certificate { chain, key, ca } = good.certificate.clone();
        let other_key = file("other.pem", &KeyPair::generate().unwrap().serialize_pem());
        let (nothing, missing) = (file("nothing.pem", "nothing"), folder.path().join("missing.pem"));
        for (bad, reason) in [
            (with(Certificate { chain: missing.clone(), ..good.certificate.clone() }), "missing.pem` cannot be used"),
            (with(Certificate { chain: nothing.clone(), key, ca: ca.clone() }), "holds no certificate"),
            (with(Certificate { chain: chain.clone(), key: chain.clone(), ca: ca.clone() }), "holds no key"),
            (with(Certificate { chain, key: other_key, ca }), "is not the key of"),
            (with(Certificate { ca: missing, ..good.certificate.clone() }), "missing.pem` cannot be used"),
            (SetUp { nodes_ca: nothing, ..good.clone() }, "nothing.pem` cannot be used"),
            (SetUp { nodes: good.hosts, ..good.clone() }, "hosts and nodes cannot both listen on `127.0.0.1:4222`"),
            (
                SetUp { nodes: Listener { route: good.hosts.clients, ..good.nodes }, ..good.clone() },
                "hosts and the route to the server for nodes cannot both",
            ),
            (
                SetUp { hosts: Listener { clients: ([127, 0, 0, 1], 0).into(), ..good.hosts }, ..good },
                "hosts cannot listen on port 0",
            ),
        ] {
            let told = bad.check().unwrap_err().to_string();
            assert!(told.contains(reason), "{told}");
        }
    }

    #[test]
    fn servers_of_two_machines_look_for_each_other_s_names() {
        let folder = tempfile::tempdir().unwrap();
        let on = |route: &str, listener: Listener| Listener { route: route.parse().unwrap(), ..listener };
        let near = set_up(folder.path());
        assert_eq!(near.looked_for(&Names::default()).len(), 1);
        let far = SetUp {
            hosts: on("10.0.0.1:6222", near.hosts),
            nodes: on("0.0.0.0:6223", near.nodes),
            folder: folder.path().join("far"),
            ..near
        };
        let names = Names { hosts: parse_server_name("one.acme.test").ok(), nodes: None };
        let looked_for: Vec<_> = far.looked_for(&names).iter().map(ToString::to_string).collect();
        assert_eq!(looked_for, ["one.acme.test:4222", "one.acme.test:6222", "localhost:6223"]);
        let written = far.write_as(&names, clock::now()).unwrap();
        let holds = |path: &Path, text: &str| fs::read_to_string(path).unwrap().contains(text);
        assert!(holds(&written.hosts, "@localhost:6223\"") && holds(&written.nodes, "@one.acme.test:6222\""));
    }

    #[test]
    fn what_is_written_is_read_and_its_owner_s_alone() {
        let folder = tempfile::tempdir().unwrap();
        let written = set_up(folder.path()).write(clock::now()).unwrap();
        let material = Material::read(&written.broker).unwrap();
        assert_eq!(material.lattice.as_str(), written.accounts.lattice);
        let mut files = 0;
        for part in [BROKER, SERVERS, KEYS] {
            for entry in fs::read_dir(folder.path().join("nats").join(part)).unwrap() {
                assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
                files += 1;
            }
        }
        assert_eq!(files, 15);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder.path().join("nats").join(STORES)), 0o700);
        fs::set_permissions(written.broker.join("lattice.nk"), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Material::read(&written.broker), Err(FolderError::Exposed { mode: 0o640, .. })));
    }

    #[test]
    fn an_older_set_up_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        set_up(folder.path()).write(clock::now()).unwrap();
        assert!(matches!(set_up(folder.path()).write(clock::now()), Err(SetUpError::Exists(_))));
        let strange = SetUp { nodes_ca: "a\"b".into(), folder: folder.path().join("x"), ..set_up(folder.path()) };
        assert!(matches!(strange.write(clock::now()), Err(SetUpError::Path(_))));
    }
}
