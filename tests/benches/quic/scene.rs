//! Everything that takes part: set once, used by every variant, struck in order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use e2e::{Caller, Daemon, Lab, SidecarSetup};
use portcullis_identity::{ClientAuth, PeerRule, PeerVerifier, SpiffeId, server_config};
use portcullis_transport::quic::{Connection, Dialer, QuicLimits};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, ServerConfig};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::leg::{Leg, Service};
use crate::options::Options;
use crate::sidecar::Inside;
use crate::{naive, service, stock};

/// One way of the call, as the table names it.
pub struct Variant {
    pub letter: char,
    pub name: &'static str,
    pub leg: Leg,
}

/// The parties.
pub struct Scene {
    pub runtime: Runtime,
    pub variants: Vec<Variant>,
    /// Sidecars as processes, for their memory.
    pub processes: Vec<(&'static str, Daemon)>,
    inside: Vec<Inside>,
    /// Held open: dropping one closes its connection.
    connections: Vec<Connection>,
    _dialer: Dialer,
    _callers: [Caller; 2],
    _lab: Lab,
}

impl Scene {
    pub fn set(options: &Options) -> anyhow::Result<Self> {
        log();
        let lab = Lab::start();
        lab.allow_all();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let callers = [lab.caller("caller"), lab.caller("stock")];
        let [caller, stock_caller] = &callers;
        let stage = Stage::open(&runtime, &lab, stock_caller)?;
        let splice = lab.register(&SidecarSetup::splice("splice", &stage.socket));
        let http = lab.register(&setup("http", stage.http));
        let inside = vec![Inside::start(&runtime, &splice)?, Inside::start(&runtime, &http)?];
        let processes = vec![
            ("splice", lab.sidecar(&SidecarSetup::splice("process", &stage.socket))),
            ("http", lab.sidecar(&setup("http-process", stage.http))),
        ];
        let dialer = Dialer::new(caller.identity.trust(), Arc::clone(caller.identity.slot()), QuicLimits::default());
        let mut connections = Vec::new();
        let mut dial = |address: SocketAddr, id: &SpiffeId| {
            let connection = runtime.block_on(dialer.connect(address, id)).expect("the peer answers");
            let client = wrpc_transport_quic::Client::from(connection.quinn().clone());
            connections.push(connection);
            Leg::Quic(client)
        };
        let virtual_id = |id: &str| lab.record(caller, id).spiffe_id;
        let process = processes[0].1.ready["quic"].as_str().unwrap().parse()?;
        let mut variants = vec![
            variant('a', "direct QUIC", dial(stage.quic, &stock_caller.identity.id())),
            variant('u', "direct Unix socket", Leg::Unix(stage.socket.clone().into())),
            variant('n', "naive proxy", dial(stage.naive, &stock_caller.identity.id())),
            variant('b', "sidecar, splice", dial(inside[0].bound.quic, &virtual_id("splice"))),
            variant('c', "sidecar, HTTP", dial(inside[1].bound.quic, &virtual_id("http"))),
            variant('d', "direct HTTP", Leg::Http(Arc::new(Service::new(format!("http://{}", stage.http))))),
            variant('p', "sidecar process, splice", dial(process, &virtual_id("process"))),
        ];
        variants.retain(|variant| options.wants(variant.letter));
        Ok(Self { runtime, variants, processes, inside, connections, _dialer: dialer, _callers: callers, _lab: lab })
    }

    /// Ends the sidecars in order, so that a drain that hangs is noticed.
    pub fn strike(&mut self) {
        self.variants.clear();
        self.connections.clear();
        for inside in self.inside.drain(..) {
            inside.stop(&self.runtime);
        }
        self.processes.clear();
    }
}

fn variant(letter: char, name: &'static str, leg: Leg) -> Variant {
    Variant { letter, name, leg }
}

/// A typed sidecar whose deadline a busy machine does not reach.
fn setup(id: &str, service: SocketAddr) -> SidecarSetup {
    SidecarSetup {
        upstream: format!("[upstream.http]\nurl = \"http://{service}\"\ncaller_header = \"x-caller\"\n"),
        ..SidecarSetup::http(id, service)
    }
}

/// The servers that are not ours.
struct Stage {
    socket: PathBuf,
    http: SocketAddr,
    quic: SocketAddr,
    naive: SocketAddr,
}

impl Stage {
    fn open(runtime: &Runtime, lab: &Lab, identity: &Caller) -> anyhow::Result<Self> {
        let _within = runtime.enter();
        let socket = lab.path().join("echo.sock");
        runtime.spawn(stock::unix(stock::bind(&socket)));
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let http = listener.local_addr()?;
        runtime.spawn(service::serve(listener));
        let (quic, naive) = (endpoint(identity)?, endpoint(identity)?);
        let stage = Self { http, quic: quic.local_addr()?, naive: naive.local_addr()?, socket: socket.clone() };
        runtime.spawn(stock::quic(quic));
        runtime.spawn(naive::serve(naive, socket));
        Ok(stage)
    }
}

/// A QUIC server as quinn makes it, with mutual TLS and our verifier.
fn endpoint(identity: &Caller) -> anyhow::Result<Endpoint> {
    let verifier = PeerVerifier::new(identity.identity.trust(), PeerRule::AnyTrusted);
    let tls = server_config(verifier, Arc::clone(identity.identity.slot()), ClientAuth::Required)?;
    let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    Ok(Endpoint::server(config, ([127, 0, 0, 1], 0).into())?)
}

/// Logs as the sidecar's `main` sets them up, but to nowhere: lines below `info` cost what they cost in production. Stock code is not charged for
/// the warnings it writes about every stream whose reader has read enough.
fn log() {
    tracing_subscriber::fmt()
        .with_env_filter("info,wrpc_transport=off,wrpc_transport_quic=off")
        .with_writer(std::io::sink)
        .init();
}
