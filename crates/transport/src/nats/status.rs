use std::fmt;

use crate::refusal::Refusal;

/// The longest reason that is sent or kept, in bytes.
const LONGEST_REASON: usize = 256;

/// How a callee refused a call: the status line `NATS/1.0 403 denied: reason` on the handshake subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsRefusal {
    /// The number, as in HTTP.
    pub status: u16,
    /// Which of our refusals it is; `None` when the callee is not ours.
    pub refusal: Option<Refusal>,
    /// The callee's words: visible ASCII and spaces, at most 256 bytes.
    pub reason: String,
}

impl NatsRefusal {
    /// What is sent when we refuse.
    pub fn new(refusal: Refusal, reason: &str) -> Self {
        Self { status: refusal.nats_status(), refusal: Some(refusal), reason: printable(reason) }
    }

    /// Reads a status line.
    pub(super) fn read(status: u16, description: &str) -> Self {
        let (name, rest) = description.split_once(':').unwrap_or((description, ""));
        let ours = |refusal: &Refusal| refusal.name() == name && refusal.nats_status() == status;
        match Refusal::ALL.into_iter().find(ours) {
            Some(refusal) => Self { status, refusal: Some(refusal), reason: printable(rest) },
            None => Self { status, refusal: None, reason: printable(description) },
        }
    }

    /// The description that goes behind the number.
    pub(super) fn description(&self) -> String {
        match self.refusal {
            Some(refusal) if self.reason.is_empty() => refusal.name().to_owned(),
            Some(refusal) => format!("{}: {}", refusal.name(), self.reason),
            None => self.reason.clone(),
        }
    }
}

impl fmt::Display for NatsRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.description())
    }
}

/// `text` on one line of bounded length: nobody can forge a header, or a line of a log.
fn printable(text: &str) -> String {
    let visible = text.trim().chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' });
    visible.take(LONGEST_REASON).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn our_refusals_come_back_as_what_they_were() {
        for refusal in Refusal::ALL {
            for reason in ["", "no policy permits it", "a: b"] {
                let sent = NatsRefusal::new(refusal, reason);
                assert_eq!(NatsRefusal::read(sent.status, &sent.description()), sent);
            }
        }
    }

    #[test]
    fn the_words_of_others_are_kept() {
        let read = NatsRefusal::read(403, "not allowed by policy");
        assert_eq!(read, NatsRefusal { status: 403, refusal: None, reason: "not allowed by policy".into() });
        // The name of one refusal with the number of another is nobody's.
        assert_eq!(NatsRefusal::read(404, "denied: x").refusal, None);
        assert_eq!(read.to_string(), "403 not allowed by policy");
    }

    proptest! {
        #[test]
        fn no_reason_breaks_its_line(reason: String, status: u16) {
            let description = NatsRefusal::new(Refusal::Denied, &reason).description();
            prop_assert!(description.bytes().all(|b| b.is_ascii_graphic() || b == b' '));
            prop_assert!(description.len() <= LONGEST_REASON + "denied: ".len());
            let read = NatsRefusal::read(status, &reason);
            prop_assert!(read.reason.len() <= LONGEST_REASON);
        }
    }
}
