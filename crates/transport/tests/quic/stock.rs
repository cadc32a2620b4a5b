//! Against upstream's own wRPC 0.29: it can call a server that reads with our parsers, our client can call its
//! server, and its decoder survives a hostile peer behind our reader.

use bytes::Bytes;
use portcullis_transport::{
    FrameLimits, HeaderLimits, LimitedReader, RootFrames,
    quic::{RecvStream, SendStream, next_chunk, write_invocation},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_stream::StreamExt;
use wrpc_transport::{
    InvokeExt, Serve,
    frame::{ConnHandler, InvokeBuilder, Oneshot},
};

use crate::{
    ca::{Ca, raw_connect},
    server::{Server, header, soon},
};

const NO_PATHS: [[Option<usize>; 0]; 0] = [];

#[tokio::test]
async fn a_stock_client_can_call_a_server_that_reads_with_our_parsers() {
    let ca = Ca::new("shop.example");
    let server = Server::start(&ca);
    let config = ca.leaf("/component/shop/cart").raw_client(ca.trust());
    let connection = raw_connect(config, server.address).await.unwrap();
    server.serve_next().await;
    let client = wrpc_transport_quic::Client::from(connection);
    for length in [0, 1, 1000, 1 << 20] {
        let params = (Bytes::from(vec![42; length]), u32::try_from(length).unwrap());
        let result: (Bytes, u32) = client
            .invoke_values_blocking((), "acme:shop/orders@1.0.0", "echo", params.clone(), NO_PATHS)
            .await
            .unwrap();
        assert_eq!(result, params);
    }
}

#[tokio::test]
async fn a_refused_stock_client_fails_at_once_and_can_go_on() {
    let ca = Ca::new("shop.example");
    let server = Server::start(&ca);
    let config = ca.leaf("/component/shop/cart").raw_client(ca.trust());
    let connection = raw_connect(config, server.address).await.unwrap();
    server.serve_next().await;
    let client = wrpc_transport_quic::Client::from(connection);
    for (function, refused) in [("denied", true), ("echo", false)] {
        let result: anyhow::Result<(u32,)> =
            client.invoke_values_blocking((), "acme:shop/orders@1.0.0", function, (7_u32,), NO_PATHS).await;
        assert_eq!(result.is_err(), refused, "{result:?}");
    }
}

/// A stock server for one call of `echo`; what it reads comes through our reader.
struct StockServer {
    wrpc: wrpc_transport::Server<(), LimitedReader<RecvStream>, SendStream, Quiet>,
}

/// Upstream's handler logs at error level; a hostile peer is no news here.
struct Quiet;

impl<R: Send> ConnHandler<R, SendStream> for Quiet {
    async fn on_ingress(_: R, _: std::io::Result<()>) {}

    async fn on_egress(send: SendStream, _: std::io::Result<()>) {
        let _ = send.stopped().await;
    }
}

impl StockServer {
    fn new() -> Self {
        Self { wrpc: wrpc_transport::Server::new() }
    }

    /// Reads four bytes of one call's parameters; the error text where they do not come.
    async fn one_call(&self, send: SendStream, recv: RecvStream) -> Result<[u8; 4], String> {
        let mut calls = std::pin::pin!(self.wrpc.serve("acme:shop/orders@1.0.0", "echo", Vec::new()).await.unwrap());
        let recv = LimitedReader::invocation(recv, HeaderLimits::default(), FrameLimits::default());
        self.wrpc.accept(Oneshot::from((recv, send))).await.map_err(|error| error.to_string())?;
        let ((), mut outgoing, mut incoming) = calls.next().await.unwrap().unwrap();
        let mut params = [0; 4];
        incoming.read_exact(&mut params).await.map_err(|error| error.to_string())?;
        outgoing.write_all(&params).await.unwrap();
        Ok(params)
    }
}

#[tokio::test]
async fn our_client_can_call_a_stock_server() {
    let ca = Ca::new("shop.example");
    let server = Server::start(&ca);
    let client = ca.dialer("/component/shop/cart").connect(server.address, &server.id).await.unwrap();
    let accepted = server.connection().await;
    let stock = StockServer::new();
    let serve = async {
        let (send, recv) = accepted.accept().await.unwrap();
        stock.one_call(send, recv).await
    };
    let call = async {
        let (mut send, mut recv) = client.open().await.unwrap();
        write_invocation(&mut send, &header("echo"), Bytes::from_static(b"four")).await.unwrap();
        let mut frames = RootFrames::default();
        while let Some(chunk) = next_chunk(&mut recv).await.unwrap() {
            frames.push(chunk).unwrap();
        }
        frames.finish().unwrap()
    };
    let (served, answer) = tokio::join!(serve, call);
    assert_eq!(served.unwrap(), *b"four");
    assert_eq!(answer, "four");
}

/// 25 bytes of which the last frame announces 1 GiB: what upstream's decoder would allocate and fill with zeros.
const PROBE: &[u8] = b"\0\x80\x80\x80\x80\x04nineteen more bytes";

/// The most memory this process ever had, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_stock_server_behind_our_reader_survives_the_probe() {
    let ca = Ca::new("shop.example");
    let server = Server::start(&ca);
    let client = ca.dialer("/component/shop/cart").connect(server.address, &server.id).await.unwrap();
    let accepted = server.connection().await;
    let (mut send, _recv) = client.open().await.unwrap();
    send.write_all(&[b"\0\x16acme:shop/orders@1.0.0\x04echo", PROBE].concat()).await.unwrap();
    let (their_send, their_recv) = accepted.accept().await.unwrap();
    let served = soon(StockServer::new().one_call(their_send, their_recv)).await;
    assert!(served.is_err(), "{served:?}");
    assert!(peak_kib() < 512 * 1024, "{} KiB", peak_kib());
}

#[tokio::test]
async fn a_stock_client_behind_our_reader_survives_the_probe() {
    let ca = Ca::new("shop.example");
    let server = Server::start(&ca);
    let client = ca.dialer("/component/shop/cart").connect(server.address, &server.id).await.unwrap();
    let accepted = server.connection().await;
    let (send, recv) = client.open().await.unwrap();
    let recv = LimitedReader::frames(recv, FrameLimits::default());
    let (_outgoing, mut incoming) = InvokeBuilder::<Quiet>::default()
        .invoke(send, recv, "acme:shop/orders@1.0.0", "echo", Bytes::new(), NO_PATHS)
        .await
        .unwrap();
    let (mut hostile, _recv) = accepted.accept().await.unwrap();
    hostile.write_all(PROBE).await.unwrap();
    assert_eq!(soon(incoming.read(&mut [0; 8])).await.unwrap(), 0);
    assert!(peak_kib() < 512 * 1024, "{} KiB", peak_kib());
}
