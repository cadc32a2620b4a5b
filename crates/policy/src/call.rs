//! What a decision knows of one call: the Cedar context.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// The circumstances of one call.
#[derive(Debug, Clone, Copy)]
pub struct CallContext<'a> {
    /// How the call came in.
    pub transport: Transport,
    /// The link under which a hosted component calls, where its host says so.
    pub link_name: Option<&'a str>,
    /// The decoded parameters under their WIT names. Needed only where [`Engine::reads_params`](crate::Engine::reads_params)
    /// says so; `None` means that they were not decoded.
    pub params: Option<&'a [(&'a str, ParamValue<'a>)]>,
}

impl CallContext<'_> {
    /// A call over `transport` of which nothing else is known.
    #[must_use]
    pub fn over(transport: Transport) -> Self {
        Self { transport, link_name: None, params: None }
    }
}

/// How a call came in: `context.transport`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// wRPC over QUIC with mutual TLS.
    Quic,
    /// wRPC over NATS.
    Nats,
}

impl Transport {
    pub(crate) const ALL: [Self; 2] = [Self::Quic, Self::Nats];

    /// The name that policies use: `quic` or `nats`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Nats => "nats",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Transport {
    type Err = InvalidTransport;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|transport| transport.name() == name)
            .ok_or_else(|| InvalidTransport(name.to_owned()))
    }
}

/// A transport that policies do not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a transport: say `quic` or `nats`")]
pub struct InvalidTransport(String);

/// The value of a parameter, as far as a policy can read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParamValue<'a> {
    /// A `bool`.
    Bool(bool),
    /// A signed integer.
    Signed(i64),
    /// An unsigned integer. Above `i64::MAX` no policy can read it, and the call is denied.
    Unsigned(u64),
    /// A `string`, a `char`, or the name of an `enum` case.
    String(Cow<'a, str>),
    /// An `option` without a value.
    Absent,
    /// A value of a type that policies do not read.
    Unreadable,
}
