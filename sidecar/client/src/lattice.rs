//! One identity on a lattice of NATS: how it connects, and how it calls.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use portcullis_identity::{PeerRule, PeerVerifier, SpiffeId, Target, client_config};
use portcullis_transport::Header;
use portcullis_transport::nats::{
    Call, CallFailed, CallerToken, ConnectError, Deadlines, Headers, InvalidInboxPrefix, InvalidToken, Login,
    NatsLimits, NatsRefusal, NatsServer, NatsSettings, NatsTls, Patience, Session, Target as Address, Token,
    VirtualAddress,
};
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::explanation::Explanation;
use crate::node::Identity;
use crate::peers::{CallError, FunctionName};

/// Before the inboxes of identities.
const INBOXES: &str = "_I";
/// How long calls under way keep a connection that was replaced.
const DRAIN: Duration = Duration::from_secs(30);
/// For a callee's handshake; a component that is not there is told of at once.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Where the lattice is, and how to get in.
#[derive(Clone, Debug)]
pub struct LatticeSettings {
    /// Servers of one cluster, tried in turn.
    pub servers: Vec<NatsServer>,
    /// How the connection is secured.
    pub security: NatsSecurity,
    /// The text of a credentials file that goes with the certificate, as servers in operator mode want it.
    pub credentials: Option<Arc<str>>,
}

/// How the connection to the NATS server is secured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NatsSecurity {
    /// TLS with the identity's SVID, to a server that has this SPIFFE ID.
    Tls {
        /// Whose certificate the server has to show.
        server_id: SpiffeId,
        /// Before the server says anything (`handshake_first` in its configuration).
        first: bool,
    },
    /// Not at all.
    DangerPlain,
}

/// Why an identity cannot be on a lattice, ever.
#[derive(Debug, thiserror::Error)]
pub enum LatticeError {
    /// Its lattice or name cannot stand in a subject.
    #[error("`{name}` cannot stand in a NATS subject: {cause}")]
    Name {
        /// Which of them.
        name: String,
        /// Why.
        cause: InvalidToken,
    },
    /// The two make too long an inbox.
    #[error(transparent)]
    Inbox(#[from] InvalidInboxPrefix),
    /// The TLS stack.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

impl LatticeSettings {
    /// How `identity` connects that is called `member` on its lattice.
    ///
    /// # Errors
    /// [`LatticeError`]
    pub fn of(&self, identity: &Identity, member: &Target, limits: NatsLimits) -> Result<NatsSettings, LatticeError> {
        let VirtualAddress { lattice, id } = address(member)?;
        let tls = match &self.security {
            NatsSecurity::DangerPlain => NatsTls::DangerPlain,
            NatsSecurity::Tls { server_id, first } => {
                let rule = PeerRule::Exactly(server_id.clone());
                // Connections are made anew by themselves, and their errors say nothing of the certificate.
                let verifier = PeerVerifier::observed(identity.trust(), rule, |refused| {
                    warn!(reason = %refused.reason(), "certificate of the nats server refused");
                });
                let config = Arc::new(client_config(verifier, Arc::clone(identity.slot()))?);
                if *first { NatsTls::First(config) } else { NatsTls::Upgrade(config) }
            }
        };
        Ok(NatsSettings {
            servers: self.servers.clone(),
            tls,
            login: self.credentials.as_ref().map_or(Login::Certificate, |text| Login::Credentials(Arc::clone(text))),
            inbox: format!("{}{id}", inboxes(&lattice)).parse()?,
            name: identity.id().to_string(),
            limits,
        })
    }
}

/// The address of a virtual component.
///
/// # Errors
/// When lattice or id cannot stand in a subject.
pub fn address(target: &Target) -> Result<VirtualAddress, LatticeError> {
    Ok(VirtualAddress { lattice: token(target.lattice.to_string())?, id: token(target.id.to_string())? })
}

fn token(name: String) -> Result<Token, LatticeError> {
    name.parse().map_err(|cause| LatticeError::Name { name, cause })
}

/// What is before the names in the inboxes of a lattice's identities. The server lets nobody but the holder of a name subscribe behind it.
#[must_use]
pub fn inboxes(lattice: &Token) -> String {
    format!("{INBOXES}.{lattice}.")
}

/// What is called over NATS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Callee {
    /// A virtual component: its sidecar decides.
    Virtual(Target),
    /// A wasm component on a host, which asks no policy of ours.
    Hosted(Target),
}

impl Callee {
    fn name(&self) -> &Target {
        match self {
            Self::Virtual(target) | Self::Hosted(target) => target,
        }
    }
}

/// Calls over NATS under one identity. Clones share the connection.
#[derive(Clone, Debug)]
pub struct LatticeCaller {
    session: Session,
    name: Token,
    limit: usize,
}

impl LatticeCaller {
    /// Connects as the settings say, for an identity that is called `member`. When its SVID is renewed, [`renew`](Self::renew).
    ///
    /// # Errors
    /// [`ConnectError`]
    pub async fn connect(
        settings: NatsSettings,
        member: &VirtualAddress,
        limit: usize,
        tasks: &TaskTracker,
    ) -> Result<Self, ConnectError> {
        let session = Session::start(settings, DRAIN, tasks.clone()).await?;
        Ok(Self { session, name: member.id.clone(), limit })
    }

    /// Connects anew: new calls go over the new connection, those under way end on the old one.
    pub fn renew(&self) {
        self.session.renew();
    }

    /// Ends the connection at once.
    pub fn close(&self) {
        self.session.close();
    }

    /// Makes one call of plain values. `params` and the answer are in wRPC's encoding.
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn call(
        &self,
        callee: &Callee,
        function: FunctionName<'_>,
        params: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, CallError> {
        let peer = || callee.name().to_string();
        let malformed = |cause: &dyn std::fmt::Display| CallError::Malformed { peer: peer(), cause: cause.to_string() };
        let VirtualAddress { lattice, id } = address(callee.name()).map_err(|error| malformed(&error))?;
        let to = match callee {
            Callee::Virtual(_) => Address::Virtual {
                address: VirtualAddress { lattice, id },
                caller: CallerToken::Registered(self.name.clone()),
            },
            Callee::Hosted(_) => Address::Component { lattice, id },
        };
        let header = Header { instance: function.instance.to_owned(), function: function.function.to_owned() };
        let subject = to.request_subject(&header).map_err(|error| malformed(&error))?;
        let deadlines = Deadlines { handshake: HANDSHAKE.min(deadline), then: Patience::InAll(deadline) };
        let headers = Headers::new();
        let call = Call { subject: &subject, headers: &headers, params, deadlines };
        self.session.call(call, self.limit).await.map_err(|failed| told(callee, failed, deadline))
    }
}

fn told(callee: &Callee, failed: CallFailed, after: Duration) -> CallError {
    let (peer, cause) = (callee.name().to_string(), failed.to_string());
    match failed {
        CallFailed::Refused(NatsRefusal { refusal: Some(refusal), reason, .. }) => {
            let explanation = Explanation { refusal: refusal.name().to_owned(), reason, policies: Vec::new() };
            CallError::Refused { peer, refusal, explanation: Some(explanation) }
        }
        // Another's word is no decision of a policy: what it means, nobody here knows.
        CallFailed::Refused(foreign @ NatsRefusal { refusal: None, .. }) => {
            CallError::Malformed { peer, cause: format!("a status that no sidecar sends: `{foreign}`") }
        }
        CallFailed::NotPermitted { .. } => {
            let hint = match callee {
                Callee::Hosted(_) => {
                    " (hint: `nats.component_callers` in the broker's configuration has to name this identity)"
                }
                Callee::Virtual(_) => "",
            };
            CallError::Unreachable { peer, cause: format!("{cause}{hint}") }
        }
        CallFailed::NoResponder => CallError::Unreachable { peer, cause },
        CallFailed::TimedOut(_) => CallError::DeadlineExceeded { peer, after },
        CallFailed::GivenUp | CallFailed::Disconnected | CallFailed::NoRandomness(_) => CallError::Lost { peer, cause },
        CallFailed::SlowConsumer(_)
        | CallFailed::Malformed(_)
        | CallFailed::TooLarge { .. }
        | CallFailed::TooManyCalls { .. } => CallError::Malformed { peer, cause },
    }
}

#[cfg(test)]
mod tests {
    use portcullis_transport::Refusal;

    use super::*;

    fn refused(status: u16, refusal: Option<Refusal>) -> CallError {
        let refusal = NatsRefusal { status, refusal, reason: "why".to_owned() };
        let callee = Callee::Virtual("demo/shop".parse().unwrap());
        told(&callee, CallFailed::Refused(refusal), Duration::from_secs(1))
    }

    #[test]
    fn only_a_status_of_ours_is_a_refusal() {
        let CallError::Refused { refusal, explanation, .. } = refused(403, Some(Refusal::Denied)) else { panic!() };
        assert_eq!((refusal, explanation.unwrap().reason.as_str()), (Refusal::Denied, "why"));
        for status in [403, 500] {
            let error = refused(status, None);
            assert!(matches!(error, CallError::Malformed { .. }), "{error}");
            assert!(error.to_string().ends_with(&format!("`{status} why`")), "{error}");
        }
    }

    #[test]
    fn who_may_not_call_a_component_is_told_where_that_is_said() {
        let text = |callee: Callee| {
            let failed = CallFailed::NotPermitted { subject: "demo.cart.wrpc.0.0.1.f".to_owned() };
            told(&callee, failed, Duration::from_secs(1)).to_string()
        };
        let name: Target = "demo/cart".parse().unwrap();
        assert!(text(Callee::Hosted(name.clone())).contains("nats.component_callers"));
        assert!(!text(Callee::Virtual(name)).contains("hint"));
    }
}
