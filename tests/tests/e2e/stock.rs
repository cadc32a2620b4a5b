//! wRPC as others speak it: stock clients at the sidecar's door, bindings generated from WIT over our client, stock servers behind a splice.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use e2e::nats::NatsServer;
use e2e::wire::{self, Ended, begin, raw_connect, read_to_end};
use e2e::{
    Behaviour, Caller, Daemon, Flaw, ITEMS, Lab, LegacyService, PIPE_WIT, PIPES, ScriptedUpstream, SidecarSetup,
    eventually,
};
use portcullis_client::node::PeerRecord;
use portcullis_client::peers::CallOutcome;
use portcullis_transport::Refusal;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use wrpc_transport::InvokeExt as _;

use bindings::exports::test::pipe::pipes as served;
use bindings::test::pipe::pipes;
use bindings::test::shop::items;

/// What a user generates; `WIT` and `PIPE_WIT` of the harness, which a macro cannot see.
mod bindings {
    #![allow(
        missing_docs,
        unused_qualifications,
        unreachable_pub,
        elided_lifetimes_in_paths,
        clippy::all,
        clippy::pedantic,
        clippy::restriction,
        reason = "generated code"
    )]
    wit_bindgen_wrpc::generate!({
        inline: "
            package test:all@1.0.0;

            package test:shop@1.0.0 {
                interface items {
                    record item { id: string, price: u64 }
                    get: func(id: string) -> result<item, string>;
                    put: func(item: item) -> bool;
                    echo: func(data: list<u8>) -> list<u8>;
                    count: func() -> u32;
                }
            }

            package test:pipe@1.0.0 {
                interface pipes {
                    flow: func(data: stream<u8>) -> stream<u8>;
                    double: func(number: u32) -> u32;
                }
            }

            world all {
                import test:shop/items@1.0.0;
                import test:pipe/pipes@1.0.0;
                export test:pipe/pipes@1.0.0;
            }
        ",
        world: "all",
        generate_all,
    });
}

type ByteStream = Pin<Box<dyn tokio_stream::Stream<Item = Bytes> + Send>>;

const ALICE: &str = "spiffe://test.example/component/demo/alice";
const CHUNK: usize = 64 << 10;

#[test]
fn a_stock_client_calls_a_legacy_service() {
    let lab = Lab::start();
    let service = LegacyService::start(Behaviour::Answer(200, r#"{"id":"7","price":100}"#.to_owned()));
    let config = lab.register(&SidecarSetup::http("shop", service.address));
    lab.policy(
        "shop.cedar",
        &format!(
            "@id(\"alice-gets\") permit (principal == Workload::\"{ALICE}\", action == Action::\"{ITEMS}#get\", resource);"
        ),
    );
    let sidecar = lab.start_sidecar("shop", &config);
    let certificate = lab.forge().certificate(ALICE, Flaw::None);
    let trust = lab.trust();
    let connecting = raw_connect(&trust, Some(certificate), sidecar.address("quic"));
    let client = wrpc_transport_quic::Client::from(lab.block_on(connecting).unwrap());
    let paths: [[Option<usize>; 0]; 0] = [];
    let calling = client.invoke_values_blocking::<_, (String,), (Result<(String, u64), String>,)>(
        (),
        ITEMS,
        "get",
        ("7".to_owned(),),
        paths,
    );
    assert_eq!(lab.block_on(calling).unwrap(), (Ok(("7".to_owned(), 100)),));
    // The same through generated bindings.
    let item = lab.block_on(items::get(&client, (), "7")).unwrap().unwrap();
    assert_eq!((item.id.as_str(), item.price), ("7", 100));
    // Refused: an error soon, and the connection is as good as before. A large call is not sent to its end first.
    let error = lab.block_on(items::count(&client, ())).unwrap_err();
    assert!(format!("{error:#}").contains("incomplete results"), "{error:#}");
    let data = Bytes::from(vec![7; 3 << 20]);
    lab.block_on(items::echo(&client, (), &data)).unwrap_err();
    lab.block_on(items::get(&client, (), "7")).unwrap().unwrap();
    sidecar.logged(&["decision", "refused", "denied", "count"]);
    assert_eq!(sidecar.log().matches("connection: connected").count(), 1);
    assert_eq!(service.seen().len(), 3);
}

#[test]
fn generated_bindings_over_our_client_learn_how_and_why_they_were_refused() {
    let lab = Lab::start();
    let service = LegacyService::start(Behaviour::Answer(200, r#"{"id":"7","price":100}"#.to_owned()));
    let config = lab.register(&SidecarSetup::http("shop", service.address));
    lab.policy(
        "shop.cedar",
        &format!(
            "@id(\"all\") permit (principal == Workload::\"{ALICE}\", action, resource);
             @id(\"no-puts\") @advice(\"read only\") forbid (principal, action == Action::\"{ITEMS}#put\", resource);"
        ),
    );
    let _sidecar = lab.start_sidecar("shop", &config);
    let alice = lab.caller("alice");
    let client = alice.peers.client(&lab.record(&alice, "shop"));
    let outcome = CallOutcome::default();
    let item = lab.block_on(items::get(&client, outcome.clone(), "7")).unwrap().unwrap();
    assert_eq!((item.id.as_str(), item.price), ("7", 100));
    assert_eq!(outcome.refusal(), None);

    let outcome = CallOutcome::default();
    let error = lab.block_on(items::put(&client, outcome.clone(), &item)).unwrap_err();
    assert!(format!("{error:#}").contains("denied"), "{error:#}");
    assert_eq!(outcome.refusal(), Some(Refusal::Denied));
    let why = lab.block_on(outcome.explain()).unwrap();
    assert_eq!((why.policies[0].id.as_str(), why.policies[0].advice.as_deref()), ("no-puts", Some("read only")));

    service.behave(Behaviour::Answer(404, String::new()));
    let outcome = CallOutcome::default();
    lab.block_on(items::count(&client, outcome.clone())).unwrap_err();
    assert_eq!(outcome.refusal(), Some(Refusal::UpstreamProtocol));
    // The answers of a service in trouble are the service's own where its contract has room for them.
    service.behave(Behaviour::Answer(200, "5".to_owned()));
    assert_eq!(lab.block_on(items::count(&client, CallOutcome::default())).unwrap(), 5);
}

/// A stock wRPC server on a Unix socket: `double` doubles, `flow` sends every byte back, plus one.
#[derive(Clone)]
struct Pipes;

impl<C: Send> served::Handler<C> for Pipes {
    async fn flow(&self, _: C, mut data: ByteStream) -> anyhow::Result<ByteStream> {
        let (chunks, answer) = mpsc::channel(4);
        tokio::spawn(async move {
            while let Some(chunk) = data.next().await {
                let chunk: Vec<_> = chunk.iter().map(|byte| byte.wrapping_add(1)).collect();
                if chunks.send(Bytes::from(chunk)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Box::pin(ReceiverStream::new(answer)))
    }

    async fn double(&self, _: C, number: u32) -> anyhow::Result<u32> {
        anyhow::ensure!(number != 13, "unlucky");
        Ok(number * 2)
    }
}

/// Serves [`Pipes`] until the lab ends.
fn stock_server(lab: &Lab, socket: &Path) {
    let listener = lab.block_on(async { UnixListener::bind(socket).unwrap() });
    let stop = lab.stop().clone();
    lab.spawn(stop.run_until_cancelled_owned(async move {
        let server = Arc::new(wrpc_transport::Server::default());
        let functions = served::serve_interface(server.as_ref(), Pipes).await.unwrap();
        for (_, _, mut invocations) in functions {
            tokio::spawn(async move {
                while let Some(invocation) = invocations.next().await {
                    // A caller may send nonsense; that ends its call alone.
                    if let Ok(serving) = invocation {
                        tokio::spawn(serving);
                    }
                }
            });
        }
        loop {
            // Callers that name no function are refused here by closing.
            let _ = server.accept(&listener).await;
        }
    }));
}

struct Spliced {
    record: PeerRecord,
    alice: Caller,
    sidecar: Daemon,
    lab: Lab,
}

impl Spliced {
    fn before(more: &str, server: impl FnOnce(&Lab, &Path)) -> Self {
        let lab = Lab::start();
        lab.allow_all();
        let socket = lab.path().join("pipe.sock");
        server(&lab, &socket);
        let sidecar = lab.sidecar(&SidecarSetup::splice("pipe", &socket).wit(PIPE_WIT).with(more));
        let alice = lab.caller("alice");
        let record = lab.record(&alice, "pipe");
        Self { record, alice, sidecar, lab }
    }

    /// What comes out of `flow` for these bytes, and how its input and output ended.
    async fn flow(&self, outcome: CallOutcome, data: ByteStream) -> (Vec<u8>, anyhow::Result<()>) {
        let client = self.alice.peers.client(&self.record);
        let (mut answer, io) = match pipes::flow(&client, outcome, data).await {
            Ok(flowing) => flowing,
            Err(error) => return (Vec::new(), Err(error)),
        };
        let collecting = async {
            let mut bytes = Vec::new();
            while let Some(chunk) = answer.next().await {
                bytes.extend_from_slice(&chunk);
            }
            bytes
        };
        let finishing = async {
            match io {
                Some(io) => io.await,
                None => Ok(()),
            }
        };
        tokio::join!(collecting, finishing)
    }
}

fn chunks(count: usize) -> ByteStream {
    let chunk = |number: usize| Bytes::from(vec![u8::try_from(number % 251).unwrap(); CHUNK]);
    Box::pin(tokio_stream::iter((0..count).map(chunk)))
}

#[test]
fn values_and_streams_pass_a_splice_to_a_stock_server() {
    let spliced = Spliced::before("", stock_server);
    let lab = &spliced.lab;
    let client = spliced.alice.peers.client(&spliced.record);
    assert_eq!(lab.block_on(pipes::double(&client, CallOutcome::default(), 21)).unwrap(), 42);
    // Several megabytes in both directions at once: far more than any buffer in between holds.
    let (bytes, ended) = lab.block_on(spliced.flow(CallOutcome::default(), chunks(128)));
    ended.unwrap();
    assert!(are_answers(&bytes, 128));
    // An empty stream is a stream.
    let (bytes, ended) = lab.block_on(spliced.flow(CallOutcome::default(), chunks(0)));
    ended.unwrap();
    assert!(bytes.is_empty());
    // A server that fails says nothing and closes: not an answer.
    let outcome = CallOutcome::default();
    lab.block_on(pipes::double(&client, outcome.clone(), 13)).unwrap_err();
    assert_eq!(outcome.refusal(), Some(Refusal::UpstreamProtocol));
    assert_eq!(lab.block_on(pipes::double(&client, CallOutcome::default(), 4)).unwrap(), 8);
    assert!(!spliced.sidecar.log().contains("disconnected"));
}

#[test]
fn an_answer_flows_before_the_caller_has_said_everything() {
    let spliced = Spliced::before("", stock_server);
    let client = spliced.alice.peers.client(&spliced.record);
    spliced.lab.block_on(answered_early(&client, CallOutcome::default()));
}

/// A piece is said and heard back, and then another, before the caller ends.
async fn answered_early<C: wrpc_transport::Invoke>(client: &C, context: C::Context) {
    let (sender, data) = mpsc::channel(1);
    let data: ByteStream = Box::pin(ReceiverStream::new(data));
    sender.send(Bytes::from_static(b"a")).await.unwrap();
    let (mut answer, io) = pipes::flow(client, context, data).await.unwrap();
    let io = tokio::spawn(io.unwrap());
    assert_eq!(answer.next().await.unwrap(), "b");
    sender.send(Bytes::from_static(b"y")).await.unwrap();
    assert_eq!(answer.next().await.unwrap(), "z");
    drop(sender);
    assert_eq!(answer.next().await, None);
    io.await.unwrap().unwrap();
}

/// Whether these are that many of our chunks, each byte answered by the next one.
fn are_answers(bytes: &[u8], chunks: usize) -> bool {
    let right = |(at, byte): (usize, &u8)| usize::from(*byte) == (at / CHUNK) % 251 + 1;
    bytes.len() == chunks * CHUNK && bytes.iter().enumerate().all(right)
}

/// A host's client, whose component is `app`, of the pipe on a lattice that has no callout.
fn host_of_pipes(lab: &Lab, server: &NatsServer) -> wrpc_transport_nats::Client {
    lab.block_on(async {
        let nats = server.stock().await;
        wrpc_transport_nats::Client::new(nats, "demo.vc.pipe.host", None).await.unwrap()
    })
}

fn as_app() -> Option<async_nats::HeaderMap> {
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("source-id", "app");
    Some(headers)
}

#[test]
fn streams_cross_between_a_stock_host_and_a_stock_server() {
    let server = NatsServer::start();
    let nats = format!("streams = \"0.29\"\n[nats]\nservers = [\"{}\"]\ndanger_plain = true\n", server.url());
    let spliced = Spliced::before(&nats, stock_server);
    let lab = &spliced.lab;
    eventually("the sidecar to be on its lattice", || (lab.status("pipe")["nats"]["connected"] == true).then_some(()));
    let client = host_of_pipes(lab, &server);
    let flow = async |data: ByteStream| {
        let (answer, io) = pipes::flow(&client, as_app(), data).await.unwrap();
        let sending = async {
            if let Some(io) = io {
                io.await.unwrap();
            }
        };
        let (parts, ()) = tokio::join!(answer.collect::<Vec<_>>(), sending);
        parts.concat()
    };
    assert_eq!(lab.block_on(pipes::double(&client, as_app(), 21)).unwrap(), 42);
    assert!(are_answers(&lab.block_on(flow(chunks(32))), 32));
    assert!(lab.block_on(flow(chunks(0))).is_empty());
    lab.block_on(answered_early(&client, as_app()));
    // Whom the policy does not permit is refused at once, and a call under way ends when it does not any more.
    let (_sender, data) = mpsc::channel(1);
    let data: ByteStream = Box::pin(ReceiverStream::new(data));
    let (mut answer, io) = lab.block_on(pipes::flow(&client, as_app(), data)).unwrap();
    let io = lab.spawn(io.unwrap());
    lab.policy("app", "@id(\"not-app\") forbid(principal == HostedComponent::\"app\", action, resource);");
    assert_eq!(lab.block_on(answer.next()), None);
    io.abort();
    spliced.sidecar.logged(&["decision", "refused", "denied", "host:app", "not-app"]);
    let denied = lab.block_on(pipes::flow(&client, as_app(), chunks(1))).err().unwrap();
    assert!(format!("{denied:#}").contains("403"), "{denied:#}");
}

#[test]
fn a_service_that_takes_nothing_holds_a_call_for_no_longer_than_silence_may_last() {
    let server = NatsServer::start();
    let nats = format!(
        "streams = \"0.29\"\nidle_timeout = \"1s\"\n[nats]\nservers = [\"{}\"]\ndanger_plain = true\n",
        server.url()
    );
    // Nobody ever takes a connection from it, or reads.
    let mut held = None;
    let spliced =
        Spliced::before(&nats, |_, socket| held = Some(std::os::unix::net::UnixListener::bind(socket).unwrap()));
    let lab = &spliced.lab;
    eventually("the sidecar to be on its lattice", || (lab.status("pipe")["nats"]["connected"] == true).then_some(()));
    let client = host_of_pipes(lab, &server);
    let calling = lab.spawn(async move {
        let (_answer, io) = pipes::flow(&client, as_app(), chunks(64)).await?;
        if let Some(io) = io {
            io.await?;
        }
        anyhow::Ok(())
    });
    spliced.sidecar.logged(&["refused", "host:app", "deadline-exceeded", "takes nothing any more"]);
    eventually("no call to be left", || (lab.status("pipe")["calls_underway"] == 0).then_some(()));
    calling.abort();
}

#[test]
fn streams_that_a_host_could_misread_are_not_carried() {
    let server = NatsServer::start();
    for (streams, hint) in [("", "streams = \"0.29\""), ("streams = \"0.30\"", "build the service with wRPC 0.29")] {
        let nats = format!("{streams}\n[nats]\nservers = [\"{}\"]\ndanger_plain = true\n", server.url());
        let spliced = Spliced::before(&nats, stock_server);
        let lab = &spliced.lab;
        eventually("the sidecar to be on its lattice", || {
            (lab.status("pipe")["nats"]["connected"] == true).then_some(())
        });
        let client = host_of_pipes(lab, &server);
        let refused = lab.block_on(pipes::flow(&client, as_app(), chunks(1))).err().unwrap();
        assert!(format!("{refused:#}").contains("404"), "{refused:#}");
        assert_eq!(lab.block_on(pipes::double(&client, as_app(), 21)).unwrap(), 42);
        // Over QUIC caller and service are of one version.
        let (bytes, ended) = lab.block_on(spliced.flow(CallOutcome::default(), chunks(1)));
        ended.unwrap();
        assert_eq!(bytes.len(), CHUNK);
        // `check` says it before.
        let (wit, config) = (lab.path().join("wit"), lab.path().join("pipe.toml"));
        std::fs::create_dir(&wit).unwrap();
        std::fs::write(wit.join("pipe.wit"), PIPE_WIT).unwrap();
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text.replace("id = \"pipe\"", "id = \"pipe\"\nwit = \"wit\"")).unwrap();
        let checked = e2e::run("portcullis-sidecar", &["check", "--config", config.to_str().unwrap()]);
        assert!(checked.code != 0 && checked.err.contains(hint), "{checked:?}");
    }
}

/// Reads everything the caller has to say, then answers with these bytes and is gone.
fn reads_all_then_says(bytes: Vec<u8>) -> impl Fn(UnixStream) + Send + Sync + 'static {
    move |mut stream| {
        let mut params = Vec::new();
        let _ = stream.read_to_end(&mut params);
        let _ = stream.write_all(&bytes);
    }
}

#[test]
fn a_service_that_dies_inside_its_answer_does_not_look_like_one_that_ended() {
    let chunk = [wire::leb(1000), vec![7; 1000]].concat();
    let cut = [
        ("inside a frame's head", vec![1]),
        ("inside a chunk", wire::nested_frame(&[0], &chunk)[..500].to_vec()),
        ("another protocol", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
    ];
    for (case, last) in cut {
        let answer = [wire::frame(&[0]), wire::nested_frame(&[0], &chunk), last].concat();
        let upstream = std::cell::OnceCell::new();
        let spliced = Spliced::before("", |_, socket| {
            let started = ScriptedUpstream::start(socket, reads_all_then_says(answer));
            assert!(upstream.set(started).is_ok());
        });
        let outcome = CallOutcome::default();
        let (bytes, ended) = spliced.lab.block_on(spliced.flow(outcome.clone(), chunks(1)));
        assert!(bytes.is_empty() || bytes == vec![7; 1000], "{case}");
        let error = ended.expect_err(case);
        assert_eq!(outcome.refusal(), Some(Refusal::UpstreamProtocol), "{case}: {error:#}");
        spliced.sidecar.logged(&["decision", "refused", "upstream-protocol", "flow"]);
        // By hand, as a stock client sees it.
        let lab = &spliced.lab;
        let certificate = lab.forge().certificate(ALICE, Flaw::None);
        let ended = lab.block_on(async {
            let address = spliced.sidecar.address("quic");
            let connection = raw_connect(&lab.trust(), Some(certificate), address).await.unwrap();
            let call = [wire::header(PIPES, "flow"), wire::frame(&[0])].concat();
            let (mut send, mut recv) = begin(&connection, &call).await.unwrap();
            send.finish().unwrap();
            read_to_end(&mut recv).await
        });
        assert_eq!(ended, Ended::Reset(Refusal::UpstreamProtocol.code().into()), "{case}");
    }
}

#[test]
fn a_caller_that_gives_up_closes_the_services_connection() {
    let (sender, ended) = std::sync::mpsc::channel();
    let upstream = std::cell::OnceCell::new();
    let spliced = Spliced::before("", |_, socket| {
        let started = ScriptedUpstream::start(socket, move |mut stream| {
            let mut params = Vec::new();
            let _ = stream.write_all(&wire::frame(&[0]));
            let outcome = stream.read_to_end(&mut params);
            // Writing fails only once the other end has closed both directions.
            let written = eventually("the sidecar to close", || stream.write_all(&[1, 0, 2, 1, 7]).err());
            let _ = sender.send((outcome.is_ok(), written.kind()));
        });
        assert!(upstream.set(started).is_ok());
    });
    let lab = &spliced.lab;
    let certificate = lab.forge().certificate(ALICE, Flaw::None);
    lab.block_on(async {
        let address = spliced.sidecar.address("quic");
        let connection = raw_connect(&lab.trust(), Some(certificate), address).await.unwrap();
        let call = [wire::header(PIPES, "flow"), wire::frame(&[0])].concat();
        let (mut send, mut recv) = begin(&connection, &call).await.unwrap();
        let mut first = [0; 3];
        recv.read_exact(&mut first).await.unwrap();
        send.reset(0_u32.into()).unwrap();
        recv.stop(0_u32.into()).unwrap();
        // Kept, so that the stream alone ended.
        tokio::task::spawn_blocking(move || ended.recv_timeout(Duration::from_secs(20))).await.unwrap().unwrap();
    });
    eventually("the call to end", || (lab.status("pipe")["calls_underway"] == 0).then_some(()));
    assert!(!spliced.sidecar.log().contains("refused"));
}

#[test]
fn a_service_that_is_down_or_silent_is_told_apart() {
    let spliced = Spliced::before("[limits]\ncall_timeout = \"500ms\"\n", |_, _| {});
    let lab = &spliced.lab;
    let client = spliced.alice.peers.client(&spliced.record);
    let outcome = CallOutcome::default();
    lab.block_on(pipes::double(&client, outcome.clone(), 1)).unwrap_err();
    assert_eq!(outcome.refusal(), Some(Refusal::UpstreamUnavailable));
    let open = Mutex::new(Vec::new());
    let _silent =
        ScriptedUpstream::start(&lab.path().join("pipe.sock"), move |stream| open.lock().unwrap().push(stream));
    let outcome = CallOutcome::default();
    lab.block_on(pipes::double(&client, outcome.clone(), 1)).unwrap_err();
    assert_eq!(outcome.refusal(), Some(Refusal::DeadlineExceeded));
}

#[test]
fn bytes_pass_untouched_to_a_service_on_tcp() {
    let lab = Lab::start();
    lab.allow_all();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let setup = SidecarSetup {
        upstream: format!("[upstream.splice]\naddress = \"tcp:{address}\"\n"),
        ..SidecarSetup::splice("pipe", Path::new("unused")).wit(PIPE_WIT)
    };
    let sidecar = lab.sidecar(&setup);
    let call = [wire::header(PIPES, "double"), wire::frame(&[21])].concat();
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut params = Vec::new();
        stream.read_to_end(&mut params).unwrap();
        stream.write_all(&wire::frame(&[42])).unwrap();
        params
    });
    let certificate = lab.forge().certificate(ALICE, Flaw::None);
    let connection = lab.block_on(raw_connect(&lab.trust(), Some(certificate), sidecar.address("quic"))).unwrap();
    assert_eq!(lab.block_on(wire::raw_call(&connection, &call)), Ended::Answer(wire::frame(&[42])));
    assert_eq!(serving.join().unwrap(), call);
    // Nobody listens there any more.
    let ended = lab.block_on(wire::raw_call(&connection, &call));
    assert_eq!(ended, Ended::Reset(Refusal::UpstreamUnavailable.code().into()));
}
