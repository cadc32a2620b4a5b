//! Whether the NATS servers hold clients to their names. The caller's name in a subject says who calls only where the server lets nobody else
//! publish it; a server without auth callout lets everybody.

use std::time::Duration;

use bytes::Bytes;
use portcullis_transport::Header;
use portcullis_transport::nats::{
    Call, CallFailed, CallerToken, Deadlines, Headers, InvalidName, Link, Patience, Proof, Target, VirtualAddress,
};

/// For the server to say no.
const ANSWER: Duration = Duration::from_secs(2);
/// A function that nobody has.
const PROBE: (&str, &str) = ("portcullis:probe/names@1.0.0", "are-held");

/// Why calls are not taken here.
#[derive(Debug, thiserror::Error)]
enum NotHeld {
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

/// The proof of a connection over which `address` is called.
pub(super) fn names_are_held(address: VirtualAddress) -> Proof {
    Proof::new(move |link| {
        let address = address.clone();
        async move { refused_as_host(&link, address).await }
    })
}

/// Calls `address` as a host would, which no sidecar may.
///
/// # Errors
/// Where the server does not refuse that.
async fn refused_as_host(link: &Link, address: VirtualAddress) -> Result<(), NotHeld> {
    let target = Target::Virtual { address, caller: CallerToken::Host };
    let (instance, function) = PROBE;
    let header = Header { instance: instance.into(), function: function.into() };
    let subject = target.request_subject(&header)?;
    let (headers, params) = (Headers::new(), Bytes::new());
    let deadlines = Deadlines { handshake: ANSWER, then: Patience::InAll(ANSWER) };
    match link.call(Call { subject: &subject, headers: &headers, params, deadlines }, 0).await {
        // This very subject: where whoever hears it has us publish elsewhere, that is no word on this one.
        Err(CallFailed::NotPermitted { subject: refused }) if refused == subject.as_str() => Ok(()),
        // Somebody heard it, or would have.
        Ok(_)
        | Err(
            CallFailed::NoResponder | CallFailed::Refused(_) | CallFailed::GivenUp | CallFailed::NotPermitted { .. },
        ) => Err(NotHeld::Open),
        // Whoever hears it is silent, ourselves perhaps: but the server has taken it.
        Err(CallFailed::TimedOut(_)) if link.settled().await => Err(NotHeld::Open),
        Err(failed) => Err(failed.into()),
    }
}
