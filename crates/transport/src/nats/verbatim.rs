//! The two lines of the NATS protocol that async-nats has no call for.
//!
//! Its header block always begins with a bare `NATS/1.0`, so it cannot publish a status; and its ways to unsubscribe
//! forget the subscription before the server has, so that what is on the way is lost. It does write the subject of an
//! [`OutboundMessage`] as it is. Here, and nowhere else, a subject is made that holds whole lines. Every part of them is
//! our own or was parsed to visible ASCII without spaces, so nothing a peer says can add a line.

use async_nats::{HeaderMap, Subject, message::OutboundMessage};
use bytes::Bytes;

use super::{status::NatsRefusal, subject::ReplySubject};

/// What async-nats writes behind a subject when there are these headers and no payload, up to the line's end that
/// closes the payload.
const TAIL: &str = " 18 18\r\nNATS/1.0\r\nx: x\r\n\r\n";

/// The header that makes async-nats write [`TAIL`] behind the verb `HPUB`.
fn tail_header() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("x", "x");
    headers
}

/// A message with a status line. What async-nats adds becomes its payload, which nobody reads of a status that is no
/// success.
pub(super) fn status(to: &ReplySubject, refusal: &NatsRefusal) -> OutboundMessage {
    let block = format!("NATS/1.0 {} {}\r\n\r\n", refusal.status, refusal.description());
    let (length, total) = (block.len(), block.len() + TAIL.len());
    let subject = format!("{} {length} {total}\r\n{block}", to.as_str());
    OutboundMessage {
        subject: Subject::from(subject),
        reply: None,
        payload: Bytes::new(),
        headers: Some(tail_header()),
    }
}

/// Tells the server to end a subscription that async-nats goes on to hold. The line stands between two empty messages
/// to `carrier`, a subject of our own.
pub(super) fn unsubscribe(sid: u64, carrier: &str) -> OutboundMessage {
    let subject = format!("{carrier} 0\r\n\r\nUNSUB {sid}\r\nPUB {carrier}");
    OutboundMessage { subject: Subject::from(subject), reply: None, payload: Bytes::new(), headers: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Refusal;

    #[test]
    fn the_lines_add_up() {
        let to = ReplySubject::parse("_INBOX.a.b").unwrap();
        let message = status(&to, &NatsRefusal::new(Refusal::Denied, "no\r\nPUB x 0"));
        let block = "NATS/1.0 403 denied: no??PUB x 0\r\n\r\n";
        assert_eq!(
            message.subject.as_str(),
            format!("_INBOX.a.b {} {}\r\n{block}", block.len(), block.len() + TAIL.len())
        );
        assert_eq!(unsubscribe(7, "_INBOX_a.b").subject.as_str(), "_INBOX_a.b 0\r\n\r\nUNSUB 7\r\nPUB _INBOX_a.b");
    }
}
