//! What reading one hostile value may cost.

use std::fmt;

/// How much one set of values (the parameters or the result of a call) may hold.
///
/// Whatever lengths the input claims, the values read from it take at most a small multiple of `bytes`, and `items` × (the size of a
/// [`Value`](crate::Value) and its allocation).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the wRPC encoding, or of the JSON text.
    pub bytes: usize,
    /// Levels of nesting; a value without parts is one level.
    pub depth: usize,
    /// Values inside values: list elements, fields, payloads. A `list<u8>` and a string have none.
    pub items: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 4 << 20, depth: 64, items: 1_000_000 }
    }
}

/// Which of the [`Limits`] was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// [`Limits::bytes`].
    Bytes,
    /// [`Limits::depth`].
    Depth,
    /// [`Limits::items`].
    Items,
}

/// A value is larger than the limit allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub struct Exceeded {
    /// Which limit.
    pub bound: Bound,
    /// What it was set to.
    pub limit: usize,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bound {
            Bound::Bytes => write!(f, "the value is larger than {} bytes", self.limit),
            Bound::Depth => write!(f, "the value nests deeper than {} levels", self.limit),
            Bound::Items => write!(f, "the value holds more than {} items", self.limit),
        }
    }
}

/// What is left of the limits while one set of values is read.
#[derive(Debug)]
pub(crate) struct Budget {
    limits: Limits,
    items: usize,
}

impl Budget {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { limits: *limits, items: limits.items }
    }

    /// Pays for `count` values before any of them is read, so that claimed lengths cannot reserve memory twice.
    pub(crate) fn charge(&mut self, count: usize) -> Result<(), Exceeded> {
        self.items = self.items.checked_sub(count).ok_or(Exceeded { bound: Bound::Items, limit: self.limits.items })?;
        Ok(())
    }

    /// The levels that remain below a value that is `levels` above the floor.
    pub(crate) fn descend(&self, levels: usize) -> Result<usize, Exceeded> {
        levels.checked_sub(1).ok_or(Exceeded { bound: Bound::Depth, limit: self.limits.depth })
    }

    /// Checks that `end` bytes of input are within the limit.
    pub(crate) fn reach(&self, end: usize) -> Result<(), Exceeded> {
        if end > self.limits.bytes {
            return Err(Exceeded { bound: Bound::Bytes, limit: self.limits.bytes });
        }
        Ok(())
    }

    pub(crate) fn depth(&self) -> usize {
        self.limits.depth
    }
}
