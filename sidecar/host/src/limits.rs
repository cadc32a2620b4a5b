//! What a component may take from its host.

use std::time::Duration;

use portcullis_value::Limits;
use wasmtime::ResourceLimiter;

/// Limits of one call of a component. Every call has a store of its own, so nothing adds up over calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostLimits {
    /// How long a call may take, the calls it makes included.
    pub call_timeout: Duration,
    /// How long a call to a virtual component may take.
    pub import_timeout: Duration,
    /// Linear memory of all its instances together, in bytes.
    pub memory_bytes: usize,
    /// Of the values of one call: parameters and results, of the component's own functions and of those it imports.
    pub values: Limits,
}

impl Default for HostLimits {
    fn default() -> Self {
        Self {
            call_timeout: Duration::from_secs(30),
            import_timeout: Duration::from_secs(10),
            memory_bytes: 64 << 20,
            values: Limits::default(),
        }
    }
}

/// Entries of all tables together: what a large component needs for its function pointers, 16 times over.
const TABLE_ENTRIES: usize = 1 << 20;

/// Counts what a store has taken. wasmtime's own limiter holds each memory to the limit; this one all of them together.
#[derive(Debug)]
pub(crate) struct Meter {
    memory_left: usize,
    table_left: usize,
}

impl Meter {
    pub(crate) fn new(limits: &HostLimits) -> Self {
        Self { memory_left: limits.memory_bytes, table_left: TABLE_ENTRIES }
    }
}

/// Takes the growth from `current` to `desired` out of what is left.
fn take(left: &mut usize, current: usize, desired: usize) -> bool {
    match left.checked_sub(desired.saturating_sub(current)) {
        Some(rest) => {
            *left = rest;
            true
        }
        None => false,
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(take(&mut self.memory_left, current, desired))
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(take(&mut self.table_left, current, desired))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_memories_share_one_limit() {
        let mut meter = Meter::new(&HostLimits { memory_bytes: 100, ..HostLimits::default() });
        assert!(meter.memory_growing(0, 60, None).unwrap());
        assert!(!meter.memory_growing(0, 60, None).unwrap());
        assert!(meter.memory_growing(0, 40, None).unwrap());
        assert!(!meter.memory_growing(60, 61, None).unwrap());
        assert!(meter.memory_growing(60, 60, None).unwrap());
    }
}
