use std::{fmt, str::FromStr};

use ring::rand::{SecureRandom as _, SystemRandom};

use super::subject::is_token_character;

/// The longest inbox prefix, in bytes: two names of 64 bytes and what is before them.
const LONGEST_PREFIX: usize = 132;
/// Most tokens in a prefix.
const MOST_TOKENS: usize = 4;
/// The length of a key as it stands in a subject: 128 bits in lower-case hexadecimal.
pub(super) const KEY_LENGTH: usize = 32;
const DIGITS: &[u8; 16] = b"0123456789abcdef";
/// Between inbox and key in the reply subject of a request: its parameters are whole, and so may be the answer. A callee of
/// ours then needs no handshake: it answers with one message to `{reply}.whole`, or shakes hands when that takes longer.
/// Others take the subject as it is, and shake hands. It stands here and not in a header because a request without headers
/// is cheaper for both ends and the server.
const WHOLE: &str = "whole.";
/// Keys that are drawn together: asking the system for each would be a system call for each call.
const KEYS_AT_ONCE: usize = 32;

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

/// Draws keys.
pub(super) struct Keys {
    random: SystemRandom,
    drawn: Vec<Key>,
}

impl Default for Keys {
    fn default() -> Self {
        Self { random: SystemRandom::new(), drawn: Vec::with_capacity(KEYS_AT_ONCE) }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

impl Keys {
    /// One that nobody had or will have.
    pub(super) fn draw(&mut self) -> Result<Key, NoRandomness> {
        if let Some(key) = self.drawn.pop() {
            return Ok(key);
        }
        let mut bytes = [0; 16 * KEYS_AT_ONCE];
        self.random.fill(&mut bytes).map_err(|_| NoRandomness)?;
        let (keys, _) = bytes.as_chunks::<16>();
        self.drawn.extend(keys.iter().map(|key| Key(u128::from_be_bytes(*key))));
        self.drawn.pop().ok_or(NoRandomness)
    }
}

/// The reply subject of a request to a key of `inbox`, which ends in a dot; of one that is whole it says so.
pub(super) fn whole_reply(inbox: &str, key: Key) -> String {
    let mut subject = String::with_capacity(reply_length(inbox));
    subject.push_str(inbox);
    subject.push_str(WHOLE);
    key.write(&mut subject);
    subject
}

/// The length of the longest reply subject of a request, in bytes.
pub(super) const fn reply_length(inbox: &str) -> usize {
    inbox.len() + WHOLE.len() + KEY_LENGTH
}

/// Whether the request with this reply subject says that it is whole: not to be believed, but to be tried.
pub(super) fn says_whole(reply: &str) -> bool {
    let parts = reply.len().checked_sub(KEY_LENGTH).and_then(|at| reply.split_at_checked(at));
    parts.is_some_and(|(inbox, key)| {
        let inbox = inbox.strip_suffix(WHOLE);
        inbox.is_some_and(|inbox| inbox.ends_with('.')) && matches!(Key::split(key), Some((_, "")))
    })
}

/// The key of what was sent below an inbox, and what stands behind it.
pub(super) fn addressed(below: &str) -> Option<(Key, &str)> {
    Key::split(below.strip_prefix(WHOLE).unwrap_or(below))
}

impl Key {
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

    #[test]
    fn keys_are_drawn_once() {
        let mut keys = Keys::default();
        let drawn: std::collections::HashSet<_> = (0..3 * KEYS_AT_ONCE).map(|_| keys.draw().unwrap()).collect();
        assert_eq!(drawn.len(), 3 * KEYS_AT_ONCE);
        assert_eq!(format!("{keys:?}"), "Keys { .. }");
    }

    #[test]
    fn only_the_reply_subject_of_a_whole_request_says_so() {
        let key = "0123456789abcdef0123456789abcdef";
        assert!(says_whole(&format!("_INBOX_a.b.whole.{key}")));
        for other in [
            String::new(),
            key.to_owned(),
            format!("whole.{key}"),
            format!("_INBOX_a.b.{key}"),
            format!("_INBOX_a.b.awhole.{key}"),
            format!("_INBOX_a.b.whole{key}"),
            format!("_INBOX_a.b.whole.{key}0"),
            format!("_INBOX_a.b.whole.{key}.whole"),
            format!("_INBOX_a.b.whole.{}", key.to_uppercase()),
            format!("_INBOX_a.b.whole.{}", "é".repeat(16)),
            "_INBOX.whole.aBcDeFgHiJkLmNoPqRsTuV".to_owned(),
        ] {
            assert!(!says_whole(&other), "{other}");
        }
    }

    proptest! {
        #[test]
        fn a_request_is_answered_at_its_key_whether_it_is_whole_or_not(value: u128, rest in "(\\.[a-z0-9.]{0,9})?") {
            let inbox = "_I.pay.c.";
            let whole = whole_reply(inbox, Key(value));
            prop_assert!(says_whole(&whole) && whole.len() == reply_length(inbox));
            let mut plain = inbox.to_owned();
            Key(value).write(&mut plain);
            prop_assert!(!says_whole(&plain));
            for reply in [whole, plain] {
                let subject = format!("{reply}{rest}");
                prop_assert_eq!(addressed(subject.strip_prefix(inbox).unwrap()), Some((Key(value), &*rest)));
            }
        }

        #[test]
        fn any_reply_gets_an_answer(text: String) {
            let _ = (says_whole(&text), addressed(&text));
        }

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
