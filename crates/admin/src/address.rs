use std::fmt;
use std::net::{AddrParseError, SocketAddr};
use std::path::{Path, PathBuf};

/// Where a daemon's pages are served. Never anything but this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    /// Socket of mode 0600.
    Unix(PathBuf),
    /// A loopback address.
    Loopback(SocketAddr),
}

/// Why a text is no such address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// Others could reach it, and it has no access control of its own.
    #[error(
        "`{0}` is not a loopback address: use 127.0.0.1:PORT or unix:PATH, for it has no access control of its own"
    )]
    NotLoopback(SocketAddr),
    /// It is nothing of the kind.
    #[error("`{text}` is neither unix:PATH nor ADDRESS:PORT: {cause}")]
    Unreadable {
        /// What was written.
        text: String,
        /// What is wrong with it as an address.
        cause: AddrParseError,
    },
}

impl AdminAddress {
    /// Reads `unix:PATH`, of which a relative path is one below `base`, or a loopback address with its port.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(text: &str, base: &Path) -> Result<Self, InvalidAddress> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(base.join(path)));
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => Ok(Self::Loopback(address)),
            Ok(address) => Err(InvalidAddress::NotLoopback(address)),
            Err(cause) => Err(InvalidAddress::Unreadable { text: text.to_owned(), cause }),
        }
    }
}

/// As it is written in a configuration.
impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Loopback(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_an_address() {
        let parse = |text| AdminAddress::parse(text, Path::new("/etc/portcullis"));
        assert_eq!(parse("unix:a.sock"), Ok(AdminAddress::Unix("/etc/portcullis/a.sock".into())));
        assert_eq!(parse("unix:/run/a.sock").unwrap().to_string(), "unix:/run/a.sock");
        for text in ["127.0.0.1:9440", "[::1]:9440"] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        for text in ["0.0.0.0:9440", "10.1.2.3:9440", "[::]:9440"] {
            assert!(matches!(parse(text), Err(InvalidAddress::NotLoopback(_))), "{text}");
        }
        for text in ["", "localhost:9440", "9440", "tcp:127.0.0.1:9440"] {
            assert!(matches!(parse(text), Err(InvalidAddress::Unreadable { .. })), "{text}");
        }
    }
}
