//! The pages that operators and their tools read of a daemon: `/live`, `/ready`, `/status`, `/metrics`, on loopback or a Unix socket and
//! never anywhere else. Both planes serve the same ones.

mod address;
mod server;

pub use address::{AdminAddress, InvalidAddress};
pub use server::{Admin, Observed};
