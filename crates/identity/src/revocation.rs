//! Revocations: SVIDs that are refused although they are not expired.

use std::{
    collections::HashMap,
    fmt,
    str::FromStr,
    time::{Duration, SystemTime},
};

use spiffe::SpiffeId;
use thiserror::Error;

use crate::{JwtClaims, Leaf};

/// How long before its issue the validity of an X.509-SVID begins: a peer whose clock is so far behind still accepts one made now. When it
/// was issued follows from its `notBefore` by this.
pub const BACKDATED: Duration = Duration::from_secs(10);

/// Bytes; RFC 5280 §4.1.2.2.
const MAX_SERIAL_BYTES: usize = 20;

/// The serial number of a certificate, without leading zeroes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SerialNumber(Vec<u8>);

/// Not a serial number.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "`{0}` is not a serial number: write up to {MAX_SERIAL_BYTES} bytes in hexadecimal, as openssl and the audit log do"
)]
pub struct InvalidSerialNumber(String);

impl SerialNumber {
    /// The number with these big-endian bytes.
    ///
    /// # Errors
    /// [`InvalidSerialNumber`] where there is none, or too much of it.
    pub fn new(bytes: &[u8]) -> Result<Self, InvalidSerialNumber> {
        let number = significant(bytes);
        if number.is_empty() || number.len() > MAX_SERIAL_BYTES {
            return Err(InvalidSerialNumber(hex(number.get(..MAX_SERIAL_BYTES).unwrap_or(number))));
        }
        Ok(Self(number.to_vec()))
    }

    /// Big-endian.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for SerialNumber {
    type Err = InvalidSerialNumber;

    fn from_str(text: &str) -> Result<Self, InvalidSerialNumber> {
        let invalid = || InvalidSerialNumber(text.chars().take(64).collect());
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
        if digits.len() > 2 * (MAX_SERIAL_BYTES + 1) || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(invalid());
        }
        let even = if digits.len().is_multiple_of(2) { digits } else { [b"0".as_slice(), &digits].concat() };
        let byte = |pair: &[u8]| {
            let value = |digit: &u8| char::from(*digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            pair.iter().try_fold(0_u8, |sum, digit| Some((sum << 4) | value(digit)?))
        };
        let bytes: Vec<u8> = even.chunks(2).map(byte).collect::<Option<_>>().ok_or_else(invalid)?;
        Self::new(&bytes).map_err(|_| invalid())
    }
}

impl fmt::Display for SerialNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for SerialNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SerialNumber({self})")
    }
}

/// What is revoked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Revoked {
    /// One certificate: an X.509-SVID, or an intermediate and with it all that is below it.
    Certificate(SerialNumber),
    /// Every SVID of this SPIFFE ID, X.509 and JWT, that was issued until the [`Revocation`] says.
    Identity(SpiffeId),
}

/// SVIDs that are refused although they are not expired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Which.
    pub revoked: Revoked,
    /// Of an identity: SVIDs issued later are good.
    pub issued_until: SystemTime,
    /// When the last SVID that this concerns has expired, and the revocation may be forgotten.
    pub until: SystemTime,
}

/// The revocations in force at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revocations {
    certificates: HashMap<SerialNumber, SystemTime>,
    identities: HashMap<SpiffeId, Span>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    issued_until: SystemTime,
    until: SystemTime,
}

impl Revocations {
    /// Those of `revocations` that are not over at `now`. Of two for one identity the later counts.
    #[must_use]
    pub fn new(revocations: impl IntoIterator<Item = Revocation>, now: SystemTime) -> Self {
        let mut all = Self::default();
        for Revocation { revoked, issued_until, until } in revocations {
            if until < now {
                continue;
            }
            match revoked {
                Revoked::Certificate(serial) => {
                    let end = all.certificates.entry(serial).or_insert(until);
                    *end = until.max(*end);
                }
                Revoked::Identity(id) => {
                    let span = all.identities.entry(id).or_insert(Span { issued_until, until });
                    span.issued_until = issued_until.max(span.issued_until);
                    span.until = until.max(span.until);
                }
            }
        }
        all
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty() && self.identities.is_empty()
    }

    /// Whether an X.509-SVID is revoked, by its serial number or by its identity.
    #[must_use]
    pub fn of_leaf(&self, leaf: &Leaf) -> bool {
        self.of_serial(leaf.serial())
            || self.identities.get(leaf.id()).is_some_and(|span| {
                // Certificates count whole seconds: what was issued within the second of the revocation is revoked too.
                leaf.not_before().checked_add(BACKDATED).is_none_or(|issued| issued <= span.issued_until)
            })
    }

    /// Whether the certificate with this serial number is revoked.
    #[must_use]
    pub fn of_serial(&self, serial: &[u8]) -> bool {
        !self.certificates.is_empty() && self.certificates.contains_key(&SerialNumber(significant(serial).to_vec()))
    }

    /// Whether a validated JWT-SVID is revoked. One that does not say when it was issued is, where anything of its identity is.
    #[must_use]
    pub fn of_jwt(&self, claims: &JwtClaims) -> bool {
        self.identities
            .get(claims.id())
            .is_some_and(|span| claims.issued_at().is_none_or(|issued| issued <= span.issued_until))
    }
}

fn significant(bytes: &[u8]) -> &[u8] {
    let zeroes = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeroes..).unwrap_or_default()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        Audience, JwtBundle, JwtBundles, JwtKey, Peer, PeerRule, PeerVerifier, RefusalReason, TrustBundles,
        UnsignedJwt, Usage, parse_spiffe_id,
        test_ca::{Chain, HOUR, NOW, TestCa, now, system, td},
        validate_jwt,
    };

    fn id(text: &str) -> SpiffeId {
        parse_spiffe_id(text).unwrap()
    }

    fn certificate(serial: &[u8]) -> Revocation {
        let revoked = Revoked::Certificate(SerialNumber::new(serial).unwrap());
        Revocation { revoked, issued_until: system(NOW), until: system(NOW + HOUR) }
    }

    fn identity(path: &str, issued_until: u64) -> Revocation {
        let revoked = Revoked::Identity(id(path));
        Revocation { revoked, issued_until: system(issued_until), until: system(NOW + HOUR) }
    }

    fn verify(ca: &TestCa, revoked: Vec<Revocation>, chain: &Chain) -> Result<(), RefusalReason> {
        let trust = TrustBundles::new([ca.bundle()], system(NOW))
            .with_revocations(Revocations::new(revoked, system(NOW)))
            .into_source();
        let verifier = PeerVerifier::new(trust, PeerRule::AnyTrusted);
        let peer = Peer::from_chain(chain).unwrap();
        verifier.verify_again(&peer, now(), Usage::ClientAuth).map_err(|refused| refused.reason().clone())
    }

    #[test]
    fn a_revoked_certificate_is_refused_and_no_other() {
        let root = TestCa::root("a.test");
        let (one, two) = (root.leaf("/x"), root.leaf("/x"));
        let serial = Leaf::parse(&one[0]).unwrap().serial().to_vec();
        let refused = verify(&root, vec![certificate(&serial)], &one).unwrap_err();
        assert_eq!(refused, RefusalReason::Revoked { id: id("spiffe://a.test/x") });
        verify(&root, vec![certificate(&serial)], &two).unwrap();
    }

    #[test]
    fn what_is_below_a_revoked_intermediate_is_refused() {
        let root = TestCa::root("a.test");
        let intermediate = root.intermediate();
        let serial = crate::Authority::parse(intermediate.certificate(), &td("a.test")).unwrap().serial().to_vec();
        let refused = verify(&root, vec![certificate(&serial)], &intermediate.leaf("/x")).unwrap_err();
        assert!(matches!(refused, RefusalReason::Revoked { .. }), "{refused}");
        verify(&root, vec![certificate(&serial)], &root.intermediate().leaf("/x")).unwrap();
    }

    #[test]
    fn of_an_identity_only_what_was_issued_until_then_is_refused() {
        let root = TestCa::root("a.test");
        // Leaves of the test authority begin a minute before now: they were issued fifty seconds ago.
        let chain = root.leaf("/x");
        verify(&root, vec![identity("spiffe://a.test/x", NOW - 51)], &chain).unwrap();
        verify(&root, vec![identity("spiffe://a.test/x", NOW - 50)], &chain).unwrap_err();
        verify(&root, vec![identity("spiffe://a.test/xy", NOW)], &chain).unwrap();
        // The later of two counts, in whatever order.
        let (early, late) = (identity("spiffe://a.test/x", NOW - 55), identity("spiffe://a.test/x", NOW));
        verify(&root, vec![early.clone(), late.clone()], &chain).unwrap_err();
        verify(&root, vec![late, early], &chain).unwrap_err();
    }

    #[test]
    fn a_revocation_is_forgotten_once_everything_it_concerns_has_expired() {
        let over = Revocation { until: system(NOW - 1), ..identity("spiffe://a.test/x", NOW) };
        assert!(Revocations::new([over.clone()], system(NOW)).is_empty());
        assert!(!Revocations::new([over], system(NOW - 1)).is_empty());
    }

    #[test]
    fn tokens_of_a_revoked_identity_are_revoked() {
        let key = JwtKey::generate().unwrap();
        let audience: Audience = "db".parse().unwrap();
        let subject = id("spiffe://a.test/x");
        let token = UnsignedJwt {
            id: &subject,
            audience: std::slice::from_ref(&audience),
            issued_at: system(NOW),
            expires_at: system(NOW + 300),
            jti: None,
            issuer: None,
        };
        let token = token.sign(&key).unwrap();
        let bundle = JwtBundle::new(td("a.test"), [key.authority(None)]).unwrap();
        let claims =
            validate_jwt(token.token(), &audience, &JwtBundles::new([bundle]), system(NOW), Duration::ZERO).unwrap();
        let revoked = |path, until| Revocations::new([identity(path, until)], system(NOW)).of_jwt(&claims);
        assert!(revoked("spiffe://a.test/x", NOW));
        assert!(!revoked("spiffe://a.test/x", NOW - 1));
        assert!(!revoked("spiffe://a.test/y", NOW));
    }

    #[test]
    fn a_serial_number_is_read_as_people_write_it() {
        let number: SerialNumber = "00:45:aB:0".parse().unwrap();
        assert_eq!((number.to_string(), number.as_bytes()), ("045ab0".to_owned(), &[4, 0x5a, 0xb0][..]));
        assert_eq!(SerialNumber::new(&[0, 0, 4, 0x5a, 0xb0]).unwrap(), number);
        for wrong in ["", "0", ":", "xy", "0x45", &"1".repeat(41), "é"] {
            wrong.parse::<SerialNumber>().unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn a_serial_number_is_written_as_it_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..24)) {
            if let Ok(number) = SerialNumber::new(&bytes) {
                prop_assert_eq!(number.to_string().parse::<SerialNumber>().unwrap(), number);
            }
        }
    }
}
