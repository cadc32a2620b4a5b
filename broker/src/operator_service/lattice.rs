//! What operators see of the lattice.

use portcullis_api::v1;
use tonic::Status;

use super::OperatorService;
use crate::clock::unix_seconds;
use crate::nats::{Outcome, Place, Refused, Session, Way};

impl OperatorService {
    pub(super) fn lattice_status(&self) -> Result<v1::LatticeStatusReply, Status> {
        let callout = self.0.callout.get().and_then(std::sync::Weak::upgrade);
        let callout =
            callout.ok_or_else(|| Status::failed_precondition("this broker answers no lattice: it has no `[nats]`"))?;
        let (sessions, refusals) = callout.state();
        Ok(v1::LatticeStatusReply {
            sessions: sessions.into_iter().map(session_message).collect(),
            refusals: refusals.into_iter().map(refusal_message).collect(),
            admissions: Some(self.admissions()),
            connections: callout.ways().into_iter().map(connection_message).collect(),
        })
    }

    fn admissions(&self) -> v1::Admissions {
        let counts = &self.0.admissions;
        v1::Admissions {
            allowed: counts.of(Outcome::Allowed),
            denied: counts.of(Outcome::Denied),
            malformed: counts.of(Outcome::Malformed),
            undecided: counts.of(Outcome::Undecided),
            dropped: counts.of(Outcome::Dropped),
            overridden: counts.of(Outcome::Overridden),
            remembered: u64::try_from(counts.remembered().get()).unwrap_or_default(),
        }
    }
}

fn session_message((place, session): (Place, Session)) -> v1::LatticeSession {
    let (class, proof) = match &session.proved {
        Some(proved) => (proved.class.name(), proved.evidence.name()),
        None => ("", ""),
    };
    v1::LatticeSession {
        identity: session.identity.to_string(),
        class: class.to_owned(),
        proof: proof.to_owned(),
        server: place.server,
        address: session.address,
        since: unix_seconds(session.since),
        until: session.until.map_or(0, unix_seconds),
        course: session.course.name().to_owned(),
    }
}

fn connection_message(Way { name, problem }: Way) -> v1::LatticeConnection {
    let connected = problem.is_none();
    v1::LatticeConnection { name: name.to_owned(), connected, problem: problem.unwrap_or_default() }
}

fn refusal_message(refused: Refused) -> v1::LatticeRefusal {
    let Refused { at, server, address, client, reason } = refused;
    v1::LatticeRefusal { at: unix_seconds(at), server, address, client, reason }
}
