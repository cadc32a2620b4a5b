//! Authorities and revocations on disk.

use portcullis_identity::{Authority, Bundle, JwtAuthority, Revocation, Revoked, SerialNumber, TrustDomain};
use rustls::pki_types::CertificateDer;

use super::{Problem, parse, put, remove, spiffe_id};
use crate::clock::{from_unix_seconds, unix_seconds};
use crate::registry::{AuthorityId, AuthorityRecord, Material, Stage, Taint, TrustChange, Version};
use crate::store::{Row, record};

/// What a change does to the table.
pub(super) fn write(change: &TrustChange) -> Row {
    match change {
        TrustChange::Authority(record) => put(format!("authority/{}", record.id), &authority_record(record)),
        TrustChange::AuthorityRemoved(id) => remove(format!("authority/{id}")),
        TrustChange::BundleSequence(sequence) => put("bundle".to_owned(), &record::Bundle { sequence: *sequence }),
        TrustChange::Revocation(revocation) => put(revocation_key(&revocation.revoked), &revocation_record(revocation)),
        TrustChange::RevocationRemoved(revoked) => remove(revocation_key(revoked)),
    }
}

fn authority_record(authority: &AuthorityRecord) -> record::Authority {
    let AuthorityRecord { id: _, material, stage, taint, not_before, not_after, published } = authority;
    let stage = match stage {
        Stage::Prepared => record::Stage::Prepared,
        Stage::Active => record::Stage::Active,
        Stage::Old => record::Stage::Old,
    };
    let first = |bundle: &Bundle| bundle.certificates().next().map(|der| der.to_vec()).unwrap_or_default();
    let (mut root, mut signing, mut kid, mut public_key) = (Vec::new(), Vec::new(), String::new(), Vec::new());
    match material {
        Material::Root(own) => root = first(own),
        Material::Upstream { root: upstream, signing: ours } => {
            root = first(upstream);
            signing = ours.der().to_vec();
        }
        Material::Jwt(authority) => {
            authority.kid().as_str().clone_into(&mut kid);
            public_key = authority.spki_der();
        }
    }
    record::Authority {
        stage: stage.into(),
        tainted: *taint == Taint::Tainted,
        not_before: unix_seconds(*not_before),
        not_after: unix_seconds(*not_after),
        published_incarnation: published.incarnation,
        published_epoch: published.epoch,
        root,
        signing,
        kid,
        public_key,
    }
}

pub(super) fn authority(record: record::Authority, trust_domain: &TrustDomain) -> Result<AuthorityRecord, Problem> {
    let stage = match record.stage() {
        record::Stage::Prepared => Stage::Prepared,
        record::Stage::Active => Stage::Active,
        record::Stage::Old => Stage::Old,
        record::Stage::Unspecified => return Err("its stage is missing".to_owned()),
    };
    let record::Authority {
        stage: _,
        tainted,
        not_before,
        not_after,
        published_incarnation,
        published_epoch,
        root,
        signing,
        kid,
        public_key,
    } = record;
    let not_after = from_unix_seconds(not_after);
    let material = if public_key.is_empty() {
        let root = Bundle::new(trust_domain.clone(), [CertificateDer::from(root)]).map_err(said)?;
        if signing.is_empty() {
            Material::Root(root)
        } else {
            let signing = Box::new(Authority::parse(&signing, trust_domain).map_err(said)?);
            Material::Upstream { root, signing }
        }
    } else {
        let authority = JwtAuthority::from_spki(parse(&kid)?, &public_key, None, Some(not_after)).map_err(said)?;
        Material::Jwt(authority)
    };
    Ok(AuthorityRecord {
        id: AuthorityId::of_key(&material.public_key_sha256()),
        material,
        stage,
        taint: if tainted { Taint::Tainted } else { Taint::None },
        not_before: from_unix_seconds(not_before),
        not_after,
        published: Version { incarnation: published_incarnation, epoch: published_epoch },
    })
}

fn revocation_key(revoked: &Revoked) -> String {
    match revoked {
        Revoked::Certificate(serial) => format!("revocation/serial/{serial}"),
        Revoked::Identity(id) => format!("revocation/id/{id}"),
    }
}

fn revocation_record(revocation: &Revocation) -> record::Revocation {
    let Revocation { revoked, issued_until, until } = revocation;
    let (serial, spiffe_id) = match revoked {
        Revoked::Certificate(serial) => (serial.as_bytes().to_vec(), String::new()),
        Revoked::Identity(id) => (Vec::new(), id.to_string()),
    };
    record::Revocation { serial, spiffe_id, issued_until: unix_seconds(*issued_until), until: unix_seconds(*until) }
}

pub(super) fn revocation(record: record::Revocation) -> Result<Revocation, Problem> {
    let record::Revocation { serial, spiffe_id: id, issued_until, until } = record;
    let revoked = if id.is_empty() {
        Revoked::Certificate(SerialNumber::new(&serial).map_err(said)?)
    } else {
        Revoked::Identity(spiffe_id(&id)?)
    };
    Ok(Revocation { revoked, issued_until: from_unix_seconds(issued_until), until: from_unix_seconds(until) })
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` passes")]
fn said(error: impl ToString) -> Problem {
    error.to_string()
}
