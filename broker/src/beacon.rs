//! Tells nodes how far the audit log has grown, signed, so that a log that was cut is found out by whoever remembers.

use std::sync::Arc;
use std::time::Duration;

use portcullis_api::v1;
use portcullis_identity::{JwtAuthority, KeyId};
use tokio::sync::watch;

use crate::audit::{AuditLog, Event, Head};
use crate::authority::{Authority, SignedHead};
use crate::broker::Broker;

/// How often nodes are told, where the log grows at all: what was written since is all that a cut can take away unnoticed.
const EVERY: Duration = Duration::from_secs(5);

/// The last signed head, and every later one.
#[derive(Debug, Clone)]
pub(crate) struct Beacon(watch::Receiver<Option<v1::AuditHead>>);

/// Signs heads as the log grows.
#[derive(Debug)]
pub(crate) struct Signer {
    log: AuditLog,
    told: watch::Sender<Option<v1::AuditHead>>,
    /// The key whose name the log holds already.
    known: Option<KeyId>,
}

/// Makes both ends.
pub(crate) fn beacon(log: AuditLog) -> (Beacon, Signer) {
    let (told, seen) = watch::channel(None);
    (Beacon(seen), Signer { log, told, known: None })
}

impl Beacon {
    /// What nodes are told.
    pub(crate) fn heads(&self) -> watch::Receiver<Option<v1::AuditHead>> {
        self.0.clone()
    }
}

impl Signer {
    /// Signs until the broker stops.
    pub(crate) async fn run(mut self, broker: Arc<Broker>) {
        let mut heads = self.log.head();
        loop {
            heads.mark_unchanged();
            self.tell(&broker.authority).await;
            let grown = async {
                tokio::time::sleep(EVERY).await;
                heads.changed().await
            };
            tokio::select! {
                grown = grown => if grown.is_err() { return },
                () = broker.stop.cancelled() => return,
            }
        }
    }

    async fn tell(&mut self, authority: &Authority) {
        let head = *self.log.head().borrow();
        let signed = match authority.sign_head(&head) {
            Ok(signed) => signed,
            Err(error) => return tracing::error!(%error, "the audit log's head was not signed"),
        };
        if self.known.as_ref() != Some(signed.signer.kid()) && !self.introduce(&signed.signer).await {
            return;
        }
        self.told.send_replace(Some(message(head, signed)));
    }

    /// Names the key in the log, so that a remembered signature can be checked with the log alone.
    async fn introduce(&mut self, signer: &JwtAuthority) -> bool {
        let public_key = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, signer.spki_der());
        let kid = signer.kid().as_str().to_owned();
        // Where it fails, the log says so itself; the next head tries again.
        let recorded = self.log.record(Event::HeadKey { kid, public_key }).await.is_ok();
        if recorded {
            self.known = Some(signer.kid().clone());
        }
        recorded
    }
}

fn message(head: Head, signed: SignedHead) -> v1::AuditHead {
    let SignedHead { signer, signature } = signed;
    v1::AuditHead { records: head.records, hash: head.hash.to_vec(), signature, kid: signer.kid().as_str().to_owned() }
}
