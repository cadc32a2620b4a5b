use std::time::Duration;

/// What one connection to a NATS server holds for its peers, and how long it waits for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatsLimits {
    /// Calls under way at a time, made and served together.
    pub calls: usize,
    /// Bytes that have arrived for one call and were not read yet. NATS holds no sender back, so a faster sender ends its
    /// own call here.
    pub call_bytes: usize,
    /// Messages that have arrived for one call and were not read yet.
    pub call_messages: usize,
    /// Streams and futures of one call.
    pub paths: usize,
    /// Bytes that have arrived for all calls and were not read yet.
    pub bytes: usize,
    /// The longest piece that is sent in one message, in bytes; the server's `max_payload` where that is less. Long
    /// messages hold up those of other calls.
    pub chunk: usize,
    /// Bytes of the headers of one request.
    pub header_bytes: usize,
    /// Headers of one request.
    pub headers: usize,
    /// How long handing one message to the connection may take, when the server does not take what we send.
    pub send_timeout: Duration,
    /// How long connecting may take, TLS and login included.
    pub connect_timeout: Duration,
    /// How often the server is asked whether it is there. After the third question without an answer the connection
    /// is given up.
    pub ping_interval: Duration,
    /// The longest pause between two attempts to connect again.
    pub reconnect_pause: Duration,
}

impl Default for NatsLimits {
    /// 4096 calls, 8 MiB and 4096 messages each and 256 MiB together, 64 paths, pieces of 128 KiB, 16 KiB in 64 headers,
    /// 5 s to send and to connect, pings every 10 s, pauses of at most 500 ms.
    fn default() -> Self {
        Self {
            calls: 4096,
            call_bytes: 8 << 20,
            call_messages: 4096,
            paths: 64,
            bytes: 256 << 20,
            chunk: 128 << 10,
            header_bytes: 16 << 10,
            headers: 64,
            send_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            ping_interval: Duration::from_secs(10),
            reconnect_pause: Duration::from_millis(500),
        }
    }
}

/// How long to wait for the other end of one call. Watched in steps of 50 ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// From the request to the callee's handshake. A callee does not wait for one.
    pub handshake: Duration,
    /// What holds from there on.
    pub then: Patience,
}

/// How long a call may last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// In all, from its first message.
    InAll(Duration),
    /// As long as it likes, while nothing comes and nothing is sent for less than this.
    InSilence(Duration),
}

impl Default for Deadlines {
    /// 5 s for the handshake, 30 s in all.
    fn default() -> Self {
        Self { handshake: Duration::from_secs(5), then: Patience::InAll(Duration::from_secs(30)) }
    }
}
