//! A certificate authority, entries and a source of identities for the tests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use portcullis_identity::{PrivateKey, Svid, TrustDomain, parse_spiffe_id, parse_trust_domain};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use tokio::sync::watch;

use super::*;
use crate::clock;

pub(crate) struct Ca {
    domain: TrustDomain,
    issuer: Issuer<'static, KeyPair>,
    pub(crate) certificate: Vec<u8>,
}

impl Ca {
    pub(crate) fn domain(name: &str) -> TrustDomain {
        parse_trust_domain(name).unwrap()
    }

    pub(crate) fn new(name: &str) -> Self {
        let domain = Self::domain(name);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(domain.id_string().try_into().unwrap())];
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().to_vec();
        Self { domain, issuer: Issuer::new(params, key), certificate }
    }

    pub(crate) fn svid(&self, path: &str) -> Arc<Svid> {
        let key = PrivateKey::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(format!("{}{path}", self.domain.id_string()).try_into().unwrap())];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let now = clock::now();
        params.not_before = (now - Duration::from_secs(10)).into();
        params.not_after = (now + Duration::from_secs(3600)).into();
        let leaf = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Arc::new(Svid::new(vec![leaf], key).unwrap())
    }
}

pub(crate) fn entry(id: &str, path: &str, selectors: &[&str]) -> Entry {
    Entry {
        id: id.to_owned(),
        spiffe_id: parse_spiffe_id(&format!("spiffe://a.test{path}")).unwrap(),
        selectors: selectors.iter().map(|&selector| selector.to_owned()).collect(),
        hint: String::new(),
        federates_with: BTreeSet::new(),
        created_at: 1,
    }
}

pub(crate) fn held(ca: &Ca, id: &str, path: &str, selectors: &[&str]) -> Held {
    Held { entry: entry(id, path, selectors), svid: Some(ca.svid(path)) }
}

/// A snapshot of domain `a.test` that trusts `ca`.
pub(crate) fn snapshot(ca: &Ca, held: Vec<Held>) -> Snapshot {
    let bundle = DomainBundle { x509: vec![ca.certificate.clone().into()], jwks: r#"{"keys":[]}"#.to_owned() };
    Snapshot::new(ca.domain.clone(), held, BTreeMap::from([(ca.domain.clone(), bundle)]))
}

/// Hands out what a test sets.
#[derive(Clone, Debug)]
pub(crate) struct Fake {
    pub(crate) snapshots: Arc<watch::Sender<Option<Arc<Snapshot>>>>,
    pub(crate) wanted: Arc<Mutex<Vec<WantedToken>>>,
    pub(crate) filled: Arc<Mutex<Vec<Filling>>>,
    /// What comes after a template was filled in; until then the broker refuses.
    pub(crate) after_filling: Arc<Mutex<Option<Snapshot>>>,
}

impl Fake {
    pub(crate) fn new() -> Self {
        Self {
            snapshots: Arc::new(watch::Sender::new(None)),
            wanted: Arc::default(),
            filled: Arc::default(),
            after_filling: Arc::default(),
        }
    }

    pub(crate) fn set(&self, snapshot: Snapshot) {
        self.snapshots.send_replace(Some(Arc::new(snapshot)));
    }
}

impl Identities for Fake {
    fn snapshots(&self) -> watch::Receiver<Option<Arc<Snapshot>>> {
        self.snapshots.subscribe()
    }

    async fn fill(&self, filling: Filling) -> Result<(), TokenRefused> {
        self.filled.lock().unwrap().push(filling);
        let next = self.after_filling.lock().unwrap().take();
        self.set(next.ok_or_else(|| TokenRefused::Refused("no".to_owned()))?);
        Ok(())
    }

    async fn tokens(&self, wanted: Vec<WantedToken>) -> Result<Vec<Token>, TokenRefused> {
        self.wanted.lock().unwrap().extend(wanted.clone());
        Ok(wanted.into_iter().map(|wanted| Token { text: format!("token of {}", wanted.entry) }).collect())
    }

    /// A token is `ID AUDIENCE`.
    fn validate(&self, token: &str, audience: &str, _now: SystemTime) -> Result<TokenClaims, InvalidToken> {
        match token.split_once(' ') {
            Some((id, of)) if of == audience => {
                let claims = serde_json::json!({ "sub": id, "aud": [of], "exp": 1 });
                let serde_json::Value::Object(claims) = claims else { panic!("not an object") };
                Ok(TokenClaims { spiffe_id: parse_spiffe_id(id).unwrap(), claims })
            }
            Some(_) | None => Err(InvalidToken("it is for another audience".to_owned())),
        }
    }
}
