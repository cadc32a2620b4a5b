//! An unmodified wasmCloud host on a lattice that asks the broker about every login: the real thing, which takes minutes to compile.
//! `tests/wasmcloud/run.sh` builds it and runs these; every other run says that they were ignored.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests fail by panicking"
)]

mod built_in;
mod calls;
mod policy;
mod scene;
mod session;
