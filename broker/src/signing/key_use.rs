//! Which key was certified for whom, to see that none serves two identities.

use std::collections::HashMap;

use portcullis_identity::NodeName;

use crate::registry::EntryId;

/// Keys of one generation. Two are remembered, so that a flood of new keys makes nobody forget the latest ones.
const GENERATION: usize = 16_384;

/// For whom a key was certified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    /// The node that asked.
    pub(super) node: NodeName,
    /// For which of its entries; `None`: for itself.
    pub(super) entry: Option<EntryId>,
}

/// The keys that were certified lately, by the SHA-256 of their SubjectPublicKeyInfo.
#[derive(Debug, Default)]
pub(super) struct KeyUse {
    young: HashMap<[u8; 32], Holder>,
    old: HashMap<[u8; 32], Holder>,
}

impl KeyUse {
    /// For whom the key was certified, where that is remembered.
    pub(super) fn holder(&self, key: &[u8; 32]) -> Option<&Holder> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    /// Notes for whom a key is certified.
    pub(super) fn insert(&mut self, key: [u8; 32], holder: Holder) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, holder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> [u8; 32] {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        key
    }

    #[test]
    fn at_least_the_last_generation_of_keys_is_remembered_and_no_more_than_two() {
        let holder = Holder { node: "n".parse().unwrap(), entry: None };
        let mut keys = KeyUse::default();
        for number in 0..3 * GENERATION {
            keys.insert(key(number), holder.clone());
            assert_eq!(keys.holder(&key(number.saturating_sub(GENERATION - 1))), Some(&holder));
        }
        assert!(keys.holder(&key(0)).is_none());
        assert!(keys.young.len() + keys.old.len() <= 2 * GENERATION);
    }
}
