//! Several brokers at the servers of one lattice: one has the store, another follows it, and the servers ask either.

use std::ffi::OsStr;

use e2e::{Daemon, Joined, Lab, Lattice, eventually};

use crate::callout::{SHOP, host_token, shop_and_alice};

const TWO: &str = "spiffe://test.example/host/two";
const AUDIENCE: &str = "spiffe://test.example/nats";

/// A broker that follows that of `lab`.
fn follower(lab: &Lab, more: &[&str]) -> Daemon {
    let (config, data) = (lab.path().join("broker.toml"), lab.path().join("follower"));
    let place = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let (config, data) = (place(&config), place(&data));
    let arguments =
        [&["follow", "--trust-domain", "test.example", "--config", &config, "--data", &data], more].concat();
    let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
    let follower = Daemon::start(lab.path(), "follower", "portcullis-broker", &arguments);
    follower.logged(&["answering who may join the lattice"]);
    follower
}

fn page(lab: &Lab, path: &str) -> (u16, String) {
    e2e::get(&lab.path().join("follower/admin.sock"), path).unwrap()
}

fn status(lab: &Lab) -> serde_json::Value {
    serde_json::from_str(&page(lab, "/status").1).unwrap()
}

/// Waits until the follower has what the broker has.
fn caught_up(lab: &Lab) {
    let version = lab.broker_command(&["status", "--json"]).ok().json()["version"].clone();
    eventually("the follower to have it", || (status(lab)["version"] == version).then_some(()));
}

/// How many logins a broker answered well.
fn admitted(broker: &Daemon) -> usize {
    broker.log().matches("joined the lattice").count()
}

fn refused(broker: &Daemon, reason: &str) -> usize {
    let told = |line: &&str| line.contains("a login to the lattice was refused") && line.contains(reason);
    broker.log().lines().filter(told).count()
}

/// Logs in with fresh tokens until either broker has answered well.
fn sessions_at_both(lab: &mut Lab, lattice: &Lattice, follower: &Daemon) -> Vec<(String, Joined)> {
    let before = (admitted(lab.broker()), admitted(follower));
    let mut joined = Vec::new();
    eventually("either broker to be asked", || {
        let token = host_token(lab);
        joined.push((token.clone(), lab.block_on(lattice.by_token(&token)).unwrap()));
        let now = (admitted(lab.broker()), admitted(follower));
        (now.0 > before.0 + 2 && now.1 > before.1 + 2).then_some(())
    });
    assert_eq!(admitted(lab.broker()) + admitted(follower), before.0 + before.1 + joined.len());
    joined
}

#[test]
fn two_brokers_share_the_logins_and_each_knows_what_the_other_took() {
    let (mut lab, lattice) = Lattice::start("");
    let entry = lab.lattice_entry("/host/one");
    let follower = follower(&lab, &[]);
    let joined = sessions_at_both(&mut lab, &lattice, &follower);
    // Whoever took a token, and whoever is asked now.
    eventually("either broker to refuse a token that was used", || {
        for (token, _) in &joined {
            lab.block_on(lattice.by_token(token)).unwrap_err();
        }
        let used = "its token was used before";
        (refused(lab.broker(), used) > joined.len() && refused(&follower, used) > joined.len()).then_some(())
    });
    assert_eq!(page(&lab, "/ready").0, 200);
    assert!(page(&lab, "/metrics").1.contains("portcullis_follower_ready 1"));

    // What is registered reaches both, and what is revoked ends the sessions of both.
    lab.lattice_entry("/host/two");
    caught_up(&lab);
    for _ in 0..8 {
        lab.block_on(lattice.by_token(&lab.login_token(TWO, AUDIENCE, "5m"))).unwrap();
    }
    assert!(joined.iter().all(|(_, session)| session.heard("disconnected") == 0));
    let tokens: Vec<String> = (0..8).map(|_| host_token(&lab)).collect();
    lab.broker_command(&["revoke", "entry", &entry]).ok();
    for (_, session) in &joined {
        lab.block_on(session.hears("disconnected"));
    }
    caught_up(&lab);
    for token in &tokens {
        lab.block_on(lattice.by_token(token)).unwrap_err();
    }
}

#[test]
fn either_broker_goes_on_without_the_other() {
    let (mut lab, lattice) = Lattice::start("");
    lab.lattice_entry("/host/one");
    shop_and_alice(&lab);
    let mut second = follower(&lab, &[]);
    let joined = sessions_at_both(&mut lab, &lattice, &second);
    let member = lab.block_on(lattice.by_certificate(lab.minted(SHOP))).unwrap();
    let tokens: Vec<String> = (0..10).map(|_| host_token(&lab)).collect();
    let certificate = lab.minted(SHOP);

    lab.broker().kill();
    for token in &tokens {
        lab.block_on(lattice.by_token(token)).unwrap();
    }
    lab.block_on(lattice.by_certificate(certificate)).unwrap();
    // It remembers what the other one took.
    for (token, _) in &joined {
        lab.block_on(lattice.by_token(token)).unwrap_err();
    }
    second.logged(&["the registry cannot be followed", "no broker with a store is heard"]);
    let seen = status(&lab);
    assert!(seen["ready"] == true && seen["problem"].as_str().unwrap().contains("no broker with a store"), "{seen}");

    // The broker that is back remembers nothing, and asks.
    lab.start_broker();
    lab.broker().logged(&["answering who may join the lattice"]);
    eventually("the broker that is back to be asked", || {
        for token in &tokens {
            lab.block_on(lattice.by_token(token)).unwrap_err();
        }
        (refused(lab.broker(), "its token was used before") > 2).then_some(())
    });
    lab.lattice_entry("/host/two");
    caught_up(&lab);
    assert_eq!(status(&lab)["problem"], serde_json::Value::Null);

    second.kill();
    for _ in 0..10 {
        lab.block_on(lattice.by_token(&host_token(&lab))).unwrap();
    }
    // A broker that follows ends nobody whom it cannot judge, and a broker that starts has members show themselves again.
    assert!(joined.iter().all(|(_, session)| session.heard("disconnected") == 0));
    eventually("the member to have shown itself again", || (member.connects() == 2).then_some(()));
}

#[test]
fn a_copy_that_is_too_old_is_not_relied_on() {
    let (mut lab, lattice) = Lattice::start("");
    lab.lattice_entry("/host/one");
    let token = host_token(&lab);
    let _second = follower(&lab, &["--max-age", "10s"]);
    lab.broker().kill();
    eventually("the copy to be too old", || (page(&lab, "/ready").0 == 503).then_some(()));
    assert!(status(&lab)["not_ready"].as_str().unwrap().contains("s old: no broker with a store"));
    lab.block_on(lattice.by_token(&token)).unwrap_err();
    lab.start_broker();
    lab.broker().logged(&["answering who may join the lattice"]);
    eventually("the copy to be young again", || (page(&lab, "/ready").0 == 200).then_some(()));
    lab.block_on(lattice.by_token(&host_token(&lab))).unwrap();
}

#[test]
fn only_one_broker_has_a_store() {
    let (lab, lattice) = Lattice::start("");
    let config = lab.path().join("broker.toml");
    let config = config.to_str().unwrap();
    let run = |command: &[&str]| e2e::run("portcullis-broker", command);
    let other = lab.path().join("other");
    let listen = ["--listen", "127.0.0.1:0", "--trust-domain", "test.example", "--data", other.to_str().unwrap()];
    let second = run(&[&["run", "--config", config], &listen[..]].concat());
    assert!(second.code == 1 && second.err.contains("portcullis-broker follow"), "{second:?}");
    // A follower needs a folder of its own, a lattice, and a sensible age.
    let data = lab.broker_data();
    let follow = |data: &str, config: &str, more: &[&str]| {
        let own = ["follow", "--trust-domain", "test.example", "--data", data, "--config", config];
        run(&[&own[..], more].concat())
    };
    let in_use = follow(data.to_str().unwrap(), config, &[]);
    assert!(in_use.code == 1 && in_use.err.contains("in use"), "{in_use:?}");
    let plain = lab.path().join("plain.toml");
    std::fs::write(&plain, "").unwrap();
    let nothing = follow(other.to_str().unwrap(), plain.to_str().unwrap(), &[]);
    assert!(nothing.code == 2 && nothing.err.contains("no `[nats]`"), "{nothing:?}");
    let old = follow(other.to_str().unwrap(), config, &["--max-age", "2d"]);
    assert!(old.code == 2 && old.err.contains("between 10 seconds and 24 hours"), "{old:?}");
    // In the set-ups of earlier versions brokers cannot speak to each other.
    let (folder, earlier) = (lattice.told["broker_folder"].as_str().unwrap(), lab.path().join("earlier"));
    std::fs::create_dir(&earlier).unwrap();
    for file in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), earlier.join(file.file_name())).unwrap();
    }
    let user = earlier.join("callout.creds");
    std::fs::remove_file(&user).unwrap();
    run(&["nats", "credentials", "--folder", folder, "--name", "earlier", "--out", user.to_str().unwrap()]).ok();
    let settings = std::fs::read_to_string(config).unwrap().replace(folder, earlier.to_str().unwrap());
    std::fs::write(&plain, settings).unwrap();
    let mute = follow(other.to_str().unwrap(), plain.to_str().unwrap(), &[]);
    assert!(mute.code == 1 && mute.err.contains("write it anew"), "{mute:?}");
}

/// What brokers say to each other nobody else hears or says.
#[test]
fn nobody_else_speaks_as_a_broker() {
    let (lab, lattice) = Lattice::start("");
    lab.lattice_entry("/host/one");
    let host = crate::callout::host(&lab, &lattice);
    lab.block_on(async {
        for subject in ["here", "take", "version", "copy", "lead"].map(|name| format!("portcullis.brokers.{name}")) {
            host.may_not_publish(&subject).await;
            host.may_not_subscribe(&subject, None).await;
        }
    });
}
