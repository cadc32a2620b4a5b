use std::{sync::Arc, time::Duration};

use quinn::{TransportConfig, VarInt};

/// What peers may cost us on QUIC. One value serves listeners and dialers; the fields say where only one of them
/// looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuicLimits {
    /// Listener: connections at a time, those in a handshake included. Further attempts are refused unread.
    pub connections: usize,
    /// Listener: connections at a time of one SPIFFE ID; the excess is closed with `too-many-connections`.
    pub connections_per_peer: usize,
    /// Listener: handshakes at a time. From half of it on, clients first prove that they own their address (Retry,
    /// RFC 9000 §8.1.2), and one address gets no more than half.
    pub handshakes: usize,
    /// Listener: handshakes per second that one address (IPv6: one /64) may begin; twice as many at once.
    pub handshakes_per_second: u32,
    /// A handshake that takes longer has failed.
    pub handshake_timeout: Duration,
    /// Listener: calls at a time on one connection; the client waits for a free one.
    pub streams: u32,
    /// A connection without any packet for this long is lost.
    pub idle_timeout: Duration,
    /// Dialer: sends something after this long without, so that a slow call or a pause does not end the connection.
    pub keep_alive: Duration,
    /// Unread bytes that one stream may hold.
    pub stream_window: u32,
    /// Unread bytes that all streams of one connection may hold.
    pub connection_window: u32,
    /// Unacknowledged bytes that we hold for one connection before writing waits.
    pub send_window: u64,
}

impl Default for QuicLimits {
    /// Room for 1024 connections and 128 handshakes; windows that fill 1 Gbit/s at 10 ms per stream and at 67 ms per
    /// connection, so that a hostile peer's unread bytes stay under 8 MiB per connection.
    fn default() -> Self {
        Self {
            connections: 1024,
            connections_per_peer: 128,
            handshakes: 128,
            handshakes_per_second: 100,
            handshake_timeout: Duration::from_secs(5),
            streams: 256,
            idle_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(10),
            stream_window: 1_250_000,
            connection_window: 8 << 20,
            send_window: 8 << 20,
        }
    }
}

impl QuicLimits {
    pub(super) fn listener_transport(&self) -> Arc<TransportConfig> {
        let mut transport = self.transport();
        transport.max_concurrent_bidi_streams(self.streams.into());
        Arc::new(transport)
    }

    pub(super) fn dialer_transport(&self) -> Arc<TransportConfig> {
        let mut transport = self.transport();
        // A callee never calls back on the caller's connection.
        transport.max_concurrent_bidi_streams(VarInt::from_u32(0));
        transport.keep_alive_interval(Some(self.keep_alive));
        Arc::new(transport)
    }

    /// What is not named here is quinn's default. Measured on loopback: larger datagrams are lost to segmentation
    /// offload; socket buffers of 2 MiB lose less but double the slowest of small calls beside large ones; the
    /// acknowledgement frequency extension gains nothing.
    fn transport(&self) -> TransportConfig {
        let mut transport = TransportConfig::default();
        let idle = u32::try_from(self.idle_timeout.as_millis()).unwrap_or(u32::MAX);
        transport
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .datagram_receive_buffer_size(None)
            .max_idle_timeout(Some(VarInt::from_u32(idle).into()))
            .stream_receive_window(self.stream_window.into())
            .receive_window(self.connection_window.into())
            .send_window(self.send_window);
        transport
    }
}
