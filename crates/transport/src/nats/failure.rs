use std::fmt;

use super::{inbox::NoRandomness, status::NatsRefusal};

/// Why a call ended before its answer was whole. The other calls of the connection go on, unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallFailed {
    /// Nobody serves the function (status 503 of the NATS server itself).
    #[error("nobody serves the function")]
    NoResponder,
    /// The callee refused the call, or gave it up with a reason.
    #[error("call refused: {0}")]
    Refused(NatsRefusal),
    /// The peer gave the call up, or is gone.
    #[error("peer gave the call up")]
    GivenUp,
    /// The peer, or the server, let us wait too long.
    #[error("no progress in time: {0}")]
    TimedOut(Step),
    /// The peer sends faster than this end reads.
    #[error("slow consumer: {0}")]
    SlowConsumer(Overflow),
    /// The peer sent something that wRPC does not know.
    #[error("malformed message: {0}")]
    Malformed(Malformed),
    /// What the peer sends is longer than the reader takes.
    #[error("value exceeds the limit of {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The server does not let this identity publish to the peer.
    #[error("the nats server does not permit to publish to `{subject}`")]
    NotPermitted {
        /// The subject that the server named.
        subject: String,
    },
    /// The connection to the server was lost, or is not there. What was sent may have been heard or not. Every call
    /// under way on the connection ends with this.
    #[error("connection to the nats server is lost")]
    Disconnected,
    /// This end has as many calls under way as it allows itself.
    #[error("more than {limit} calls under way")]
    TooManyCalls {
        /// The limit.
        limit: usize,
    },
    /// No random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// What was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The callee's handshake.
    Handshake,
    /// The rest of the call, in all.
    Whole,
    /// Any message, in silence.
    Silence,
    /// The server, to take what we send.
    Send,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Handshake => "no handshake",
            Self::Whole => "the call takes too long",
            Self::Silence => "nothing comes any more",
            Self::Send => "the server takes nothing",
        })
    }
}

/// Which limit ran over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// Bytes of one call that nobody has read.
    CallBytes {
        /// The limit in bytes.
        limit: usize,
    },
    /// Messages of one call that nobody has read.
    CallMessages {
        /// The limit.
        limit: usize,
    },
    /// Bytes of all calls that nobody has read.
    Bytes {
        /// The limit in bytes.
        limit: usize,
    },
    /// Messages of the whole connection: some are lost, and nobody knows whose. Every call under way ends with this.
    Connection,
}

impl fmt::Display for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CallBytes { limit } => write!(f, "more than {limit} bytes of the call are not read"),
            Self::CallMessages { limit } => write!(f, "more than {limit} messages of the call are not read"),
            Self::Bytes { limit } => write!(f, "more than {limit} bytes of all calls are not read"),
            Self::Connection => f.write_str("messages of the connection were lost"),
        }
    }
}

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A handshake without a subject to send parameters to.
    NoReply,
    /// Its subject is none of a call's.
    Subject,
    /// More streams and futures than allowed.
    Paths {
        /// The limit.
        limit: usize,
    },
    /// Bytes of a value that has ended.
    AfterEnd,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoReply => f.write_str("handshake without a reply subject"),
            Self::Subject => f.write_str("subject is none of a call's"),
            Self::Paths { limit } => write!(f, "more than {limit} streams and futures"),
            Self::AfterEnd => f.write_str("bytes of a value that has ended"),
        }
    }
}
