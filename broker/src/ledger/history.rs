//! What the last commits wrote, for those who follow and have all that was before.

use std::collections::{BTreeMap, VecDeque};

use crate::registry::Version;
use crate::store::{Copied, Row};

/// Bytes of rows that are remembered. Who needs older ones reads everything.
const MAX_BYTES: usize = 4 << 20;

/// The last commits, oldest first.
#[derive(Debug, Default)]
pub(super) struct History {
    steps: VecDeque<Step>,
    bytes: usize,
}

#[derive(Debug)]
struct Step {
    before: Version,
    version: Version,
    rows: Vec<Row>,
    bytes: usize,
}

impl History {
    /// Remembers what the commit of `version` wrote.
    pub(super) fn push(&mut self, before: Version, version: Version, rows: Vec<Row>) {
        let bytes = rows.iter().map(Row::size).sum();
        self.steps.push_back(Step { before, version, rows, bytes });
        self.bytes = self.bytes.saturating_add(bytes);
        while self.bytes > MAX_BYTES
            && let Some(oldest) = self.steps.pop_front()
        {
            self.bytes = self.bytes.saturating_sub(oldest.bytes);
        }
    }

    /// What was written since `have`, each row as it is now; `None` where that is not known any more.
    pub(super) fn since(&self, have: Version) -> Option<Copied> {
        let first = self.steps.iter().position(|step| step.before == have)?;
        let mut rows = BTreeMap::new();
        for step in self.steps.iter().skip(first) {
            rows.extend(step.rows.iter().map(|row| (row.key.clone(), row.value.clone())));
        }
        let rows = rows.into_iter().map(|(key, value)| Row { key, value }).collect();
        Some(Copied { base: Some(have), version: self.steps.back()?.version, rows })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: &str, value: Option<&[u8]>) -> Row {
        Row { key: key.to_owned(), value: value.map(<[u8]>::to_vec) }
    }

    #[test]
    fn who_follows_gets_each_row_once_as_it_is_now() {
        let mut history = History::default();
        let versions: Vec<Version> = (0..4).map(|epoch| Version { incarnation: 1, epoch }).collect();
        history.push(versions[0], versions[1], vec![row("a", Some(b"1")), row("b", Some(b"1"))]);
        history.push(versions[1], versions[3], vec![row("a", None), row("c", Some(b"1"))]);
        let all = history.since(versions[0]).unwrap();
        assert_eq!((all.base, all.version), (Some(versions[0]), versions[3]));
        assert_eq!(all.rows, [row("a", None), row("b", Some(b"1")), row("c", Some(b"1"))]);
        assert_eq!(history.since(versions[1]).unwrap().rows, [row("a", None), row("c", Some(b"1"))]);
        // Between two commits nobody was, and who has everything needs nothing.
        assert!(history.since(versions[2]).is_none() && history.since(versions[3]).is_none());
    }

    #[test]
    fn what_is_remembered_has_bounds() {
        let mut history = History::default();
        let version = |epoch| Version { incarnation: 1, epoch };
        for epoch in 0..10 {
            history.push(version(epoch), version(epoch + 1), vec![row("a", Some(&vec![0; 1 << 20]))]);
        }
        assert!(history.bytes <= MAX_BYTES && history.since(version(5)).is_none());
        assert_eq!(history.since(version(8)).unwrap().version, version(10));
    }
}
