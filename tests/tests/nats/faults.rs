//! What goes wrong without anybody's ill will.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use e2e::nats::{NatsServer, connect, echo, fresh_address, next_call, request_subject, settings};
use e2e::{Cable, Host, PATIENCE, eventually, has_own_network};
use portcullis_transport::nats::{
    Call, CallFailed, Deadlines, Headers, Link, NatsLimits, NatsSettings, Overflow, Patience, Piece, RequestSubject,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::calls::{INSTANCE, call};
use crate::load::Load;

/// Calls until one succeeds.
async fn answered(link: &Link, subject: &RequestSubject) {
    let headers = Headers::new();
    let trying = async {
        while link.call(call(subject, &headers, b"p"), 100).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, trying).await.expect("serving resumes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serving_resumes_when_the_server_does() {
    let mut server = NatsServer::start();
    let (callee, caller) = (server.link("_INBOX_callee").await, server.link("_INBOX_caller").await);
    let address = fresh_address();
    let acceptor = callee.accept_calls(address.clone()).await.unwrap();
    let silent = fresh_address();
    let _holds_its_calls = callee.accept_calls(silent.clone()).await.unwrap();
    tokio::spawn(echo(acceptor));
    let subject = request_subject(&address, "shop", INSTANCE, "echo");
    answered(&caller, &subject).await;
    for _ in 0..2 {
        let unanswered = request_subject(&silent, "shop", INSTANCE, "echo");
        let headers = Headers::new();
        let began = tokio::time::Instant::now();
        let under_way = caller.call(call(&unanswered, &headers, b"p"), 100);
        let killing = async {
            while caller.calls() == 0 {
                tokio::task::yield_now().await;
            }
            server.kill();
        };
        let (failed, ()) = tokio::join!(under_way, killing);
        assert_eq!(failed, Err(CallFailed::Disconnected));
        assert!(began.elapsed() < Duration::from_secs(4), "not at the deadline: {:?}", began.elapsed());
        assert_eq!(caller.call(call(&subject, &headers, b"p"), 100).await, Err(CallFailed::Disconnected));
        server.revive();
        answered(&caller, &subject).await;
    }
    eventually("no call to be left", || (caller.calls() == 0).then_some(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_is_slow_ends_its_own_call() {
    let server = NatsServer::start();
    let callee = server.link("_INBOX_callee").await;
    let mut settings = server.settings("_INBOX_caller");
    settings.limits = NatsLimits { call_bytes: 1 << 20, ..NatsLimits::default() };
    let caller = connect(&settings).await;
    let address = fresh_address();
    let mut acceptor = callee.accept_calls(address.clone()).await.unwrap();
    let subject = request_subject(&address, "shop", INSTANCE, "flood");
    let headers = Headers::new();
    let serving = async {
        let (_params, mut results) = next_call(&mut acceptor).await.accept(Deadlines::default()).await.unwrap();
        let part = Bytes::from(vec![b'x'; 64 << 10]);
        while results.write(part.clone()).await.is_ok() {}
    };
    let calling = async {
        // A busy machine may end the call here already.
        let (params, mut results) = caller.invoke(call(&subject, &headers, b"p")).await?;
        params.finish().await?;
        // It reads nothing until it is too late.
        loop {
            tokio::time::sleep(Duration::from_millis(5)).await;
            if caller.calls() == 1
                && let Ok(read) = tokio::time::timeout(Duration::from_millis(1), results.read_root(usize::MAX)).await
            {
                return read;
            }
        }
    };
    let writing = tokio::time::timeout(PATIENCE, async { tokio::join!(calling, serving) });
    let (failed, ()) = writing.await.expect("both ends learn of it");
    assert_eq!(failed, Err(CallFailed::SlowConsumer(Overflow::CallBytes { limit: 1 << 20 })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_call_delays_no_other() {
    let server = NatsServer::start();
    let (callee, caller) = (server.link("_INBOX_callee").await, server.link("_INBOX_caller").await);
    let address = fresh_address();
    let stalled = fresh_address();
    tokio::spawn(echo(callee.accept_calls(address.clone()).await.unwrap()));
    let mut acceptor = callee.accept_calls(stalled.clone()).await.unwrap();
    let headers = Headers::new();
    let patient = Deadlines { handshake: Duration::from_secs(5), then: Patience::InSilence(Duration::from_secs(30)) };
    let subject = request_subject(&stalled, "shop", INSTANCE, "echo");
    // It has sent a megabyte each way that nobody reads.
    let call_stalled =
        Call { subject: &subject, headers: &headers, params: Bytes::from(vec![b'x'; 1 << 20]), deadlines: patient };
    let serving = async {
        let (params, mut results) = next_call(&mut acceptor).await.accept(patient).await.unwrap();
        results.write(Bytes::from(vec![b'x'; 1 << 20])).await.unwrap();
        (params, results)
    };
    let (begun, held) = tokio::join!(caller.invoke(call_stalled), serving);
    let (params, mut results) = begun.unwrap();
    let subject = request_subject(&address, "shop", INSTANCE, "echo");
    let mut slowest = Duration::ZERO;
    for _ in 0..1000 {
        let began = tokio::time::Instant::now();
        assert_eq!(caller.call(call(&subject, &headers, b"p"), 100).await.unwrap(), "p");
        slowest = slowest.max(began.elapsed());
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    // And it goes on when it is read.
    let (mut their_params, their_results) = held;
    params.finish().await.unwrap();
    their_results.finish().await.unwrap();
    assert_eq!(their_params.read_root(2 << 20).await.unwrap().len(), 1 << 20);
    assert_eq!(results.read_root(2 << 20).await.unwrap().len(), 1 << 20);
}

/// What is sent over a cut cable arrives nowhere, and no connection ends by itself. Each end has a cable of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_ends_calls_in_their_time_and_is_over_when_it_is() {
    if !has_own_network("faults::a_partition_ends_calls_in_their_time_and_is_over_when_it_is") {
        return;
    }
    let host = Host::new();
    let (callee_cable, caller_cable) = (host.cable(1), host.cable(2));
    let server = NatsServer::on(&host);
    let limits = NatsLimits {
        ping_interval: Duration::from_millis(200),
        connect_timeout: Duration::from_secs(1),
        ..NatsLimits::default()
    };
    let connected = async |cable: &Cable, inbox: &str| {
        connect(&NatsSettings { limits, ..settings(&server.url_by(cable), inbox) }).await
    };
    let callee = connected(&callee_cable, "_INBOX_callee").await;
    let caller = connected(&caller_cable, "_INBOX_caller").await;
    let address = fresh_address();
    tokio::spawn(echo(callee.accept_calls(address.clone()).await.unwrap()));
    let subject = request_subject(&address, "shop", INSTANCE, "echo");
    let deadlines = Deadlines { handshake: Duration::from_millis(500), ..Deadlines::default() };
    let headers = Headers::new();
    for (cut, end) in [(&callee_cable, &callee), (&caller_cable, &caller)] {
        answered(&caller, &subject).await;
        cut.cut();
        // Nobody knows of the partition yet: the silence ends the call.
        let params = Bytes::from_static(b"p");
        let began = std::time::Instant::now();
        let failed = caller.call(Call { subject: &subject, headers: &headers, params, deadlines }, 100).await;
        assert!(
            matches!(failed, Err(CallFailed::TimedOut(_) | CallFailed::NoResponder | CallFailed::Disconnected)),
            "{failed:?}"
        );
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        // It is noticed by the pings that nobody answers.
        eventually("the end that is cut off to miss the server", || (!end.is_connected()).then_some(()));
        cut.mend();
        answered(&caller, &subject).await;
        assert_eq!(caller.calls(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_reloads_loses_no_call() {
    let server = NatsServer::start();
    let (callee, caller) = (server.link("_INBOX_callee").await, server.link("_INBOX_caller").await);
    let address = fresh_address();
    tokio::spawn(echo(callee.accept_calls(address.clone()).await.unwrap()));
    let subject = request_subject(&address, "shop", INSTANCE, "echo");
    let load = Load::begin(move || {
        let (caller, subject) = (caller.clone(), subject.clone());
        async move {
            caller.call(call(&subject, &Headers::new(), b"p"), 100).await.unwrap();
        }
    });
    for reload in 1..=5 {
        server.reload();
        let before = load.made();
        eventually("the server to have reloaded under calls", || {
            let reloaded = server.log().matches("Reloaded server configuration").count() >= reload;
            (reloaded && load.made() > before + 100).then_some(())
        });
    }
    load.end().await;
}

/// What the last stock release does too; that of wasmCloud's hosts loses one of some thousand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_calls_all_end() {
    const CALLS: usize = 100_000;
    let server = NatsServer::start();
    let (callee, caller) = (server.link("_INBOX_callee").await, server.link("_INBOX_caller").await);
    let address = fresh_address();
    tokio::spawn(echo(callee.accept_calls(address.clone()).await.unwrap()));
    let subject = request_subject(&address, "shop", INSTANCE, "echo");
    let made = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..32)
        .map(|_| {
            let (caller, subject, made) = (caller.clone(), subject.clone(), Arc::clone(&made));
            tokio::spawn(async move {
                let headers = Headers::new();
                while made.fetch_add(1, Ordering::Relaxed) < CALLS {
                    assert_eq!(
                        caller.call(call(&subject, &headers, b"sixteen bytes ok"), 100).await.unwrap().len(),
                        16
                    );
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!((caller.calls(), callee.dropped_requests()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_timed_out_do_not_count_as_calls() {
    let server = NatsServer::start();
    let callee = server.link("_INBOX_callee").await;
    let limits = NatsLimits { calls: 2, ..NatsLimits::default() };
    let caller = connect(&NatsSettings { limits, ..server.settings("_INBOX_caller") }).await;
    let address = fresh_address();
    let _silent = callee.accept_calls(address.clone()).await.unwrap();
    let subject = request_subject(&address, "shop", INSTANCE, "f");
    let deadlines = Deadlines { handshake: Duration::from_millis(50), ..Deadlines::default() };
    for _ in 0..6 {
        let params = Bytes::from_static(b"p");
        let failed = caller.call(Call { subject: &subject, headers: &Headers::new(), params, deadlines }, 100).await;
        assert!(matches!(failed, Err(CallFailed::TimedOut(_))), "{failed:?}");
    }
}

/// One that sends as fast as the network lets it does not make the others wait behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fast_stream_delays_no_other_call() {
    const RATE: usize = 16 << 20;
    let server = NatsServer::start();
    let by_narrow = narrow(&server, RATE).await;
    let callee = server.link("_INBOX_callee").await;
    let caller = connect(&settings(&format!("nats://{by_narrow}"), "_INBOX_caller")).await;
    let (address, sink) = (fresh_address(), fresh_address());
    tokio::spawn(echo(callee.accept_calls(address.clone()).await.unwrap()));
    let mut flooded = callee.accept_calls(sink.clone()).await.unwrap();
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    tokio::spawn(async move {
        let patience = Patience::InSilence(Duration::from_secs(30));
        let accepted = next_call(&mut flooded).await.accept(Deadlines { then: patience, ..Deadlines::default() }).await;
        let (mut params, _results) = accepted.unwrap();
        while let Ok(Piece::Bytes(_, piece)) = params.next().await {
            count.fetch_add(piece.len(), Ordering::Relaxed);
        }
    });
    let flood = request_subject(&sink, "shop", INSTANCE, "flood");
    let headers = Headers::new();
    let deadlines = Deadlines { then: Patience::InSilence(Duration::from_secs(30)), ..Deadlines::default() };
    let begun = Call { subject: &flood, headers: &headers, params: Bytes::new(), deadlines };
    let (mut params, _results) = caller.invoke(begun).await.unwrap();
    let flooding = tokio::spawn(async move { while params.write(Bytes::from(vec![7; 1 << 20])).await.is_ok() {} });
    let subject = request_subject(&address, "shop", INSTANCE, "echo");
    // Long enough for a queue to be full if there were one.
    eventually("the flood", || (taken.load(Ordering::Relaxed) > RATE).then_some(()));
    let mut slowest = Duration::ZERO;
    for _ in 0..50 {
        let began = std::time::Instant::now();
        assert_eq!(caller.call(call(&subject, &headers, b"p"), 100).await.unwrap(), "p");
        slowest = slowest.max(began.elapsed());
    }
    flooding.abort();
    println!("the slowest of 50 calls beside a flood took {slowest:?}");
    // Behind a full queue, 64 MiB, it would be four seconds.
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
}

/// A network of so many bytes a second, from an end to its server.
async fn narrow(server: &NatsServer, rate: usize) -> std::net::SocketAddr {
    let to = server.url().strip_prefix("nats://").unwrap().to_owned();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(&to).await.unwrap();
            tokio::spawn(async move {
                let (mut near_read, mut near_write) = near.into_split();
                let (mut far_read, mut far_write) = far.into_split();
                let slow = async {
                    let mut buffer = vec![0; 64 << 10];
                    let began = tokio::time::Instant::now();
                    let mut sent = 0;
                    while let Ok(count @ 1..) = near_read.read(&mut buffer).await {
                        far_write.write_all(&buffer[..count]).await.unwrap();
                        sent += count;
                        let due = Duration::from_secs(1) * u32::try_from(sent >> 10).unwrap()
                            / u32::try_from(rate >> 10).unwrap();
                        tokio::time::sleep_until(began + due).await;
                    }
                };
                tokio::join!(slow, async { drop(tokio::io::copy(&mut far_read, &mut near_write).await) });
            });
        }
    });
    address
}
