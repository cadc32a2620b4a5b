//! Refusals are seen for what they are, by our client and by any QUIC client, and harm nothing else.

use bytes::Bytes;
use portcullis_transport::{
    CloseReason, FrameLimits, LimitedReader, Refusal,
    quic::{ConnectionLost, StreamFailed, next_chunk, read_refusal, refuse, write_invocation, write_refusal},
};
use quinn::{ReadError, VarInt, WriteError};
use tokio::io::AsyncReadExt;

use crate::{
    ca::{Ca, raw_connect},
    server::{Server, call, header, soon},
};

#[tokio::test]
async fn every_refusal_reaches_our_client_and_the_connection_stays_usable() {
    let ca = Ca::new("shop.example");
    let server = Server::start(&ca);
    let client = ca.dialer("/component/shop/cart").connect(server.address, &server.id).await.unwrap();
    server.serve_next().await;
    for refusal in Refusal::ALL {
        let refused = call(&client, refusal.name(), Bytes::from_static(b"params")).await;
        assert_eq!(refused, Err(StreamFailed::Refused(refusal)));
        assert_eq!(call(&client, "echo", Bytes::from_static(b"still here")).await.unwrap(), "still here");
    }
}

#[tokio::test]
async fn a_plain_quic_client_sees_the_code() {
    let ca = Ca::new("shop.example");
    let server = Server::start(&ca);
    let config = ca.leaf("/component/shop/cart").raw_client(ca.trust());
    let client = raw_connect(config, server.address).await.unwrap();
    server.serve_next().await;
    let (mut send, mut recv) = client.open_bi().await.unwrap();
    send.write_all(b"\0\x05a:b/c\x06denied\0\0").await.unwrap();
    let error = recv.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error, ReadError::Reset(VarInt::from_u32(0x7001)));
    assert_eq!(read_refusal(&error), Some(Refusal::Denied));
    assert_eq!(send.stopped().await.unwrap(), Some(VarInt::from_u32(0x7001)));
    let error = send.write_all(b"more").await.unwrap_err();
    assert_eq!(error, WriteError::Stopped(VarInt::from_u32(0x7001)));
    assert_eq!(write_refusal(&error), Some(Refusal::Denied));
}

#[tokio::test]
async fn a_refusal_ends_a_large_upload_early() {
    let ca = Ca::new("shop.example");
    let server = Server::start(&ca);
    let client = ca.dialer("/component/shop/cart").connect(server.address, &server.id).await.unwrap();
    let accepted = server.connection().await;
    let (mut send, _recv) = client.open().await.unwrap();
    // Far more than the stream window holds: without a refusal this never ends.
    let params = Bytes::from(vec![7; 32 << 20]);
    let header = header("echo");
    let refused = async {
        let (mut send, mut recv) = accepted.accept().await.unwrap();
        next_chunk(&mut recv).await.unwrap();
        refuse(&mut send, &mut recv, Refusal::TooLarge);
    };
    let (written, ()) = soon(async { tokio::join!(write_invocation(&mut send, &header, params), refused) }).await;
    assert_eq!(written, Err(StreamFailed::Refused(Refusal::TooLarge)));
}

#[tokio::test]
async fn malformed_and_oversized_calls_are_refused_by_name() {
    let ca = Ca::new("shop.example");
    let server = Server::start(&ca);
    let config = ca.leaf("/component/shop/cart").raw_client(ca.trust());
    let client = raw_connect(config, server.address).await.unwrap();
    server.serve_next().await;
    for (bytes, refusal) in [
        // 25 bytes that announce 1 GiB.
        (&b"\0\x05a:b/c\x04echo\0\x80\x80\x80\x80\x04hello world"[..], Refusal::TooLarge),
        (b"\0\x05a:b/c\x04echo\x01\0\0", Refusal::MalformedValue),
        (b"\0\x05a:b/c\x04echo\0\x05hi", Refusal::MalformedValue),
    ] {
        let (mut send, mut recv) = client.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        send.finish().unwrap();
        let error = recv.read_to_end(100).await.unwrap_err();
        let quinn::ReadToEndError::Read(error) = error else { panic!("{error}") };
        assert_eq!(read_refusal(&error), Some(refusal), "{bytes:x?}");
    }
}

#[tokio::test]
async fn a_refusal_is_found_in_the_error_of_a_limited_reader() {
    let ca = Ca::new("shop.example");
    let server = Server::start(&ca);
    let client = ca.dialer("/component/shop/cart").connect(server.address, &server.id).await.unwrap();
    server.serve_next().await;
    let (mut send, recv) = client.open().await.unwrap();
    write_invocation(&mut send, &header("not-ready"), Bytes::new()).await.unwrap();
    let mut reader = LimitedReader::frames(recv, FrameLimits::default());
    let error = reader.read_u8().await.unwrap_err();
    assert_eq!(StreamFailed::find(&error), Some(StreamFailed::Refused(Refusal::NotReady)));
}

#[tokio::test]
async fn every_close_reason_reaches_the_client() {
    let ca = Ca::new("shop.example");
    let server = Server::start(&ca);
    let dialer = ca.dialer("/component/shop/cart");
    for reason in CloseReason::ALL {
        let client = dialer.connect(server.address, &server.id).await.unwrap();
        let (mut send, mut recv) = client.open().await.unwrap();
        write_invocation(&mut send, &header("echo"), Bytes::new()).await.unwrap();
        server.connection().await.close(reason);
        let lost = ConnectionLost::Closed(reason);
        assert_eq!(next_chunk(&mut recv).await, Err(StreamFailed::Lost(lost.clone())));
        assert_eq!(soon(client.closed()).await, lost);
        assert_eq!(client.lost(), Some(lost.clone()));
        assert_eq!(client.open().await.unwrap_err(), lost);
    }
}

#[tokio::test]
async fn a_dropped_stream_is_no_refusal() {
    let ca = Ca::new("shop.example");
    let server = Server::start(&ca);
    let client = ca.dialer("/component/shop/cart").connect(server.address, &server.id).await.unwrap();
    let accepted = server.connection().await;
    let (mut send, mut recv) = client.open().await.unwrap();
    write_invocation(&mut send, &header("echo"), Bytes::new()).await.unwrap();
    drop(accepted.accept().await.unwrap());
    assert_eq!(next_chunk(&mut recv).await, Ok(None));
    let (mut send, mut recv) = client.open().await.unwrap();
    write_invocation(&mut send, &header("echo"), Bytes::new()).await.unwrap();
    let (mut theirs, _recv) = accepted.accept().await.unwrap();
    theirs.reset(VarInt::from_u32(77)).unwrap();
    assert_eq!(next_chunk(&mut recv).await, Err(StreamFailed::GivenUp { code: 77 }));
}
