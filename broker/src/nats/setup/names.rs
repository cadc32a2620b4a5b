//! What the servers are called: by their clients, and by each other where they prove themselves to each other by certificate.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rustls::pki_types::ServerName;

use super::{HostsTls, SetUp};

/// Names of the servers, where they have any. Without one a server is called by its address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Of the server for hosts.
    pub hosts: Option<ServerName<'static>>,
    /// Of the server for nodes.
    pub nodes: Option<ServerName<'static>>,
}

/// Where a server is reached: `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    name: ServerName<'static>,
    port: u16,
}

/// Reads a DNS name or an address.
///
/// # Errors
/// What it is not.
pub fn parse_server_name(text: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(text.to_owned()).map_err(|_| format!("`{text}` is neither a DNS name nor an address"))
}

impl HostPort {
    /// Where a server that listens on `address` is reached. Nobody connects to "every address of the machine": without a name that is the
    /// machine itself.
    #[must_use]
    pub fn of(name: Option<&ServerName<'static>>, address: SocketAddr) -> Self {
        let loopback = || ServerName::from(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let own = || match address.ip() {
            every if every.is_unspecified() => ServerName::try_from("localhost").unwrap_or_else(|_| loopback()),
            ip => ServerName::from(ip),
        };
        Self { name: name.cloned().unwrap_or_else(own), port: address.port() }
    }

    /// What its certificate has to name.
    #[must_use]
    pub fn name(&self) -> &ServerName<'static> {
        &self.name
    }

    /// The host as URLs have it.
    #[must_use]
    pub fn host(&self) -> String {
        let name = self.name.to_str();
        if name.contains(':') { format!("[{name}]") } else { name.into_owned() }
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether it is an address of this machine alone.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.name.to_str().parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host(), self.port)
    }
}

impl SetUp {
    /// The names that somebody looks for in the servers' certificate: hosts and brokers those of the one server, the servers each other's. A
    /// sidecar looks for its SPIFFE ID instead.
    #[must_use]
    pub fn looked_for(&self, names: &Names) -> Vec<HostPort> {
        let mut all = Vec::new();
        match self.hosts_tls {
            HostsTls::Required => all.push(HostPort::of(names.hosts.as_ref(), self.hosts.clients)),
            HostsTls::DangerPlain => {}
        }
        if self.routes_by_certificate() {
            all.push(HostPort::of(names.hosts.as_ref(), self.hosts.route));
            all.push(HostPort::of(names.nodes.as_ref(), self.nodes.route));
        }
        all
    }

    /// Between machines the servers prove themselves to each other.
    pub(super) fn routes_by_certificate(&self) -> bool {
        ![self.hosts, self.nodes].iter().all(|listener| listener.route.ip().is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_called_by_its_name_or_where_it_is() {
        let place = |name: Option<&str>, address: &str| {
            let name = name.map(|name| parse_server_name(name).unwrap());
            HostPort::of(name.as_ref(), address.parse().unwrap()).to_string()
        };
        assert_eq!(place(Some("nats.acme.test"), "0.0.0.0:4222"), "nats.acme.test:4222");
        assert_eq!(place(None, "10.0.0.1:4222"), "10.0.0.1:4222");
        assert_eq!(place(None, "0.0.0.0:4222"), "localhost:4222");
        assert_eq!(place(None, "[::]:4222"), "localhost:4222");
        assert_eq!(place(Some("::1"), "[::]:4222"), "[::1]:4222");
        for bad in ["", "nats:4222", "tls://nats", "a b", "a\"b"] {
            parse_server_name(bad).unwrap_err();
        }
    }
}
