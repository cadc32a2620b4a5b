use std::time::SystemTime;

use portcullis_identity::{parse_spiffe_id, parse_trust_domain};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SanType};
use rustls::pki_types::CertificateDer;

use super::*;
use crate::registry::{Command, Version};

fn td(name: &str) -> TrustDomain {
    parse_trust_domain(name).unwrap()
}

/// A root certificate of `name`.
fn root(name: &str) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://{name}").try_into().unwrap())];
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
}

/// One without a name: any trust domain could publish it.
fn nameless_root() -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
}

fn bundle(name: &str, roots: &[CertificateDer<'static>], sequence: Option<u64>) -> Arc<HeldBundle> {
    let x509 = portcullis_identity::Bundle::new(td(name), roots.iter().cloned()).unwrap();
    let jwt = portcullis_identity::JwtBundle::new(td(name), []).unwrap();
    let json = BundleDocument::new(x509, jwt, sequence, None).unwrap().to_json().unwrap();
    Arc::new(HeldBundle::read(json.as_bytes(), &td(name), SystemTime::UNIX_EPOCH).unwrap().0)
}

fn web() -> Endpoint {
    Endpoint { url: "https://b.test/".parse().unwrap(), profile: Profile::HttpsWeb }
}

fn spiffe(id: &str) -> Endpoint {
    Endpoint { profile: Profile::HttpsSpiffe(parse_spiffe_id(id).unwrap()), ..web() }
}

struct Lab(Registry);

impl Lab {
    fn new() -> Self {
        Self(Registry::empty(td("a.test")).unwrap())
    }

    fn plan(&self, command: Command) -> Result<Plan, Refusal> {
        self.0.plan(command, SystemTime::UNIX_EPOCH)
    }

    fn execute(&mut self, command: Command) -> Result<Version, Refusal> {
        let plan = self.plan(command)?;
        if !plan.changes.is_empty() {
            let version = self.0.version().next();
            self.0.apply(&plan.changes, version, None);
        }
        Ok(self.0.version())
    }

    fn add(
        &mut self,
        name: &str,
        endpoint: Option<Endpoint>,
        bundle: Option<Arc<HeldBundle>>,
    ) -> Result<Version, Refusal> {
        self.execute(Command::AddDomain(NewDomain { name: td(name), endpoint, bundle }))
    }

    fn receive(&mut self, name: &str, bundle: Arc<HeldBundle>) -> Result<Version, Refusal> {
        self.execute(Command::Receive(Receipt { name: td(name), endpoint: Some(web()), bundle }))
    }

    /// Why a bundle for `b.test` is refused, where `held` is there already.
    fn refused(held: &Arc<HeldBundle>, offered: Arc<HeldBundle>) -> Option<BundleRefusal> {
        let mut lab = Self::new();
        lab.add("b.test", Some(web()), Some(Arc::clone(held))).unwrap();
        let refused = lab.receive("b.test", offered).err();
        let held_still = lab.0.domain(&td("b.test")).unwrap().bundle.clone().unwrap();
        match refused {
            None => None,
            Some(Refusal::Bundle(refusal)) => {
                assert_eq!(held_still, *held, "a refusal changes nothing");
                Some(refusal)
            }
            Some(other) => panic!("{other}"),
        }
    }
}

#[test]
fn the_own_trust_domain_is_never_foreign() {
    let mut lab = Lab::new();
    assert!(matches!(lab.add("a.test", Some(web()), None), Err(Refusal::OwnDomain(_))));
    lab.add("a.test.evil.test", Some(web()), None).unwrap();
    assert!(matches!(lab.add("a.test.evil.test", Some(web()), None), Err(Refusal::DomainExists(_))));
}

#[test]
fn a_domain_has_a_bundle_or_a_way_to_one() {
    let mut lab = Lab::new();
    assert!(matches!(lab.add("b.test", None, None), Err(Refusal::NoBundle(_))));
    assert!(matches!(lab.add("b.test", Some(spiffe("spiffe://b.test/x")), None), Err(Refusal::NoSeed(_))));
    assert!(matches!(lab.add("b.test", Some(spiffe("spiffe://c.test/x")), None), Err(Refusal::NoSeed(_))));
    lab.add("c.test", None, Some(bundle("c.test", &[root("c.test")], None))).unwrap();
    lab.add("b.test", Some(spiffe("spiffe://c.test/x")), None).unwrap();
    lab.add("d.test", Some(spiffe("spiffe://a.test/x")), None).unwrap();
    lab.add("e.test", Some(spiffe("spiffe://e.test/x")), Some(bundle("e.test", &[root("e.test")], None))).unwrap();
}

#[test]
fn a_bundle_only_goes_forward() {
    let (one, two) = (root("b.test"), root("b.test"));
    let held = bundle("b.test", std::slice::from_ref(&one), Some(5));
    let offer = |roots: &[CertificateDer<'static>], sequence| Lab::refused(&held, bundle("b.test", roots, sequence));
    let both = [one.clone(), two.clone()];
    assert_eq!(offer(&both, Some(6)), None);
    assert_eq!(offer(&both, Some(u64::MAX)), None);
    assert_eq!(offer(&both, Some(4)), Some(BundleRefusal::Rollback { held: 5, offered: 4 }));
    assert_eq!(
        offer(std::slice::from_ref(&one), Some(4)),
        Some(BundleRefusal::Rollback { held: 5, offered: 4 }),
        "the same content too"
    );
    assert_eq!(offer(&both, Some(5)), Some(BundleRefusal::Ambiguous { sequence: 5 }));
    assert_eq!(offer(&both, None), Some(BundleRefusal::Uncounted { held: 5 }));
    assert_eq!(offer(&[one], Some(5)), None);
    assert_eq!(offer(&[], Some(6)), Some(BundleRefusal::Empty));
    for refusal in [offer(&both, Some(4)), offer(&both, Some(5)), offer(&both, None)] {
        assert!(refusal.unwrap().is_alarming());
    }
    // Who never counted is believed as the last one that was fetched.
    let uncounted = bundle("b.test", &[two], None);
    assert_eq!(Lab::refused(&uncounted, bundle("b.test", &both, None)), None);
}

#[test]
fn the_same_bundle_changes_nothing() {
    let mut lab = Lab::new();
    let held = bundle("b.test", &[root("b.test")], Some(5));
    let version = lab.add("b.test", Some(web()), Some(Arc::clone(&held))).unwrap();
    assert_eq!(lab.receive("b.test", held).unwrap(), version);
}

#[test]
fn no_key_serves_two_trust_domains() {
    let mut lab = Lab::new();
    let shared = nameless_root();
    lab.add("b.test", Some(web()), Some(bundle("b.test", &[root("b.test"), shared.clone()], Some(1)))).unwrap();
    let thief = bundle("c.test", &[root("c.test"), shared], Some(1));
    let refused = lab.add("c.test", Some(web()), Some(Arc::clone(&thief))).unwrap_err();
    let expected = BundleRefusal::SharedAuthority { other: td("b.test") };
    assert!(matches!(refused, Refusal::Bundle(refusal) if refusal == expected));
    lab.add("c.test", Some(web()), None).unwrap();
    let refused = lab.receive("c.test", thief).unwrap_err();
    assert!(matches!(refused, Refusal::Bundle(refusal) if refusal == expected && refusal.is_alarming()));
}

#[test]
fn what_came_for_a_relationship_that_is_over_is_not_believed() {
    let mut lab = Lab::new();
    let late = bundle("b.test", &[root("b.test")], Some(1));
    assert!(matches!(lab.receive("b.test", Arc::clone(&late)), Err(Refusal::NoDomain(_))));
    lab.add("b.test", Some(spiffe("spiffe://a.test/x")), None).unwrap();
    assert!(matches!(lab.receive("b.test", late), Err(Refusal::NoDomain(_))), "it came from another endpoint");
    lab.execute(Command::RemoveDomain(td("b.test"))).unwrap();
    assert!(matches!(lab.execute(Command::RemoveDomain(td("b.test"))), Err(Refusal::NoDomain(_))));
}

#[test]
fn an_unusual_bundle_is_noticed() {
    let (one, two) = (root("b.test"), root("b.test"));
    let held = bundle("b.test", std::slice::from_ref(&one), Some(1));
    assert_eq!(held.notices(&bundle("b.test", &[one.clone(), two.clone()], Some(2))), []);
    assert_eq!(held.notices(&bundle("b.test", &[two], Some(2))), [Notice::NoOverlap]);
    let many: Vec<_> = (0..9).map(|_| root("b.test")).chain([one]).collect();
    assert_eq!(held.notices(&bundle("b.test", &many, Some(2))), [Notice::Surge(9)]);
}
