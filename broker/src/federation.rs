//! Federation: keeps the bundles of foreign trust domains fresh, and serves our own to theirs (SPIFFE Federation).
//!
//! What a bundle may say is decided by the [registry](crate::registry), which knows no network; here are the fetch, its schedule, and the
//! endpoint. No fetch trusts anything that an earlier answer said about where to go or whom to believe: URL, profile and identity of an
//! endpoint are what the operator gave.

mod fetch;
mod refresher;
mod roots;
mod schedule;

pub(crate) use self::refresher::{RefreshError, Refreshed, Refresher, Standing};
pub(crate) use self::roots::WebRoots;
pub use self::schedule::Bounds;
