//! Several brokers of one set-up: the one that has the store, and those that follow it and answer logins with a copy.
//!
//! They speak in the callout's account, which nobody else can use: whoever has the credentials of `nats.folder` could sign any user anyway.
//! The servers give each question to one of them (a queue group). So that a login token is good for one login among all of them, whoever
//! takes one asks the others first ([`Fellows`]). A follower gets the records of the store, and each change as it is made.
//!
//! | subject below `portcullis.brokers` | who says it | what |
//! |---|---|---|
//! | `here` | each, every second and at its end | that it is there |
//! | `take` | who takes a login token; the others reply | whether it was used |
//! | `version` | who has the store, every second and at each change | that followers should look |
//! | `copy` | a follower; who has the store replies, in parts | the records, or what changed since a version |
//! | `lead` | a follower, and a broker that starts with a store; who has one replies | which version it has now |

mod copies;
mod fellows;
mod following;
mod wire;

use std::time::Duration;

pub(super) use self::copies::{another_leads, serve};
pub(super) use self::fellows::Fellows;
pub(crate) use self::following::{Followed, follow};

/// All of the subjects.
pub(super) const ALL: &str = "portcullis.brokers.>";
const HERE: &str = "portcullis.brokers.here";
const TAKE: &str = "portcullis.brokers.take";
const VERSION: &str = "portcullis.brokers.version";
const COPY: &str = "portcullis.brokers.copy";
const LEAD: &str = "portcullis.brokers.lead";
/// How often a broker says that it is there, and which version it has.
const BEAT: Duration = Duration::from_secs(1);
/// Who was not heard for so long is gone.
pub(super) const SILENCE: Duration = Duration::from_secs(3);
