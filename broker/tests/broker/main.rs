//! A whole broker on loopback, spoken to as nodes and operators do.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "tests fail by panicking, and live in the present"
)]

mod audit;
mod authorities;
mod certificate;
mod entries;
mod federation;
mod join;
mod lab;
mod mint;
mod operator;
mod process;
mod rejoin;
mod sign;
mod template;
mod watch;
mod web;
