//! Both ends are ours.

use std::time::Duration;

use bytes::Bytes;
use e2e::nats::{NatsServer, echo, echo_one, fresh_address, next_call, request_subject};
use portcullis_transport::Refusal;
use portcullis_transport::nats::{
    Call, CallFailed, CallerToken, Deadlines, Headers, NatsRefusal, Path, Patience, Piece, RequestSubject, Step,
};
use tokio::io::AsyncReadExt as _;
use tokio_stream::StreamExt as _;

pub(crate) const INSTANCE: &str = "acme:billing/invoices@1.0.0";

pub(crate) fn call<'a>(subject: &'a RequestSubject, headers: &'a Headers, params: &'static [u8]) -> Call<'a> {
    Call { subject, headers, params: Bytes::from_static(params), deadlines: Deadlines::default() }
}

pub(crate) fn impatient() -> Deadlines {
    Deadlines { handshake: Duration::from_millis(200), then: Patience::InAll(Duration::from_millis(400)) }
}

fn path(indices: &[u32]) -> Path {
    Path::try_from(indices.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_every_size_come_back() {
    let server = NatsServer::start();
    let (callee, caller) = (server.link("_INBOX_callee").await, server.link("_INBOX_caller").await);
    let address = fresh_address();
    tokio::spawn(echo(callee.accept_calls(address.clone()).await.unwrap()));
    let subject = request_subject(&address, "shop", INSTANCE, "echo");
    let headers = Headers::new();
    // Around what fits in the first message, in a chunk, in a message, and beyond.
    let chunk = 128 << 10;
    for length in [0, 1, 100, chunk - 150, chunk - 100, chunk, chunk + 1, 1 << 20, 3_000_000] {
        let params = Bytes::from(vec![b'x'; length]);
        let call =
            Call { subject: &subject, headers: &headers, params: params.clone(), deadlines: Deadlines::default() };
        assert_eq!(caller.call(call, 4 << 20).await, Ok(params), "{length}");
    }
    assert_eq!((caller.calls(), caller.max_payload()), (0, 1 << 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_tells_who_calls_what() {
    let server = NatsServer::start();
    let (callee, caller) = (server.link("_INBOX_callee").await, server.link("_INBOX_caller").await);
    let address = fresh_address();
    let mut acceptor = callee.accept_calls(address.clone()).await.unwrap();
    let subject = request_subject(&address, "host", INSTANCE, "invoice.total");
    let mut headers = Headers::new();
    headers.append("source-id", "shop").unwrap();
    headers.append("link-name", "default").unwrap();
    let calling = async { caller.call(call(&subject, &headers, b"p"), 100).await };
    let serving = async {
        let call = next_call(&mut acceptor).await;
        assert_eq!(call.caller, Some(CallerToken::Host));
        assert_eq!(call.name.header().to_string(), format!("{INSTANCE}#invoice.total"));
        assert_eq!((call.headers.only("source-id"), call.first_bytes()), (Some("shop"), 1));
        call.refuse(Refusal::Denied, "no policy permits it");
    };
    let (refused, ()) = tokio::join!(calling, serving);
    let refusal = NatsRefusal::new(Refusal::Denied, "no policy permits it");
    assert_eq!(refused, Err(CallFailed::Refused(refusal.clone())));
    assert_eq!(refusal.status, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_go_both_ways_beside_the_plain_values() {
    let server = NatsServer::start();
    let (callee, caller) = (server.link("_INBOX_callee").await, server.link("_INBOX_caller").await);
    let address = fresh_address();
    let mut acceptor = callee.accept_calls(address.clone()).await.unwrap();
    let subject = request_subject(&address, "shop", INSTANCE, "pipe");
    let headers = Headers::new();
    let calling = async {
        let (params, results) = caller.invoke(call(&subject, &headers, b"plain")).await.unwrap();
        let mut stream = params.path(&path(&[1, 0]));
        params.finish().await.unwrap();
        for part in ["one ", "two ", "three"] {
            stream.write(Bytes::from_static(part.as_bytes())).await.unwrap();
        }
        stream.finish().await.unwrap();
        let mut read = String::new();
        results.path(path(&[0])).read_to_string(&mut read).await.unwrap();
        assert_eq!(results.path(Path::root()).read_to_end(100).await.unwrap(), "answer");
        read
    };
    let serving = async {
        let call = next_call(&mut acceptor).await;
        let (mut params, mut results) = call.accept(Deadlines::default()).await.unwrap();
        let mut back = results.path(&path(&[0]));
        results.write(Bytes::from_static(b"answer")).await.unwrap();
        results.finish().await.unwrap();
        let mut ends = 0;
        // As a bridge to a framed stream reads: whatever comes.
        while ends < 2 {
            match params.next().await.unwrap() {
                Piece::Bytes(of, bytes) if of.is_root() => assert_eq!(bytes, "plain"),
                Piece::Bytes(of, bytes) => {
                    assert_eq!(of.indices(), [1, 0]);
                    back.write(bytes).await.unwrap();
                }
                Piece::End(_) => ends += 1,
            }
        }
        assert!(params.is_complete());
        back.finish().await.unwrap();
    };
    let (read, ()) = tokio::join!(calling, serving);
    assert_eq!(read, "one two three");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_there_shows_at_once() {
    let server = NatsServer::start();
    let caller = server.link("_INBOX_caller").await;
    let subject = request_subject(&fresh_address(), "shop", INSTANCE, "echo");
    assert_eq!(caller.call(call(&subject, &Headers::new(), b""), 100).await, Err(CallFailed::NoResponder));
    assert_eq!(caller.calls(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_step_of_a_call_has_a_deadline() {
    let server = NatsServer::start();
    let (callee, caller) = (server.link("_INBOX_callee").await, server.link("_INBOX_caller").await);
    let address = fresh_address();
    let mut acceptor = callee.accept_calls(address.clone()).await.unwrap();
    let subject = request_subject(&address, "shop", INSTANCE, "echo");
    let headers = Headers::new();
    let hasty = || Call { deadlines: impatient(), ..call(&subject, &headers, b"p") };
    // No handshake.
    let (ended, _held) = tokio::join!(caller.call(hasty(), 100), next_call(&mut acceptor));
    assert_eq!(ended, Err(CallFailed::TimedOut(Step::Handshake)));
    // No result.
    let (ended, _held) = tokio::join!(caller.call(hasty(), 100), async {
        next_call(&mut acceptor).await.accept(Deadlines::default()).await
    });
    assert_eq!(ended, Err(CallFailed::TimedOut(Step::Whole)));
    // No end of the parameters.
    let serving = async {
        let (mut params, _results) = next_call(&mut acceptor).await.accept(impatient()).await.unwrap();
        params.read_root(100).await
    };
    let (held, ended) = tokio::join!(caller.invoke(call(&subject, &headers, b"p")), serving);
    assert!(held.is_ok());
    assert_eq!(ended, Err(CallFailed::TimedOut(Step::Whole)));
}

/// Between our own ends a call that fits into one message has two; a stock end, and a callee that takes its time, shake hands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_call_needs_no_handshake_and_a_slow_one_has_it() {
    let server = NatsServer::start();
    let (callee, caller) = (server.link("_INBOX_callee").await, server.link("_INBOX_caller").await);
    let address = fresh_address();
    let mut acceptor = callee.accept_calls(address.clone()).await.unwrap();
    let stock = server.stock().await;
    let mut overheard = stock.subscribe("_INBOX_caller.>").await.unwrap();
    stock.flush().await.unwrap();
    let subject = request_subject(&address, "shop", INSTANCE, "echo");
    let headers = Headers::new();
    for length in [0, 16] {
        let params = Bytes::from(vec![b'x'; length]);
        let call = Call { subject: &subject, headers: &headers, params, deadlines: Deadlines::default() };
        let answering = async { echo_one(next_call(&mut acceptor).await).await };
        let (answer, ()) = tokio::join!(caller.call(call, 100), answering);
        assert_eq!(answer.unwrap().len(), length);
        let message = overheard.next().await.unwrap();
        assert!(message.subject.ends_with(".whole") && message.payload.len() == length, "{message:?}");
    }
    // It shakes hands after a while, so that a caller that gives up can say so.
    let deadlines = Deadlines { handshake: Duration::from_secs(2), ..Deadlines::default() };
    let calling = tokio::spawn({
        let (caller, subject) = (caller.clone(), subject.clone());
        async move {
            let headers = Headers::new();
            caller.call(call_of(&subject, &headers, deadlines), 100).await
        }
    });
    let (mut params, results) = next_call(&mut acceptor).await.accept(Deadlines::default()).await.unwrap();
    assert_eq!(params.read_root(100).await.unwrap(), "p");
    let handshake = overheard.next().await.unwrap();
    assert!(handshake.reply.is_some() && handshake.payload.is_empty(), "{handshake:?}");
    calling.abort();
    assert!(calling.await.unwrap_err().is_cancelled());
    assert_eq!(params.next().await.unwrap(), Piece::End(Path::root()));
    assert_eq!(params.next().await, Err(CallFailed::GivenUp));
    drop(results);
    // An answer of several messages needs none either.
    let large = Bytes::from(vec![b'x'; 3_000_000]);
    let calling = caller.call(call_of(&subject, &headers, deadlines), 4 << 20);
    let answering = async {
        let (_, results) = next_call(&mut acceptor).await.accept(Deadlines::default()).await.unwrap();
        results.finish_with(large.clone()).await.unwrap();
    };
    let (answer, ()) = tokio::join!(calling, answering);
    assert_eq!(answer.unwrap(), large);
}

fn call_of<'a>(subject: &'a RequestSubject, headers: &'a Headers, deadlines: Deadlines) -> Call<'a> {
    Call { subject, headers, params: Bytes::from_static(b"p"), deadlines }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_drops_its_call_is_noticed() {
    let server = NatsServer::start();
    let (callee, caller) = (server.link("_INBOX_callee").await, server.link("_INBOX_caller").await);
    let address = fresh_address();
    let mut acceptor = callee.accept_calls(address.clone()).await.unwrap();
    let subject = request_subject(&address, "shop", INSTANCE, "echo");
    let headers = Headers::new();
    // After the handshake.
    let serving = async { next_call(&mut acceptor).await.accept(Deadlines::default()).await.unwrap() };
    let (begun, (mut params, _results)) = tokio::join!(caller.invoke(call(&subject, &headers, b"p")), serving);
    drop(begun);
    assert_eq!(params.path(Path::try_from(vec![3]).unwrap()).next().await, Err(CallFailed::GivenUp));
    assert_eq!(params.read_root(100).await, Err(CallFailed::GivenUp));
    // Before it.
    let begun =
        tokio::time::timeout(Duration::from_millis(100), caller.call(call(&subject, &headers, b"p"), 100)).await;
    assert!(begun.is_err());
    let (mut params, _results) = next_call(&mut acceptor).await.accept(Deadlines::default()).await.unwrap();
    // All parameters came with the request.
    assert_eq!(params.next().await, Ok(Piece::Bytes(Path::root(), Bytes::from_static(b"p"))));
    assert_eq!(params.next().await, Ok(Piece::End(Path::root())));
    assert_eq!(params.next().await, Err(CallFailed::GivenUp));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callee_that_gives_up_says_why() {
    let server = NatsServer::start();
    let (callee, caller) = (server.link("_INBOX_callee").await, server.link("_INBOX_caller").await);
    let address = fresh_address();
    let mut acceptor = callee.accept_calls(address.clone()).await.unwrap();
    let subject = request_subject(&address, "shop", INSTANCE, "echo");
    let headers = Headers::new();
    let serving = async {
        let (_params, mut results) = next_call(&mut acceptor).await.accept(Deadlines::default()).await.unwrap();
        results.write(Bytes::from_static(b"half of it")).await.unwrap();
        results.give_up(Refusal::UpstreamProtocol, "the service closed the connection");
        // One that is dropped is refused, too.
        drop(next_call(&mut acceptor).await);
    };
    let calling = async {
        let half = caller.call(call(&subject, &headers, b"p"), 100).await;
        (half, caller.call(call(&subject, &headers, b"p"), 100).await)
    };
    let ((half, dropped), ()) = tokio::join!(calling, serving);
    let refusal = NatsRefusal::new(Refusal::UpstreamProtocol, "the service closed the connection");
    assert_eq!(half, Err(CallFailed::Refused(refusal)));
    assert_eq!(dropped, Err(CallFailed::Refused(NatsRefusal::new(Refusal::Internal, "the callee dropped the call"))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_share_calls() {
    let server = NatsServer::start();
    let caller = server.link("_INBOX_caller").await;
    let address = fresh_address();
    let mut served = Vec::new();
    for replica in ["_INBOX_a", "_INBOX_b"] {
        let mut acceptor = server.link(replica).await.accept_calls(address.clone()).await.unwrap();
        served.push(tokio::spawn(async move {
            let mut count = 0;
            while count < 5 {
                e2e::nats::echo_one(next_call(&mut acceptor).await).await;
                count += 1;
            }
        }));
    }
    let subject = request_subject(&address, "shop", INSTANCE, "echo");
    // Each call is answered once; chance alone gives one replica none of 200.
    for served in served {
        while !served.is_finished() {
            let _ = caller.call(Call { deadlines: impatient(), ..call(&subject, &Headers::new(), b"p") }, 100).await;
        }
        served.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_request_has_no_headers_and_one_of_an_older_end_is_known() {
    let server = NatsServer::start();
    let (callee, caller) = (server.link("_INBOX_callee").await, server.link("_INBOX_caller").await);
    let stock = server.stock().await;
    let mut requests = stock.subscribe("lattice.vc.>").await.unwrap();
    let mut answers = stock.subscribe("old.>").await.unwrap();
    stock.flush().await.unwrap();
    let address = fresh_address();
    tokio::spawn(echo(callee.accept_calls(address.clone()).await.unwrap()));
    let subject = request_subject(&address, "shop", INSTANCE, "echo");
    caller.call(call(&subject, &Headers::new(), b"p"), 100).await.unwrap();
    let request = requests.next().await.unwrap();
    assert!(request.headers.is_none() && request.reply.unwrap().contains(".whole."));
    let mut old = async_nats::HeaderMap::new();
    old.insert("portcullis-whole", "1");
    stock.publish_with_reply_and_headers(subject.as_str().to_owned(), "old.r", old, "p".into()).await.unwrap();
    assert_eq!(answers.next().await.unwrap().subject.as_str(), "old.r.whole");
}
