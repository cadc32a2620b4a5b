//! Sealing: a file's bytes under AES-256-GCM, so that a stolen disk or backup gives no private key away (D11).
//!
//! A sealed file is `PCSEALED`, a version byte, eight bytes that name the key, a fresh 96-bit nonce, the ciphertext and its tag. What the file
//! is for is authenticated with it: one file cannot take another's place. Random nonces are safe for 2^32 files under one key; a broker
//! writes a few a day.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest::{SHA256, digest},
    rand::{SecureRandom as _, SystemRandom},
};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::NoRandomness;

const MAGIC: &[u8; 8] = b"PCSEALED";
const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;
const KEY_ID_BYTES: usize = 8;
const TAG_BYTES: usize = 16;
const HEADER_BYTES: usize = MAGIC.len() + 1 + KEY_ID_BYTES;

/// The bytes are no seal key.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum InvalidSealKey {
    /// Neither 32 bytes nor the base64 of 32 bytes.
    #[error("a seal key is 32 bytes, as they are or in base64 (hint: portcullis-broker seal-key new --out FILE)")]
    Format,
    /// Every byte is the same: nobody drew that at random.
    #[error("the seal key is not random")]
    NotRandom,
}

/// Why something was not sealed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SealError {
    /// There is no nonce.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// AES-GCM takes less than 64 GiB.
    #[error("too long to be sealed")]
    TooLong,
}

/// Why sealed bytes were not opened.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SealBroken {
    /// They do not begin as sealed bytes do.
    #[error("it is not sealed")]
    NotSealed,
    /// A later version wrote them.
    #[error("it was sealed by a newer version (format {found})")]
    Version {
        /// The version byte.
        found: u8,
    },
    /// Another key did.
    #[error("it was sealed with key {found}, and the key given is {given}")]
    OtherKey {
        /// The id of the key in the file.
        found: SealKeyId,
        /// The id of the key at hand.
        given: SealKeyId,
    },
    /// The key is the right one, and the bytes are not what it sealed, or were sealed for something else.
    #[error("it was altered, or is another file's content")]
    Altered,
}

/// Which key: the first bytes of its hash, which tell nothing about it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SealKeyId([u8; KEY_ID_BYTES]);

impl fmt::Display for SealKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SealKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealKeyId({self})")
    }
}

/// A key that seals files. It is never cloned, never printed, and wiped on drop.
///
/// The schedule that ring expands for one operation is on the stack and not wiped: it offers no way.
pub struct SealKey(Zeroizing<[u8; KEY_BYTES]>);

impl SealKey {
    /// Draws a new key.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn generate() -> Result<Self, NoRandomness> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        SystemRandom::new().fill(&mut *key).map_err(|_unspecified| NoRandomness)?;
        Ok(Self(key))
    }

    /// Reads a key file's content: 32 bytes, or their base64 with white space around it.
    ///
    /// # Errors
    /// [`InvalidSealKey`].
    pub fn parse(content: &[u8]) -> Result<Self, InvalidSealKey> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        if content.len() == KEY_BYTES {
            key.copy_from_slice(content);
        } else {
            // Base64 of 32 bytes decodes into at most 33 by the estimate of the decoder.
            let mut decoded = Zeroizing::new([0; KEY_BYTES + 1]);
            let count =
                STANDARD.decode_slice(content.trim_ascii(), &mut *decoded).map_err(|_| InvalidSealKey::Format)?;
            let bytes = decoded.get(..count).filter(|bytes| bytes.len() == KEY_BYTES);
            key.copy_from_slice(bytes.ok_or(InvalidSealKey::Format)?);
        }
        if key.windows(2).all(|pair| pair.first() == pair.last()) {
            return Err(InvalidSealKey::NotRandom);
        }
        Ok(Self(key))
    }

    /// The content of a key file: base64 and a line end. Whoever copies it has to wipe the copy.
    #[must_use]
    pub fn reveal(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(KEY_BYTES * 2));
        STANDARD.encode_string(*self.0, &mut text);
        text.push('\n');
        text
    }

    /// Which key this is.
    #[must_use]
    pub fn id(&self) -> SealKeyId {
        let mut named = Zeroizing::new(Vec::with_capacity(2 * KEY_BYTES));
        named.extend_from_slice(b"portcullis seal key id\0");
        named.extend_from_slice(&*self.0);
        let mut id = [0; KEY_ID_BYTES];
        id.iter_mut().zip(digest(&SHA256, &named).as_ref()).for_each(|(to, from)| *to = *from);
        SealKeyId(id)
    }

    /// Seals `plain`; `purpose` is authenticated and has to be the same at [`SealKey::open`].
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal(&self, purpose: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_unspecified| NoRandomness)?;
        let header = header(self.id());
        // Room for everything from the start: growing would leave a copy of the plain bytes behind.
        let mut sealed = Vec::with_capacity(HEADER_BYTES + NONCE_LEN + plain.len() + TAG_BYTES);
        sealed.extend_from_slice(&header);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain);
        let (_, body) = sealed.split_at_mut(HEADER_BYTES + NONCE_LEN);
        let tag = self
            .key()
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), aad(&header, purpose), body)
            .map_err(|_unspecified| SealError::TooLong)?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// What was sealed for `purpose`.
    ///
    /// # Errors
    /// [`SealBroken`].
    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealBroken> {
        let rest = sealed.strip_prefix(MAGIC).ok_or(SealBroken::NotSealed)?;
        let (version, rest) = rest.split_first().ok_or(SealBroken::Altered)?;
        if *version != VERSION {
            return Err(SealBroken::Version { found: *version });
        }
        let (id, rest) = rest.split_first_chunk().ok_or(SealBroken::Altered)?;
        let (found, given) = (SealKeyId(*id), self.id());
        if found != given {
            return Err(SealBroken::OtherKey { found, given });
        }
        let (nonce, body) = rest.split_first_chunk().ok_or(SealBroken::Altered)?;
        let header = header(found);
        let mut body = Zeroizing::new(body.to_vec());
        let length = self
            .key()
            .open_in_place(Nonce::assume_unique_for_key(*nonce), aad(&header, purpose), &mut body)
            .map_err(|_unspecified| SealBroken::Altered)?
            .len();
        body.truncate(length);
        Ok(body)
    }

    fn key(&self) -> LessSafeKey {
        #[expect(clippy::expect_used, reason = "ring refuses a key of another length only")]
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &*self.0).expect("AES-256 takes 32 bytes"))
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(..)")
    }
}

/// Whether a file's content is sealed, with whatever key.
#[must_use]
pub fn is_sealed(content: &[u8]) -> bool {
    content.starts_with(MAGIC)
}

fn header(id: SealKeyId) -> Vec<u8> {
    [MAGIC.as_slice(), &[VERSION], &id.0].concat()
}

fn aad(header: &[u8], purpose: &str) -> Aad<Vec<u8>> {
    Aad::from([header, purpose.as_bytes()].concat())
}

/// Where a daemon finds its seal key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealKeyPlace {
    /// A file for its owner alone.
    File(PathBuf),
    /// A credential of this name, which systemd passes in `$CREDENTIALS_DIRECTORY`.
    Credential(String),
}

/// Not a place of a seal key.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InvalidSealKeyPlace {
    /// Neither a path nor `credential:NAME`.
    #[error("`{0}` is not the place of a seal key: write a path, or `credential:NAME`")]
    Format(String),
    /// systemd passes no credentials.
    #[error(
        "credential `{0}` is not passed: $CREDENTIALS_DIRECTORY is not set (hint: LoadCredentialEncrypted= in the unit)"
    )]
    NoCredentials(String),
}

impl FromStr for SealKeyPlace {
    type Err = InvalidSealKeyPlace;

    fn from_str(text: &str) -> Result<Self, InvalidSealKeyPlace> {
        let invalid = || InvalidSealKeyPlace::Format(text.chars().take(256).collect());
        let Some(name) = text.strip_prefix("credential:") else {
            return if text.is_empty() { Err(invalid()) } else { Ok(Self::File(text.into())) };
        };
        // A name is one file of the folder, and never a way out of it.
        let plain = !name.is_empty() && !name.contains(['/', '\0']) && name != "." && name != "..";
        if plain { Ok(Self::Credential(name.to_owned())) } else { Err(invalid()) }
    }
}

impl SealKeyPlace {
    /// The same, with a relative path taken as one below `base`.
    #[must_use]
    pub fn below(self, base: &Path) -> Self {
        match self {
            Self::File(path) => Self::File(base.join(path)),
            Self::Credential(name) => Self::Credential(name),
        }
    }

    /// The file to read; `credentials` is the folder that systemd names.
    ///
    /// # Errors
    /// [`InvalidSealKeyPlace::NoCredentials`].
    pub fn path(&self, credentials: Option<&Path>) -> Result<PathBuf, InvalidSealKeyPlace> {
        match self {
            Self::File(path) => Ok(path.clone()),
            Self::Credential(name) => credentials
                .map(|folder| folder.join(name))
                .ok_or_else(|| InvalidSealKeyPlace::NoCredentials(name.clone())),
        }
    }

    /// Whether a key file of these permission bits has been its owner's secret.
    ///
    /// systemd gives a service's user access to a credential by an ACL, which shows as the bits of the group.
    #[must_use]
    pub fn is_private(&self, mode: u32) -> bool {
        let others = match self {
            Self::File(_) => 0o077,
            Self::Credential(_) => 0o037,
        };
        mode & others == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> SealKey {
        SealKey::generate().unwrap()
    }

    #[test]
    fn what_is_sealed_is_opened_by_the_same_key_for_the_same_purpose() {
        let key = key();
        let sealed = key.seal("ca root", b"secret").unwrap();
        assert!(is_sealed(&sealed) && !is_sealed(b"-----BEGIN PRIVATE KEY-----"));
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        assert_eq!(**key.open("ca root", &sealed).unwrap(), *b"secret");
        assert_eq!(key.open("ca signing", &sealed), Err(SealBroken::Altered));
        let other = SealKey::generate().unwrap();
        assert_eq!(other.open("ca root", &sealed), Err(SealBroken::OtherKey { found: key.id(), given: other.id() }));
        assert_eq!(key.open("ca root", b"plain"), Err(SealBroken::NotSealed));
    }

    #[test]
    fn the_same_content_is_never_sealed_the_same_way() {
        let key = key();
        assert_ne!(key.seal("x", b"secret").unwrap(), key.seal("x", b"secret").unwrap());
    }

    #[test]
    fn every_altered_byte_is_noticed() {
        let key = key();
        let sealed = key.seal("x", b"secret").unwrap();
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            key.open("x", &altered).unwrap_err();
            key.open("x", &sealed[..at]).unwrap_err();
        }
        key.open("x", &[sealed.as_slice(), &[0]].concat()).unwrap_err();
        let mut newer = sealed;
        newer[8] = 2;
        assert_eq!(key.open("x", &newer), Err(SealBroken::Version { found: 2 }));
    }

    #[test]
    fn a_key_is_32_bytes_raw_or_in_base64() {
        let key = key();
        let text = key.reveal();
        assert_eq!(SealKey::parse(text.as_bytes()).unwrap().id(), key.id());
        assert_eq!(SealKey::parse(text.trim().as_bytes()).unwrap().id(), key.id());
        assert_eq!(SealKey::parse(&*key.0).unwrap().id(), key.id());
        let short = STANDARD.encode([7_u8; 31]);
        let long = STANDARD.encode([7_u8; 33]);
        for wrong in [&b""[..], b"short", &[1; 31], &[1; 33], short.as_bytes(), long.as_bytes(), &[b'!'; 44]] {
            assert_eq!(SealKey::parse(wrong).unwrap_err(), InvalidSealKey::Format, "{wrong:?}");
        }
        assert_eq!(SealKey::parse(&[0; 32]).unwrap_err(), InvalidSealKey::NotRandom);
        assert_eq!(SealKey::parse(STANDARD.encode([9; 32]).as_bytes()).unwrap_err(), InvalidSealKey::NotRandom);
    }

    #[test]
    fn a_key_is_not_printed() {
        assert_eq!(format!("{:?}", key()), "SealKey(..)");
    }

    #[test]
    fn a_key_lies_in_a_file_or_is_a_credential() {
        let file: SealKeyPlace = "keys/seal".parse().unwrap();
        assert_eq!(file.clone().below(Path::new("/etc")).path(None), Ok("/etc/keys/seal".into()));
        assert!(file.is_private(0o600) && file.is_private(0o400));
        assert!(!file.is_private(0o640) && !file.is_private(0o604));
        let credential: SealKeyPlace = "credential:seal".parse().unwrap();
        assert_eq!(credential.path(Some(Path::new("/run/c"))), Ok("/run/c/seal".into()));
        assert_eq!(credential.path(None), Err(InvalidSealKeyPlace::NoCredentials("seal".to_owned())));
        assert!(credential.is_private(0o440) && !credential.is_private(0o444) && !credential.is_private(0o460));
        for wrong in ["", "credential:", "credential:..", "credential:a/b", "credential:../x"] {
            wrong.parse::<SealKeyPlace>().unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn any_content_comes_back(content in proptest::collection::vec(any::<u8>(), 0..300), purpose in ".{0,20}") {
            let key = key();
            let sealed = key.seal(&purpose, &content).unwrap();
            prop_assert_eq!(&*key.open(&purpose, &sealed).unwrap(), &content);
        }

        #[test]
        fn no_bytes_are_too_strange(content in proptest::collection::vec(any::<u8>(), 0..80)) {
            let key = key();
            prop_assert!(key.open("x", &content).is_err());
            prop_assert!(key.open("x", &[MAGIC.as_slice(), &content].concat()).is_err());
        }
    }
}
