//! The claims of a JWT-SVID (JWT-SVID §3, RFC 7519 §4.1).

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Map, Value};
use spiffe::SpiffeId;

use super::{Audience, JwtRefused, MAX_AUDIENCES};
use crate::parse_spiffe_id;

/// The last second of the year 9999: the latest date that other libraries can express.
pub(super) const MAX_NUMERIC_DATE: u64 = 253_402_300_799;

/// What a JWT-SVID says, after its signature, its dates and its audience were checked.
#[derive(Clone, PartialEq)]
pub struct JwtClaims {
    id: SpiffeId,
    audience: Vec<Audience>,
    expires_at: SystemTime,
    issued_at: Option<SystemTime>,
    all: Map<String, Value>,
}

impl JwtClaims {
    /// `sub`: whose token it is. The ID has a path.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// `aud`: for whom it is meant; the audience that was asked for is among them.
    #[must_use]
    pub fn audience(&self) -> &[Audience] {
        &self.audience
    }

    /// `exp`, in whole seconds, rounded down.
    #[must_use]
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }

    /// `iat`, in whole seconds, rounded down; issuers may leave it out.
    #[must_use]
    pub fn issued_at(&self) -> Option<SystemTime> {
        self.issued_at
    }

    /// Every claim as it stands in the token, those above included: what `ValidateJWTSVID` answers (Workload API §6.2.3).
    #[must_use]
    pub fn all(&self) -> &Map<String, Value> {
        &self.all
    }

    /// [`Self::all`] without a copy.
    #[must_use]
    pub fn into_all(self) -> Map<String, Value> {
        self.all
    }

    /// Reads the claims of a token whose signature fits, and checks dates and audience.
    pub(super) fn check(
        all: Map<String, Value>,
        audience: &Audience,
        now: SystemTime,
        leeway: Duration,
    ) -> Result<Self, JwtRefused> {
        let id = subject(&all)?;
        let audiences = audiences(&all)?;
        if !audiences.contains(audience) {
            return Err(JwtRefused::OtherAudience { id, audience: audience.clone() });
        }
        let expires_at = date(&all, "exp")?.ok_or(JwtRefused::NoExpiry)?;
        // RFC 7519 §4.1.4: on the second itself it has expired. Times are compared without leaving the clock's range.
        if now.duration_since(expires_at).is_ok_and(|late| late >= leeway) {
            return Err(JwtRefused::Expired { id });
        }
        let issued_at = date(&all, "iat")?;
        for (claim, time) in [("iat", issued_at), ("nbf", date(&all, "nbf")?)] {
            if time.is_some_and(|time| time.duration_since(now).is_ok_and(|early| early > leeway)) {
                return Err(JwtRefused::NotYetValid { id, claim });
            }
        }
        Ok(Self { id, audience: audiences, expires_at, issued_at, all })
    }
}

impl fmt::Debug for JwtClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtClaims")
            .field("id", &self.id)
            .field("audience", &self.audience)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// JWT-SVID §3.1: `sub` is a SPIFFE ID, and of a workload.
pub(super) fn subject(claims: &Map<String, Value>) -> Result<SpiffeId, JwtRefused> {
    let text = claims.get("sub").ok_or(JwtRefused::NoSubject)?.as_str().ok_or(JwtRefused::Claim { claim: "sub" })?;
    let id = parse_spiffe_id(text).map_err(JwtRefused::Subject)?;
    if id.path().is_empty() { Err(JwtRefused::SubjectWithoutPath { id }) } else { Ok(id) }
}

/// JWT-SVID §3.2: one text, or an array of at least one.
fn audiences(claims: &Map<String, Value>) -> Result<Vec<Audience>, JwtRefused> {
    let malformed = JwtRefused::Claim { claim: "aud" };
    let texts = match claims.get("aud").ok_or(JwtRefused::NoAudience)? {
        Value::String(text) => vec![text.as_str()],
        Value::Array(values) if values.is_empty() => return Err(JwtRefused::NoAudience),
        Value::Array(values) if values.len() > MAX_AUDIENCES => {
            return Err(JwtRefused::TooManyAudiences { count: values.len() });
        }
        Value::Array(values) => {
            values.iter().map(Value::as_str).collect::<Option<Vec<_>>>().ok_or_else(|| malformed.clone())?
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => return Err(malformed),
    };
    texts.into_iter().map(|text| text.parse().map_err(|_length| malformed.clone())).collect()
}

/// A NumericDate (RFC 7519 §2): seconds since 1970, a fraction allowed and dropped, not after the year 9999.
fn date(claims: &Map<String, Value>, claim: &'static str) -> Result<Option<SystemTime>, JwtRefused> {
    let Some(value) = claims.get(claim) else { return Ok(None) };
    let fraction = || value.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds.trunc()).ok());
    value
        .as_u64()
        .or_else(|| fraction().map(|since| since.as_secs()))
        .filter(|seconds| *seconds <= MAX_NUMERIC_DATE)
        .and_then(system_time)
        .map(Some)
        .ok_or(JwtRefused::Claim { claim })
}

pub(super) fn system_time(seconds: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}
