//! A small authority for tests.
