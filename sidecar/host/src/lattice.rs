//! Calls into the lattice: over QUIC, to whoever the registry names at that moment.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use portcullis_client::{CallError, NodeState, Peers, explanation::Explanation, peers::FunctionName};
use tokio::sync::watch;

use crate::{Call, CallFailure, Callee, Refused};

/// The lattice as the node's broker tells of it, and connections into it under the component's identity.
#[derive(Debug)]
pub(crate) struct Lattice {
    pub(crate) peers: Peers,
    pub(crate) state: watch::Receiver<Arc<NodeState>>,
}

impl Call for Lattice {
    async fn call(&self, callee: Callee<'_>, params: Bytes, timeout: Duration) -> Result<Bytes, CallFailure> {
        let Callee { target, instance, function } = callee;
        let record = self.state.borrow().components.get(target).cloned();
        let Some(record) = record else {
            return Err(CallFailure::new(format!("`{instance}#{function}`: {target} has left the lattice")));
        };
        let name = FunctionName { instance, function };
        self.peers.call(&record, name, params, timeout).await.map_err(|error| failure(&callee, error))
    }
}

fn failure(callee: &Callee<'_>, error: CallError) -> CallFailure {
    let cause = match &error {
        // The sentence that was written for people; the policies' ids stand beside it.
        CallError::Refused { peer, refusal, explanation: Some(Explanation { reason, .. }) } if !reason.is_empty() => {
            format!("{peer} refused the call ({refusal}): {reason}")
        }
        CallError::Refused { .. }
        | CallError::Unreachable { .. }
        | CallError::DeadlineExceeded { .. }
        | CallError::Lost { .. }
        | CallError::Malformed { .. } => error.to_string(),
    };
    let message = format!("`{}#{}`: {cause}", callee.instance, callee.function);
    let refused = match error {
        CallError::Refused { peer: _, refusal, explanation } => Some(Refused { refusal, explanation }),
        CallError::Unreachable { .. }
        | CallError::DeadlineExceeded { .. }
        | CallError::Lost { .. }
        | CallError::Malformed { .. } => None,
    };
    CallFailure { message, refused }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_transport::Refusal;

    #[test]
    fn a_failure_says_which_function_and_keeps_the_refusal() {
        let target = "demo/billing".parse().unwrap();
        let callee = Callee { target: &target, instance: "a:b/c@1.0.0", function: "get" };
        let peer = target.to_string();
        let error = CallError::Refused { peer: peer.clone(), refusal: Refusal::Denied, explanation: None };
        let refused = failure(&callee, error);
        assert!(refused.is_denied());
        assert_eq!(refused.to_string(), "`a:b/c@1.0.0#get`: demo/billing refused the call (denied)");
        let explanation = Explanation { reason: "denied by policy `p`".to_owned(), ..Explanation::default() };
        let error = CallError::Refused { peer: peer.clone(), refusal: Refusal::Denied, explanation: Some(explanation) };
        let told = failure(&callee, error).to_string();
        assert_eq!(told, "`a:b/c@1.0.0#get`: demo/billing refused the call (denied): denied by policy `p`");
        let slow = failure(&callee, CallError::DeadlineExceeded { peer, after: Duration::from_millis(5) });
        assert_eq!(slow.refused, None);
        assert_eq!(slow.to_string(), "`a:b/c@1.0.0#get`: demo/billing did not answer within 5 ms");
    }
}
