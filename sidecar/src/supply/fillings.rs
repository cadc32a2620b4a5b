//! Entries that templates make, one request to the broker for each: what it refused is not asked again at once.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portcullis_client::node::SignError;

use crate::workload::{Filling, TokenRefused};

/// How long a refusal stands.
const REMEMBERED: Duration = Duration::from_secs(30);
/// Refusals that are remembered; whatever else is asked for is refused until one is forgotten.
const MAX_REMEMBERED: usize = 1024;

/// What the broker refused, and until when.
#[derive(Debug, Default)]
pub(super) struct Fillings(Mutex<BTreeMap<Filling, Instant>>);

impl Fillings {
    /// Has `ask` make the entry, unless it was refused a moment ago.
    pub(super) async fn fill<F: Future<Output = Result<(), SignError>>>(
        &self,
        filling: Filling,
        now: Instant,
        ask: impl FnOnce(String, Vec<String>) -> F,
    ) -> Result<(), TokenRefused> {
        {
            let mut refused = self.lock();
            refused.retain(|_, until| *until > now);
            if refused.contains_key(&filling) || refused.len() >= MAX_REMEMBERED {
                return Err(TokenRefused::Refused("the broker refused it a moment ago".to_owned()));
            }
        }
        let asked = ask(filling.template.clone(), filling.values.clone()).await;
        if let Err(SignError::Refused(_)) = &asked {
            self.lock().insert(filling, now + REMEMBERED);
        }
        asked.map_err(TokenRefused::from)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Filling, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use portcullis_identity::parse_spiffe_id;

    use super::*;
    use crate::clock;

    #[tokio::test]
    async fn a_refusal_stands_for_a_while_and_an_outage_does_not() {
        let fillings = Fillings::default();
        let spiffe_id = parse_spiffe_id("spiffe://a.test/svc/1").unwrap();
        let filling = Filling { template: "e1-1".to_owned(), values: vec!["1".to_owned()], spiffe_id };
        let (asked, now) = (Cell::new(0), clock::instant());
        let fill = async |at: Instant, answer: Result<(), SignError>| {
            let ask = |_, _| {
                asked.set(asked.get() + 1);
                std::future::ready(answer)
            };
            fillings.fill(filling.clone(), at, ask).await
        };
        assert_eq!(fill(now, Err(SignError::Offline)).await, Err(TokenRefused::Unavailable));
        fill(now, Err(SignError::Refused("too many".to_owned()))).await.unwrap_err();
        assert_eq!(asked.get(), 2);
        fill(now + REMEMBERED / 2, Ok(())).await.unwrap_err();
        assert_eq!(asked.get(), 2);
        assert_eq!(fill(now + REMEMBERED, Ok(())).await, Ok(()));
        assert_eq!(asked.get(), 3);
    }
}
