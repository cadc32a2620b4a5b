//! The control plane of Portcullis: issues identities, keeps the registry and the policies, tells every node what it may see.
//!
//! Read [`registry`] first: it is the broker's state, a value without clock, file or socket. Around it stand the [`store`] that keeps
//! it, the ledger that is its one writer, the [`authority`] that signs, and two services: one for nodes over mutual TLS, one for
//! operators on a Unix socket.
//!
//! The broker does not know how a call travels or what a sidecar does with a policy; it never sees a call.

pub mod atomic_file;
pub mod audit;
pub mod authority;
pub mod clock;
pub mod config;
pub mod dns_name;
pub mod nats;
pub mod registry;
pub mod restore;
pub mod seal_key;
pub mod store;
pub mod ttl;
pub mod x509pop;

mod admission;
mod beacon;
mod broker;
mod certificate_join;
mod courier;
mod daemon;
mod data_folder;
mod federation;
mod follower;
mod ledger;
mod listener;
mod node_service;
mod operator_service;
mod operator_socket;
mod own_svid;
mod pages;
mod presence;
mod published;
mod rejoin;
mod signing;
mod succession;
mod throttle;
mod trust;
mod web;
mod wire;

pub use daemon::{Daemon, StartError, run};
pub use data_folder::{AUDIT_FOLDER, DataFolderError};
pub use federation::Bounds;
pub use follower::{FollowError, Follower};
pub use operator_socket::SocketError;
pub use web::CertificateError;
