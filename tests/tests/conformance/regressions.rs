//! What was once wrong in SPIRE and must not be wrong here: each line of its security history, with the test that shows it.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use e2e::{Agent, Daemon, Lab, eventually, open_files};
use portcullis_api::v1;
use portcullis_client::node::WantedJwt;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use tonic::Code;

use crate::ours::scene;
use crate::rows::{Shown, Shown::Not, Shown::Test};
use crate::socket::Socket;
use crate::token::{decode, part};

/// A defect, where it was repaired, and what shows that it is not here.
pub(crate) struct Regression {
    pub(crate) fixed: &'static str,
    pub(crate) defect: &'static str,
    pub(crate) shown: &'static [Shown],
}

const HERE: &str = "tests/tests/conformance/regressions.rs";
const OURS: &str = "tests/tests/conformance/ours.rs";
const JOIN: &str = "broker/tests/broker/join.rs";
const SIGN: &str = "broker/tests/broker/sign.rs";
const TLS: &str = "crates/identity/src/tls.rs";

const fn line(fixed: &'static str, defect: &'static str, shown: &'static [Shown]) -> Regression {
    Regression { fixed, defect, shown }
}

pub(crate) const HISTORY: &[Regression] = &[
    line(
        "1.14.6",
        "several nodes join at once with one token",
        &[
            Test(JOIN, "of_64_who_come_with_one_token_one_gets_in"),
            Test(JOIN, "a_redeemed_token_stays_bound_to_its_key_over_a_restart"),
        ],
    ),
    line(
        "1.14.6",
        "aws_iid: the signature is checked on one document and the identity read from another",
        &[
            Test("broker/tests/broker/certificate.rs", "who_is_not_vouched_for_or_proves_nothing_stays_out"),
            Test("crates/identity/src/join_certificate.rs", "a_leaf_is_named_by_what_it_says_once"),
        ],
    ),
    line(
        "1.15.1, 1.14.7",
        "azure_imds: the root is checked for one certificate, the signature is another's",
        &[Test("broker/tests/broker/certificate.rs", "who_is_not_vouched_for_or_proves_nothing_stays_out")],
    ),
    line(
        "1.14.3",
        "a resumed TLS session skips the chain, after its root has left",
        &[
            Test(TLS, "no_client_resumes_a_session_with_us"),
            Test(TLS, "we_resume_no_session_with_any_server"),
            Test("crates/transport/tests/quic/handshakes.rs", "no_session_is_resumed_even_for_a_client_that_would"),
            Test("crates/identity/src/verify.rs", "a_peer_is_refused_again_once_its_root_is_withdrawn"),
        ],
    ),
    line("1.14.3, 0.12.0", "selectors and failed tokens are logged", &[Test(HERE, "no_log_holds_a_secret")]),
    line(
        "1.14.2, 1.13.4",
        "x509pop: long chains and huge RSA keys cost a processor",
        &[
            Test("crates/identity/src/join_certificate.rs", "chains_and_keys_are_bounded"),
            Test("crates/identity/src/verify/chain.rs", "a_chain_has_at_most_four_intermediates"),
            Test(JOIN, "a_flood_of_attempts_from_one_source_is_slowed_down"),
        ],
    ),
    line("1.14.2", "http_challenge: the server fetches what a stranger names", &[Not("no such way to join")]),
    line(
        "1.12.3, 1.11.3",
        "ValidateJWTSVID believes tokens without `exp`",
        &[
            Test(OURS, "a_token_that_breaks_a_rule_is_refused_although_it_is_signed"),
            Test("crates/identity/src/jwt/tests.rs", "a_token_expires"),
        ],
    ),
    line(
        "1.9.3, 1.8.9",
        "memory is taken for as many items as a client says",
        &[
            Test("broker/tests/broker/entries.rs", "a_batch_of_tokens_has_a_limit_and_a_node_has_a_rate"),
            Test("tests/tests/e2e/hostile.rs", "fifty_frames_that_claim_a_gigabyte_cost_the_sidecar_nothing"),
        ],
    ),
    line(
        "1.9.0",
        "calls go on after the caller has died",
        &[Test("sidecar/src/workload/attest/tests.rs", "an_ended_process_is_nobody_though_its_connection_lives")],
    ),
    line(
        "0.12.1, CVE-2021-27098, SPI-01-004",
        "a node gets an SVID of an entry that is not its own",
        &[
            Test(SIGN, "an_entry_of_another_node_is_as_unknown_as_none"),
            Test(SIGN, "a_request_for_more_than_a_key_yields_the_entrys_id_and_nothing_else"),
            Test("broker/tests/broker/entries.rs", "tokens_are_signed_for_the_entries_of_the_node_and_their_audience"),
        ],
    ),
    line(
        "0.12.1, CVE-2021-27099, SPI-01-003",
        "a path made of attested data is normalised into somebody else's ID",
        &[
            Test("broker/src/x509pop.rs", "a_value_is_taken_as_it_stands_or_not_at_all"),
            Test("broker/src/x509pop.rs", "a_template_has_one_variable_and_is_one_segment"),
            Test("crates/identity/src/name.rs", "a_name_that_could_leave_its_segment_is_refused"),
        ],
    ),
    line(
        "0.12.1, SPI-01-006",
        "each connection of a workload costs a file descriptor for good",
        &[Test(HERE, "two_thousand_connections_leave_no_file_descriptor_behind")],
    ),
    line(
        "0.12.1, SPI-01-002",
        "keys lie in files that everybody can read",
        &[
            Test(HERE, "what_the_daemons_write_is_for_their_owner_alone"),
            Test("broker/tests/broker/operator.rs", "data_and_socket_are_for_their_owner_alone"),
        ],
    ),
    line(
        "0.12.1, SPI-01-007",
        "the text of a join token becomes a path",
        &[Test(HERE, "the_text_of_a_join_token_never_becomes_a_path")],
    ),
    line(
        "0.12.1, SPI-01-008",
        "a second service on the socket does not demand the security header",
        &[Test("sidecar/src/workload/tests.rs", "every_call_demands_the_security_header_once")],
    ),
    line(
        "PR #711",
        "an evicted node goes on over the connection that it has",
        &[
            Test(HERE, "a_removed_node_gets_nothing_more_over_the_connection_that_it_has"),
            Test("broker/tests/broker/watch.rs", "a_removed_node_is_cut_off_and_stays_out"),
            Test("broker/tests/broker/watch.rs", "a_connection_ends_with_the_certificate"),
        ],
    ),
    line(
        "PR #3215",
        "who asks the entry cache can change it",
        &[Not("by construction: snapshots are immutable values behind `Arc`")],
    ),
    line(
        "#5686",
        "the id of a removed entry comes back, and its update is taken for an old one",
        &[Test("broker/src/registry/tests.rs", "an_entry_is_made_once_and_its_id_never_comes_back")],
    ),
];

/// Every file below, with its mode.
fn files(folder: &Path) -> Vec<(PathBuf, u32)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let meta = std::fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            found.extend(files(&path));
        }
        found.push((path, meta.permissions().mode()));
    }
    found
}

/// A part of a secret, in the ways in which it could be written.
fn written(secret: &[u8]) -> Vec<String> {
    let window = &secret[..18];
    let lower: String = window.iter().map(|byte| format!("{byte:02x}")).collect();
    let decimal = window.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    // In each of the three ways in which base64 can fall upon it.
    let base64 = (0..3).flat_map(|skipped| {
        [STANDARD.encode(&window[skipped..skipped + 15]), URL_SAFE_NO_PAD.encode(&window[skipped..skipped + 15])]
    });
    base64.chain([lower.to_uppercase(), lower, decimal]).collect()
}

/// The private keys for P-256 in a file, as RFC 5915 writes them: version, then 32 bytes.
fn private_keys(bytes: &[u8]) -> Vec<&[u8]> {
    let beginning = [0x02, 0x01, 0x01, 0x04, 0x20];
    let ends = (0..bytes.len().saturating_sub(36)).filter(|at| bytes[*at..].starts_with(&beginning));
    ends.map(|at| &bytes[at + 5..at + 37]).collect()
}

/// An agent that comes with this text for a token.
fn joins_with(lab: &Lab, name: &str, token: &str) -> Daemon {
    let path = |suffix: &str| lab.path().join(format!("{name}{suffix}"));
    std::fs::write(path(".token"), token).unwrap();
    let config = format!(
        "[node]\nstate = \"{name}-state\"\njoin_token_file = \"{}\"\n[workload_api]\nsocket = \"{}\"\n",
        path(".token").display(),
        path(".sock").display()
    );
    let file = path(".toml");
    std::fs::write(&file, config).unwrap();
    let arguments = ["run".as_ref(), "--config".as_ref(), file.as_os_str()];
    Daemon::launch(lab.path(), name, "portcullis-sidecar", &arguments)
}

/// Join tokens, JWT-SVIDs good and bad, and private keys appear in no log, not even at `debug`; selectors only where an operator is told
/// why a workload got nothing.
#[test]
fn no_log_holds_a_secret() {
    let mut lab = Lab::start();
    lab.broker().kill();
    lab.log_level("debug");
    lab.start_broker();
    let agent = Agent::start(&lab, "agent");
    let socket = Socket::at(&agent.socket);
    // A stranger first, whose selectors the log shall tell.
    assert_eq!(
        eventually("an answer", || socket.x509().err().filter(|no| no.code() != Code::Unavailable)).code(),
        Code::PermissionDenied
    );
    lab.create(agent.entry("web"));
    let svid = eventually("the identity", || socket.x509().ok()).svids.remove(0);
    let token = socket.token("a");
    socket.validate(&token, "a").unwrap();
    let changed = format!("{token}A");
    for bad in [&changed, &token] {
        socket.validate(bad, "another").unwrap_err();
    }
    let join_token = std::fs::read_to_string(lab.path().join("agent.token")).unwrap();
    let mut refused = joins_with(&lab, "spent", join_token.trim());
    assert!(!refused.wait().success());

    let json = decode(join_token.trim().rsplit('.').next().unwrap());
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let secret = json["secret"].as_str().unwrap();
    let mut secrets = vec![secret.to_owned(), join_token.trim()[40..].to_owned(), format!("{:02x?}", decode(secret))];
    secrets.extend(token.split('.').skip(1).map(str::to_owned));
    let mut keys = private_keys(&svid.x509_svid_key).into_iter().map(<[u8]>::to_vec).collect::<Vec<_>>();
    for (path, _) in [agent.state(&lab), lab.broker_data()].iter().flat_map(|folder| files(folder)) {
        if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            keys.extend(private_keys(&bytes).into_iter().map(<[u8]>::to_vec));
            if let Ok(key) = PrivatePkcs8KeyDer::from_pem_slice(&bytes) {
                keys.extend(private_keys(key.secret_pkcs8_der()).into_iter().map(<[u8]>::to_vec));
            }
        }
    }
    // The workload's twice, the node's, the root's, the signing certificate's, the tokens'.
    assert!(keys.len() >= 6, "{} keys were found", keys.len());
    secrets.extend(keys.iter().flat_map(|key| written(key)));
    let mut scanned = 0;
    let logs = files(lab.path()).into_iter().map(|(path, _)| path);
    let logs = logs.filter(|path| path.is_file()).filter(|path| {
        path.extension().is_some_and(|extension| extension == "log") || path.to_string_lossy().contains("/audit/")
    });
    for path in logs {
        let log = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        scanned += log.lines().count();
        for secret in &secrets {
            assert!(!log.contains(secret), "`{secret}` is in {}", path.display());
        }
        for line in log.lines().filter(|line| line.contains("unix:gid:")) {
            assert!(line.contains("meets no entry") || line.contains("has to wait for its svid"), "{line}");
        }
    }
    assert!(agent.daemon.log().contains("DEBUG") && lab.broker().log().contains("DEBUG"));
    assert!(agent.daemon.log().contains("meets no entry"));
    println!("{scanned} lines, {} secrets", secrets.len());
}

/// SPI-01-006: connections that ask, that stream and go, that say nothing, and that talk nonsense.
#[test]
fn two_thousand_connections_leave_no_file_descriptor_behind() {
    let lab = Lab::start();
    let agent = Agent::start_with(&lab, "agent", "requests_per_second = 100000");
    lab.create(agent.entry("web"));
    let socket = Socket::at(&agent.socket);
    eventually("the identity", || socket.x509().ok());
    let pid = agent.daemon.pid();
    let settled =
        |limit: usize| eventually("connections to end", || Some(open_files(pid)).filter(|open| *open <= limit));
    // Whatever is opened once, such as an epoll instance of a thread, is open by now.
    let before = open_files(pid);
    let mut most = before;
    for _ in 0..20 {
        let silent: Vec<_> = (0..40).map(|_| UnixStream::connect(&agent.socket).unwrap()).collect();
        let nonsense: Vec<_> = (0..20)
            .map(|_| {
                let mut stream = UnixStream::connect(&agent.socket).unwrap();
                std::io::Write::write_all(&mut stream, b"GET / HTTP/1.1\r\n\r\n").unwrap();
                stream
            })
            .collect();
        for _ in 0..10 {
            socket.x509().unwrap();
            socket.token("a");
        }
        let streams: Vec<_> = (0..20).map(|_| socket.x509_stream().unwrap()).collect();
        most = most.max(open_files(pid));
        drop((silent, nonsense, streams));
    }
    let after = settled(before);
    println!("{before} file descriptors before, at most {most}, {after} after 2000 connections");
    assert!(most > before + 60, "the connections were not there at all: {most}");
    socket.x509().unwrap();
}

/// SPI-01-002: of everything that broker and agent write nothing is for others, but what is public.
#[test]
fn what_the_daemons_write_is_for_their_owner_alone() {
    let (lab, agent, _socket) = scene();
    let public = ["bundle.pem"];
    let mut checked = 0;
    for folder in [lab.broker_data(), agent.state(&lab)] {
        let own = std::fs::metadata(&folder).unwrap().permissions().mode();
        assert_eq!(own & 0o077, 0, "{} {own:o}", folder.display());
        for (path, mode) in files(&folder) {
            let name = path.file_name().unwrap().to_str().unwrap();
            if !public.contains(&name) {
                assert_eq!(mode & 0o077, 0, "{} {mode:o}", path.display());
                checked += 1;
            }
        }
    }
    assert!(checked >= 8, "{checked}");
}

/// SPI-01-007: neither a token nor the name that it is for leads out of a folder.
#[test]
fn the_text_of_a_join_token_never_becomes_a_path() {
    let lab = Lab::start();
    for name in ["../evil", "..", ".", "a/b", "/etc/evil", "a\0b", "", "a%2Fb", "ä"] {
        let request = v1::CreateJoinTokenRequest { node: name.to_owned(), ..Default::default() };
        let refused = lab.operator(async |mut operator| operator.create_join_token(request).await).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{name:?}");
    }
    let good = std::fs::read_to_string(lab.token("n")).unwrap();
    let good = good.trim();
    for (index, text) in
        ["../../../evil", "/etc/evil", &format!("../{good}"), &format!("{good}/../evil")].into_iter().enumerate()
    {
        let mut refused = joins_with(&lab, &format!("t{index}"), text);
        assert!(!refused.wait().success(), "{text}");
        assert!(!refused.log().contains(good), "the token is repeated");
    }
    let evil: Vec<_> =
        files(lab.path()).into_iter().filter(|(path, _)| path.to_string_lossy().contains("evil")).collect();
    assert!(evil.is_empty(), "{evil:?}");
    assert!(!Path::new("/etc/evil").exists());
}

/// PR #711: standing is asked for with every request, not with the connection alone.
#[test]
fn a_removed_node_gets_nothing_more_over_the_connection_that_it_has() {
    let lab = Lab::start();
    let entry = v1::CreateEntryRequest {
        node: "n".to_owned(),
        spiffe_id: "spiffe://test.example/web".to_owned(),
        ..Default::default()
    };
    let entry = lab.create(entry);
    let node = lab.node("n");
    let ask = || {
        let wanted = WantedJwt { entry: entry.clone(), audience: vec!["a".parse().unwrap()], vouched_by: None };
        lab.block_on(node.jwt_svids(vec![wanted])).and_then(|mut answers| answers.remove(0))
    };
    let token = eventually("a token", || ask().ok());
    assert_eq!(part(token.token(), 1)["sub"], "spiffe://test.example/web");
    lab.broker_command(&["nodes", "remove", "n"]).ok();
    for _ in 0..3 {
        ask().unwrap_err();
    }
}
