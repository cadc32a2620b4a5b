use std::fmt;

/// Why a single call is refused or given up, as both ends of the wire know it.
///
/// The discriminant is the QUIC application error code of RESET_STREAM and STOP_SENDING. The numbers are a promise:
/// one is never given a second meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Refusal {
    /// Policy does not permit this peer to make this call, or the peer has no grant at all.
    Denied = 0x7001,
    /// The component does not serve this function.
    UnknownFunction = 0x7002,
    /// The wRPC header cannot be read or exceeds its limits.
    MalformedHeader = 0x7003,
    /// The parameters are not of the function's type.
    MalformedValue = 0x7004,
    /// A frame or the sum of all frames exceeds its limit.
    TooLarge = 0x7005,
    /// The peer has too many calls in flight or makes them too fast.
    TooMany = 0x7006,
    /// The header did not arrive in time.
    HeaderTimeout = 0x7007,
    /// The upstream cannot be reached.
    UpstreamUnavailable = 0x7008,
    /// The call took longer than its deadline.
    DeadlineExceeded = 0x7009,
    /// The upstream answered with something that is not an answer.
    UpstreamProtocol = 0x700a,
    /// The callee lacks what it needs to decide: policy, bundle or its own SVID.
    NotReady = 0x700b,
    /// The callee is shutting down.
    Draining = 0x700c,
    /// The caller, or somebody on its behalf, gave the call up.
    Cancelled = 0x700d,
    /// The callee failed through its own fault.
    Internal = 0x700e,
}

impl Refusal {
    /// Every refusal, in the order of its code.
    pub const ALL: [Self; 14] = [
        Self::Denied,
        Self::UnknownFunction,
        Self::MalformedHeader,
        Self::MalformedValue,
        Self::TooLarge,
        Self::TooMany,
        Self::HeaderTimeout,
        Self::UpstreamUnavailable,
        Self::DeadlineExceeded,
        Self::UpstreamProtocol,
        Self::NotReady,
        Self::Draining,
        Self::Cancelled,
        Self::Internal,
    ];

    /// The QUIC application error code.
    pub const fn code(self) -> u32 {
        self as u32
    }

    /// The refusal with this QUIC application error code; `None` for a code that is not ours.
    pub fn from_code(code: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| u64::from(refusal.code()) == code)
    }

    /// The name people and logs see, in kebab case; as stable as the code.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::UnknownFunction => "unknown-function",
            Self::MalformedHeader => "malformed-header",
            Self::MalformedValue => "malformed-value",
            Self::TooLarge => "too-large",
            Self::TooMany => "too-many",
            Self::HeaderTimeout => "header-timeout",
            Self::UpstreamUnavailable => "upstream-unavailable",
            Self::DeadlineExceeded => "deadline-exceeded",
            Self::UpstreamProtocol => "upstream-protocol",
            Self::NotReady => "not-ready",
            Self::Draining => "draining",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
        }
    }

    /// The status of the `NATS/1.0` header line that refuses a call on NATS, where numbers follow HTTP.
    pub const fn nats_status(self) -> u16 {
        match self {
            Self::Denied => 403,
            Self::UnknownFunction => 404,
            Self::MalformedHeader | Self::MalformedValue => 400,
            Self::TooLarge => 413,
            Self::TooMany => 429,
            Self::HeaderTimeout => 408,
            Self::UpstreamUnavailable | Self::NotReady | Self::Draining => 503,
            Self::DeadlineExceeded => 504,
            Self::UpstreamProtocol => 502,
            Self::Cancelled => 499,
            Self::Internal => 500,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a whole connection is closed: the QUIC application error code of CONNECTION_CLOSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum CloseReason {
    /// The peer's trust domain, authority or SVID is no longer trusted.
    TrustWithdrawn = 0x7101,
    /// The peer's certificate passed its notAfter: connect again with the renewed one.
    CertificateExpired = 0x7102,
    /// This end is shutting down.
    Draining = 0x7103,
    /// This peer holds too many connections.
    TooManyConnections = 0x7104,
    /// This end lacks what it needs to serve anybody.
    NotReady = 0x7105,
}

impl CloseReason {
    /// Every reason, in the order of its code.
    pub const ALL: [Self; 5] =
        [Self::TrustWithdrawn, Self::CertificateExpired, Self::Draining, Self::TooManyConnections, Self::NotReady];

    /// The QUIC application error code.
    pub const fn code(self) -> u32 {
        self as u32
    }

    /// The reason with this QUIC application error code; `None` for a code that is not ours.
    pub fn from_code(code: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| u64::from(reason.code()) == code)
    }

    /// The name people and logs see, in kebab case; it is also the close frame's reason phrase.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TrustWithdrawn => "trust-withdrawn",
            Self::CertificateExpired => "certificate-expired",
            Self::Draining => "draining",
            Self::TooManyConnections => "too-many-connections",
            Self::NotReady => "not-ready",
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The wire promise, written out a second time on purpose: this table must never change, only grow.
    const PROMISE: [(u32, &str, u16); 14] = [
        (0x7001, "denied", 403),
        (0x7002, "unknown-function", 404),
        (0x7003, "malformed-header", 400),
        (0x7004, "malformed-value", 400),
        (0x7005, "too-large", 413),
        (0x7006, "too-many", 429),
        (0x7007, "header-timeout", 408),
        (0x7008, "upstream-unavailable", 503),
        (0x7009, "deadline-exceeded", 504),
        (0x700a, "upstream-protocol", 502),
        (0x700b, "not-ready", 503),
        (0x700c, "draining", 503),
        (0x700d, "cancelled", 499),
        (0x700e, "internal", 500),
    ];

    #[test]
    fn refusal_codes_names_and_statuses_are_what_was_promised() {
        let ours = Refusal::ALL.map(|r| (r.code(), r.name(), r.nats_status()));
        assert_eq!(ours, PROMISE);
        for refusal in Refusal::ALL {
            assert_eq!(Refusal::from_code(refusal.code().into()), Some(refusal));
        }
    }

    #[test]
    fn close_codes_and_names_are_what_was_promised() {
        let ours = CloseReason::ALL.map(|r| (r.code(), r.name()));
        let promise = [
            (0x7101, "trust-withdrawn"),
            (0x7102, "certificate-expired"),
            (0x7103, "draining"),
            (0x7104, "too-many-connections"),
            (0x7105, "not-ready"),
        ];
        assert_eq!(ours, promise);
        for reason in CloseReason::ALL {
            assert_eq!(CloseReason::from_code(reason.code().into()), Some(reason));
        }
    }

    #[test]
    fn foreign_codes_are_not_ours() {
        for code in [0, 1, 0x7000, 0x700f, 0x7100, 0x7106, 0x7001 | 1 << 32] {
            assert_eq!(Refusal::from_code(code), None, "{code:#x}");
            assert_eq!(CloseReason::from_code(code), None, "{code:#x}");
        }
    }
}
