//! What the certificates look like (X509-SVID §3 to §5, RFC 5280): every extension is set here and nowhere else.

use std::time::{Duration, SystemTime};

use portcullis_identity::{NoRandomness, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    SanType, SerialNumber,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use time::OffsetDateTime;

use super::{IssueError, Subject};
use crate::clock;
use crate::ttl::BACKDATED;

/// From when to when a certificate is valid.
#[derive(Debug, Clone, Copy)]
pub(super) struct Validity {
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

impl Validity {
    /// `lifetime` from `now`, backdated, and never beyond `cap`.
    pub(super) fn from_now(now: SystemTime, lifetime: Duration, cap: Option<SystemTime>) -> Self {
        // Certificates count whole seconds; what we say of one must be what it says.
        let now = clock::from_unix_seconds(clock::unix_seconds(now));
        let not_before = now.checked_sub(BACKDATED).unwrap_or(now);
        let wanted = now.checked_add(lifetime).unwrap_or(now);
        Self { not_before, not_after: cap.map_or(wanted, |cap| wanted.min(cap)) }
    }
}

/// An X.509-SVID of a workload: no subject (so the SAN is critical), exactly one URI SAN, explicitly not a CA.
///
/// DNS names follow the ID; there is no common name, so no verifier reads one.
pub(super) fn leaf(subject: Subject<'_>, validity: Validity) -> Result<CertificateParams, IssueError> {
    let mut params = base(validity)?;
    params.subject_alt_names = vec![uri(&subject.id.to_string())?];
    for name in subject.dns_names {
        params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// A self-signed root.
pub(super) fn root(trust_domain: &TrustDomain, validity: Validity) -> Result<CertificateParams, IssueError> {
    authority(trust_domain, "root", validity)
}

/// The certificate that signs leaves; it may sign no other authority.
pub(super) fn signing(trust_domain: &TrustDomain, validity: Validity) -> Result<CertificateParams, IssueError> {
    let mut params = authority(trust_domain, "signing", validity)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn authority(trust_domain: &TrustDomain, role: &str, validity: Validity) -> Result<CertificateParams, IssueError> {
    let mut params = base(validity)?;
    let serial = params.serial_number.as_ref().map(SerialNumber::to_bytes).unwrap_or_default();
    let tag: String = serial.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name.push(DnType::OrganizationName, "Portcullis");
    // The tag tells two authorities of one trust domain apart, for people and for chain building by name.
    params.distinguished_name.push(DnType::CommonName, format!("{role} {tag}"));
    params.subject_alt_names = vec![uri(&trust_domain.id_string())?];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn base(validity: Validity) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(serial()?);
    params.not_before = OffsetDateTime::from(validity.not_before);
    params.not_after = OffsetDateTime::from(validity.not_after);
    Ok(params)
}

/// 16 random bytes, positive and never shortened by DER (RFC 5280 §4.1.2.2).
fn serial() -> Result<SerialNumber, IssueError> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    let [first, rest @ ..] = bytes;
    let mut serial = vec![(first & 0x7f) | 0x40];
    serial.extend(rest);
    Ok(SerialNumber::from(serial))
}

fn uri(text: &str) -> Result<SanType, IssueError> {
    Ok(SanType::URI(text.try_into()?))
}
