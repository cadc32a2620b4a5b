//! What cannot be avoided: the cryptography of one SVID, with nothing around it, on as many threads as there are processors: those of one core
//! slow each other down, as clients and broker do.

use std::hint::black_box;
use std::time::{Duration, Instant, SystemTime};

use portcullis_identity::{JwtKey, PrivateKey, RequestedKey, key_request};
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
    SubjectPublicKeyInfo,
};
use time::OffsetDateTime;

/// The keys, and one request.
pub struct Raw {
    issuer: Issuer<'static, KeyPair>,
    csr: Vec<u8>,
    key: JwtKey,
}

impl Raw {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self {
            issuer: Issuer::new(params, KeyPair::generate().unwrap()),
            csr: key_request(&PrivateKey::generate().unwrap()).unwrap(),
            key: JwtKey::generate().unwrap(),
        }
    }

    /// Microseconds of one leaf: what the CSR asks is read and its proof verified, then a leaf with our profile is signed.
    pub fn leaf(&self, length: Duration) -> f64 {
        repeated(length, || {
            let key = RequestedKey::parse(black_box(&self.csr)).unwrap();
            let spki = SubjectPublicKeyInfo::from_der(key.spki_der()).unwrap();
            black_box(params().signed_by(&spki, &self.issuer).unwrap());
        })
    }

    /// Microseconds of one ES256 signature.
    pub fn token(&self, length: Duration) -> f64 {
        repeated(length, || drop(black_box(self.key.sign_audit_head(black_box(7), &[7; 32]).unwrap())))
    }
}

fn params() -> CertificateParams {
    let now = OffsetDateTime::from(SystemTime::now());
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = now;
    params.not_after = now + Duration::from_secs(3600);
    params.subject_alt_names = vec![SanType::URI("spiffe://test.example/service/workload".try_into().unwrap())];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params
}

/// Microseconds of processor time for one run of `work`, while every processor does the same.
fn repeated(length: Duration, work: impl Fn() + Sync) -> f64 {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(|| alone(length, &work))).collect();
        running.into_iter().map(|thread| thread.join().expect("it ends")).sum::<f64>() / threads as f64
    })
}

fn alone(length: Duration, work: impl Fn()) -> f64 {
    let (began, before, mut count) = (Instant::now(), ran_us(), 0_u32);
    while began.elapsed() < length {
        for _ in 0..32 {
            work();
        }
        count += 32;
    }
    (ran_us() - before) / f64::from(count)
}

/// What this thread has run so far, in microseconds.
fn ran_us() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("this is Linux");
    stat.split(' ').next().expect("a first field").parse::<f64>().expect("nanoseconds") / 1e3
}
