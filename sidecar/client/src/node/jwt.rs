//! JWT-SVIDs of this node's entries, from the broker.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portcullis_api::v1::{self, jwt_result};
use portcullis_identity::Audience;

use super::{Node, SignError};

/// The broker signs at most so many at a time.
const MAX_BATCH: usize = 64;

/// A token to ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedJwt {
    /// The entry, by the broker's name for it.
    pub entry: String,
    /// For whom it is meant: at least one, and one is best.
    pub audience: Vec<Audience>,
    /// The entry of the host that fetches it for a component which it runs.
    pub vouched_by: Option<String>,
}

/// A JWT-SVID. Whoever holds the token is its subject: it is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Jwt {
    token: String,
    expires_at: SystemTime,
}

impl Jwt {
    /// The token in compact serialisation. Never log it.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The moment from which on it is refused.
    #[must_use]
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwt").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

impl Node {
    /// JWT-SVIDs for `wanted`: one result each, in order. Nothing is cached.
    ///
    /// # Errors
    /// When the broker cannot be asked, or refuses the request as a whole.
    pub async fn jwt_svids(&self, wanted: Vec<WantedJwt>) -> Result<Vec<Result<Jwt, SignError>>, SignError> {
        let mut jwts = Vec::with_capacity(wanted.len());
        for batch in wanted.chunks(MAX_BATCH) {
            let messages: Vec<_> = batch.iter().map(message).collect();
            let results = self.shared.sign_jwts(messages).await?;
            if results.len() != batch.len() {
                return Err(SignError::Unusable(format!("{} answers to {} requests", results.len(), batch.len())));
            }
            jwts.extend(results.into_iter().map(jwt));
        }
        Ok(jwts)
    }
}

fn message(wanted: &WantedJwt) -> v1::WantedJwt {
    let WantedJwt { entry, audience, vouched_by } = wanted;
    v1::WantedJwt {
        entry: entry.clone(),
        audience: audience.iter().map(|audience| audience.as_str().to_owned()).collect(),
        vouched_by: vouched_by.clone().unwrap_or_default(),
    }
}

fn jwt(result: v1::JwtResult) -> Result<Jwt, SignError> {
    let v1::JwtResult { result, expires_at } = result;
    match result {
        Some(jwt_result::Result::Token(token)) => {
            let expires_at = UNIX_EPOCH.checked_add(Duration::from_secs(expires_at));
            let expires_at = expires_at.ok_or_else(|| SignError::Unusable("it never expires".to_owned()))?;
            Ok(Jwt { token, expires_at })
        }
        Some(jwt_result::Result::Refused(reason)) => Err(SignError::Refused(reason)),
        None => Err(SignError::Unusable("an empty answer".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_printed() {
        let result = Some(jwt_result::Result::Token("secret".to_owned()));
        let jwt = jwt(v1::JwtResult { result, expires_at: 7 }).unwrap();
        assert_eq!((jwt.token(), jwt.expires_at()), ("secret", UNIX_EPOCH + Duration::from_secs(7)));
        assert!(!format!("{jwt:?}").contains("secret"));
    }

    #[test]
    fn an_answer_without_a_token_is_an_error() {
        let refused = Some(jwt_result::Result::Refused("no".to_owned()));
        assert!(matches!(jwt(v1::JwtResult { result: refused, expires_at: 0 }), Err(SignError::Refused(_))));
        assert!(matches!(jwt(v1::JwtResult { result: None, expires_at: 0 }), Err(SignError::Unusable(_))));
    }
}
