//! The broker's connections to the servers, for people who ask how they are.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_nats::Client;
use async_nats::connection::State;

use super::connect::ConnectError;

/// Each connection by its name.
#[derive(Debug, Default)]
pub(super) struct Ways(Mutex<BTreeMap<&'static str, Result<Client, String>>>);

/// How one connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) name: &'static str,
    /// Why there is none.
    pub(crate) problem: Option<String>,
}

impl Ways {
    pub(super) fn connected(&self, name: &'static str, client: Client) {
        self.lock().insert(name, Ok(client));
    }

    /// It is not needed for now.
    pub(super) fn left(&self, name: &'static str) {
        self.lock().remove(name);
    }

    /// Notes and logs that there is no connection.
    pub(super) fn failed(&self, name: &'static str, error: &ConnectError) {
        match error {
            ConnectError::Unreachable(_) => {
                tracing::warn!(connection = name, %error, "no connection to the lattice: nobody joins it");
            }
            ConnectError::Refused(_)
            | ConnectError::TooOld { .. }
            | ConnectError::Credentials
            | ConnectError::Tls(_) => {
                tracing::error!(connection = name, %error, "no connection to the lattice: nobody joins it");
            }
        }
        self.lock().insert(name, Err(error.to_string()));
    }

    pub(super) fn all(&self) -> Vec<Way> {
        let way = |(name, way): (&&'static str, &Result<Client, String>)| {
            let problem = match way {
                Ok(client) if client.connection_state() == State::Connected => None,
                Ok(_) => Some("the connection was lost".to_owned()),
                Err(problem) => Some(problem.clone()),
            };
            Way { name, problem }
        };
        self.lock().iter().map(way).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Result<Client, String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
