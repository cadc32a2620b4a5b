//! Whether the NATS servers hold clients to their names. The caller's name in a subject says who calls only where the server lets nobody else
//! publish it; a server without auth callout lets everybody.

use std::time::Duration;

use bytes::Bytes;
use portcullis_transport::Header;
use portcullis_transport::nats::{
    Call, CallFailed, CallerToken, Deadlines, Headers, InvalidName, Session, Target, VirtualAddress,
};

/// For the server to say no.
const ANSWER: Duration = Duration::from_secs(2);
/// A function that nobody has.
const PROBE: (&str, &str) = ("portcullis:probe/names@1.0.0", "are-held");

/// Why calls are not taken here.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unproved {
    #[error(
        "the NATS servers do not hold clients to their names: this sidecar could call as a host, so anybody could call as anybody; let the \
         broker answer their logins (`portcullis-broker nats init`), or take every caller for anonymous (`nats.danger_plain_addresses`)"
    )]
    Open,
    #[error("cannot find out whether the NATS servers hold clients to their names")]
    Unknown(#[from] CallFailed),
    #[error(transparent)]
    Name(#[from] InvalidName),
}

/// Calls `address` as a host would, which no sidecar may.
///
/// # Errors
/// Where the server does not refuse that.
pub(super) async fn names_are_held(session: &Session, address: &VirtualAddress) -> Result<(), Unproved> {
    let target = Target::Virtual { address: address.clone(), caller: CallerToken::Host };
    let (instance, function) = PROBE;
    let header = Header { instance: instance.into(), function: function.into() };
    let subject = target.request_subject(&header)?;
    let (headers, params) = (Headers::new(), Bytes::new());
    let deadlines = Deadlines { handshake: ANSWER, ..Deadlines::default() };
    match session.call(Call { subject: &subject, headers: &headers, params, deadlines }, 0).await {
        Err(CallFailed::NotPermitted { .. }) => Ok(()),
        // Somebody heard it, or would have.
        Ok(_) | Err(CallFailed::NoResponder | CallFailed::Refused(_) | CallFailed::GivenUp) => Err(Unproved::Open),
        Err(failed) => Err(failed.into()),
    }
}
