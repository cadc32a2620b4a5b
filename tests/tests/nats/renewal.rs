//! A session moves to another connection, and no call fails.

use std::time::Duration;

use e2e::PATIENCE;
use e2e::nats::{NatsServer, echo_one, fresh_address, request_subject};
use portcullis_transport::nats::{Arrival, Headers, Session};
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
