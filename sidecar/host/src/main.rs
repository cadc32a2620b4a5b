//! (unborn)
fn main() {}
