//! Join tokens as the broker keeps them: never the secret, only what proves it (D4).

use std::time::SystemTime;

use portcullis_identity::NodeName;
use ring::hmac;

/// The first 8 bytes of the SHA-256 of a token's secret: finds the record, proves nothing.
pub type TokenIndex = [u8; 8];

/// A join token for one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Under which it is found.
    pub index: TokenIndex,
    /// HMAC-SHA256 of the secret's SHA-256; ring compares it in constant time.
    pub tag: Vec<u8>,
    /// Whom it names.
    pub node: NodeName,
    /// When it ends.
    pub expires_at: SystemTime,
    /// SHA-256 of the key that redeemed it.
    pub redeemed_by: Option<[u8; 32]>,
}

impl Token {
    /// A token nobody has redeemed.
    #[must_use]
    pub fn new(secret_sha256: &[u8; 32], node: NodeName, expires_at: SystemTime) -> Self {
        let index = index(secret_sha256);
        let tag = hmac::sign(&key(index), secret_sha256).as_ref().to_vec();
        Self { index, tag, node, expires_at, redeemed_by: None }
    }

    /// Whether `secret_sha256` is that of this token's secret.
    #[must_use]
    pub fn is_proved_by(&self, secret_sha256: &[u8; 32]) -> bool {
        hmac::verify(&key(self.index), secret_sha256, &self.tag).is_ok()
    }
}

/// Where to look for the token of a secret.
#[must_use]
pub(super) fn index(secret_sha256: &[u8; 32]) -> TokenIndex {
    let [a, b, c, d, e, f, g, h, ..] = *secret_sha256;
    [a, b, c, d, e, f, g, h]
}

fn key(index: TokenIndex) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &index)
}
