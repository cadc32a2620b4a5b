//! Foreign trust domains, as an operator registers and sees them.

use std::sync::Arc;

use portcullis_api::v1;
use portcullis_identity::{BundleDocument, TrustDomain, broker_id};
use tonic::{Code, Status};

use super::OperatorService;
use super::answer::{failed, invalid, refusal_status};
use crate::audit::Actor;
use crate::clock::{self, unix_seconds};
use crate::federation::{RefreshError, Refreshed, Standing};
use crate::registry::{Command, Endpoint, ForeignDomain, HeldBundle, NewDomain, Profile, Refusal};
use crate::wire::{self, InvalidMessage};

impl OperatorService {
    pub(super) async fn add_domain(
        &self,
        by: Actor,
        message: v1::AddTrustDomainRequest,
    ) -> Result<v1::AddTrustDomainReply, Status> {
        let new = new_domain(message).map_err(|error| invalid(&error))?;
        let (name, fetched) = (new.name.clone(), new.endpoint.is_some());
        let outcome = self.execute(by, Command::AddDomain(new)).await?;
        if fetched {
            // The relationship stands, whether or not its endpoint answers now; the operator is told.
            self.0.refresher.first_attempt(&name).await;
        }
        Ok(v1::AddTrustDomainReply { domain: self.domain(&name), version: Some(outcome.version.into()) })
    }

    pub(super) async fn refresh_domain(&self, name: &str) -> Result<v1::RefreshTrustDomainReply, Status> {
        let name = wire::trust_domain(name).map_err(|error| invalid(&error))?;
        let refreshed = self.0.refresher.refresh(&self.0, &name).await.map_err(|error| refresh_status(&error))?;
        Ok(v1::RefreshTrustDomainReply { domain: self.domain(&name), changed: refreshed == Refreshed::Changed })
    }

    pub(super) fn list_domains(&self, name: &str) -> Result<v1::ListTrustDomainsReply, Status> {
        if !name.is_empty() {
            let name = wire::trust_domain(name).map_err(|error| invalid(&error))?;
            let own = self.own_domain().filter(|own| own.name == name.as_str());
            let domain = own.or_else(|| self.domain(&name));
            let domain = domain.ok_or_else(|| refusal_status(&Refusal::NoDomain(name)))?;
            return Ok(v1::ListTrustDomainsReply { domains: vec![domain] });
        }
        let foreign: Vec<_> = self.read(|registry| registry.domains().cloned().collect());
        let foreign = foreign.iter().map(|domain| status(domain, self.0.refresher.standing(&domain.name)));
        Ok(v1::ListTrustDomainsReply { domains: self.own_domain().into_iter().chain(foreign).collect() })
    }

    fn domain(&self, name: &TrustDomain) -> Option<v1::TrustDomainStatus> {
        let domain = self.read(|registry| registry.domain(name).cloned())?;
        Some(status(&domain, self.0.refresher.standing(name)))
    }

    fn own_domain(&self) -> Option<v1::TrustDomainStatus> {
        let document = self.0.own_document()?;
        let text = document.to_json().ok()?;
        let own = v1::TrustDomainStatus { own: true, name: document.trust_domain().to_string(), ..Default::default() };
        Some(described(own, &document, text.as_bytes()))
    }
}

fn new_domain(message: v1::AddTrustDomainRequest) -> Result<NewDomain, InvalidMessage> {
    let profile = message.profile();
    let v1::AddTrustDomainRequest { name, bundle_endpoint, profile: _, endpoint_id, bundle } = message;
    let name = wire::trust_domain(&name)?;
    let endpoint = match (bundle_endpoint.as_str(), profile) {
        ("", v1::BundleProfile::Unspecified) if endpoint_id.is_empty() => None,
        ("", _) => return Err(InvalidMessage::new("a profile and an endpoint's ID belong to a bundle endpoint")),
        (_, v1::BundleProfile::Unspecified) => {
            return Err(InvalidMessage::new("say how the bundle endpoint proves itself: https_web or https_spiffe"));
        }
        (_, v1::BundleProfile::HttpsWeb) if !endpoint_id.is_empty() => {
            return Err(InvalidMessage::new("an endpoint of profile https_web has no SPIFFE ID"));
        }
        (url, v1::BundleProfile::HttpsWeb) => Some(Endpoint { url: wire::parse(url)?, profile: Profile::HttpsWeb }),
        (url, v1::BundleProfile::HttpsSpiffe) => {
            let id = if endpoint_id.is_empty() { broker_id(&name) } else { wire::spiffe_id(&endpoint_id)? };
            Some(Endpoint { url: wire::parse(url)?, profile: Profile::HttpsSpiffe(id) })
        }
    };
    let held = |json: &[u8]| HeldBundle::read(json, &name, clock::now()).map_err(|error| invalid_bundle(&error));
    let bundle = if bundle.is_empty() { None } else { Some(Arc::new(held(&bundle)?.0)) };
    Ok(NewDomain { name, endpoint, bundle })
}

fn invalid_bundle(error: &portcullis_identity::InvalidDocument) -> InvalidMessage {
    InvalidMessage::new(format!("the bundle is refused: {error}"))
}

fn status(domain: &ForeignDomain, standing: Standing) -> v1::TrustDomainStatus {
    let (endpoint, profile, endpoint_id) = match &domain.endpoint {
        None => (String::new(), v1::BundleProfile::Unspecified, String::new()),
        Some(Endpoint { url, profile: Profile::HttpsWeb }) => {
            (url.to_string(), v1::BundleProfile::HttpsWeb, String::new())
        }
        Some(Endpoint { url, profile: Profile::HttpsSpiffe(id) }) => {
            (url.to_string(), v1::BundleProfile::HttpsSpiffe, id.to_string())
        }
    };
    let Standing { attempts: _, fetched_at, problem, alarm, due_at } = standing;
    let status = v1::TrustDomainStatus {
        name: domain.name.to_string(),
        bundle_endpoint: endpoint,
        profile: profile.into(),
        endpoint_id,
        fetched_at: fetched_at.map(unix_seconds).unwrap_or_default(),
        due_at: due_at.map(unix_seconds).unwrap_or_default(),
        problem: problem.unwrap_or_default(),
        alarm,
        ..v1::TrustDomainStatus::default()
    };
    let Some(bundle) = &domain.bundle else { return status };
    let status = v1::TrustDomainStatus { received_at: unix_seconds(bundle.received_at), ..status };
    described(status, &bundle.document, &bundle.json)
}

fn described(status: v1::TrustDomainStatus, document: &BundleDocument, json: &[u8]) -> v1::TrustDomainStatus {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    v1::TrustDomainStatus {
        document: json.to_vec(),
        x509_authorities: count(document.x509().authorities().len()),
        jwt_authorities: count(document.jwt().authorities().len()),
        sequence: document.sequence().unwrap_or_default(),
        refresh_hint_seconds: document.refresh_hint_seconds().unwrap_or_default(),
        ..status
    }
}

fn refresh_status(error: &RefreshError) -> Status {
    match error {
        RefreshError::Command(error) => failed(error),
        RefreshError::NoEndpoint(_) | RefreshError::Document(_) | RefreshError::Fetch(_) => {
            Status::new(Code::FailedPrecondition, error.to_string())
        }
        RefreshError::Unaudited(_) => Status::unavailable(error.to_string()),
    }
}
