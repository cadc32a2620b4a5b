//! Proof that a peer holds the private key of a certificate that TLS cannot ask about: one that has expired, or one of another
//! authority.
//!
//! The proof is a signature over a value that only the two ends of *this* TLS connection know (RFC 8446 §7.5, as RFC 9266 uses it), over
//! what the proof is for, and over the key that is to be certified next. So it is good on one connection, for one purpose and one key:
//! whoever sees it cannot use it elsewhere, and the verifier need not remember which challenges it gave out. TLS 1.3 without resumption,
//! as all our connections are, gives every connection another value.

use std::fmt;

use rustls::{
    ConnectionCommon, Error as TlsError, SignatureScheme,
    crypto::ring::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, SignatureVerificationAlgorithm},
};
use thiserror::Error;
use webpki::EndEntityCert;

use crate::{InvalidKey, NoRandomness, PrivateKey};

/// The label under which both ends take the connection's value from TLS.
pub const CHANNEL_BINDING_LABEL: &[u8] = b"EXPORTER-portcullis-possession";

/// A value that belongs to one TLS connection, known to its two ends alone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ChannelBinding([u8; 32]);

impl ChannelBinding {
    /// The value of a connection whose handshake is done.
    ///
    /// # Errors
    /// [`rustls::Error`] before the end of the handshake.
    pub fn of<Side>(connection: &ConnectionCommon<Side>) -> Result<Self, TlsError> {
        connection.export_keying_material([0; 32], CHANNEL_BINDING_LABEL, None).map(Self)
    }
}

impl From<[u8; 32]> for ChannelBinding {
    /// What TLS exported under [`CHANNEL_BINDING_LABEL`].
    fn from(exported: [u8; 32]) -> Self {
        Self(exported)
    }
}

impl fmt::Debug for ChannelBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChannelBinding(..)")
    }
}

/// What a proof is given for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A node proves its last certificate, which has expired.
    Rejoin,
    /// A node proves a certificate of an authority that the broker accepts for joining.
    JoinByCertificate,
}

impl Purpose {
    /// Text that begins no TLS signature and no DER.
    const fn context(self) -> &'static [u8] {
        match self {
            Self::Rejoin => b"portcullis: rejoin, version 1\0",
            Self::JoinByCertificate => b"portcullis: join by certificate, version 1\0",
        }
    }
}

/// The signature does not fit.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the certificate's key is not proved to be held on this connection")]
pub struct NotProved;

/// What is to be proved.
#[derive(Clone, Copy, Debug)]
pub struct Possession {
    /// On which connection.
    pub channel: ChannelBinding,
    /// What for.
    pub purpose: Purpose,
    /// SHA-256 of the SubjectPublicKeyInfo that is to be certified.
    pub next_key_sha256: [u8; 32],
}

impl Possession {
    /// Proves it with one of our own keys.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn prove(&self, key: &PrivateKey) -> Result<Vec<u8>, NoRandomness> {
        rcgen::SigningKey::sign(key, &self.message()).map_err(|_failed| NoRandomness)
    }

    /// Proves it with a key of any kind that TLS certificates have: P-256, P-384 or RSA.
    ///
    /// # Errors
    /// [`InvalidKey`] for another kind.
    pub fn prove_with(&self, key: &PrivateKeyDer<'_>) -> Result<Vec<u8>, InvalidKey> {
        const SCHEMES: [SignatureScheme; 3] = [
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ECDSA_NISTP384_SHA384,
            SignatureScheme::RSA_PSS_SHA256,
        ];
        let key = any_supported_type(key).map_err(|_unsupported| InvalidKey)?;
        let signer = key.choose_scheme(&SCHEMES).ok_or(InvalidKey)?;
        signer.sign(&self.message()).map_err(|_failed| InvalidKey)
    }

    /// Checks the proof of whoever presents `certificate`. Nothing else about the certificate is checked here.
    ///
    /// # Errors
    /// [`NotProved`].
    pub fn verify(&self, certificate: &CertificateDer<'_>, proof: &[u8]) -> Result<(), NotProved> {
        let algorithms: [&dyn SignatureVerificationAlgorithm; 3] = [
            webpki::ring::ECDSA_P256_SHA256,
            webpki::ring::ECDSA_P384_SHA384,
            webpki::ring::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
        ];
        let certificate = EndEntityCert::try_from(certificate).map_err(|_parse| NotProved)?;
        let message = self.message();
        // Each algorithm fits one kind of key; of the others nothing is computed.
        if algorithms.iter().any(|algorithm| certificate.verify_signature(*algorithm, &message, proof).is_ok()) {
            Ok(())
        } else {
            Err(NotProved)
        }
    }

    fn message(&self) -> Vec<u8> {
        [self.purpose.context(), &self.channel.0, &self.next_key_sha256].concat()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384};

    use super::*;
    use crate::test_ca::TestCa;

    fn possession() -> Possession {
        Possession { channel: [7; 32].into(), purpose: Purpose::Rejoin, next_key_sha256: [8; 32] }
    }

    #[test]
    fn who_holds_the_key_proves_it_and_nobody_else() {
        let (key, other) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        let chain = TestCa::root("a.test").leaf_with("/x", &key, |_| {});
        let proof = possession().prove(&key).unwrap();
        assert_eq!(possession().verify(&chain[0], &proof), Ok(()));
        assert_eq!(possession().verify(&chain[0], &possession().prove(&other).unwrap()), Err(NotProved));
        assert_eq!(possession().verify(&chain[0], &[]), Err(NotProved));
        assert_eq!(possession().verify(&CertificateDer::from(vec![0x30, 0]), &proof), Err(NotProved));
        let pkcs8 = PrivateKeyDer::try_from(key.pkcs8()).unwrap();
        assert_eq!(possession().verify(&chain[0], &possession().prove_with(&pkcs8).unwrap()), Ok(()));
    }

    #[test]
    fn a_proof_is_good_for_one_connection_one_purpose_and_one_key() {
        let key = PrivateKey::generate().unwrap();
        let chain = TestCa::root("a.test").leaf_with("/x", &key, |_| {});
        let proof = possession().prove(&key).unwrap();
        for other in [
            Possession { channel: [6; 32].into(), ..possession() },
            Possession { purpose: Purpose::JoinByCertificate, ..possession() },
            Possession { next_key_sha256: [9; 32], ..possession() },
        ] {
            assert_eq!(other.verify(&chain[0], &proof), Err(NotProved), "{other:?}");
        }
    }

    #[test]
    fn keys_of_other_kinds_prove_possession_too() {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        let certificate = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&pair).unwrap();
        let key = PrivateKeyDer::try_from(pair.serialized_der()).unwrap();
        let proof = possession().prove_with(&key).unwrap();
        assert_eq!(possession().verify(certificate.der(), &proof), Ok(()));
        let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let key = PrivateKeyDer::try_from(ed25519.serialized_der()).unwrap();
        assert_eq!(possession().prove_with(&key), Err(InvalidKey));
    }
}
