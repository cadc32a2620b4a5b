//! Judging one login: what the client showed, whose it is, and what that identity may do.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use portcullis_identity::{
    JwtBundles, JwtClaims, JwtRefused, MAX_INTERMEDIATES, Peer, SpiffeId, Usage, node_name, validate_jwt,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};

use super::callout::Callout;
use super::claims::{Client, UserClaims};
use super::key::{Owner, PublicKey};
use super::member::{Class, Membership, NoMember, of_key};
use super::replay::{NotFresh, UsedToken};
use super::token::{self, TokenRefused};
use crate::admission::{NotAdmitted, admit_peer};
use crate::clock;
use crate::config::{KeyHolder, TokenUse};

/// This broker, or another one of the same trust domain on a machine with a synchronised clock, made the tokens.
const LEEWAY: Duration = Duration::from_secs(5);

/// How a member proved who it is.
#[derive(Debug, Clone)]
pub(crate) enum Evidence {
    /// A JWT-SVID: it proves the login, and says nothing of the session's end.
    Token(Arc<JwtClaims>),
    /// An X.509-SVID: the session ends with it.
    Certificate(Arc<Peer>),
    /// An nkey.
    Key(Box<KeyHolder>),
}

impl Evidence {
    /// Its name in the audit log.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Token(_) => "jwt-svid",
            Self::Certificate(_) => "x509-svid",
            Self::Key(_) => "nkey",
        }
    }

    pub(super) fn identity(&self) -> &SpiffeId {
        match self {
            Self::Token(claims) => claims.id(),
            Self::Certificate(peer) => peer.id(),
            Self::Key(holder) => &holder.identity,
        }
    }
}

/// A login that is good.
#[derive(Debug, Clone)]
pub(super) struct Login {
    pub(super) evidence: Evidence,
    pub(super) membership: Membership,
    /// When the session ends.
    pub(super) until: SystemTime,
    /// The token that it takes, if it is good for one login.
    pub(super) takes: Option<UsedToken>,
}

/// Why a login is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoginRefused {
    #[error("it shows no identity: neither a JWT-SVID as token, nor an X.509-SVID, nor a key that is configured")]
    Nothing,
    #[error("it shows two identities: one of token, certificate and key is enough")]
    Several,
    #[error(transparent)]
    Token(#[from] JwtRefused),
    #[error("`{id}`: {reason}")]
    NotFresh { id: SpiffeId, reason: NotFresh },
    #[error("`{0}` is revoked")]
    Revoked(SpiffeId),
    #[error("its certificate is unreadable")]
    Pem,
    #[error("its certificate is refused: {0}")]
    Certificate(String),
    #[error("`{id}`: {reason}")]
    Node { id: SpiffeId, reason: NotAdmitted },
    #[error("`{0}` is a host: hosts join with a token")]
    HostCertificate(SpiffeId),
    #[error("its key is refused: {0}")]
    Key(String),
    #[error("key `{0}` is not configured")]
    UnknownKey(PublicKey),
    #[error("its key did not sign this connection")]
    Signature,
    #[error("`{id}`: {reason}")]
    Member { id: SpiffeId, reason: NoMember },
    #[error("the broker is busy")]
    Busy,
    #[error("this broker's copy of the registry is too old: it has not heard the broker that it follows")]
    TooOld,
    #[error("the broker cannot write its audit log")]
    Unaudited,
    #[error("its permissions are too many to be told")]
    TooLarge(#[from] TokenRefused),
}

impl Callout {
    /// Judges what `client` shows at the moment `now`.
    pub(super) fn judge(&self, client: &Client, now: SystemTime) -> Result<Login, LoginRefused> {
        let evidence = self.evidence(client, now)?;
        let membership = self.membership(&evidence)?;
        // Whoever is no member spends none: what is remembered has its bounds.
        let takes = match &evidence {
            Evidence::Token(claims) => self.spend(&client.shown.token, claims, now)?,
            Evidence::Certificate(_) | Evidence::Key(_) => None,
        };
        let session = self.session_end(now);
        let until = match &evidence {
            Evidence::Token(_) | Evidence::Key(_) => session,
            Evidence::Certificate(peer) => peer.not_after(),
        };
        Ok(Login { evidence, membership, until, takes })
    }

    /// Judges a session again that was admitted before: the registry, the revocations or the policies changed.
    pub(super) fn judge_again(&self, evidence: &Evidence, now: SystemTime) -> Result<Membership, LoginRefused> {
        match evidence {
            Evidence::Token(claims) => self.not_revoked(claims)?,
            Evidence::Certificate(peer) => {
                let again = self.verifier.verify_again(peer, unix_time(now), Usage::ClientAuth);
                again.map_err(|refused| LoginRefused::Certificate(refused.reason().to_string()))?;
                self.admit_node(peer)?;
            }
            Evidence::Key(holder) => self.key_not_revoked(holder, now)?,
        }
        self.membership(evidence)
    }

    fn evidence(&self, client: &Client, now: SystemTime) -> Result<Evidence, LoginRefused> {
        let shown = &client.shown;
        let key = self.key_of(client)?;
        match (shown.token.is_empty(), shown.chain.is_empty(), key) {
            (true, true, None) => Err(LoginRefused::Nothing),
            (false, true, None) => self.token(&shown.token, now).map(|claims| Evidence::Token(Arc::new(claims))),
            (true, false, None) => {
                self.certificate(&shown.chain, now).map(|peer| Evidence::Certificate(Arc::new(peer)))
            }
            (true, true, Some(key)) => self.key(&key, client, now).map(|holder| Evidence::Key(Box::new(holder))),
            (false, ..) | (_, false, _) => Err(LoginRefused::Several),
        }
    }

    fn token(&self, token: &str, now: SystemTime) -> Result<JwtClaims, LoginRefused> {
        let bundle = self.ground.registry.read(|registry| registry.bundle().jwt_bundle());
        let bundles = JwtBundles::new(bundle);
        let claims = validate_jwt(token, &self.settings.audience, &bundles, now, LEEWAY)?;
        self.not_revoked(&claims)?;
        Ok(claims)
    }

    /// A token is good for one login, unless the operator says otherwise.
    fn spend(&self, token: &str, claims: &JwtClaims, now: SystemTime) -> Result<Option<UsedToken>, LoginRefused> {
        match self.settings.tokens {
            TokenUse::Once => {
                let until = claims.expires_at().checked_add(LEEWAY).unwrap_or(now);
                let token = UsedToken::new(claims.id().clone(), token, until);
                let taken = self.used().take(&token, now);
                taken.map_err(|reason| LoginRefused::NotFresh { id: claims.id().clone(), reason })?;
                Ok(Some(token))
            }
            TokenUse::DangerMany => Ok(None),
        }
    }

    fn not_revoked(&self, claims: &JwtClaims) -> Result<(), LoginRefused> {
        if self.ground.trust.source().load().revocations().of_jwt(claims) {
            return Err(LoginRefused::Revoked(claims.id().clone()));
        }
        Ok(())
    }

    /// The server verified the chain, against what its operator configured; we verify it against what the broker trusts.
    fn certificate(&self, chain: &[String], now: SystemTime) -> Result<Peer, LoginRefused> {
        let der = |pem: &String| CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| LoginRefused::Pem);
        let mut chain = chain.iter().map(der).collect::<Result<Vec<_>, _>>()?;
        // The server adds the authority.
        chain.truncate(MAX_INTERMEDIATES.saturating_add(1));
        let (leaf, intermediates) = chain.split_first().ok_or(LoginRefused::Pem)?;
        let verified = self.verifier.verify(leaf, intermediates, unix_time(now), Usage::ClientAuth);
        verified.map_err(|refused| LoginRefused::Certificate(refused.reason().to_string()))?;
        let peer = Peer::from_chain(&chain).map_err(|_| LoginRefused::Pem)?;
        self.admit_node(&peer)?;
        Ok(peer)
    }

    /// A node's certificate counts as long as the node does, and not from before it joined anew.
    fn admit_node(&self, peer: &Peer) -> Result<(), LoginRefused> {
        if node_name(peer.id()).is_none() {
            return Ok(());
        }
        let admitted = self.ground.registry.read(|registry| admit_peer(registry, peer));
        admitted.map(drop).map_err(|reason| LoginRefused::Node { id: peer.id().clone(), reason })
    }

    /// The key that a client claims to have: a bare one, or that of a token of the callout's account. The sentinel's is nobody's.
    fn key_of(&self, client: &Client) -> Result<Option<PublicKey>, LoginRefused> {
        let shown = &client.shown;
        let parse =
            |text: &str| PublicKey::parse(Owner::User, text).map_err(|error| LoginRefused::Key(error.to_string()));
        if !shown.nkey.is_empty() {
            return parse(&shown.nkey).map(Some);
        }
        if shown.jwt.is_empty() || shown.signature.is_empty() {
            return Ok(None);
        }
        let (issuer, claims) = token::decode::<UserClaims>(&shown.jwt, Owner::Account)
            .map_err(|error| LoginRefused::Key(error.to_string()))?;
        let ours = issuer == self.material.callout
            || issuer == *self.material.callout_key.public()
                && claims.nats.issuer_account() == self.material.callout.as_str();
        if !ours {
            return Err(LoginRefused::Key("its token is of another account".to_owned()));
        }
        if claims.nats.is_bearer() { Ok(None) } else { parse(&claims.sub).map(Some) }
    }

    fn key(&self, key: &PublicKey, client: &Client, now: SystemTime) -> Result<KeyHolder, LoginRefused> {
        let holder = self.settings.keys.iter().find(|holder| holder.key == *key);
        let holder = holder.ok_or_else(|| LoginRefused::UnknownKey(key.clone()))?;
        let signature = &client.shown.signature;
        let decoded = URL_SAFE_NO_PAD.decode(signature).or_else(|_| STANDARD.decode(signature));
        let signed = decoded.is_ok_and(|signature| key.verifies(client.nonce.as_bytes(), &signature));
        if client.nonce.is_empty() || !signed {
            return Err(LoginRefused::Signature);
        }
        self.key_not_revoked(holder, now)?;
        Ok(holder.clone())
    }

    /// A key was issued by nobody, so that whatever was revoked of its identity was issued later.
    fn key_not_revoked(&self, holder: &KeyHolder, now: SystemTime) -> Result<(), LoginRefused> {
        if self.identity_revoked(&holder.identity, SystemTime::UNIX_EPOCH, now) {
            return Err(LoginRefused::Revoked(holder.identity.clone()));
        }
        Ok(())
    }

    fn membership(&self, evidence: &Evidence) -> Result<Membership, LoginRefused> {
        match evidence {
            Evidence::Key(holder) => Ok(of_key(holder)),
            Evidence::Token(_) => self.membership_of(evidence.identity()),
            Evidence::Certificate(_) => {
                let membership = self.membership_of(evidence.identity())?;
                // What hosts may do is much, and their sessions outlive a broker that starts again: they have to be short.
                if membership.class == Class::Host {
                    return Err(LoginRefused::HostCertificate(evidence.identity().clone()));
                }
                Ok(membership)
            }
        }
    }

    /// What the registry says of an identity.
    pub(super) fn membership_of(&self, id: &SpiffeId) -> Result<Membership, LoginRefused> {
        let mut members = self.members();
        let membership = self.ground.registry.read(|registry| members.of_identity(registry, &self.settings, id));
        membership.map_err(|reason| LoginRefused::Member { id: id.clone(), reason })
    }
}

fn unix_time(now: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(clock::unix_seconds(now)))
}
