//! SVIDs at the operator's word alone: for a test, a migration, a machine that runs no node. Nothing renews them.

use portcullis_api::v1;
use portcullis_identity::{Audience, RequestedKey, SpiffeId, is_reserved};
use tonic::Status;

use super::OperatorService;
use super::answer::{invalid, refusal_status};
use crate::audit::{Actor, Event};
use crate::authority::{IssueError, IssuedJwt, Subject};
use crate::clock::{self, unix_seconds};
use crate::dns_name::DnsNames;
use crate::registry::Refusal;
use crate::ttl::{JwtTtl, Ttl};
use crate::wire;

impl OperatorService {
    pub(super) async fn mint_x509(&self, by: Actor, message: v1::MintX509Request) -> Result<v1::MintX509Reply, Status> {
        let v1::MintX509Request { spiffe_id, csr, ttl_seconds, dns_names } = message;
        let id = wire::spiffe_id(&spiffe_id).map_err(|error| invalid(&error))?;
        self.check_mintable(&by, "mint x509", &id)?;
        let ttl: Ttl = wire::ttl(ttl_seconds, self.0.ttls.entry).map_err(|error| invalid(&error))?;
        let dns_names: DnsNames = wire::convert(dns_names).map_err(|error| invalid(&error))?;
        let key = RequestedKey::parse(&csr)
            .map_err(|error| Status::invalid_argument(format!("the certificate request is refused: {error}")))?;
        let subject = Subject { id: &id, dns_names: dns_names.as_slice() };
        let issued = self.0.authority.issue(&key, subject, ttl, clock::now());
        let issued = issued.map_err(|error| self.not_minted(&by, "mint x509", &error))?;
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let event = Event::X509Minted {
            by,
            spiffe_id: id.to_string(),
            serial: hex(&issued.serial),
            not_after: unix_seconds(issued.not_after),
            key_sha256: hex(&key.sha256()),
        };
        self.0.audit.record(event).await.map_err(|error| Status::unavailable(error.to_string()))?;
        tracing::warn!(%id, not_after = unix_seconds(issued.not_after), "an operator minted an svid");
        Ok(v1::MintX509Reply {
            chain: issued.chain.iter().map(|der| der.to_vec()).collect(),
            bundle: self.0.authority.bundle().x509.certificates().map(|der| der.to_vec()).collect(),
            not_after: unix_seconds(issued.not_after),
        })
    }

    pub(super) async fn mint_jwt(&self, by: Actor, message: v1::MintJwtRequest) -> Result<v1::MintJwtReply, Status> {
        let v1::MintJwtRequest { spiffe_id, audience, ttl_seconds } = message;
        let id = wire::spiffe_id(&spiffe_id).map_err(|error| invalid(&error))?;
        self.check_mintable(&by, "mint jwt", &id)?;
        let ttl: JwtTtl = wire::ttl(ttl_seconds, JwtTtl::DEFAULT).map_err(|error| invalid(&error))?;
        let audience = audience.into_iter().map(Audience::try_from).collect::<Result<Vec<_>, _>>();
        let audience = audience.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let issued = self.0.authority.jwt_svid(&id, &audience, ttl, clock::now());
        let IssuedJwt { svid, jti, kid } = issued.map_err(|error| self.not_minted(&by, "mint jwt", &error))?;
        let expires_at = unix_seconds(svid.expires_at());
        let event = Event::JwtMinted {
            by,
            spiffe_id: id.to_string(),
            jti: jti.to_string(),
            kid: kid.as_str().to_owned(),
            audiences: audience.len(),
            expires_at,
        };
        self.0.audit.record(event).await.map_err(|error| Status::unavailable(error.to_string()))?;
        tracing::warn!(%id, expires_at, "an operator minted a token");
        Ok(v1::MintJwtReply { token: svid.token().to_owned(), expires_at })
    }

    /// Not even an operator mints the control plane's identities, nor those of others.
    fn check_mintable(&self, by: &Actor, command: &str, id: &SpiffeId) -> Result<(), Status> {
        let refusal = if !id.is_member_of(self.0.authority.trust_domain()) {
            Refusal::ForeignId(id.clone())
        } else if id.path().is_empty() {
            Refusal::NoPath(id.clone())
        } else if is_reserved(id) {
            Refusal::ReservedId(id.clone())
        } else {
            return Ok(());
        };
        self.note(by, command, &refusal);
        Err(refusal_status(&refusal))
    }

    fn not_minted(&self, by: &Actor, command: &str, error: &IssueError) -> Status {
        self.note(by, command, error);
        Status::failed_precondition(error.to_string())
    }

    fn note(&self, by: &Actor, command: &str, reason: &dyn std::fmt::Display) {
        let (by, command, reason) = (by.clone(), command.to_owned(), reason.to_string());
        self.0.audit.note(Event::ChangeRefused { by, command, reason });
    }
}
