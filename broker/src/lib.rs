//! lib
pub mod atomic_file;
pub mod authority;
pub mod clock;
pub mod registry;
pub mod store;
pub mod ttl;
