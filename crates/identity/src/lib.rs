//! Identity: SPIFFE IDs, X.509-SVIDs, JWT-SVIDs, bundles per trust domain and the documents that carry them, their
//! verification, and when to renew.
//!
//! Both planes agree on these types and on nothing weaker: a certificate that is not an X.509-SVID to the letter is
//! refused here, before a daemon sees it. The crate builds on the `spiffe` crate's identifiers and adds what is
//! stricter or missing.
//!
//! It does **not** know sockets, files, the clock, or the certificate authority: the time is passed in, bytes come
//! from the caller, and issuing belongs to the broker.

mod authority;
mod bundle;
mod certificate;
mod der;
mod document;
mod id;
mod join;
mod join_certificate;
mod json;
mod jwk;
mod jwt;
mod leaf;
mod name;
mod path;
mod peer;
mod possession;
mod private_key;
mod renewal;
mod request;
mod revocation;
mod seal;
mod slot;
mod svid;
mod template;
mod tls;
mod validity;
mod verify;

#[cfg(test)]
mod test_ca;

pub use spiffe::{SpiffeId, TrustDomain};

pub use self::{
    authority::{Authority, InvalidAuthority},
    bundle::{Bundle, InvalidBundle, TrustBundles, TrustSource},
    certificate::InvalidCertificate,
    document::{
        BundleDocument, IgnoredKey, IgnoredReason, InvalidDocument, MAX_DOCUMENT_BYTES, MAX_DOCUMENT_KEYS,
        OtherTrustDomain, ParsedDocument, Unpublishable,
    },
    id::{InvalidSpiffeId, parse_spiffe_id, parse_trust_domain},
    join::{InvalidJoinToken, JoinSecret, JoinToken},
    join_certificate::{InvalidJoinCertificate, JoinCertificate, MAX_JOIN_CHAIN},
    json::InvalidJson,
    jwt::{
        Audience, InvalidAudience, InvalidJwtAlgorithm, InvalidJwtBundle, InvalidKeyId, InvalidPublicKey, JwtAlgorithm,
        JwtAuthority, JwtBundle, JwtBundles, JwtClaims, JwtId, JwtKey, JwtNotSigned, JwtRefused, JwtSvid, KeyId,
        MAX_AUDIENCE_BYTES, MAX_AUDIENCES, MAX_JWT_AUTHORITIES, MAX_KEY_ID_BYTES, MAX_LEEWAY, MAX_TOKEN_BYTES,
        UnsignedJwt, validate_jwt,
    },
    leaf::{InvalidLeaf, Leaf},
    name::{ComponentId, InvalidName, Lattice, NodeName, Target},
    path::{broker_id, component_id, is_reserved, lattice_name, node_id, node_name, virtual_component_id},
    peer::Peer,
    possession::{CHANNEL_BINDING_LABEL, ChannelBinding, NotProved, Possession, Purpose},
    private_key::{InvalidKey, NoRandomness, PrivateKey},
    renewal::RenewalSchedule,
    request::{InvalidRequest, RequestedKey, key_request},
    revocation::{BACKDATED, InvalidSerialNumber, Revocation, Revocations, Revoked, SerialNumber},
    seal::{InvalidSealKey, InvalidSealKeyPlace, SealBroken, SealError, SealKey, SealKeyId, SealKeyPlace, is_sealed},
    slot::SvidSlot,
    svid::{InvalidSvid, Svid},
    template::{Attribute, IdTemplate, InvalidIdTemplate, UnfitValue},
    tls::{ClientAuth, anonymous_client_config, client_config, joining_client_config, server_config},
    verify::{PeerRefused, PeerRule, PeerVerifier, RefusalReason, SigningPath, Usage},
};

/// The longest certificate that is looked at, in bytes of DER.
///
/// A leaf with a SPIFFE ID of 2048 bytes and RSA-4096 keys stays under 5 KiB.
pub const MAX_CERTIFICATE_BYTES: usize = 8 * 1024;

/// The most intermediate certificates a peer may present; a longer chain is refused before anything in it is read.
pub const MAX_INTERMEDIATES: usize = 4;
