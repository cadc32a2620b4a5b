//! JWT-SVIDs, each handed out until half of its life is over; those that log in somewhere once, for they are good once.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use portcullis_client::node::{Jwt, Node, SignError, WantedJwt};
use portcullis_identity::Audience;

use super::believed;
use crate::clock;
use crate::workload::{Token, TokenRefused, WantedToken};

/// Tokens that are kept; beyond these each request asks the broker.
const MAX_KEPT: usize = 1024;

/// Tokens by what was wanted.
#[derive(Debug)]
pub(super) struct Tokens {
    kept: Mutex<HashMap<WantedToken, Kept>>,
    /// For these audiences each request gets a token of its own: a lattice takes one once, and a wasmCloud host logs in twice at a time.
    logins: BTreeSet<String>,
}

#[derive(Clone, Debug)]
struct Kept {
    jwt: Jwt,
    /// Half-life: from then on a new one is asked for first.
    renew_at: SystemTime,
}

impl Tokens {
    /// None yet.
    pub(super) fn new(logins: BTreeSet<String>) -> Self {
        Self { kept: Mutex::default(), logins }
    }

    /// One token for each that is wanted, in order.
    pub(super) async fn of(&self, node: &Node, wanted: Vec<WantedToken>) -> Result<Vec<Token>, TokenRefused> {
        let now = clock::now();
        let mut missing = Vec::new();
        let mut found: Vec<Option<Token>> = Vec::with_capacity(wanted.len());
        for want in &wanted {
            let kept = self.kept(want).filter(|kept| now < kept.renew_at && is_valid(node, want, &kept.jwt, now));
            if kept.is_none() {
                missing.push(want.clone());
            }
            found.push(kept.map(|kept| token(&kept.jwt)));
        }
        if missing.is_empty() {
            return Ok(found.into_iter().flatten().collect());
        }
        let mut fresh = self.ask(node, missing, now).await?.into_iter();
        let tokens = found.into_iter().map(|found| found.or_else(|| fresh.next()));
        tokens.collect::<Option<Vec<_>>>().ok_or(TokenRefused::Unavailable)
    }

    /// New tokens; while the broker is away those of before, as long as they are good.
    async fn ask(&self, node: &Node, missing: Vec<WantedToken>, now: SystemTime) -> Result<Vec<Token>, TokenRefused> {
        let requests = missing.iter().map(request).collect::<Result<Vec<_>, _>>()?;
        let answers = match node.jwt_svids(requests).await {
            Ok(answers) => answers,
            Err(SignError::Offline) => {
                let old = |want: &WantedToken| {
                    self.kept(want).filter(|kept| is_valid(node, want, &kept.jwt, now)).map(|kept| token(&kept.jwt))
                };
                return missing.iter().map(old).collect::<Option<Vec<_>>>().ok_or(TokenRefused::Unavailable);
            }
            Err(error) => return Err(error.into()),
        };
        let mut tokens = Vec::with_capacity(answers.len());
        for (want, answer) in missing.into_iter().zip(answers) {
            let jwt = answer?;
            tokens.push(token(&jwt));
            self.keep(want, jwt, now);
        }
        Ok(tokens)
    }

    fn kept(&self, want: &WantedToken) -> Option<Kept> {
        // Whether a host may have one is asked each time.
        if want.vouched_by.is_some() { None } else { self.lock().get(want).cloned() }
    }

    fn keep(&self, want: WantedToken, jwt: Jwt, now: SystemTime) {
        if want.audience.iter().any(|audience| self.logins.contains(audience)) {
            return;
        }
        let mut kept = self.lock();
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, kept| kept.jwt.expires_at() > now);
        }
        if kept.len() < MAX_KEPT && want.vouched_by.is_none() {
            let life = jwt.expires_at().duration_since(now).unwrap_or(Duration::ZERO);
            kept.insert(want, Kept { jwt, renew_at: now + life / 2 });
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<WantedToken, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn request(want: &WantedToken) -> Result<WantedJwt, TokenRefused> {
    let audience = want.audience.iter().map(|audience| audience.parse::<Audience>());
    let audience = audience.collect::<Result<_, _>>().map_err(|error| TokenRefused::Refused(error.to_string()))?;
    Ok(WantedJwt { entry: want.entry.clone(), audience, vouched_by: want.vouched_by.clone() })
}

/// Whether a kept token would still be believed: it may have been revoked, or the authority that signed it withdrawn.
fn is_valid(node: &Node, want: &WantedToken, jwt: &Jwt, now: SystemTime) -> bool {
    let audience = want.audience.first().and_then(|audience| audience.parse::<Audience>().ok());
    let (bundles, trust) = (node.jwt_trust(), node.trust());
    let good = |audience: &Audience| {
        believed(jwt.token(), audience, (&bundles.load(), trust.load().revocations()), now).is_ok()
    };
    jwt.expires_at() > now && audience.as_ref().is_some_and(good)
}

fn token(jwt: &Jwt) -> Token {
    Token { text: jwt.token().to_owned() }
}
