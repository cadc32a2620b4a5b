use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use portcullis_identity::{Leaf, PeerRule, PeerVerifier, SealKey, TrustBundles, Usage};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType};
use rustls::pki_types::UnixTime;

use super::*;
use crate::audit::{AuditLog, Event};
use crate::registry::{self, AuthorityStep, Registry, Stage};
use crate::store::Store;
use crate::succession::{Journal, Lifetimes, establish};

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

const DAY: Duration = Duration::from_secs(24 * 3600);

fn trust_domain() -> TrustDomain {
    TrustDomain::new("acme.test").unwrap()
}

fn workload() -> SpiffeId {
    SpiffeId::new("spiffe://acme.test/virtual/prod/billing").unwrap()
}

fn requested() -> RequestedKey {
    RequestedKey::parse(&key_request(&PrivateKey::generate().unwrap()).unwrap()).unwrap()
}

/// An authority with the registry that it follows.
#[derive(Debug)]
struct Opened {
    authority: Authority,
    registry: Registry,
    store: Store,
}

impl std::ops::Deref for Opened {
    type Target = Authority;

    fn deref(&self) -> &Authority {
        &self.authority
    }
}

const LIFETIMES: Lifetimes =
    Lifetimes { x509: Duration::from_secs(3650 * 24 * 3600), jwt: Duration::from_secs(3650 * 24 * 3600) };

fn try_open(
    folder: &Path,
    seal: Option<SealKey>,
    trust_domain: &TrustDomain,
    now: SystemTime,
) -> Result<Opened, String> {
    let said = |error: &dyn ToString| error.to_string();
    let keys = KeyFolder::open(&folder.join("ca"), seal, trust_domain).map_err(|error| said(&error))?;
    let (store, mut registry) =
        Store::open(&folder.join("store.redb"), &self::trust_domain()).map_err(|error| said(&error))?;
    let beginning = Event::Begun { trust_domain: trust_domain.to_string(), version: registry.version().to_string() };
    let mut audit = AuditLog::open(&folder.join("audit"), beginning).map_err(|error| said(&error))?;
    let journal = Journal { audit: &mut audit, store: &store, registry: &mut registry };
    establish(&keys, journal, LIFETIMES, now).map_err(|error| said(&error))?;
    let authority = Authority::open(keys, &registry.roster(), now).map_err(|error| said(&error))?;
    Ok(Opened { authority, registry, store })
}

fn open(folder: &Path, now: SystemTime) -> Opened {
    try_open(folder, None, &trust_domain(), now).unwrap()
}

impl Opened {
    fn step(&mut self, step: AuthorityStep, now: SystemTime) {
        let plan = self.registry.plan(registry::Command::Authority(step), now).unwrap();
        let version = self.registry.version().next();
        self.store.commit(&plan.changes, version).unwrap();
        self.registry.apply(&plan.changes, version, plan.schema);
        self.authority.follow(&self.registry.roster(), now).unwrap();
    }
}

/// The file of the folder whose name ends so.
fn file(folder: &Path, suffix: &str) -> PathBuf {
    let entries = std::fs::read_dir(folder.join("ca")).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries.filter(|path| path.to_string_lossy().ends_with(suffix)).collect();
    found.sort_by_key(|path| path.to_string_lossy().len());
    found.remove(0)
}

fn root_path(folder: &Path) -> PathBuf {
    file(folder, ".pem")
}

fn signing_path(folder: &Path) -> PathBuf {
    file(folder, "-signing.pem")
}

fn verify(authority: &Authority, issued: &Issued, now: SystemTime) -> Result<SpiffeId, String> {
    let trust = TrustBundles::new([authority.bundle().x509.clone()], now).into_source();
    let verifier = PeerVerifier::new(trust, PeerRule::TrustDomain(trust_domain()));
    let (leaf, intermediates) = issued.chain.split_first().unwrap();
    let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap());
    verifier.verify(leaf, intermediates, now, Usage::ClientAuth).map_err(|error| error.to_string())
}

#[test]
fn what_it_issues_is_accepted_and_lives_as_long_as_asked() {
    let folder = tempfile::tempdir().unwrap();
    let authority = open(folder.path(), now());
    let issued = authority.issue(&requested(), &workload(), Ttl::DEFAULT, now()).unwrap();
    assert_eq!(verify(&authority, &issued, now()).unwrap(), workload());
    let leaf = Leaf::parse(&issued.chain[0]).unwrap();
    assert_eq!(leaf.not_before(), now() - Duration::from_secs(10));
    assert_eq!(leaf.not_after(), now() + Duration::from_secs(3600));
    assert_eq!(issued.not_after, leaf.not_after());
    assert_eq!(leaf.serial().len(), 16);
}

#[test]
fn it_is_the_same_authority_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path(), now());
    let issued = first.issue(&requested(), &workload(), Ttl::DEFAULT, now()).unwrap();
    let pinned = first.root_spki_sha256();
    drop(first);
    let again = open(folder.path(), now());
    assert_eq!(pinned, again.root_spki_sha256());
    assert_eq!(verify(&again, &issued, now()).unwrap(), workload());
}

#[test]
fn of_a_request_only_the_key_is_used() {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    params.subject_alt_names = vec![
        SanType::URI("spiffe://acme.test/portcullis/broker".try_into().unwrap()),
        SanType::DnsName("broker.acme.test".try_into().unwrap()),
    ];
    let key = KeyPair::generate().unwrap();
    let request = RequestedKey::parse(params.serialize_request(&key).unwrap().der()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let authority = open(folder.path(), now());
    let issued = authority.issue(&request, &workload(), Ttl::DEFAULT, now()).unwrap();
    // The leaf profile refuses a CA, a second SAN and foreign key usages.
    assert_eq!(Leaf::parse(&issued.chain[0]).unwrap().id(), &workload());
    assert_eq!(verify(&authority, &issued, now()).unwrap(), workload());
    let text = issued.chain[0].windows(16).any(|window| window == b"broker.acme.test");
    assert!(!text, "a name of the request is in the certificate");
}

#[test]
fn foreign_ids_are_not_issued() {
    let folder = tempfile::tempdir().unwrap();
    let authority = open(folder.path(), now());
    for id in ["spiffe://other.test/x", "spiffe://acme.test", "spiffe://acme.test.evil/x"] {
        let id = SpiffeId::new(id).unwrap();
        let refused = authority.issue(&requested(), &id, Ttl::DEFAULT, now());
        assert!(matches!(refused, Err(IssueError::ForeignId(_))), "{id}");
    }
}

#[test]
fn the_authoritys_own_keys_get_no_svid() {
    let folder = tempfile::tempdir().unwrap();
    let authority = open(folder.path(), now());
    for path in [root_path(folder.path()), signing_path(folder.path())] {
        let key = ca_file::CaFile::read(&path, None, &trust_domain()).unwrap().key;
        let csr = CertificateParams::default().serialize_request(&key).unwrap();
        let requested = RequestedKey::parse(csr.der()).unwrap();
        let refused = authority.issue(&requested, &workload(), Ttl::DEFAULT, now());
        assert!(matches!(refused, Err(IssueError::AuthorityKey)), "{path:?}");
    }
}

#[test]
fn a_leaf_ends_no_later_than_its_signer() {
    let folder = tempfile::tempdir().unwrap();
    let authority = open(folder.path(), now());
    let late = authority.signing_not_after() - Duration::from_secs(60);
    let issued = authority.issue(&requested(), &workload(), Ttl::DEFAULT, late).unwrap();
    assert_eq!(Leaf::parse(&issued.chain[0]).unwrap().not_after(), authority.signing_not_after());
    let refused = authority.issue(&requested(), &workload(), Ttl::DEFAULT, authority.signing_not_after());
    assert!(matches!(refused, Err(IssueError::Expired)));
}

#[test]
fn a_signing_certificate_is_renewed_at_half_life_under_the_same_root() {
    let folder = tempfile::tempdir().unwrap();
    let authority = open(folder.path(), now());
    let old = authority.issue(&requested(), &workload(), Ttl::DEFAULT, now()).unwrap();
    assert_eq!(
        authority.renew_signing(&authority.registry.roster(), now() + 44 * DAY).unwrap(),
        SigningRenewal::NotDue
    );
    let later = now() + 46 * DAY;
    assert_eq!(authority.renew_signing(&authority.registry.roster(), later).unwrap(), SigningRenewal::Renewed);
    assert_eq!(authority.signing_not_after(), later + 90 * DAY);
    let new = authority.issue(&requested(), &workload(), Ttl::DEFAULT, later).unwrap();
    assert_ne!(old.chain[1], new.chain[1]);
    assert_eq!(verify(&authority, &new, later).unwrap(), workload());
    assert_eq!(verify(&authority, &old, now()).unwrap(), workload());
    // One that nobody renewed while the broker was down is renewed at start.
    drop(authority);
    let restarted = open(folder.path(), later + 200 * DAY);
    assert_eq!(restarted.signing_not_after(), later + 290 * DAY);
}

#[test]
fn an_expired_root_gives_way_to_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let old = open(folder.path(), now()).root_spki_sha256();
    // Nobody was there to prepare another: nodes that trust the old one need to join anew.
    let new = open(folder.path(), now() + 3651 * DAY);
    assert_ne!(old, new.root_spki_sha256());
}

#[test]
fn keys_lie_in_files_for_their_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path(), now());
    let ca = folder.path().join("ca");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&ca), 0o700);
    let names: Vec<_> = std::fs::read_dir(&ca).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names.iter().all(|path| mode(path) == 0o600));
}

#[test]
fn an_exposed_key_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path(), now());
    let path = root_path(folder.path());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let error = try_open(folder.path(), None, &trust_domain(), now()).unwrap_err();
    assert!(error.contains("x509-") && error.contains("mode 640"), "{error}");
}

#[test]
fn a_damaged_key_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path(), now());
    let path = root_path(folder.path());
    let good = std::fs::read_to_string(&path).unwrap();
    let other = tempfile::tempdir().unwrap();
    open(other.path(), now());
    let foreign = std::fs::read_to_string(root_path(other.path())).unwrap();
    let parts = |text: &str| {
        let (key, certificate) = text.split_at(text.find("-----BEGIN CERTIFICATE").unwrap());
        (key.to_owned(), certificate.to_owned())
    };
    let (key, certificate) = parts(&good);
    let swapped = format!("{}{certificate}", parts(&foreign).0);
    for (bad, problem) in [
        (String::new(), "holds no private key"),
        (certificate, "holds no private key"),
        (key, "holds no certificate"),
        (good.replacen("MIG", "AAA", 1), "private key is not one"),
        (swapped, "do not belong together"),
    ] {
        std::fs::write(&path, &bad).unwrap();
        let error = try_open(folder.path(), None, &trust_domain(), now()).unwrap_err();
        assert!(error.contains("x509-") && error.contains(problem), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), bad);
    }
}

#[test]
fn keys_are_sealed_where_there_is_a_seal_key() {
    let folder = tempfile::tempdir().unwrap();
    let key = SealKey::generate().unwrap();
    let copy = || SealKey::parse(key.reveal().as_bytes()).unwrap();
    let open_sealed = |seal| try_open(folder.path(), seal, &trust_domain(), now());
    let first = open_sealed(Some(copy())).unwrap();
    let issued = first.issue(&requested(), &workload(), Ttl::DEFAULT, now()).unwrap();
    assert!(first.is_sealed());
    drop(first);
    for path in [root_path(folder.path()), signing_path(folder.path())] {
        let content = std::fs::read(&path).unwrap();
        assert!(portcullis_identity::is_sealed(&content), "{path:?}");
        assert!(!content.windows(5).any(|window| window == b"BEGIN"), "{path:?}");
    }
    let again = open_sealed(Some(copy())).unwrap();
    assert_eq!(verify(&again, &issued, now()).unwrap(), workload());
    assert_eq!(again.renew_signing(&again.registry.roster(), now() + 46 * DAY).unwrap(), SigningRenewal::Renewed);
    assert!(portcullis_identity::is_sealed(&std::fs::read(signing_path(folder.path())).unwrap()));

    drop(again);

    let without = open_sealed(None).unwrap_err();
    assert!(without.contains("is sealed: start") && without.contains("--seal-key-file"), "{without}");
    let other = open_sealed(Some(SealKey::generate().unwrap())).unwrap_err();
    assert!(other.contains("sealed with key"), "{other}");
    // One file does not stand for the other.
    std::fs::copy(root_path(folder.path()), signing_path(folder.path())).unwrap();
    let swapped = open_sealed(Some(copy())).unwrap_err();
    assert!(swapped.contains("-signing.pem") && swapped.contains("another file's"), "{swapped}");
}

#[test]
fn plain_keys_are_sealed_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let plain = open(folder.path(), now());
    assert!(!plain.is_sealed());
    let before = (plain.root_spki_sha256(), plain.signing_not_after());
    drop(plain);
    let key = SealKey::generate().unwrap();
    let sealed = try_open(folder.path(), Some(key), &trust_domain(), now()).unwrap();
    assert_eq!(before, (sealed.root_spki_sha256(), sealed.signing_not_after()));
    for path in [root_path(folder.path()), signing_path(folder.path())] {
        assert!(portcullis_identity::is_sealed(&std::fs::read(&path).unwrap()), "{path:?}");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(std::fs::read_dir(folder.path().join("ca")).unwrap().count(), 3);
}

#[test]
fn the_authority_of_another_trust_domain_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path(), now());
    let other = TrustDomain::new("other.test").unwrap();
    let error = try_open(folder.path(), None, &other, now()).unwrap_err();
    assert!(error.contains("acme.test") && error.contains("other.test"), "{error}");
}

#[test]
fn the_brokers_own_chain_shows_the_root() {
    let folder = tempfile::tempdir().unwrap();
    let authority = open(folder.path(), now());
    let svid = authority.own_svid(Ttl::DEFAULT, now()).unwrap();
    assert_eq!(svid.id().to_string(), "spiffe://acme.test/portcullis/broker");
    assert_eq!(svid.chain().last(), Some(&authority.root_certificate()));
}

/// X509-SVID is a profile of RFC 5280: an independent implementation must agree, in both directions.
#[test]
fn openssl_verifies_an_issued_chain() {
    let folder = tempfile::tempdir().unwrap();
    let now = crate::clock::now();
    let authority = open(folder.path(), now);
    let issued = authority.issue(&requested(), &workload(), Ttl::DEFAULT, now).unwrap();
    let write = |name: &str, certificate| {
        let path = folder.path().join(name);
        std::fs::write(&path, ca_file::pem_certificate(certificate)).unwrap();
        path
    };
    let (leaf, signing) = (write("leaf.pem", &issued.chain[0]), write("signing.pem", &issued.chain[1]));
    let root = write("root.pem", &authority.root_certificate());
    for purpose in ["sslclient", "sslserver"] {
        let output = Command::new("openssl")
            .args(["verify", "-x509_strict", "-purpose", purpose, "-CAfile"])
            .arg(&root)
            .arg("-untrusted")
            .arg(&signing)
            .arg(&leaf)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let text = Command::new("openssl").args(["x509", "-noout", "-text", "-in"]).arg(&leaf).output().unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    for line in [
        "CA:FALSE",
        "X509v3 Key Usage: critical",
        "TLS Web Server Authentication, TLS Web Client Authentication",
        "X509v3 Subject Alternative Name: critical",
        "URI:spiffe://acme.test/virtual/prod/billing",
        "X509v3 Authority Key Identifier",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(text.lines().any(|line| line.trim_end().ends_with("Subject:")), "the subject is not empty:\n{text}");
}

#[test]
fn another_authority_follows_and_what_each_signed_stays_good() {
    let folder = tempfile::tempdir().unwrap();
    let mut ca = open(folder.path(), now());
    let first = ca.registry.active(AuthorityKind::X509).unwrap().id.clone();
    let old = ca.issue(&requested(), &workload(), Ttl::DEFAULT, now()).unwrap();
    let sequence = ca.bundle().sequence;

    let new = ca.keys().make_root(LIFETIMES.x509, now()).unwrap();
    ca.step(AuthorityStep::Publish(Box::new(new)), now());
    let second = ca.registry.prepared(AuthorityKind::X509).unwrap().id.clone();
    assert_eq!(ca.bundle().x509.authorities().len(), 2);
    assert!(ca.bundle().sequence > sequence);
    // In the bundle, and signing nothing yet.
    assert_eq!(ca.issue(&requested(), &workload(), Ttl::DEFAULT, now()).unwrap().chain[1], old.chain[1]);

    ca.step(AuthorityStep::Activate(second.clone()), now());
    let issued = ca.issue(&requested(), &workload(), Ttl::DEFAULT, now()).unwrap();
    assert_ne!(issued.chain[1], old.chain[1]);
    for issued in [&old, &issued] {
        assert_eq!(verify(&ca, issued, now()).unwrap(), workload());
    }
    let pem = ca.bundle_pem();
    assert_eq!(pem.matches("BEGIN CERTIFICATE").count(), 2);

    ca.step(AuthorityStep::Taint(first.clone()), now());
    assert_eq!(ca.bundle().tainted.len(), 1);
    verify(&ca, &old, now()).unwrap();
    ca.keys().destroy(&first).unwrap();
    ca.step(AuthorityStep::Revoke(first), now());
    assert!(ca.bundle().tainted.is_empty());
    verify(&ca, &old, now()).unwrap_err();
    verify(&ca, &issued, now()).unwrap();
    let sequence = ca.bundle().sequence;

    drop(ca);
    let again = open(folder.path(), now());
    assert_eq!(again.bundle().sequence, sequence);
    assert_eq!(again.registry.active(AuthorityKind::X509).unwrap().id, second);
    verify(&again, &issued, now()).unwrap();
}

/// A kill between writing the key and publishing it, and one between activating and destroying the old key.
#[test]
fn a_crash_between_two_steps_is_repaired_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let ca = open(folder.path(), now());
    let first = ca.registry.active(AuthorityKind::X509).unwrap().id.clone();
    let new = ca.keys().make_root(LIFETIMES.x509, now()).unwrap();
    drop(ca);

    let mut ca = open(folder.path(), now());
    let published = Arc::clone(ca.registry.prepared(AuthorityKind::X509).unwrap());
    assert_eq!(published.material, new.material);
    assert_eq!(ca.bundle().x509.authorities().len(), 2);
    ca.step(AuthorityStep::Activate(published.id.clone()), now());
    let old = Arc::clone(ca.registry.authorities().find(|record| record.id == first).unwrap());
    assert!(ca.keys().holds(&old) && old.stage == Stage::Old);
    drop(ca);

    let ca = open(folder.path(), now());
    assert!(!ca.keys().holds(&old), "the key of an old authority is still there");
    assert_eq!(ca.bundle().x509.authorities().len(), 2);
}

/// The store is restored from a backup in which the old authority was active; its key is gone for good.
#[test]
fn an_older_store_is_served_with_the_newer_key() {
    let folder = tempfile::tempdir().unwrap();
    let mut ca = open(folder.path(), now());
    let first = ca.registry.active(AuthorityKind::X509).unwrap().id.clone();
    let backup = folder.path().join("backup");
    std::fs::copy(folder.path().join("store.redb"), &backup).unwrap();
    let new = ca.keys().make_root(LIFETIMES.x509, now()).unwrap();
    ca.step(AuthorityStep::Publish(Box::new(new)), now());
    let second = ca.registry.prepared(AuthorityKind::X509).unwrap().id.clone();
    ca.step(AuthorityStep::Activate(second.clone()), now());
    ca.keys().destroy(&first).unwrap();
    let issued = ca.issue(&requested(), &workload(), Ttl::DEFAULT, now()).unwrap();
    drop(ca);
    std::fs::copy(&backup, folder.path().join("store.redb")).unwrap();

    let ca = open(folder.path(), now());
    assert_eq!(ca.registry.active(AuthorityKind::X509).unwrap().id, second);
    verify(&ca, &issued, now()).unwrap();
}

#[test]
fn a_lost_key_is_said_to_be_lost() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path(), now());
    std::fs::remove_file(root_path(folder.path())).unwrap();
    let error = try_open(folder.path(), None, &trust_domain(), now()).unwrap_err();
    assert!(error.contains("is gone"), "{error}");
}

#[test]
fn an_upstream_authority_signs_without_giving_its_key_away() {
    let folder = tempfile::tempdir().unwrap();
    let mut ca = open(folder.path(), now());
    let request = ca.keys().request().unwrap();
    assert_eq!(rcgen_key(&request), rcgen_key(&ca.keys().request().unwrap()), "asking again asks for another key");
    let (root_key, validity) = (KeyPair::generate().unwrap(), Validity::from_now(now(), 30 * DAY, None));
    let root_params = profile::root(&trust_domain(), validity).unwrap();
    let root = root_params.self_signed(&root_key).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_der(root.der(), root_key).unwrap();
    let sign = |request: &str| {
        let mut request = rcgen::CertificateSigningRequestParams::from_pem(request).unwrap();
        request.params.not_before = time::OffsetDateTime::from(validity.not_before);
        request.params.not_after = time::OffsetDateTime::from(validity.not_after);
        request.signed_by(&issuer).unwrap().der().clone()
    };
    let signing = sign(&request);
    let pem = |chain: &[&CertificateDer<'_>]| chain.iter().map(|der| ca_file::pem_certificate(der)).collect::<String>();
    for (chain, problem) in [
        (String::new(), "needs the signing certificate first"),
        (pem(&[root.der()]), "needs the signing certificate first"),
        (pem(&[root.der(), root.der()]), "not for the key"),
        (pem(&[&signing, &ca.root_certificate()]), "no peer would accept"),
    ] {
        let error = ca.keys().install(chain.as_bytes(), now()).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
    let new = ca.keys().install(pem(&[&signing, root.der()]).as_bytes(), now()).unwrap();
    ca.step(AuthorityStep::Publish(Box::new(new)), now());
    let upstream = ca.registry.prepared(AuthorityKind::X509).unwrap().id.clone();
    ca.step(AuthorityStep::Activate(upstream.clone()), now());
    ca.keys().answered().unwrap();
    let issued = ca.issue(&requested(), &workload(), Ttl::DEFAULT, now()).unwrap();
    assert_eq!(issued.chain[1], signing);
    verify(&ca, &issued, now()).unwrap();
    assert_eq!(ca.root_certificate(), *root.der());
    drop(ca);

    // Another authority takes over, and the upstream's certificate is withdrawn although its root may stay.
    let mut ca = open(folder.path(), now());
    assert_eq!(ca.issue(&requested(), &workload(), Ttl::DEFAULT, now()).unwrap().chain[1], signing);
    let next = ca.keys().make_root(LIFETIMES.x509, now()).unwrap();
    ca.step(AuthorityStep::Publish(Box::new(next)), now());
    let next = ca.registry.prepared(AuthorityKind::X509).unwrap().id.clone();
    ca.step(AuthorityStep::Activate(next), now());
    ca.step(AuthorityStep::Taint(upstream.clone()), now());
    ca.step(AuthorityStep::Revoke(upstream), now());
    let serial = portcullis_identity::Authority::parse(&signing, &trust_domain()).unwrap().serial().to_vec();
    let revocations = ca.registry.revocations().values().map(|revocation| revocation.as_ref().clone());
    assert!(portcullis_identity::Revocations::new(revocations, now()).of_serial(&serial));
}

fn rcgen_key(request: &str) -> Vec<u8> {
    let request = rcgen::CertificateSigningRequestParams::from_pem(request).unwrap();
    rcgen::PublicKeyData::subject_public_key_info(&request.public_key)
}

#[test]
fn tokens_are_signed_with_a_key_of_the_bundle() {
    use portcullis_identity::{JwtBundle, JwtBundles, validate_jwt};
    let folder = tempfile::tempdir().unwrap();
    let mut ca = open(folder.path(), now());
    let audience: Audience = "db".parse().unwrap();
    let sign =
        |ca: &Opened| ca.jwt_svid(&workload(), std::slice::from_ref(&audience), JwtTtl::DEFAULT, now()).unwrap().svid;
    let valid = |ca: &Opened, token: &JwtSvid| {
        let bundle = JwtBundle::new(trust_domain(), ca.jwt_authorities()).unwrap();
        validate_jwt(token.token(), &audience, &JwtBundles::new([bundle]), now(), Duration::ZERO).is_ok()
    };
    let old = sign(&ca);
    assert!(valid(&ca, &old));
    let first = ca.registry.active(AuthorityKind::Jwt).unwrap().id.clone();
    let next = ca.keys().make_jwt(LIFETIMES.jwt, now()).unwrap();
    ca.step(AuthorityStep::Publish(Box::new(next)), now());
    let next = ca.registry.prepared(AuthorityKind::Jwt).unwrap().id.clone();
    ca.step(AuthorityStep::Activate(next), now());
    let new = sign(&ca);
    assert!(valid(&ca, &old) && valid(&ca, &new));
    ca.step(AuthorityStep::Taint(first.clone()), now());
    ca.step(AuthorityStep::Revoke(first), now());
    assert!(!valid(&ca, &old) && valid(&ca, &new));
    drop(ca);
    assert!(valid(&open(folder.path(), now()), &new));
}
