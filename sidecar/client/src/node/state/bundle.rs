//! Trust bundles: X.509 and JWT authorities of one trust domain travel together and are kept apart.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portcullis_api::v1;
use portcullis_identity::{Bundle, JwtAuthority, JwtBundle, KeyId, TrustDomain, parse_trust_domain};
use rustls::pki_types::CertificateDer;
use tracing::warn;

use super::InvalidState;

/// Both bundles of one trust domain.
pub(crate) fn parse_bundle(message: v1::Bundle) -> Result<(Bundle, JwtBundle), InvalidState> {
    let v1::Bundle { trust_domain, x509_authorities, jwt_authorities, .. } = message;
    let trust_domain = parse_trust_domain(&trust_domain).map_err(|error| field(&error))?;
    let x509 = Bundle::new(trust_domain.clone(), x509_authorities.into_iter().map(CertificateDer::from))
        .map_err(|error| field(&error))?;
    let jwt = JwtBundle::new(trust_domain.clone(), jwt_authorities.iter().filter_map(|key| known(&trust_domain, key)))
        .map_err(|error| field(&error))?;
    Ok((x509, jwt))
}

/// A key that is of no use here does not make the others useless: a later broker may know more kinds of keys.
fn known(trust_domain: &TrustDomain, message: &v1::JwtAuthority) -> Option<JwtAuthority> {
    parse_key(message)
        .inspect_err(|cause| warn!(%trust_domain, kid = message.kid, cause, "a JWT authority is left out"))
        .ok()
}

fn parse_key(message: &v1::JwtAuthority) -> Result<JwtAuthority, String> {
    let v1::JwtAuthority { kid, public_key, not_after, algorithm } = message;
    let kid: KeyId = kid.parse().map_err(|error: portcullis_identity::InvalidKeyId| error.to_string())?;
    let algorithm = if algorithm.is_empty() {
        None
    } else {
        Some(algorithm.parse().map_err(|error: portcullis_identity::InvalidJwtAlgorithm| error.to_string())?)
    };
    let end = (*not_after != 0).then(|| UNIX_EPOCH.checked_add(Duration::from_secs(*not_after))).flatten();
    JwtAuthority::from_spki(kid, public_key, algorithm, end).map_err(|error| error.to_string())
}

/// The message of both bundles of one trust domain.
pub(super) fn bundle_message(x509: &Bundle, jwt: Option<&JwtBundle>) -> v1::Bundle {
    v1::Bundle {
        trust_domain: x509.trust_domain().as_str().to_owned(),
        x509_authorities: x509.certificates().map(|certificate| certificate.to_vec()).collect(),
        jwt_authorities: jwt.into_iter().flat_map(JwtBundle::authorities).map(key_message).collect(),
        ..v1::Bundle::default()
    }
}

fn key_message(authority: &JwtAuthority) -> v1::JwtAuthority {
    let seconds = |end: SystemTime| end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    v1::JwtAuthority {
        kid: authority.kid().as_str().to_owned(),
        public_key: authority.spki_der(),
        not_after: authority.not_after().map(seconds).unwrap_or_default(),
        algorithm: authority.algorithm().as_str().to_owned(),
    }
}

fn field(cause: &dyn std::error::Error) -> InvalidState {
    InvalidState::Field { field: "bundle", cause: cause.to_string() }
}
