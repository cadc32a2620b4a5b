//! Whole connections on loopback: real certificates, real sockets, free ports, no sleeps.
#![cfg(test)]

mod ca;
mod handshakes;
mod limits;
mod refusals;
mod server;
mod stock;
