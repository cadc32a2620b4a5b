//! How long the broker's audit log was, as this node was told: a witness that the broker's disk does not hold.

use portcullis_api::v1;
use serde::{Deserialize, Serialize};

/// How far the broker's audit log had grown when it last said so. `portcullis-broker audit verify --against` reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditHead {
    /// How many records there were.
    pub records: u64,
    /// SHA-256 of the last one, hex.
    pub hash: String,
    /// The broker's signature over both, hex.
    pub signature: String,
    /// Of the key that signed.
    pub kid: String,
    /// What the broker said since that contradicts this: its log was cut or written anew. What stood before is kept as the witness.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contradiction: Option<String>,
}

/// A head that is not one.
#[derive(Debug, thiserror::Error)]
#[error("the broker's audit head has a hash of {0} bytes")]
pub(super) struct InvalidHead(usize);

impl AuditHead {
    /// Parses what the broker says.
    pub(super) fn from_message(message: v1::AuditHead) -> Result<Self, InvalidHead> {
        let v1::AuditHead { records, hash, signature, kid } = message;
        if hash.len() != 32 {
            return Err(InvalidHead(hash.len()));
        }
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { records, hash: hex(&hash), signature: hex(&signature), kid, contradiction: None })
    }

    /// What is remembered once the broker said `later`. A log only grows; where it did not, this head stays, whatever the broker says then.
    #[must_use]
    pub(super) fn then(&self, later: Self) -> Self {
        if self.contradiction.is_some() {
            return self.clone();
        }
        let contradiction = if later.records < self.records {
            format!("the broker's audit log has {} records, after it had {}", later.records, self.records)
        } else if later.records == self.records && later.hash != self.hash {
            format!("record {} of the broker's audit log is another one than it was", self.records)
        } else {
            return later;
        };
        Self { contradiction: Some(contradiction), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(records: u64, hash: u8) -> AuditHead {
        let message = v1::AuditHead { records, hash: vec![hash; 32], signature: vec![1, 0xab], kid: "k".to_owned() };
        AuditHead::from_message(message).unwrap()
    }

    #[test]
    fn a_log_that_grows_is_remembered_at_its_latest() {
        let later = head(2, 2).then(head(3, 3));
        assert_eq!(later, head(3, 3));
        assert_eq!(later.then(head(3, 3)), head(3, 3));
        assert_eq!((later.hash.as_str(), later.signature.as_str()), ("03".repeat(32).as_str(), "01ab"));
    }

    #[test]
    fn a_log_that_was_cut_or_rewritten_leaves_the_witness() {
        for later in [head(1, 1), head(2, 9), head(0, 0)] {
            let witness = head(2, 2).then(later);
            assert_eq!(AuditHead { contradiction: None, ..witness.clone() }, head(2, 2));
            assert!(witness.contradiction.is_some());
            assert_eq!(witness.then(head(99, 9)), witness, "growing anew does not make it forget");
        }
    }

    #[test]
    fn a_hash_of_another_length_is_none() {
        let message = v1::AuditHead { records: 1, hash: vec![0; 31], ..v1::AuditHead::default() };
        AuditHead::from_message(message).unwrap_err();
    }
}
