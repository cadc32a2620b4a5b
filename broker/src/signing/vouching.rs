//! Tokens that a host fetches for a component that it runs: the component proved nothing, the host says so.

use portcullis_api::v1;
use portcullis_identity::{NodeName, SpiffeId};

use super::{SignRefusal, take};
use crate::broker::Broker;
use crate::registry::Entry;
use crate::wire;

/// Before the id of a component in the selector of its entry.
const COMPONENT: &str = "wasmcloud:component:";

/// Why a host may not fetch a token for a component.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotVouched {
    #[error("`{0}` is not a host of the entry's lattice")]
    NoHost(SpiffeId),
    #[error("the entry is that of a component on a host: the host has to vouch for it")]
    Nobody,
    #[error("the entry is not that of one component: it has no selector `{COMPONENT}ID`, or several")]
    NoComponent,
    #[error("such a token is no way to join the lattice")]
    Audience,
    #[error("the policy service has not allowed `{host}` to start component `{component}`")]
    NotStarted { host: SpiffeId, component: String },
    #[error("this broker has no policy service")]
    NoService,
}

impl Broker {
    /// Who vouches for what `wanted` is about, where somebody does.
    pub(super) async fn vouching(
        &self,
        node: &NodeName,
        wanted: &v1::WantedJwt,
    ) -> Result<Option<SpiffeId>, SignRefusal> {
        if wanted.vouched_by.is_empty() {
            let entry = self.entry(node, &wire::parse(&wanted.entry)?)?;
            judge_unvouched(&entry)?;
            return Ok(None);
        }
        // Looking costs as much as signing.
        take(&self.signing.tokens, node)?;
        let host = self.entry(node, &wire::parse(&wanted.vouched_by)?)?.spiffe_id.clone();
        let entry = self.entry(node, &wire::parse(&wanted.entry)?)?;
        let component = component_of(&entry).ok_or(NotVouched::NoComponent)?;
        let desk = self.admissions.desk.get().ok_or(NotVouched::NoService)?;
        // The broker of the lattice takes such a token for the identity's own word.
        if wanted.audience.iter().any(|audience| desk.joins(audience)) {
            return Err(NotVouched::Audience.into());
        }
        let lattice = self.ledger.read(|registry| desk.lattice_of(registry, &host));
        let lattice = lattice.filter(|lattice| entry.lattice.as_ref() == Some(lattice));
        let lattice = lattice.ok_or_else(|| NotVouched::NoHost(host.clone()))?;
        if desk.allowed_start(lattice, host.clone(), component).await {
            Ok(Some(host))
        } else {
            Err(NotVouched::NotStarted { host, component: component.to_owned() }.into())
        }
    }
}

/// Of the identity of a component on a host nothing is signed that no host vouches for.
pub(super) fn judge_unvouched(entry: &Entry) -> Result<(), NotVouched> {
    let of_component = entry.terms.selectors.iter().any(|selector| selector.as_str().starts_with(COMPONENT));
    if of_component { Err(NotVouched::Nobody) } else { Ok(()) }
}

fn component_of(entry: &Entry) -> Option<&str> {
    let mut named = entry.terms.selectors.iter().filter_map(|selector| selector.as_str().strip_prefix(COMPONENT));
    let first = named.next()?;
    named.next().is_none().then_some(first)
}
