//! Whole daemons on loopback. One binary, a module per theme.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests fail by panicking"
)]

mod admission;
mod callout;
mod cli;
mod elsewhere;
mod faults;
mod federation;
mod gate;
mod handshake;
mod hostile;
mod identities;
mod join;
mod lattice;
mod life;
mod several;
mod stock;
mod trouble;
