use quinn::{ConnectionError, TransportErrorCode};

use crate::refusal::CloseReason;

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionLost {
    /// The peer closed it and said why.
    #[error("peer closed the connection: {0}")]
    Closed(CloseReason),
    /// The peer closed it with a code that is not ours.
    #[error("peer closed the connection with code `{code:#x}`")]
    ClosedWith {
        /// The QUIC application error code.
        code: u64,
    },
    /// The peer ended the handshake: most often it did not accept our certificate. With TLS 1.3 a dialer sees this
    /// only after its own handshake has succeeded, when it first uses the connection.
    #[error("peer refused our handshake: {}", alert_words(*.alert))]
    RefusedUs {
        /// The TLS alert (RFC 8446 §6).
        alert: u8,
    },
    /// The peer takes no further connections now.
    #[error("peer takes no more connections for now")]
    Busy,
    /// Nothing came from the peer for the idle timeout.
    #[error("peer fell silent")]
    TimedOut,
    /// The peer no longer knows the connection: it has restarted.
    #[error("peer no longer knows the connection")]
    Reset,
    /// This end closed it.
    #[error("connection closed on this side")]
    ClosedHere,
    /// We ended the handshake: we did not accept the peer's certificate or what it offered.
    #[error("handshake failed: {reason}")]
    Handshake {
        /// The TLS alert that we sent (RFC 8446 §6).
        alert: u8,
        /// What the TLS stack says. It may hold text of the peer's.
        reason: String,
    },
    /// One of the ends broke the protocol.
    #[error("quic failed: {0}")]
    Protocol(String),
}

/// Sorts quinn's reasons by what the owner of the connection can do about them.
pub fn classify(error: &ConnectionError) -> ConnectionLost {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let code = close.error_code.into_inner();
            CloseReason::from_code(code).map_or(ConnectionLost::ClosedWith { code }, ConnectionLost::Closed)
        }
        ConnectionError::ConnectionClosed(close) if close.error_code == TransportErrorCode::CONNECTION_REFUSED => {
            ConnectionLost::Busy
        }
        ConnectionError::ConnectionClosed(close) => match alert(close.error_code) {
            Some(alert) => ConnectionLost::RefusedUs { alert },
            None => ConnectionLost::Protocol(close.to_string()),
        },
        ConnectionError::TransportError(error) => match alert(error.code) {
            Some(alert) => ConnectionLost::Handshake { alert, reason: error.reason.clone() },
            None => ConnectionLost::Protocol(error.to_string()),
        },
        ConnectionError::Reset => ConnectionLost::Reset,
        ConnectionError::TimedOut => ConnectionLost::TimedOut,
        ConnectionError::LocallyClosed => ConnectionLost::ClosedHere,
        ConnectionError::VersionMismatch | ConnectionError::CidsExhausted => {
            ConnectionLost::Protocol(error.to_string())
        }
    }
}

/// The TLS alert in a QUIC error code: codes 0x100 to 0x1ff (RFC 9001 §4.8).
fn alert(code: TransportErrorCode) -> Option<u8> {
    u64::from(code).checked_sub(0x100).and_then(|alert| u8::try_from(alert).ok())
}

/// What an alert means between our ends, with a hint where it is known.
pub(super) fn alert_words(alert: u8) -> String {
    let words = match alert {
        42..=44 | 46 => "certificate refused",
        45 => "certificate expired",
        48 => "certificate from an unknown authority",
        49 => "access denied",
        116 => "a client certificate is required",
        120 => "no common ALPN protocol: offer none",
        _ => return format!("TLS alert {alert}"),
    };
    format!("{words} (TLS alert {alert})")
}

#[cfg(test)]
mod tests {
    use quinn::{ApplicationClose, ConnectionClose, VarInt};

    use super::*;

    fn closed(code: TransportErrorCode) -> ConnectionError {
        ConnectionError::ConnectionClosed(ConnectionClose { error_code: code, frame_type: None, reason: "x".into() })
    }

    fn application_closed(code: u32) -> ConnectionError {
        let error_code = VarInt::from_u32(code);
        ConnectionError::ApplicationClosed(ApplicationClose { error_code, reason: "x".into() })
    }

    #[test]
    fn what_the_peer_said_is_told_apart() {
        let crypto = TransportErrorCode::crypto;
        for (error, lost) in [
            (application_closed(0x7101), ConnectionLost::Closed(CloseReason::TrustWithdrawn)),
            (application_closed(0), ConnectionLost::ClosedWith { code: 0 }),
            (closed(crypto(48)), ConnectionLost::RefusedUs { alert: 48 }),
            (closed(crypto(116)), ConnectionLost::RefusedUs { alert: 116 }),
            (closed(TransportErrorCode::CONNECTION_REFUSED), ConnectionLost::Busy),
            (ConnectionError::TimedOut, ConnectionLost::TimedOut),
            (ConnectionError::Reset, ConnectionLost::Reset),
            (ConnectionError::LocallyClosed, ConnectionLost::ClosedHere),
        ] {
            assert_eq!(classify(&error), lost);
        }
        assert!(matches!(classify(&closed(TransportErrorCode::PROTOCOL_VIOLATION)), ConnectionLost::Protocol(_)));
    }

    #[test]
    fn an_alert_is_told_in_words() {
        let text = ConnectionLost::RefusedUs { alert: 116 }.to_string();
        assert_eq!(text, "peer refused our handshake: a client certificate is required (TLS alert 116)");
    }
}
