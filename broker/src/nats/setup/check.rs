//! Whether servers could use what they would be told.

use std::net::SocketAddr;

use super::SetUp;
use super::certificate::{self, Named, UnusableFile};

/// What no servers could use.
#[derive(Debug, thiserror::Error)]
pub enum InvalidSetUp {
    /// A certificate, or its key.
    #[error(transparent)]
    File(#[from] UnusableFile),
    /// Two of four addresses are one.
    #[error("{first} and {second} cannot both listen on `{address}`")]
    SameAddress {
        /// Whose it is.
        first: &'static str,
        /// Whose it would be, too.
        second: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// A port that a server would choose by itself.
    #[error("{0} cannot listen on port 0: nobody would know where")]
    NoPort(&'static str),
}

impl SetUp {
    /// Compares the addresses and reads the certificates, so that nothing is written that no server starts with. The authorities of nodes
    /// may still be missing: a broker writes them when it starts for the first time.
    ///
    /// # Errors
    /// [`InvalidSetUp`].
    pub fn check(&self) -> Result<Named, InvalidSetUp> {
        let mut taken: Vec<(&'static str, SocketAddr)> = Vec::new();
        for (second, address) in [
            ("hosts", self.hosts.clients),
            ("nodes", self.nodes.clients),
            ("the route to the server for hosts", self.hosts.route),
            ("the route to the server for nodes", self.nodes.route),
        ] {
            if address.port() == 0 {
                return Err(InvalidSetUp::NoPort(second));
            }
            if let Some(&(first, _)) = taken.iter().find(|(_, other)| *other == address) {
                return Err(InvalidSetUp::SameAddress { first, second, address });
            }
            taken.push((second, address));
        }
        if self.nodes_ca.try_exists().unwrap_or(true) {
            certificate::authorities(&self.nodes_ca)?;
        }
        Ok(self.certificate.read()?)
    }
}
