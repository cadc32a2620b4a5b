//! Every limit has a refusal that its peer can see, and what is given back can be taken again.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use bytes::Bytes;
use portcullis_transport::{
    CloseReason,
    quic::{ConnectError, ConnectionLost, HandshakeRefused, QuicLimits},
};

use crate::{
    ca::{Ca, raw_connect},
    server::{Server, call, soon},
};

#[tokio::test]
async fn one_connection_too_many_is_refused_until_another_ends() {
    let ca = Ca::new("shop.example");
    let server = Server::start_limited(&ca, QuicLimits { connections: 2, ..QuicLimits::default() });
    let dialer = ca.dialer("/component/shop/cart");
    let first = dialer.connect(server.address, &server.id).await.unwrap();
    let accepted = server.connection().await;
    let _second = dialer.connect(server.address, &server.id).await.unwrap();
    let _accepted = server.connection().await;
    assert_eq!(server.listener.connections(), 2);
    let error = dialer.connect(server.address, &server.id).await.unwrap_err();
    assert!(matches!(error, ConnectError::Busy(_)), "{error}");
    assert_eq!(server.listener.attempts().refused, 1);
    first.close(CloseReason::Draining);
    soon(accepted.closed()).await;
    drop(accepted);
    dialer.connect(server.address, &server.id).await.unwrap();
}

#[tokio::test]
async fn one_peer_cannot_take_every_connection() {
    let ca = Ca::new("shop.example");
    let server = Server::start_limited(&ca, QuicLimits { connections_per_peer: 1, ..QuicLimits::default() });
    let greedy = ca.dialer("/component/shop/greedy");
    let _first = greedy.connect(server.address, &server.id).await.unwrap();
    let held = server.connection().await;
    let second = greedy.connect(server.address, &server.id).await.unwrap();
    assert_eq!(soon(second.closed()).await, ConnectionLost::Closed(CloseReason::TooManyConnections));
    let outcome = server.outcome().await;
    assert!(matches!(&outcome, Err(HandshakeRefused::TooManyConnections(id)) if id.path() == "/component/shop/greedy"));
    let _other = ca.dialer("/component/shop/modest").connect(server.address, &server.id).await.unwrap();
    server.connection().await;
    drop(held);
    let third = greedy.connect(server.address, &server.id).await.unwrap();
    server.serve_next().await;
    assert!(call(&third, "echo", Bytes::new()).await.is_ok());
}

#[tokio::test]
async fn calls_beyond_the_stream_limit_wait_for_one_that_ends() {
    let ca = Ca::new("shop.example");
    let server = Server::start_limited(&ca, QuicLimits { streams: 2, ..QuicLimits::default() });
    let client = ca.dialer("/component/shop/cart").connect(server.address, &server.id).await.unwrap();
    let accepted = server.connection().await;
    let mut calls = Vec::new();
    for _ in 0..2 {
        let (mut send, mut recv) = client.open().await.unwrap();
        send.write_all(b"x").await.unwrap();
        let (mut reply, request) = accepted.accept().await.unwrap();
        reply.write_all(b"y").await.unwrap();
        recv.read_exact(&mut [0]).await.unwrap();
        calls.push((send, recv, reply, request));
    }
    // Both calls have made a round trip, so a third credit would be here.
    let mut third = std::pin::pin!(client.open());
    tokio::select! {
        biased;
        opened = &mut third => panic!("{opened:?}"),
        () = std::future::ready(()) => {}
    }
    drop(calls.pop());
    third.await.unwrap();
}

#[tokio::test]
async fn there_are_no_datagrams_and_a_server_opens_no_streams() {
    let ca = Ca::new("shop.example");
    let server = Server::start(&ca);
    let client = ca.dialer("/component/shop/cart").connect(server.address, &server.id).await.unwrap();
    let accepted = server.serve_next().await;
    assert!(call(&client, "echo", Bytes::new()).await.is_ok());
    assert_eq!(client.quinn().max_datagram_size(), None);
    for connection in [&client, &accepted] {
        tokio::select! {
            biased;
            opened = connection.quinn().open_uni() => panic!("{opened:?}"),
            () = std::future::ready(()) => {}
        }
    }
    tokio::select! {
        biased;
        opened = accepted.open() => panic!("{opened:?}"),
        () = std::future::ready(()) => {}
    }
}

/// Passes on the first datagram that comes to it, and nothing else: a client that knocks and falls silent.
fn knock_once(server: SocketAddr) -> (SocketAddr, std::thread::JoinHandle<UdpSocket>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let mut datagram = [0; 2048];
        let (length, _) = socket.recv_from(&mut datagram).unwrap();
        socket.send_to(&datagram[..length], server).unwrap();
        socket
    });
    (address, thread)
}

#[tokio::test]
async fn a_client_that_falls_silent_in_its_handshake_gives_its_place_back() {
    let ca = Ca::new("shop.example");
    let limits = QuicLimits { connections: 2, handshake_timeout: Duration::from_millis(100), ..QuicLimits::default() };
    let server = Server::start_limited(&ca, limits);
    let (knocker, thread) = knock_once(server.address);
    let config = ca.leaf("/component/shop/cart").raw_client(ca.trust());
    tokio::select! {
        outcome = server.outcome() => assert!(matches!(outcome, Err(HandshakeRefused::Timeout(_))), "{outcome:?}"),
        connected = raw_connect(config, knocker) => panic!("{connected:?}"),
    }
    assert_eq!(server.listener.connections(), 0);
    thread.join().unwrap();
}

#[tokio::test]
async fn in_a_crowd_clients_prove_their_address_and_get_in() {
    let ca = Ca::new("shop.example");
    // The one handshake that may be under way is the crowd.
    let server = Server::start_limited(&ca, QuicLimits { handshakes: 1, ..QuicLimits::default() });
    let dialer = ca.dialer("/component/shop/cart");
    for admitted in 1..=3 {
        let client = dialer.connect(server.address, &server.id).await.unwrap();
        server.serve_next().await;
        assert!(call(&client, "echo", Bytes::new()).await.is_ok());
        let attempts = server.listener.attempts();
        assert_eq!((attempts.asked_for_proof, attempts.admitted, attempts.refused), (admitted, admitted, 0));
    }
}

#[tokio::test]
async fn an_address_that_comes_too_often_is_refused() {
    let ca = Ca::new("shop.example");
    let server = Server::start_limited(&ca, QuicLimits { handshakes_per_second: 1, ..QuicLimits::default() });
    let dialer = ca.dialer("/component/shop/cart");
    let mut refused = None;
    // Two enter as they are, two more with a proven address; each further second lets one in.
    for _ in 0..60 {
        match dialer.connect(server.address, &server.id).await {
            Ok(_) => {}
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    assert!(matches!(refused, Some(ConnectError::Busy(_))), "{refused:?}");
    assert!(server.listener.attempts().asked_for_proof >= 1);
}

#[tokio::test]
async fn a_draining_listener_keeps_its_connections_and_takes_no_more() {
    let ca = Ca::new("shop.example");
    let server = Server::start(&ca);
    let dialer = ca.dialer("/component/shop/cart");
    let client = dialer.connect(server.address, &server.id).await.unwrap();
    server.serve_next().await;
    server.listener.drain();
    let error = dialer.connect(server.address, &server.id).await.unwrap_err();
    assert!(matches!(error, ConnectError::Busy(_)), "{error}");
    assert!(call(&client, "echo", Bytes::new()).await.is_ok());
    server.listener.close(CloseReason::Draining);
    assert_eq!(soon(client.closed()).await, ConnectionLost::Closed(CloseReason::Draining));
    assert!(server.listener.accept().await.is_none());
    drop(client);
    server.listener.wait_idle().await;
}

#[tokio::test]
async fn a_closed_dialer_tells_its_peers_and_can_begin_anew() {
    let ca = Ca::new("shop.example");
    let server = Server::start(&ca);
    let dialer = ca.dialer("/component/shop/cart");
    let _client = dialer.connect(server.address, &server.id).await.unwrap();
    let accepted = server.connection().await;
    dialer.close(CloseReason::Draining);
    assert_eq!(soon(accepted.closed()).await, ConnectionLost::Closed(CloseReason::Draining));
    let error = dialer.connect(server.address, &server.id).await.unwrap_err();
    assert!(matches!(error, ConnectError::Failed { source: ConnectionLost::ClosedHere, .. }), "{error}");
    dialer.connect(server.address, &server.id).await.unwrap();
}
