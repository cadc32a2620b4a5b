//! A session moves to another connection, and no call fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use e2e::PATIENCE;
use e2e::nats::{NatsServer, echo_one, fresh_address, request_subject};
use portcullis_transport::nats::{Arrival, CallFailed, Headers, Proof, Session};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::calls::{INSTANCE, call};
use crate::load::Load;

async fn session(server: &NatsServer, inbox: &str) -> Session {
    Session::start(server.settings(inbox), Duration::from_secs(10), TaskTracker::new()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewals_under_load_fail_no_call() {
    let server = NatsServer::start();
    let (callee, caller) = (session(&server, "_INBOX_callee").await, session(&server, "_INBOX_caller").await);
    let address = fresh_address();
    let mut acceptor = callee.accept_calls(address.clone()).await.unwrap();
    tokio::spawn(async move {
        while let Some(Arrival::Call(call)) = acceptor.next().await {
            tokio::spawn(echo_one(call));
        }
    });
    let subject = request_subject(&address, "shop", INSTANCE, "echo");
    let calling = caller.clone();
    let load = Load::begin(move || {
        let (caller, subject) = (calling.clone(), subject.clone());
        async move {
            caller.call(call(&subject, &Headers::new(), b"p"), 100).await.unwrap();
        }
    });
    for _ in 0..3 {
        for session in [&callee, &caller] {
            let old = session.link();
            session.renew();
            tokio::time::timeout(PATIENCE, session.moved_from(&old)).await.unwrap();
            assert!(old.idle(PATIENCE).await, "the old link drains");
        }
    }
    assert!(load.end().await > 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acceptor_that_retires_gives_what_had_come() {
    let server = NatsServer::start();
    let (callee, caller) = (session(&server, "_INBOX_callee").await, server.link("_INBOX_caller").await);
    let address = fresh_address();
    let mut acceptor = callee.accept_calls(address.clone()).await.unwrap();
    let subject = request_subject(&address, "shop", INSTANCE, "echo");
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let (caller, subject) = (caller.clone(), subject.clone());
            tokio::spawn(async move { caller.call(call(&subject, &Headers::new(), b"p"), 100).await })
        })
        .collect();
    e2e::eventually("the calls to be under way", || (caller.calls() == 50).then_some(()));
    // Everything that was sent is at the server, or beyond.
    acceptor.retire();
    let mut served = 0;
    while let Some(Arrival::Call(call)) = acceptor.next().await {
        tokio::spawn(echo_one(call));
        served += 1;
    }
    let mut answered = 0;
    for caller in callers {
        // What the server had not seen yet finds nobody: told, not lost.
        match caller.await.unwrap() {
            Ok(_) => answered += 1,
            Err(failed) => assert_eq!(failed, portcullis_transport::nats::CallFailed::NoResponder),
        }
    }
    assert_eq!(answered, served);
    callee.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_survives_the_end_of_its_client() {
    let mut server = NatsServer::start();
    let callee = session(&server, "_INBOX_callee").await;
    let old = callee.link();
    let address = fresh_address();
    let mut acceptor = callee.accept_calls(address.clone()).await.unwrap();
    tokio::spawn(async move {
        while let Some(Arrival::Call(call)) = acceptor.next().await {
            tokio::spawn(echo_one(call));
        }
    });
    // As a client ends that met something it cannot stand.
    old.close();
    tokio::time::timeout(PATIENCE, callee.moved_from(&old)).await.unwrap();
    let subject = request_subject(&address, "shop", INSTANCE, "echo");
    let caller = server.link("_INBOX_caller").await;
    let headers = Headers::new();
    let trying = async { while caller.call(call(&subject, &headers, b"p"), 100).await.is_err() {} };
    tokio::time::timeout(PATIENCE, trying).await.expect("serving resumes");
    server.kill();
    callee.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_is_taken_from_a_connection_that_has_not_proved_itself() {
    let mut server = NatsServer::start();
    // What a proof says, once there is something to say.
    let (verdict, verdicts) = watch::channel(Some(true));
    let asked = Arc::new(AtomicUsize::new(0));
    let proof = {
        let asked = Arc::clone(&asked);
        Proof::new(move |_link| {
            asked.fetch_add(1, Ordering::Relaxed);
            let mut verdicts = verdicts.clone();
            async move {
                let verdict = verdicts.wait_for(Option::is_some).await.unwrap().unwrap();
                if verdict { Ok(()) } else { Err("it is no good") }
            }
        })
    };
    let settings = server.settings("_INBOX_callee");
    let tasks = TaskTracker::new();
    let callee = Session::start_proved(settings.clone(), PATIENCE, tasks.clone(), proof.clone()).await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    let address = fresh_address();
    let mut acceptor = callee.accept_calls(address.clone()).await.unwrap();
    let served = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&served);
    tokio::spawn(async move {
        while let Some(Arrival::Call(call)) = acceptor.next().await {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(echo_one(call));
        }
    });
    let subject = request_subject(&address, "shop", INSTANCE, "echo");
    let headers = Headers::new();
    let caller = server.link("_INBOX_caller").await;
    let first = callee.link();
    caller.call(call(&subject, &headers, b"p"), 100).await.unwrap();

    // Whatever is sent over connections that come and go before anybody has looked at them is no call.
    verdict.send_replace(None);
    for _ in 0..2 {
        let before = asked.load(Ordering::Relaxed);
        server.kill();
        server.revive();
        e2e::eventually("it to be asked", || (asked.load(Ordering::Relaxed) > before).then_some(()));
        e2e::eventually("the caller to be back", || caller.is_connected().then_some(()));
        let nobody = caller.call(call(&subject, &headers, b"p"), 100).await;
        assert!(matches!(nobody, Err(CallFailed::NoResponder | CallFailed::TimedOut(_))), "{nobody:?}");
        assert!(!first.is_connected());
    }
    assert_eq!(served.load(Ordering::Relaxed), 1);
    verdict.send_replace(Some(true));
    tokio::time::timeout(PATIENCE, callee.moved_from(&first)).await.unwrap();
    let resumed = async || {
        let trying = async { while caller.call(call(&subject, &headers, b"p"), 100).await.is_err() {} };
        tokio::time::timeout(PATIENCE, trying).await.expect("serving resumes");
    };
    resumed().await;
    assert_eq!(callee.problem(), None);

    // It is no good, until another one is.
    let second = callee.link();
    verdict.send_replace(Some(false));
    server.kill();
    server.revive();
    e2e::eventually("the problem to be told", || callee.problem().filter(|problem| problem.contains("no good")));
    e2e::eventually("the caller to be back", || caller.is_connected().then_some(()));
    let before = served.load(Ordering::Relaxed);
    let nobody = caller.call(call(&subject, &headers, b"p"), 100).await;
    assert!(matches!(nobody, Err(CallFailed::NoResponder | CallFailed::TimedOut(_))), "{nobody:?}");
    assert_eq!(served.load(Ordering::Relaxed), before);
    verdict.send_replace(Some(true));
    tokio::time::timeout(PATIENCE, callee.moved_from(&second)).await.unwrap();
    resumed().await;
    assert_eq!(callee.problem(), None);

    // Neither is a first one used, and nothing is left of it; nor of one whose maker stops.
    verdict.send_replace(Some(false));
    let failed = Session::start_proved(settings.clone(), PATIENCE, tasks.clone(), proof.clone()).await.unwrap_err();
    assert_eq!(failed.to_string(), "it is no good");
    verdict.send_replace(None);
    let stopped = Session::start_proved(settings, PATIENCE, tasks.clone(), proof);
    tokio::time::timeout(Duration::from_millis(300), stopped).await.unwrap_err();
    callee.close();
    tasks.close();
    tokio::time::timeout(PATIENCE, tasks.wait()).await.expect("every task ends");
}
