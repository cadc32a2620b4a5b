//! The crate from outside, as the broker and the sidecar use it.
#![cfg(test)]

mod admissions;
mod agreement;
mod decisions;
mod fixture;
mod mistakes;
