//! The lattice: who may join it.
//!
//! A wasmCloud lattice lives on NATS servers, and whoever may publish there can claim to be any component. So the servers, in operator mode,
//! ask the broker about every login (auth callout); it answers with a user that is named by its SPIFFE ID and may use the subjects of its
//! [class](member::Class) alone. [`subjects`] is the list of what that is, a pure function. Tokens are read and written by [`claims`].
//!
//! It does not know what is said in the lattice, and is asked about no call but by hosts: before they start something or serve a call they
//! ask the policy service.

pub mod claims;
pub mod credentials;
pub mod folder;
pub mod key;
pub mod member;
pub mod permissions;
pub mod setup;
pub mod subjects;
pub mod token;

mod brokers;
mod buckets;
mod callout;
mod check;
mod connect;
mod ground;
mod links;
mod login;
mod policy;
mod replay;
mod sessions;
mod watch;
mod ways;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::brokers::{Followed, follow};
pub(crate) use self::callout::{Callout, Refused};
pub use self::check::{CheckError, check, check_followed};
use self::connect::connect;
use self::folder::Material;
pub(crate) use self::ground::{Age, Ground};
pub use self::policy::AnswersError;
pub(crate) use self::policy::{Counts, Outcome, Question};
pub(crate) use self::sessions::{Place, Session};
pub(crate) use self::ways::Way;
use crate::broker::Broker;
use crate::config::Nats;

/// The wait after servers that cannot be reached, or refuse us.
const PAUSE: Duration = Duration::from_secs(1);

/// Answers the servers and hosts of `settings` until the broker stops. What hosts were answered is kept at `answers`.
///
/// # Errors
/// When the folder or that file cannot be used.
pub(crate) fn serve(broker: &Arc<Broker>, settings: Nats, answers: &Path) -> Result<(), CheckError> {
    let material = Material::read(&settings.folder)?;
    let callout = Callout::new(Ground::of(broker), settings, material);
    policy::serve(&callout, &broker.admissions, answers)?;
    serve_logins(&callout);
    let copies = brokers::serve(Arc::clone(&callout), broker.ledger.clone());
    broker.tracker.spawn(broker.stop.clone().run_until_cancelled_owned(copies));
    // A weak one: what the broker holds must not hold the broker. It is set once.
    let _ = broker.callout.set(Arc::downgrade(&callout));
    Ok(())
}

/// The same for a broker that follows another one: `ground` is its copy. What hosts may start the other one alone decides, since who asks for a
/// component's token has to ask the one that allowed its start.
///
/// # Errors
/// When the folder cannot be used.
pub(crate) fn serve_following(ground: Ground, followed: Followed, settings: Nats) -> Result<Arc<Callout>, CheckError> {
    let (tracker, stop) = (ground.tracker.clone(), ground.stop.clone());
    let material = Material::read(&settings.folder)?;
    let callout = Callout::new(ground, settings, material);
    tracker.spawn(stop.run_until_cancelled_owned(follow(followed, Arc::clone(&callout))));
    serve_logins(&callout);
    Ok(callout)
}

/// What every broker does: answers logins and members, and follows sessions.
fn serve_logins(callout: &Arc<Callout>) {
    let Ground { tracker, stop, .. } = &callout.ground;
    // It says goodbye when the broker stops.
    tracker.spawn(answer(Arc::clone(callout)));
    tracker.spawn(stop.clone().run_until_cancelled_owned(watch(Arc::clone(callout))));
    tracker.spawn(stop.clone().run_until_cancelled_owned(links::serve(Arc::clone(callout))));
    tracker.spawn(stop.clone().run_until_cancelled_owned(buckets::keep(Arc::clone(callout))));
}

async fn answer(callout: Arc<Callout>) {
    let Callout { settings, material, ways, ground, .. } = &*callout;
    let connected = async || {
        ground.becomes_good().await;
        connect(settings, "callout", &material.users.callout).await
    };
    while let Some(connected) = ground.stop.run_until_cancelled(connected()).await {
        match connected {
            Ok(client) => {
                ways.connected("callout", client.clone());
                if let Err(error) = callout.serve(client).await {
                    tracing::error!(%error, "cannot ask for the lattice's logins");
                }
            }
            Err(error) => ways.failed("callout", &error),
        }
        ground.stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
    }
}

async fn watch(callout: Arc<Callout>) {
    callout.ground.becomes_good().await;
    loop {
        match connect(&callout.settings, "system", &callout.material.users.system).await {
            Ok(client) => {
                callout.ways.connected("system", client.clone());
                if let Err(error) = callout.watch(client).await {
                    tracing::error!(%error, "cannot follow the lattice's connections");
                }
            }
            Err(error) => callout.ways.failed("system", &error),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
