use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::UNIX_EPOCH;

use portcullis_identity::{Leaf, PeerRule, PeerVerifier, TrustBundles, Usage};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use rustls::pki_types::UnixTime;

use super::*;

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

fn open(folder: &Path, now: SystemTime) -> Authority {
    Authority::open(folder, None, &trust_domain(), now).unwrap()
}

fn verify(authority: &Authority, issued: &Issued, now: SystemTime) -> Result<SpiffeId, String> {
    let trust = TrustBundles::new([authority.bundle().clone()], now).into_source();
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
    let again = open(folder.path(), now());
    assert_eq!(first.root_spki_sha256(), again.root_spki_sha256());
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
        let key = CaFile::read(&path, None, &trust_domain()).unwrap().key;
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
    assert_eq!(authority.renew_signing(now() + 44 * DAY).unwrap(), SigningRenewal::NotDue);
    let later = now() + 46 * DAY;
    assert_eq!(authority.renew_signing(later).unwrap(), SigningRenewal::Renewed);
    assert_eq!(authority.signing_not_after(), later + 90 * DAY);
    let new = authority.issue(&requested(), &workload(), Ttl::DEFAULT, later).unwrap();
    assert_ne!(old.chain[1], new.chain[1]);
    assert_eq!(verify(&authority, &new, later).unwrap(), workload());
    assert_eq!(verify(&authority, &old, now()).unwrap(), workload());
    // One that nobody renewed while the broker was down is renewed at start.
    let restarted = open(folder.path(), later + 200 * DAY);
    assert_eq!(restarted.signing_not_after(), later + 290 * DAY);
}

#[test]
fn an_expired_root_is_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path(), now());
    let refused = Authority::open(folder.path(), None, &trust_domain(), now() + 3651 * DAY);
    assert!(matches!(refused, Err(AuthorityError::RootExpired { .. })), "{refused:?}");
}

#[test]
fn keys_lie_in_files_for_their_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("data/ca");
    open(&ca, now());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&ca), 0o700);
    for name in ["root.pem", "signing.pem"] {
        assert_eq!(mode(&ca.join(name)), 0o600, "{name}");
    }
    assert_eq!(std::fs::read_dir(&ca).unwrap().count(), 2);
}

#[test]
fn an_exposed_key_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path(), now());
    let path = root_path(folder.path());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let error = Authority::open(folder.path(), None, &trust_domain(), now()).unwrap_err().to_string();
    assert!(error.contains("root.pem") && error.contains("mode 640"), "{error}");
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
        let error = Authority::open(folder.path(), None, &trust_domain(), now()).unwrap_err().to_string();
        assert!(error.contains("root.pem") && error.contains(problem), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), bad);
    }
}

#[test]
fn keys_are_sealed_where_there_is_a_seal_key() {
    let folder = tempfile::tempdir().unwrap();
    let key = SealKey::generate().unwrap();
    let copy = || SealKey::parse(key.reveal().as_bytes()).unwrap();
    let open_sealed = |seal| Authority::open(folder.path(), seal, &trust_domain(), now());
    let first = open_sealed(Some(copy())).unwrap();
    let issued = first.issue(&requested(), &workload(), Ttl::DEFAULT, now()).unwrap();
    assert!(first.is_sealed());
    for path in [root_path(folder.path()), signing_path(folder.path())] {
        let content = std::fs::read(&path).unwrap();
        assert!(portcullis_identity::is_sealed(&content), "{path:?}");
        assert!(!content.windows(5).any(|window| window == b"BEGIN"), "{path:?}");
    }
    let again = open_sealed(Some(copy())).unwrap();
    assert_eq!(verify(&again, &issued, now()).unwrap(), workload());
    assert_eq!(again.renew_signing(now() + 46 * DAY).unwrap(), SigningRenewal::Renewed);
    assert!(portcullis_identity::is_sealed(&std::fs::read(signing_path(folder.path())).unwrap()));

    let without = open_sealed(None).unwrap_err().to_string();
    assert!(without.contains("root.pem` is sealed") && without.contains("--seal-key-file"), "{without}");
    let other = open_sealed(Some(SealKey::generate().unwrap())).unwrap_err().to_string();
    assert!(other.contains("sealed with key"), "{other}");
    // One file does not stand for the other.
    std::fs::copy(root_path(folder.path()), signing_path(folder.path())).unwrap();
    let swapped = open_sealed(Some(copy())).unwrap_err().to_string();
    assert!(swapped.contains("signing.pem") && swapped.contains("another file's"), "{swapped}");
}

#[test]
fn plain_keys_are_sealed_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let plain = open(folder.path(), now());
    assert!(!plain.is_sealed());
    let key = SealKey::generate().unwrap();
    let sealed = Authority::open(folder.path(), Some(key), &trust_domain(), now()).unwrap();
    assert_eq!(plain.root_spki_sha256(), sealed.root_spki_sha256());
    assert_eq!(plain.signing_not_after(), sealed.signing_not_after());
    for path in [root_path(folder.path()), signing_path(folder.path())] {
        assert!(portcullis_identity::is_sealed(&std::fs::read(&path).unwrap()), "{path:?}");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn the_authority_of_another_trust_domain_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path(), now());
    let other = TrustDomain::new("other.test").unwrap();
    let error = Authority::open(folder.path(), None, &other, now()).unwrap_err().to_string();
    assert!(error.contains("acme.test") && error.contains("other.test"), "{error}");
}

#[test]
fn the_brokers_own_chain_shows_the_root() {
    let folder = tempfile::tempdir().unwrap();
    let authority = open(folder.path(), now());
    let svid = authority.own_svid(Ttl::DEFAULT, now()).unwrap();
    assert_eq!(svid.id().to_string(), "spiffe://acme.test/portcullis/broker");
    assert_eq!(svid.chain().last(), Some(authority.root_certificate()));
}

/// X509-SVID is a profile of RFC 5280: an independent implementation must agree, in both directions.
#[test]
fn openssl_verifies_an_issued_chain() {
    let folder = tempfile::tempdir().unwrap();
    let now = crate::clock::now();
    let authority = open(&folder.path().join("ca"), now);
    let issued = authority.issue(&requested(), &workload(), Ttl::DEFAULT, now).unwrap();
    let write = |name: &str, certificate| {
        let path = folder.path().join(name);
        std::fs::write(&path, ca_file::pem_certificate(certificate)).unwrap();
        path
    };
    let (leaf, signing) = (write("leaf.pem", &issued.chain[0]), write("signing.pem", &issued.chain[1]));
    let root = write("root.pem", authority.root_certificate());
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
