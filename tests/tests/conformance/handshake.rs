//! A TLS handshake in memory, whoever wrote the two ends.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

/// Which end did not go on, and why.
#[derive(Debug)]
#[expect(dead_code, reason = "the reasons are for whoever reads that a test failed")]
pub(crate) enum Refused {
    ByClient(rustls::Error),
    ByServer(rustls::Error),
}

/// Carries bytes to and fro until neither end has anything to say.
pub(crate) fn handshake(client: ClientConfig, server: ServerConfig) -> Result<(), Refused> {
    let name = ServerName::try_from("peer.test.example").unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    while client.wants_write() || server.wants_write() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets().map_err(Refused::ByServer)?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().map_err(Refused::ByClient)?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    assert!(client.peer_certificates().is_some() && server.peer_certificates().is_some());
    Ok(())
}
