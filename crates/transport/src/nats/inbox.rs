use std::{fmt, str::FromStr};

use ring::rand::SecureRandom;

use super::subject::is_token_character;

/// The longest inbox prefix, in bytes: two names of 64 bytes and what is before them.
const LONGEST_PREFIX: usize = 132;
/// Most tokens in a prefix.
const MOST_TOKENS: usize = 4;
/// The length of a key as it stands in a subject: 128 bits in lower-case hexadecimal.
pub(super) const KEY_LENGTH: usize = 32;
const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// The beginning of every subject on which one identity is answered, such as `_INBOX_pay`. The NATS server lets that
/// identity alone subscribe below it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InboxPrefix(Box<str>);

/// A text is no [`InboxPrefix`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("inbox prefix has to be 1 to 4 tokens of `[A-Za-z0-9_-]`, at most 132 bytes in all")]
pub struct InvalidInboxPrefix;

impl InboxPrefix {
    /// The prefix, without a dot behind it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InboxPrefix {
    type Err = InvalidInboxPrefix;

    fn from_str(text: &str) -> Result<Self, InvalidInboxPrefix> {
        let sound = text.len() <= LONGEST_PREFIX
            && text.split('.').count() <= MOST_TOKENS
            && text.split('.').all(|token| !token.is_empty() && token.chars().all(is_token_character));
        if sound { Ok(Self(text.into())) } else { Err(InvalidInboxPrefix) }
    }
}

impl fmt::Display for InboxPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What makes the inbox of one call its own: 128 random bits, known to whom the call's subjects were sent, and to
/// nobody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(pub(super) u128);

/// The system gave no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gave no random bytes")]
pub struct NoRandomness;

impl Key {
    pub(super) fn random(random: &dyn SecureRandom) -> Result<Self, NoRandomness> {
        let mut bytes = [0; 16];
        random.fill(&mut bytes).map_err(|_| NoRandomness)?;
        Ok(Self(u128::from_be_bytes(bytes)))
    }

    /// Appends the key as it stands in a subject.
    pub(super) fn write(self, subject: &mut String) {
        for byte in self.0.to_be_bytes() {
            for nibble in [byte >> 4, byte & 0xf] {
                if let Some(&digit) = DIGITS.get(usize::from(nibble)) {
                    subject.push(char::from(digit));
                }
            }
        }
    }

    /// Reads a key from the front of `text`; the rest is empty or begins with a dot. One key has one spelling.
    pub(super) fn split(text: &str) -> Option<(Self, &str)> {
        let (key, rest) = text.split_at_checked(KEY_LENGTH)?;
        if !(rest.is_empty() || rest.starts_with('.')) {
            return None;
        }
        let mut value: u128 = 0;
        for byte in key.bytes() {
            let nibble = match byte {
                b'0'..=b'9' => byte - b'0',
                b'a'..=b'f' => byte - b'a' + 10,
                _ => return None,
            };
            value = value << 4 | u128::from(nibble);
        }
        Some((Self(value), rest))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prefixes_hold_no_wildcard_and_no_empty_token() {
        for good in ["_INBOX", "_INBOX_pay", "_I.pay", "a.b.c.d"] {
            assert_eq!(good.parse::<InboxPrefix>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "a.", "a..b", "a.*", "a.>", "a b", "a.b.c.d.e", &"a".repeat(133)] {
            assert_eq!(bad.parse::<InboxPrefix>(), Err(InvalidInboxPrefix), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_key_that_is_written_is_read(value: u128, rest in "(\\.[a-z0-9.]{0,9})?") {
            let mut subject = String::new();
            Key(value).write(&mut subject);
            subject.push_str(&rest);
            prop_assert_eq!(Key::split(&subject), Some((Key(value), &*rest)));
            prop_assert_eq!(Key::split(&subject.to_uppercase()).is_some(), subject == subject.to_uppercase());
        }

        #[test]
        fn any_text_gets_an_answer(text: String) {
            let _ = Key::split(&text);
        }
    }
}
