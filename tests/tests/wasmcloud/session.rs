//! How a host's session begins, goes on and ends.

use std::time::{Duration, Instant};

use e2e::{Joined, WasmcloudHost, eventually};

use crate::scene::{AT_ONCE, OWED, Scene, total};

/// Sessions are this short in these tests; the first ends after 7 to 10 s.
const SESSION: &str = "session = \"10s\"\n";
/// For one call.
const PATIENCE: Duration = Duration::from_secs(4);
/// Callers at a time.
const CALLERS: usize = 4;

#[test]
#[ignore = "needs a wasmCloud host: tests/wasmcloud/run.sh"]
fn a_host_whose_entry_is_gone_is_cut_off_and_does_not_come_back() {
    let scene = Scene::open("");
    let _host = scene.host_with_checkout(&[]);
    let sessions = |scene: &Scene| {
        let status = scene.lab.broker_command(&["nats", "status", "--json"]).ok().json();
        let sessions = status["sessions"].as_array().unwrap().iter();
        sessions.filter(|session| session["identity"] == "spiffe://test.example/host/one").count()
    };
    assert_eq!(sessions(&scene), 2, "one for control, one for calls");
    let began = Instant::now();
    scene.lab.remove_entry(&scene.entry);
    eventually("the host to be cut off", || (sessions(&scene) == 0).then_some(()));
    println!("cut off after {:?}", began.elapsed());
    let began = Instant::now();
    scene.total("checkout").unwrap_err();
    assert!(began.elapsed() < AT_ONCE);
    // Another one of that identity does not get in, and ends.
    let mut other = WasmcloudHost::launch(&scene.lab, &scene.lattice, &scene.agent, "other", &[]);
    assert!(!other.daemon.wait().success());
    assert!(other.daemon.log().contains("failed to establish NATS"), "{}", other.daemon.log());
    assert_eq!(sessions(&scene), 0);
    scene.total("checkout").unwrap_err();
}

/// What became of the calls of one caller.
#[derive(Debug, Default)]
struct Tally {
    answered: usize,
    /// How long each lost call took to fail, and how it failed.
    lost: Vec<(Duration, String)>,
    /// The longest time without an answer.
    gap: Duration,
}

async fn call_until(alice: Joined, end: Instant) -> Tally {
    let (mut tally, mut last) = (Tally::default(), Instant::now());
    while Instant::now() < end {
        let began = Instant::now();
        // The stock client waits for ever where a handshake is lost.
        let answer = tokio::time::timeout(PATIENCE, total(&alice, "checkout")).await;
        match answer.unwrap_or_else(|_| Err("no answer".to_owned())) {
            Ok(_) => {
                tally.answered += 1;
                tally.gap = tally.gap.max(last.elapsed());
                last = Instant::now();
            }
            Err(error) => tally.lost.push((began.elapsed(), error)),
        }
    }
    tally
}

#[test]
#[ignore = "needs a wasmCloud host: tests/wasmcloud/run.sh"]
fn a_host_s_session_is_renewed_and_few_calls_are_lost() {
    let mut scene = Scene::open(SESSION);
    // What is lost without a word fails after this, and not after ten minutes.
    let mut host = scene.host_with_checkout(&["--max-execution-time-ms", "3000"]);
    let alice = scene.alice();
    let end = Instant::now() + Duration::from_secs(24);
    let calling: Vec<_> = (0..CALLERS).map(|_| scene.lab.spawn(call_until(alice.clone(), end))).collect();
    let mut tallies = Vec::new();
    for caller in calling {
        tallies.push(scene.lab.block_on(caller).unwrap());
    }
    let logins = scene.lab.broker().log().matches("joined the lattice identity=spiffe://test.example/host/one").count();
    let answered = tallies.iter().map(|tally| tally.answered).sum::<usize>();
    let gap = tallies.iter().map(|tally| tally.gap).max();
    let lost: Vec<_> = tallies.iter().flat_map(|tally| &tally.lost).collect();
    let (silent, at_once): (Vec<_>, Vec<_>) = lost.into_iter().partition(|(after, _)| *after > AT_ONCE);
    println!(
        "{CALLERS} callers, each one call after the other, a call again at once where one fails; {logins} logins of the host"
    );
    println!("{answered} calls answered, {} refused at once, {} lost in silence", at_once.len(), silent.len());
    println!("the longest time of one caller without an answer: {gap:?}");
    // Two connections at the start; each was renewed twice, and is up.
    assert!(logins >= 6, "{logins}");
    assert!(host.daemon.is_running());
    assert!(answered > 100, "{answered}");
    for (after, error) in at_once {
        assert!(error.contains("not connected"), "after {after:?}: {error}");
    }
    // No more than was under way when a session ended.
    assert!(silent.len() <= CALLERS * logins, "{silent:?}");
    let again = || scene.lab.block_on(total(&alice, "checkout")).ok();
    assert_eq!(eventually("an answer after all that", again), OWED);
}
