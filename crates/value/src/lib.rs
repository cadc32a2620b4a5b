//! (unborn)
