//! SPIRE's Delegated Identity API, as far as wasmCloud hosts use it: a host fetches JWT-SVIDs for the components that it runs.
//!
//! The host is attested as every caller is. Which component asks is its word, and the broker believes it only where it allowed that host to
//! start that component; so this module passes on, and decides nothing but what belongs to the machine.

use std::collections::BTreeSet;
use std::sync::Arc;

use portcullis_api::delegated::delegated_identity_server::{DelegatedIdentity, DelegatedIdentityServer};
use portcullis_api::delegated::{FetchJwtsviDsRequest, FetchJwtsviDsResponse, Jwtsvid, Spiffeid};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};
use tracing::error;

use super::api::{check_audience, known, workload};
use super::attest::{Attestor, Depth};
use super::quota::Quota;
use super::{
    Entry, Identities, MAX_REQUEST_BYTES, SocketError, Token, TokenRefused, WantedToken, WorkloadConfig,
    bounded_server, connection, socket,
};
use crate::clock;

/// Before the id of a component in a selector.
pub(crate) const COMPONENT: &str = "wasmcloud:component:";
/// Of all selectors that a host may name.
const WASMCLOUD: &str = "wasmcloud:";
/// Selectors in one request.
const MAX_SELECTORS: usize = 32;
/// Bytes of one.
const MAX_SELECTOR_BYTES: usize = 1024;
/// Identities of one component.
const MAX_IDENTITIES: usize = 16;

/// Makes the socket.
///
/// # Errors
/// When its path is taken or cannot be used.
pub(crate) fn bind(config: &WorkloadConfig) -> Result<UnixListener, SocketError> {
    socket::bind(&config.socket, config.mode)
}

/// Serves `identities` until `stop`.
pub(crate) fn serve<I: Identities>(
    listener: UnixListener,
    config: &WorkloadConfig,
    identities: I,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    let quota = Arc::new(Quota::new(config.limits));
    let incoming = connection::incoming(listener, config.uids.clone(), Arc::clone(&quota), tasks, stop.clone());
    let delegated = Delegated { identities, attestor: Attestor::new(), quota };
    let server = bounded_server()
        .add_service(DelegatedIdentityServer::new(delegated).max_decoding_message_size(MAX_REQUEST_BYTES))
        .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
    let path = config.socket.clone();
    tasks.spawn(async move {
        if let Err(error) = server.await {
            error!(%error, "the delegated identity API ended");
        }
        // Left behind it would only be replaced at the next start.
        let _ = std::fs::remove_file(path);
    });
}

#[derive(Debug)]
struct Delegated<I> {
    identities: I,
    attestor: Attestor,
    quota: Arc<Quota>,
}

#[tonic::async_trait]
impl<I: Identities> DelegatedIdentity for Delegated<I> {
    async fn fetch_jwtsvi_ds(
        &self,
        request: Request<FetchJwtsviDsRequest>,
    ) -> Result<Response<FetchJwtsviDsResponse>, Status> {
        let workload = workload(&request)?.clone();
        let (uid, pid) = (workload.caller.uid(), workload.caller.pid());
        self.quota.request(uid, clock::instant()).map_err(|error| Status::unavailable(error.to_string()))?;
        let FetchJwtsviDsRequest { audience, selectors, pid: of_process } = request.into_inner();
        check_audience(&audience)?;
        if of_process != 0 {
            return Err(Status::invalid_argument("name the workload by selectors: processes ask for themselves"));
        }
        let named = named(selectors.into_iter().map(|selector| format!("{}:{}", selector.r#type, selector.value)))?;
        let snapshot = known(self.identities.snapshots().borrow().clone())?;
        let depth = if snapshot.demands_digest() { Depth::WithDigest } else { Depth::WithoutDigest };
        let attested = self.attestor.attest(Arc::clone(&workload.caller), depth).await;
        let attested = attested.map_err(|error| Status::permission_denied(error.to_string()))?;
        let entitled = snapshot.entitled(&attested).map_err(|nothing| {
            tracing::info!(uid, pid, selectors = %attested, "who asks for a component's identity meets no entry");
            Status::permission_denied(nothing.to_string())
        })?;
        // As which it joined the lattice: hosts take the first one.
        let host = entitled
            .entries()
            .next()
            .ok_or_else(|| Status::permission_denied("no identity is issued to the caller"))?;
        let entries: Vec<_> = snapshot.held().iter().map(|held| &held.entry).collect();
        let meets = |demands: &BTreeSet<String>| {
            demands.iter().any(|demand| demand.starts_with(COMPONENT)) && demands.is_subset(&named)
        };
        let entries: Vec<_> =
            entries.into_iter().filter(|entry| meets(&entry.selectors)).take(MAX_IDENTITIES).collect();
        let (mut svids, mut refusal) = (Vec::new(), None);
        // Each by itself: a component of that id in another lattice is refused, and that is nothing to this one.
        for entry in entries {
            match self.token(entry, &audience, &host.id).await {
                Ok(token) => svids.push(svid(entry, token)),
                Err(TokenRefused::Unavailable) => {
                    return Err(Status::unavailable(TokenRefused::Unavailable.to_string()));
                }
                Err(TokenRefused::Refused(why)) => refusal = Some(why),
            }
        }
        match refusal {
            Some(why) if svids.is_empty() => Err(Status::permission_denied(why)),
            Some(_) | None => Ok(Response::new(FetchJwtsviDsResponse { svids })),
        }
    }
}

impl<I: Identities> Delegated<I> {
    async fn token(&self, entry: &Entry, audience: &[String], host: &str) -> Result<Token, TokenRefused> {
        let vouched_by = Some(host.to_owned());
        let wanted = WantedToken { entry: entry.id.clone(), audience: audience.to_vec(), vouched_by };
        let tokens = self.identities.tokens(vec![wanted]).await?;
        tokens.into_iter().next().ok_or(TokenRefused::Unavailable)
    }
}

fn svid(entry: &Entry, token: Token) -> Jwtsvid {
    let (trust_domain, path) = (entry.spiffe_id.trust_domain_name().to_owned(), entry.spiffe_id.path().to_owned());
    // The token says both times; nobody has to believe these.
    let (expires_at, issued_at) = (0, 0);
    let id = Some(Spiffeid { trust_domain, path });
    Jwtsvid { token: token.text, id, expires_at, issued_at, hint: entry.hint.clone() }
}

/// The selectors of one component, and of nothing that can be attested.
fn named(selectors: impl Iterator<Item = String>) -> Result<BTreeSet<String>, Status> {
    let selectors: BTreeSet<String> = selectors.take(MAX_SELECTORS.saturating_add(1)).collect();
    if selectors.len() > MAX_SELECTORS || selectors.iter().any(|selector| selector.len() > MAX_SELECTOR_BYTES) {
        return Err(Status::invalid_argument("the selectors are too many or too long"));
    }
    if let Some(other) = selectors.iter().find(|selector| !selector.starts_with(WASMCLOUD)) {
        let kind = other.split(':').next().unwrap_or_default();
        return Err(Status::permission_denied(format!("nobody says of another what is `{kind}`: that is attested")));
    }
    match selectors.iter().filter(|selector| selector.starts_with(COMPONENT)).count() {
        1 => Ok(selectors),
        _ => Err(Status::invalid_argument("the selectors name one component, as `wasmcloud:component:ID`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_name_one_component_and_nothing_that_is_attested() {
        let read = |selectors: &[&str]| named(selectors.iter().map(|&selector| selector.to_owned()));
        assert_eq!(read(&["wasmcloud:ns:a", "wasmcloud:component:app"]).unwrap().len(), 2);
        for bad in [
            &["wasmcloud:ns:a"][..],
            &["wasmcloud:component:a", "wasmcloud:component:b"],
            &["wasmcloud:component:a", "unix:uid:0"],
            &[],
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
        let many = (0..40).map(|number| format!("wasmcloud:x:{number}"));
        assert!(named(many.chain(["wasmcloud:component:a".to_owned()])).is_err());
        assert!(named([format!("wasmcloud:component:{}", "a".repeat(1024))].into_iter()).is_err());
    }
}
