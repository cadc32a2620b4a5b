//! Conformance with the transport that others use, in both directions, for both releases that are in the field: 0.31, the
//! last one, and 0.29, which is in wasmCloud 1.9 hosts.

/// How often calls of a release never end under load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hangs {
    /// 0.31 has its task look at commands first. But a thread that loses its core inside of sending one hides, from the channel's
    /// receiver, those that others send meanwhile: on a busy machine up to ten calls at one moment.
    Seldom,
    /// 0.29 looks at a command or at a message, by chance.
    Sometimes,
}

macro_rules! conformance {
    ($release:ident, $client:ident, $transport:ident, $nats:ident, hangs: $hangs:expr) => {
        mod $release {
            use std::pin::Pin;
            use std::sync::Arc;
            use std::sync::atomic::{AtomicUsize, Ordering};
            use std::time::Duration;

            use bytes::Bytes;
            use e2e::nats::{NatsServer, echo, fresh_address, next_call, request_subject};
            use portcullis_transport::nats::{
                Call, CallFailed, Deadlines, Headers, Path, RequestSubject, Target, VirtualAddress,
            };
            use portcullis_transport::{Header, Refusal};
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            use tokio_stream::{Stream, StreamExt as _};
            use $nats::Client;
            use $transport::{Index as _, InvokeExt as _, Serve as _};

            use crate::calls::INSTANCE;
            use crate::dropped;

            type Paths = Arc<[Box<[Option<usize>]>]>;
            const NONE: [[Option<usize>; 0]; 0] = [];

            async fn stock(server: &NatsServer, prefix: String, group: Option<&str>) -> Client {
                let nats = $client::connect(server.url()).await.unwrap();
                Client::new(nats, prefix, group.map(Arc::from)).await.unwrap()
            }

            async fn caller(server: &NatsServer, address: &VirtualAddress) -> Client {
                stock(server, format!("{}.vc.{}.host", address.lattice, address.id), None).await
            }

            /// A stock component; and the subject of its function.
            async fn callee(server: &NatsServer, id: &str) -> (Client, RequestSubject) {
                let prefix = format!("lattice.{id}");
                let target = Target::Component { lattice: "lattice".parse().unwrap(), id: id.parse().unwrap() };
                let header = Header { instance: INSTANCE.into(), function: "echo".into() };
                (stock(server, prefix.clone(), Some(&prefix)).await, target.request_subject(&header).unwrap())
            }

            fn path(indices: &[u32]) -> Path {
                Path::try_from(indices.to_vec()).unwrap()
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn a_stock_caller_is_answered() {
                let server = NatsServer::start();
                let address = fresh_address();
                let acceptor = server.link("_INBOX_callee").await.accept_calls(address.clone()).await.unwrap();
                tokio::spawn(echo(acceptor));
                let stock = caller(&server, &address).await;
                let values = stock.invoke_values_blocking::<_, (String, u64), (String, u64)>(
                    None,
                    INSTANCE,
                    "echo",
                    ("grüße".to_owned(), u64::MAX),
                    NONE,
                );
                assert_eq!(values.await.unwrap(), ("grüße".to_owned(), u64::MAX));
                let large = Bytes::from(vec![b'x'; 3_000_000]);
                let values = stock.invoke_values_blocking::<_, (Bytes,), (Bytes,)>(
                    None,
                    INSTANCE,
                    "echo",
                    (large.clone(),),
                    NONE,
                );
                assert_eq!(values.await.unwrap(), (large,));
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn a_stock_callee_answers() {
                let server = NatsServer::start();
                let (stock, subject) = callee(&server, "echo").await;
                let mut calls = Box::pin(stock.serve(INSTANCE, "echo", Paths::default()).await.unwrap());
                tokio::spawn(async move {
                    while let Some(Ok((_, mut results, mut params))) = calls.next().await {
                        let mut all = Vec::new();
                        params.read_to_end(&mut all).await.unwrap();
                        results.write_all(&all).await.unwrap();
                        results.shutdown().await.unwrap();
                    }
                });
                let ours = server.link("_INBOX_caller").await;
                let headers = Headers::new();
                for length in [0, 1, 3_000_000] {
                    let params = Bytes::from(vec![b'x'; length]);
                    let deadlines = Deadlines::default();
                    let call = Call { subject: &subject, headers: &headers, params: params.clone(), deadlines };
                    assert_eq!(ours.call(call, 4 << 20).await, Ok(params), "{length}");
                }
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn pending_streams_cross() {
                let server = NatsServer::start();
                let address = fresh_address();
                let mut acceptor = server.link("_INBOX_callee").await.accept_calls(address.clone()).await.unwrap();
                let stock = caller(&server, &address).await;
                type ByteStream = Pin<Box<dyn Stream<Item = Bytes> + Send>>;
                let parts = ["one ", "two ", "three"].map(|part| Bytes::from_static(part.as_bytes()));
                let stream: ByteStream = Box::pin(tokio_stream::iter(parts.clone()));
                // The values on the wire are passed back as they are: what is pending, and each part of the stream.
                let serving = async {
                    let (mut params, mut results) =
                        next_call(&mut acceptor).await.accept(Deadlines::default()).await.unwrap();
                    let mut back = results.path(&path(&[0]));
                    results.write(params.read_root(100).await.unwrap()).await.unwrap();
                    results.finish().await.unwrap();
                    let mut reader = params.path(path(&[0]));
                    while let Some(bytes) = reader.next().await.unwrap() {
                        back.write(bytes).await.unwrap();
                    }
                    back.finish().await.unwrap();
                };
                let calling = async {
                    let paths = [[Some(0)]];
                    let invoking = stock.invoke_values::<_, (ByteStream,), (ByteStream,)>(
                        None,
                        INSTANCE,
                        "flow",
                        (stream,),
                        paths,
                    );
                    let ((stream,), sending) = invoking.await.unwrap();
                    let sending = async {
                        if let Some(sending) = sending {
                            sending.await.unwrap();
                        }
                    };
                    let (parts, ()) = tokio::join!(stream.collect::<Vec<_>>(), sending);
                    parts.concat()
                };
                let ((), read) = tokio::join!(serving, calling);
                assert_eq!(read, parts.concat());
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn indexed_paths_cross() {
                let server = NatsServer::start();
                let (stock, subject) = callee(&server, "paths").await;
                let paths: Paths = Arc::from([Box::from([Some(1)]), Box::from([Some(2), Some(0)])]);
                let mut calls = Box::pin(stock.serve(INSTANCE, "echo", paths).await.unwrap());
                let serving = async {
                    let (_, mut results, mut params) = calls.next().await.unwrap().unwrap();
                    for index in [&[2, 0][..], &[1]] {
                        let mut from = params.index(index).unwrap();
                        let mut to = results.index(index).unwrap();
                        let mut all = Vec::new();
                        from.read_to_end(&mut all).await.unwrap();
                        to.write_all(&all).await.unwrap();
                        to.shutdown().await.unwrap();
                    }
                    let mut all = Vec::new();
                    params.read_to_end(&mut all).await.unwrap();
                    results.write_all(&all).await.unwrap();
                    results.shutdown().await.unwrap();
                };
                let ours = server.link("_INBOX_caller").await;
                let headers = Headers::new();
                let calling = async {
                    let params = Bytes::from_static(b"plain");
                    let call = Call { subject: &subject, headers: &headers, params, deadlines: Deadlines::default() };
                    let (params, mut results) = ours.invoke(call).await.unwrap();
                    for (at, value) in [(path(&[1]), "first"), (path(&[2, 0]), "second")] {
                        let mut writer = params.path(&at);
                        writer.write(Bytes::from_static(value.as_bytes())).await.unwrap();
                        writer.finish().await.unwrap();
                    }
                    params.finish().await.unwrap();
                    assert_eq!(results.path(path(&[1])).read_to_end(100).await.unwrap(), "first");
                    assert_eq!(results.path(path(&[2, 0])).read_to_end(100).await.unwrap(), "second");
                    assert_eq!(results.read_root(100).await.unwrap(), "plain");
                };
                tokio::join!(serving, calling);
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn an_answer_that_ends_early_is_seen_as_such() {
                let server = NatsServer::start();
                // Theirs, by us.
                let (stock, subject) = callee(&server, "early").await;
                let mut calls = Box::pin(stock.serve(INSTANCE, "echo", Paths::default()).await.unwrap());
                let serving = async { drop(calls.next().await.unwrap().unwrap()) };
                let ours = server.link("_INBOX_caller").await;
                let headers = Headers::new();
                let params = Bytes::from_static(b"p");
                let call = Call { subject: &subject, headers: &headers, params, deadlines: Deadlines::default() };
                let (answer, ()) = tokio::join!(ours.call(call, 100), serving);
                assert_eq!(answer, Ok(Bytes::new()));
                // Ours, by them.
                let address = fresh_address();
                let mut acceptor = server.link("_INBOX_callee").await.accept_calls(address.clone()).await.unwrap();
                let stock = caller(&server, &address).await;
                let serving = async {
                    let (_params, results) = next_call(&mut acceptor).await.accept(Deadlines::default()).await.unwrap();
                    results.give_up(Refusal::UpstreamProtocol, "the service closed");
                };
                let calling = stock.invoke_values_blocking::<_, (u8,), (String,)>(None, INSTANCE, "get", (7,), NONE);
                let (answer, ()) = tokio::join!(calling, serving);
                let error = format!("{:#}", answer.unwrap_err());
                assert!(error.contains("incomplete results"), "{error}");
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn a_refusal_is_read_at_once_with_its_reason() {
                let server = NatsServer::start();
                let address = fresh_address();
                let mut acceptor = server.link("_INBOX_callee").await.accept_calls(address.clone()).await.unwrap();
                let stock = caller(&server, &address).await;
                let serving = async {
                    next_call(&mut acceptor).await.refuse(Refusal::Denied, "no policy permits it");
                };
                let calling = stock.invoke_values_blocking::<_, (u8,), (String,)>(None, INSTANCE, "get", (7,), NONE);
                let (answer, ()) = tokio::join!(calling, serving);
                let error = format!("{:#}", answer.unwrap_err());
                assert!(error.contains("403") && error.contains("denied: no policy permits it"), "{error}");
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn a_hundred_thousand_stock_calls_are_answered() {
                const CALLS: usize = 100_000;
                const PATIENCE: Duration = Duration::from_secs(10);
                let server = NatsServer::start();
                let address = fresh_address();
                let callee = server.link("_INBOX_callee").await;
                tokio::spawn(echo(callee.accept_calls(address.clone()).await.unwrap()));
                let inboxes = concat!("_INBOX_", stringify!($release));
                dropped::note();
                let options = $client::ConnectOptions::new().custom_inbox_prefix(inboxes);
                let connection = options.connect(server.url()).await.unwrap();
                let prefix = format!("{}.vc.{}.host", address.lattice, address.id);
                let stock = Client::new(connection, prefix, None).await.unwrap();
                let (made, hung) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
                let callers: Vec<_> = (0..32)
                    .map(|_| {
                        let (stock, made, hung) = (stock.clone(), Arc::clone(&made), Arc::clone(&hung));
                        tokio::spawn(async move {
                            while made.fetch_add(1, Ordering::Relaxed) < CALLS {
                                let calling = stock.invoke_values_blocking::<_, (u64,), (u64,)>(
                                    None,
                                    INSTANCE,
                                    "echo",
                                    (7,),
                                    NONE,
                                );
                                match tokio::time::timeout(PATIENCE, calling).await {
                                    Ok(answer) => assert_eq!(answer.unwrap(), (7,)),
                                    Err(_) => drop(hung.fetch_add(1, Ordering::Relaxed)),
                                }
                            }
                        })
                    })
                    .collect();
                for caller in callers {
                    caller.await.unwrap();
                }
                let hung = hung.load(Ordering::Relaxed);
                let dropped = dropped::handshakes(inboxes);
                let told = format!(
                    "{}: {hung} of {CALLS} calls had no answer in {PATIENCE:?}; the client itself dropped {dropped} handshakes",
                    stringify!($release)
                );
                println!("{told}");
                // Nothing is lost on the way, and nothing by the callee.
                assert_eq!(hung, dropped, "{told}; the server logged:\n{}", server.log());
                let allowed = match $hangs {
                    super::Hangs::Seldom => 32,
                    super::Hangs::Sometimes => CALLS / 100,
                };
                assert!(hung <= allowed, "{told}");
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn nobody_there_is_seen_by_both() {
                let server = NatsServer::start();
                let address = fresh_address();
                let stock = caller(&server, &address).await;
                let calling = stock.invoke_values_blocking::<_, (u8,), (String,)>(None, INSTANCE, "get", (7,), NONE);
                let error = format!("{:#}", calling.await.unwrap_err());
                assert!(error.contains("not connected"), "{error}");
                let ours = server.link("_INBOX_caller").await;
                let subject = request_subject(&address, "host", INSTANCE, "get");
                let headers = Headers::new();
                let params = Bytes::new();
                let call = Call { subject: &subject, headers: &headers, params, deadlines: Deadlines::default() };
                assert_eq!(ours.call(call, 100).await, Err(CallFailed::NoResponder));
            }
        }
    };
}

conformance!(of_0_31, async_nats, wrpc_transport, wrpc_transport_nats, hangs: super::Hangs::Seldom);
conformance!(of_0_29, async_nats_0_39, wrpc_transport_0_28, wrpc_transport_nats_0_29, hangs: super::Hangs::Sometimes);
