//! What peers send that they should not. Whatever one of them does, the subscription lives on.

use std::time::Duration;

use bytes::Bytes;
use e2e::nats::{NatsServer, connect, echo_one, fresh_address, next_call, request_subject};
use portcullis_transport::Refusal;
use portcullis_transport::nats::{
    Arrival, Call, CallFailed, Deadlines, Headers, Malformed, NatsLimits, Rejected, Session, SubscribeError,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_stream::StreamExt as _;
use tokio_util::task::TaskTracker;

use crate::calls::{INSTANCE, call, impatient};

/// A client that sends what it is told.
async fn raw(server: &NatsServer, lines: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    stream.write_all(b"CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\n").await.unwrap();
    stream.write_all(lines.as_bytes()).await.unwrap();
    stream.write_all(b"PING\r\n").await.unwrap();
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains("PONG") {
        assert_ne!(stream.read_buf(&mut heard).await.unwrap(), 0, "{}", String::from_utf8_lossy(&heard));
    }
    stream
}

/// What callers ask, heard by a client that is not ours.
async fn requests(stock: &async_nats::Client) -> async_nats::Subscriber {
    let requests = stock.subscribe("lattice.vc.*.shop.wrpc.>").await.unwrap();
    // Nobody answers this, and then the server has heard of the subscription, too.
    stock.request("nobody", Bytes::new()).await.unwrap_err();
    requests
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_no_calls_are_refused_and_the_next_is_served() {
    let server = NatsServer::start();
    let mut settings = server.settings("_INBOX_callee");
    settings.limits = NatsLimits { headers: 2, ..NatsLimits::default() };
    let callee = connect(&settings).await;
    let address = fresh_address();
    let mut acceptor = callee.accept_calls(address.clone()).await.unwrap();
    let stock = server.stock().await;
    let mut answers = stock.subscribe("answers").await.unwrap();
    let good = format!("lattice.vc.{}.shop.wrpc.0.0.1.a:b/c.f", address.id);
    let reserved = good.replace(".shop.", ".vc.");
    let mut many = async_nats::HeaderMap::new();
    for name in ["a", "b", "c"] {
        many.insert(name, "x");
    }
    stock.publish(good.clone(), Bytes::new()).await.unwrap();
    stock.publish_with_reply(reserved, "answers", Bytes::new()).await.unwrap();
    stock.publish_with_reply_and_headers(good.clone(), "answers", many, Bytes::new()).await.unwrap();
    stock.publish_with_reply(good, "answers", Bytes::new()).await.unwrap();
    let mut rejected = Vec::new();
    let call = loop {
        match acceptor.next().await.unwrap() {
            Arrival::Rejected { why, .. } => rejected.push(why),
            Arrival::Call(call) => break call,
        }
    };
    assert!(matches!(rejected[..], [Rejected::NoReply, Rejected::Subject(_), Rejected::Headers(_)]), "{rejected:?}");
    call.refuse(portcullis_transport::Refusal::UnknownFunction, "");
    for expected in [400, 413, 404] {
        let answer = answers.next().await.unwrap();
        assert_eq!(answer.status.unwrap().as_u16(), expected, "{:?}", answer.description);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callees_that_break_the_protocol_fail_their_call_alone() {
    let server = NatsServer::start();
    let caller = server.link("_INBOX_caller").await;
    let stock = server.stock().await;
    let mut requests = requests(&stock).await;
    let subject = request_subject(&fresh_address(), "shop", INSTANCE, "f");
    let headers = Headers::new();
    // Below the reply subject, with this reply: what fails.
    for (below, reply, failed) in [
        ("", None, Malformed::NoReply),
        ("", Some("bad.>"), Malformed::NoReply),
        (".params", Some("x"), Malformed::Subject),
        (".results.x", Some("x"), Malformed::Subject),
        (".results.01", Some("x"), Malformed::Subject),
    ] {
        let answering = async {
            let request = requests.next().await.unwrap();
            let to = format!("{}{below}", request.reply.unwrap());
            let message = Bytes::from_static(b"x");
            match reply {
                Some(reply) => stock.publish_with_reply(to, reply, message).await.unwrap(),
                None => stock.publish(to, message).await.unwrap(),
            }
        };
        let (ended, ()) = tokio::join!(caller.call(call(&subject, &headers, b"p"), 100), answering);
        assert_eq!(ended, Err(CallFailed::Malformed(failed)), "{below} {reply:?}");
    }
    // More streams than allowed.
    let answering = async {
        let reply = requests.next().await.unwrap().reply.unwrap();
        stock.publish_with_reply(reply.clone(), "stock.params", Bytes::new()).await.unwrap();
        for index in 0..100 {
            stock.publish(format!("{reply}.results.{index}"), Bytes::from_static(b"x")).await.unwrap();
        }
    };
    let (ended, ()) = tokio::join!(caller.call(call(&subject, &headers, b"p"), 100), answering);
    assert_eq!(ended, Err(CallFailed::Malformed(Malformed::Paths { limit: 64 })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_reaches_an_inbox_without_its_key() {
    let server = NatsServer::start();
    let caller = server.link("_INBOX_caller").await;
    let stock = server.stock().await;
    let mut requests = requests(&stock).await;
    let subject = request_subject(&fresh_address(), "shop", INSTANCE, "f");
    let headers = Headers::new();
    let mut replies = Vec::new();
    for _ in 0..2 {
        let hasty = Call { deadlines: impatient(), ..call(&subject, &headers, b"p") };
        let forging = async {
            let reply = requests.next().await.unwrap().reply.unwrap().to_string();
            // Every neighbour of the key, in every way a subject can be bent.
            let (inbox, key) = reply.rsplit_once('.').unwrap();
            assert_eq!(key.len(), 32);
            for forged in [
                key.to_uppercase(),
                format!("{:032x}", u128::from_str_radix(key, 16).unwrap() + 1),
                key[..31].to_owned(),
            ] {
                let forged = if forged == key { "f".repeat(32) } else { forged };
                stock.publish_with_reply(format!("{inbox}.{forged}"), "stock", Bytes::new()).await.unwrap();
                stock.publish(format!("{inbox}.{forged}.results"), Bytes::from_static(b"forged")).await.unwrap();
            }
            replies.push(key.to_owned());
        };
        let (ended, ()) = tokio::join!(caller.call(hasty, 100), forging);
        assert_eq!(ended, Err(CallFailed::TimedOut(portcullis_transport::nats::Step::Handshake)));
    }
    assert_ne!(replies[0][..8], replies[1][..8], "keys do not count up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_does_not_permit_fails_at_once() {
    let server = NatsServer::with(
        "authorization { users: [ { user: free, password: p }
           { user: bound, password: p, permissions: { publish: [\"_INBOX_bound.>\", \"lattice.vc.*.shop.>\"], subscribe: [\"_INBOX_bound.>\"] } } ] }
         no_auth_user: bound",
    );
    let caller = server.link("_INBOX_bound").await;
    let subject = request_subject(&fresh_address(), "other", INSTANCE, "f");
    let began = tokio::time::Instant::now();
    let failed = caller.call(call(&subject, &Headers::new(), b"p"), 100).await;
    assert_eq!(failed, Err(CallFailed::NotPermitted { subject: subject.as_str().to_owned() }));
    assert!(began.elapsed() < Duration::from_secs(2));
    // Somebody else's inbox is refused when connecting.
    let settings = server.settings("_INBOX_other");
    let settings = portcullis_transport::nats::NatsSettings {
        limits: NatsLimits { connect_timeout: Duration::from_millis(500), ..settings.limits },
        ..settings
    };
    let error = portcullis_transport::nats::Link::connect(&settings).await.unwrap_err();
    assert!(error.to_string().contains("did not confirm the inbox"), "{error}");
}

/// async-nats 0.49 ends its connection over a header that is none, and its client over a carriage return inside a value. The
/// calls under way end with it; serving resumes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_that_is_none_interrupts_serving_and_does_not_end_it() {
    let server = NatsServer::start();
    let settings = server.settings("_INBOX_callee");
    let callee = Session::start(settings, Duration::from_secs(1), TaskTracker::new()).await.unwrap();
    let caller = server.link("_INBOX_caller").await;
    let address = fresh_address();
    let mut acceptor = callee.accept_calls(address.clone()).await.unwrap();
    tokio::spawn(async move {
        while let Some(arrival) = acceptor.next().await {
            if let Arrival::Call(call) = arrival {
                tokio::spawn(echo_one(call));
            }
        }
    });
    let subject = request_subject(&address, "shop", INSTANCE, "echo");
    let headers = Headers::new();
    for block in ["NATS/1.0\r\nno colon\r\n\r\n", "NATS/1.0\r\nx: a\rb\r\n\r\n", "NATS/1.0 x\r\n\r\n"] {
        raw(&server, &format!("HPUB {} {} {}\r\n{block}\r\n", subject.as_str(), block.len(), block.len())).await;
        let trying = async {
            // Some in a row, so that one before the blow does not count.
            let mut answered = 0;
            while answered < 20 {
                let hasty = Call { deadlines: impatient(), ..call(&subject, &headers, b"p") };
                answered = if caller.call(hasty, 100).await.is_ok() { answered + 1 } else { 0 };
            }
        };
        tokio::time::timeout(e2e::PATIENCE, trying).await.unwrap_or_else(|_| panic!("serving ended at {block:?}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_that_are_too_long_end_their_call_alone() {
    let server = NatsServer::start();
    let (callee, caller) = (server.link("_INBOX_callee").await, server.link("_INBOX_caller").await);
    let address = fresh_address();
    let mut acceptor = callee.accept_calls(address.clone()).await.unwrap();
    let subject = request_subject(&address, "shop", INSTANCE, "echo");
    let headers = Headers::new();
    let serving = async {
        let (mut params, results) = next_call(&mut acceptor).await.accept(Deadlines::default()).await.unwrap();
        let ended = params.read_root(1000).await;
        results.give_up(portcullis_transport::Refusal::TooLarge, "at most 1000 bytes");
        ended
    };
    let long = Call { params: Bytes::from(vec![0; 1001]), ..call(&subject, &headers, b"") };
    let (refused, ended) = tokio::join!(caller.call(long, 100), serving);
    assert_eq!(ended, Err(CallFailed::TooLarge { limit: 1000 }));
    assert!(matches!(refused, Err(CallFailed::Refused(refusal)) if refusal.status == 413));
}

/// A server's refusal is an event beside the stream of messages, and may come long after the subscription.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_is_refused_is_an_error_at_once_or_later() {
    let server = NatsServer::with(
        "authorization { users: [ { user: b, password: p, permissions: {
            publish: [\"_INBOX_b.>\"], subscribe: [\"_INBOX_b.>\", \"lattice.>\"] } } ] }
        no_auth_user: b",
    );
    let link = server.link("_INBOX_b").await;
    let refused = link.hear("wasmbus.>".to_owned()).await.unwrap_err();
    assert!(matches!(&refused, SubscribeError::NotPermitted { subject } if subject == "wasmbus.>"), "{refused:?}");
    let mut acceptor = link.accept_calls(fresh_address()).await.unwrap();
    let file = server.folder().join("nats.conf");
    let config = std::fs::read_to_string(&file).unwrap().replace(", \"lattice.>\"", "");
    std::fs::write(&file, config).unwrap();
    server.reload();
    assert!(tokio::time::timeout(e2e::PATIENCE, acceptor.next()).await.unwrap().is_none());
    assert!(matches!(acceptor.refused(), Some(SubscribeError::NotPermitted { .. })));
    let again = link.accept_calls(fresh_address()).await;
    assert!(matches!(again, Err(SubscribeError::NotPermitted { .. })));
}

/// More than a task may send in one turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_leave_however_many_there_are() {
    const CALLS: usize = 300;
    let server = NatsServer::start();
    let (callee, caller) = (server.link("_INBOX_callee").await, server.link("_INBOX_caller").await);
    let address = fresh_address();
    let mut acceptor = callee.accept_calls(address.clone()).await.unwrap();
    let subject = request_subject(&address, "shop", INSTANCE, "f");
    let calling = || {
        let (caller, subject) = (caller.clone(), subject.clone());
        tokio::spawn(async move { caller.call(call(&subject, &Headers::new(), b"p"), 100).await })
    };
    let callers: Vec<_> = (0..CALLS).map(|_| calling()).collect();
    let mut calls = Vec::new();
    while calls.len() < CALLS {
        calls.push(next_call(&mut acceptor).await);
    }
    for call in calls {
        assert!(call.refuse(Refusal::Denied, ""));
    }
    for caller in callers {
        assert!(matches!(caller.await.unwrap(), Err(CallFailed::Refused(_))));
    }
}
