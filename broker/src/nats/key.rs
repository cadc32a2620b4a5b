//! The keys of NATS: Ed25519 for signing, Curve25519 for sealing, in the spelling of NATS (nkeys).

use std::fmt;
use std::str::FromStr;

use nkeys::{KeyPair, KeyPairType, XKey};

/// Characters of a public key as NATS spells it.
const PUBLIC_LENGTH: usize = 56;

/// What a signing key belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// The operator: the root of all trust in a NATS system.
    Operator,
    /// An account.
    Account,
    /// A user of an account.
    User,
    /// A server.
    Server,
}

impl Owner {
    const fn kind(self) -> KeyPairType {
        match self {
            Self::Operator => KeyPairType::Operator,
            Self::Account => KeyPairType::Account,
            Self::User => KeyPairType::User,
            Self::Server => KeyPairType::Server,
        }
    }

    const fn letter(self) -> char {
        match self {
            Self::Operator => 'O',
            Self::Account => 'A',
            Self::User => 'U',
            Self::Server => 'N',
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Operator => "an operator",
            Self::Account => "an account",
            Self::User => "a user",
            Self::Server => "a server",
        }
    }
}

/// A text is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// Not a public key of this kind.
    #[error("`{text}` is not the public key of {}: it begins with `{}` and has {PUBLIC_LENGTH} characters", .owner.name(), .owner.letter())]
    Public {
        /// Whose it should be.
        owner: Owner,
        /// What was given, cut.
        text: String,
    },
    /// Not a seed of this kind. The text is not told.
    #[error("it is not the seed of {}: that begins with `S{}`", .0.name(), .0.letter())]
    Seed(Owner),
    /// Not the seed of a curve key.
    #[error("it is not the seed of a curve key: that begins with `SX`")]
    CurveSeed,
    /// Not the public part of a curve key.
    #[error("it is not the public part of a curve key: that begins with `X`")]
    Curve,
}

/// The public key of one kind of owner, checked whole.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey {
    owner: Owner,
    text: String,
}

impl PublicKey {
    /// Reads a key that must be `owner`'s.
    ///
    /// # Errors
    /// [`InvalidKey`] for every other text.
    pub fn parse(owner: Owner, text: &str) -> Result<Self, InvalidKey> {
        let invalid = || InvalidKey::Public { owner, text: text.chars().take(PUBLIC_LENGTH).collect() };
        let plain = text.len() == PUBLIC_LENGTH && text.starts_with(owner.letter()) && text.bytes().all(is_base32);
        if !plain {
            return Err(invalid());
        }
        KeyPair::from_public_key(text).map_err(|_| invalid())?;
        Ok(Self { owner, text: text.to_owned() })
    }

    /// Whose it is.
    #[must_use]
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// As NATS spells it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether `signature` is one of this key over `message`.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        KeyPair::from_public_key(&self.text).is_ok_and(|key| key.verify(message, signature).is_ok())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A key that signs. Its seed is shown to nobody but a file.
pub struct SigningKey {
    pair: KeyPair,
    public: PublicKey,
}

impl SigningKey {
    /// Draws a new one.
    #[must_use]
    pub fn generate(owner: Owner) -> Self {
        Self::of(owner, KeyPair::new(owner.kind()))
    }

    /// Reads the seed of a key that must be `owner`'s.
    ///
    /// # Errors
    /// [`InvalidKey::Seed`] for every other text; it never holds the text.
    pub fn from_seed(owner: Owner, seed: &str) -> Result<Self, InvalidKey> {
        let wanted = ['S', owner.letter()].into_iter().collect::<String>();
        let pair = Some(seed.trim())
            .filter(|seed| seed.starts_with(&wanted) && seed.bytes().all(is_base32))
            .and_then(|seed| KeyPair::from_seed(seed).ok());
        pair.map(|pair| Self::of(owner, pair)).ok_or(InvalidKey::Seed(owner))
    }

    fn of(owner: Owner, pair: KeyPair) -> Self {
        let public = PublicKey { owner, text: pair.public_key() };
        Self { pair, public }
    }

    /// Its public part.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs; `None` only if the key had no private part, which every key of this type has.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        self.pair.sign(message).ok()
    }

    /// Its seed, for the file that keeps it.
    #[must_use]
    pub fn reveal(&self) -> zeroize::Zeroizing<String> {
        zeroize::Zeroizing::new(self.pair.seed().unwrap_or_default())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.public).finish()
    }
}

/// A key that seals requests and answers, so that nobody on the way reads or makes them.
pub struct SealingKey(XKey);

impl SealingKey {
    /// Draws a new one.
    #[must_use]
    pub fn generate() -> Self {
        Self(XKey::new())
    }

    /// Reads its seed.
    ///
    /// # Errors
    /// [`InvalidKey::CurveSeed`] for every other text.
    pub fn from_seed(seed: &str) -> Result<Self, InvalidKey> {
        let seed = seed.trim();
        if !seed.bytes().all(is_base32) {
            return Err(InvalidKey::CurveSeed);
        }
        XKey::from_seed(seed).map(Self).map_err(|_| InvalidKey::CurveSeed)
    }

    /// Its public part.
    #[must_use]
    pub fn public(&self) -> String {
        self.0.public_key()
    }

    /// Its seed, for the file that keeps it.
    #[must_use]
    pub fn reveal(&self) -> zeroize::Zeroizing<String> {
        zeroize::Zeroizing::new(self.0.seed().unwrap_or_default())
    }

    /// What `sender` sealed for us.
    #[must_use]
    pub fn open(&self, sealed: &[u8], sender: &CurveKey) -> Option<Vec<u8>> {
        self.0.open(sealed, &sender.0).ok()
    }

    /// Seals `message` for `recipient`.
    #[must_use]
    pub fn seal(&self, message: &[u8], recipient: &CurveKey) -> Option<Vec<u8>> {
        self.0.seal(message, &recipient.0).ok()
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SealingKey").field(&self.0.public_key()).finish()
    }
}

/// The public part of a curve key.
#[derive(Debug, Clone)]
pub struct CurveKey(XKey);

impl FromStr for CurveKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let plain = text.len() == PUBLIC_LENGTH && text.bytes().all(is_base32);
        let key = if plain { XKey::from_public_key(text).ok() } else { None };
        key.map(Self).ok_or(InvalidKey::Curve)
    }
}

const fn is_base32(byte: u8) -> bool {
    matches!(byte, b'A'..=b'Z' | b'2'..=b'7')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_belongs_to_its_kind_of_owner_alone() {
        for owner in [Owner::Operator, Owner::Account, Owner::User, Owner::Server] {
            let key = SigningKey::generate(owner);
            let again = SigningKey::from_seed(owner, &key.reveal()).unwrap();
            assert_eq!(again.public(), key.public());
            for other in [Owner::Operator, Owner::Account, Owner::User, Owner::Server] {
                assert_eq!(PublicKey::parse(other, key.public().as_str()).is_ok(), other == owner);
                assert_eq!(SigningKey::from_seed(other, &key.reveal()).is_ok(), other == owner);
            }
            let signature = key.sign(b"message").unwrap();
            assert!(key.public().verifies(b"message", &signature));
            assert!(!key.public().verifies(b"massage", &signature));
            let seed = key.reveal();
            assert!(!format!("{key:?}").contains(seed.as_str()));
        }
    }

    #[test]
    fn what_is_sealed_is_read_by_its_recipient_alone() {
        let (ours, theirs, stranger) = (SealingKey::generate(), SealingKey::generate(), SealingKey::generate());
        let to = |key: &SealingKey| key.public().parse::<CurveKey>().unwrap();
        let sealed = theirs.seal(b"request", &to(&ours)).unwrap();
        assert_eq!(ours.open(&sealed, &to(&theirs)).unwrap(), b"request");
        assert!(ours.open(&sealed, &to(&stranger)).is_none());
        assert!(stranger.open(&sealed, &to(&theirs)).is_none());
        assert!(ours.open(&sealed[..10], &to(&theirs)).is_none());
        let again = SealingKey::from_seed(&ours.reveal()).unwrap();
        assert_eq!(again.public(), ours.public());
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_parsers(text in "\\PC{0,80}", key in "[SAUNXO][A-Z2-7]{55,57}") {
            for text in [&text, &key] {
                for owner in [Owner::Operator, Owner::Account, Owner::User, Owner::Server] {
                    let _ = PublicKey::parse(owner, text);
                    let _ = SigningKey::from_seed(owner, text);
                }
                let _ = text.parse::<CurveKey>();
                let _ = SealingKey::from_seed(text);
            }
        }
    }
}
