//! Which nodes hold a stream now. Ground state is the registry; this is gone with the process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use portcullis_identity::{NodeName, Peer};
use tokio_util::sync::CancellationToken;

use crate::registry::Version;

/// Streams of one node at one time: one, and those whose end nobody has noticed yet.
const MAX_STREAMS: usize = 8;

/// What kind of process a node is, by its own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeKind {
    /// Stands beside a legacy service.
    Sidecar,
    /// Runs components.
    Host,
    /// A person's command line.
    Shell,
}

impl NodeKind {
    /// The kind as people read it.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Host => "host",
            Self::Shell => "shell",
        }
    }
}

/// A node's open stream.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    /// Whose it is.
    pub node: NodeName,
    /// From where.
    pub address: SocketAddr,
    /// By its own word.
    pub kind: NodeKind,
    /// By its own word.
    pub software: String,
    /// The version in force on the node, by its own word.
    pub applied: Option<Version>,
    /// Since when.
    pub since: SystemTime,
    /// When the certificate ends, and the connection with it.
    pub not_after: SystemTime,
    /// The certificate it presented.
    pub peer: Option<Arc<Peer>>,
    /// Ends the connection.
    pub kill: CancellationToken,
}

/// What a node without a stream was like when its last one ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Departed {
    /// The newest version in force on it, by its own word.
    pub applied: Option<Version>,
    /// The certificate it presented.
    pub peer: Option<Arc<Peer>>,
}

/// The open streams. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Presence(Arc<Mutex<Present>>);

#[derive(Debug, Default)]
struct Present {
    next: u64,
    connections: BTreeMap<u64, Connection>,
    /// One per name, and names have to join.
    departed: BTreeMap<NodeName, Departed>,
}

/// A stream's place in the list; leaving the scope leaves the list.
#[derive(Debug)]
pub(crate) struct Attendance {
    presence: Presence,
    number: u64,
}

impl Presence {
    /// Lists `connection` until the attendance is dropped. A node that has too many loses the oldest.
    #[must_use]
    pub(crate) fn attend(&self, connection: Connection) -> Attendance {
        let number = self.with(|present| {
            let number = present.next;
            present.next = number.wrapping_add(1);
            let mut older = present
                .connections
                .values()
                .filter(|older| older.node == connection.node && !older.kill.is_cancelled());
            if let (Some(oldest), true) = (older.next(), older.count() >= MAX_STREAMS - 1) {
                oldest.kill.cancel();
            }
            present.connections.insert(number, connection);
            number
        });
        Attendance { presence: self.clone(), number }
    }

    /// Every open stream, the oldest first.
    #[must_use]
    pub(crate) fn connections(&self) -> Vec<Connection> {
        self.with(|present| present.connections.values().cloned().collect())
    }

    /// Every node whose stream ended since the broker started, also those that have another.
    #[must_use]
    pub(crate) fn departed(&self) -> BTreeMap<NodeName, Departed> {
        self.with(|present| present.departed.clone())
    }

    /// How many nodes hold at least one stream.
    #[must_use]
    pub(crate) fn node_count(&self) -> usize {
        let mut nodes: Vec<_> = self.connections().into_iter().map(|connection| connection.node).collect();
        nodes.sort();
        nodes.dedup();
        nodes.len()
    }

    /// Ends every connection of `node`.
    pub(crate) fn disconnect(&self, node: &NodeName) {
        for connection in self.connections() {
            if connection.node == *node {
                connection.kill.cancel();
            }
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Present) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Attendance {
    /// Notes what the node says is in force on it.
    pub(crate) fn applied(&self, version: Version) {
        self.presence.with(|present| {
            if let Some(connection) = present.connections.get_mut(&self.number) {
                connection.applied = Some(version);
            }
        });
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        self.presence.with(|present| {
            if let Some(Connection { node, applied, peer, .. }) = present.connections.remove(&self.number) {
                let last = present.departed.entry(node).or_default();
                // A node keeps what it applied.
                *last = Departed { applied: applied.max(last.applied), peer };
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(node: &str) -> Connection {
        Connection {
            node: node.parse().unwrap(),
            address: ([127, 0, 0, 1], 1).into(),
            kind: NodeKind::Host,
            software: String::new(),
            applied: None,
            since: SystemTime::UNIX_EPOCH,
            not_after: SystemTime::UNIX_EPOCH,
            peer: None,
            kill: CancellationToken::new(),
        }
    }

    #[test]
    fn a_stream_is_listed_while_it_lasts() {
        let presence = Presence::default();
        let (one, two) = (presence.attend(connection("a")), presence.attend(connection("a")));
        let version = Version { incarnation: 1, epoch: 2 };
        two.applied(version);
        let applied: Vec<_> = presence.connections().into_iter().map(|connection| connection.applied).collect();
        assert_eq!(applied, [None, Some(version)]);
        drop(one);
        assert_eq!((presence.connections().len(), presence.node_count()), (1, 1));
        drop(two);
        assert_eq!(presence.node_count(), 0);
        // And remembered, with the newest that it said of itself.
        drop(presence.attend(connection("a")));
        let departed = presence.departed();
        assert_eq!(departed.values().map(|last| last.applied).collect::<Vec<_>>(), [Some(version)]);
    }

    #[test]
    fn a_node_with_too_many_streams_loses_the_oldest() {
        let presence = Presence::default();
        let other = connection("b");
        let _other = presence.attend(other.clone());
        let connections: Vec<_> = (0..=MAX_STREAMS).map(|_| connection("a")).collect();
        let _held: Vec<_> = connections.iter().map(|connection| presence.attend(connection.clone())).collect();
        let killed: Vec<_> = connections.iter().map(|connection| connection.kill.is_cancelled()).collect();
        assert!(killed[0] && !killed[1..].contains(&true), "{killed:?}");
        assert!(!other.kill.is_cancelled());
    }

    #[test]
    fn disconnecting_a_node_ends_its_streams_and_no_others() {
        let presence = Presence::default();
        let (mine, other) = (connection("a"), connection("b"));
        let _held = (presence.attend(mine.clone()), presence.attend(other.clone()));
        presence.disconnect(&"a".parse().unwrap());
        assert!(mine.kill.is_cancelled() && !other.kill.is_cancelled());
    }
}
