//! The subjects of a lattice, and which of them each class of member may use. Pure: who is what is decided elsewhere.
//!
//! | class | what it is |
//! |---|---|
//! | host | an unmodified wasmCloud host: speaks for the components it runs, under the reserved token `host` |
//! | member | an identity: answers for the virtual components that it serves, calls under its own names |
//! | node | calls under the names of its entries' identities; answers for none |
//! | provider, wadm, operator | members of an existing lattice without SVID, by key |
//! | broker | asks and answers for the control plane |
//!
//! JetStream is a way round permissions: a stream that republishes, a consumer that delivers, and whatever answers a question publish
//! wherever their maker says, for a server holds nobody to the subject on which he is answered. So members, nodes, providers and operators
//! may ask JetStream nothing; what members have to know of the lattice's buckets, the broker tells them. Hosts cannot do without it, which
//! is why a host is believed with all of its account.

use portcullis_identity::{ComponentId, Lattice, SpiffeId, Target};

use super::permissions::Permissions;

/// Before the inboxes of identities: `_I.LATTICE.NAME`. Hosts have `_INBOX` and cannot have another.
pub const INBOXES: &str = "_I";
/// Where unmodified clients are answered.
const COMMON_INBOX: &str = "_INBOX";
/// The inboxes of brokers.
pub const BROKER_INBOX: &str = "_B";
/// After the caller in the subject of a call.
const WRPC: &str = "wrpc.0.0.1";
/// The token under which hosts call.
const HOST: &str = "host";
/// What brokers hear of the hosts' policy questions.
pub const QUESTIONS: [&str; 2] = ["portcullis.policy.*.ask", "portcullis.policy.*.ask.*"];
/// The queue group in which they share them.
pub const QUESTIONS_QUEUE: &str = "portcullis.policy";
/// What brokers hear of members that ask for the links to a virtual component.
pub const LINKS: &str = "portcullis.links.*.*";
/// The queue group in which they share these.
pub const LINKS_QUEUE: &str = "portcullis.links";
/// Subjects of one kind in one token: each has up to 300 bytes, and stands twice in base64 in an answer of at most 1 MiB.
pub const MAX_LISTED: usize = 1000;

/// The subjects on which a virtual component is called, by whoever.
#[must_use]
pub fn served(target: &Target) -> String {
    called(target, "*")
}

/// The queue group of a virtual component.
#[must_use]
pub fn queue(Target { lattice, id }: &Target) -> String {
    format!("{lattice}.vc.{id}")
}

/// The inbox prefix of an identity by one of its names.
#[must_use]
pub fn inbox(lattice: &Lattice, name: &ComponentId) -> String {
    format!("{INBOXES}.{lattice}.{name}")
}

/// Where the member that serves `target` asks for the links to it.
#[must_use]
pub fn links(Target { lattice, id }: &Target) -> String {
    format!("portcullis.links.{lattice}.{id}")
}

fn called(Target { lattice, id }: &Target, caller: &str) -> String {
    format!("{lattice}.vc.{id}.{caller}.{WRPC}.>")
}

/// Where hosts of `lattice` ask what they may start: all of them, or one that proves itself by that, for nobody else may publish there.
#[must_use]
pub fn questions(lattice: &Lattice, host: Option<&SpiffeId>) -> String {
    match host {
        None => format!("portcullis.policy.{lattice}.ask"),
        Some(id) => format!("portcullis.policy.{lattice}.ask.{}", host_token(id)),
    }
}

/// One token of a subject for an identity, which may have more letters than that: the first half of its SHA-256.
#[must_use]
pub fn host_token(id: &SpiffeId) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, id.to_string().as_bytes());
    hash.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Where hosts of `lattice` hear that an answer is another one now.
#[must_use]
pub fn changes(lattice: &Lattice) -> String {
    format!("portcullis.policy.{lattice}.changes")
}

/// A lattice's two buckets.
#[must_use]
pub fn buckets(lattice: &Lattice) -> [String; 2] {
    [format!("LATTICEDATA_{lattice}"), format!("CONFIGDATA_{lattice}")]
}

/// Under which name an identity calls, and what it may call so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calling {
    /// The lattice.
    pub lattice: Lattice,
    /// The name.
    pub name: ComponentId,
    /// Virtual components whose policies could allow it something.
    pub reach: Vec<ComponentId>,
    /// Whether it may call wasm components on hosts, too.
    pub hosted: Hosted,
}

/// Whether somebody may call wasm components on hosts. No policy of ours is asked there, and a host's inbox is open to whoever may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hosted {
    /// Yes, all of the lattice.
    Callable,
    /// No.
    OutOfReach,
}

/// A virtual component that an identity serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serving {
    /// Which.
    pub target: Target,
    /// The names of those whom its policies could allow something: their inboxes are answered.
    pub callers: Vec<ComponentId>,
}

/// What an identity serves and calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// It serves these.
    pub serving: Vec<Serving>,
    /// It calls so.
    pub calling: Vec<Calling>,
}

/// The host `id` of `lattice`. These never depend on which virtual components there are, so that a new one reconnects no host.
#[must_use]
pub fn host(lattice: &Lattice, id: &SpiffeId) -> Permissions {
    let mut all = Permissions::default();
    all.inbox(COMMON_INBOX);
    let components = format!("{lattice}.*.wrpc.>");
    all.publish(components.clone());
    all.subscribe(components);
    all.publish(format!("{lattice}.vc.*.{HOST}.{WRPC}.>"));
    all.publish(format!("{INBOXES}.{lattice}.>"));
    all.publish(format!("wasmbus.evt.{lattice}.>"));
    all.publish(format!("wasmbus.rpc.{lattice}.>"));
    all.subscribe(format!("wasmbus.ctl.v1.{lattice}.>"));
    all.publish(questions(lattice, None));
    all.publish(questions(lattice, Some(id)));
    all.subscribe(changes(lattice));
    all.publish("$JS.API.INFO");
    for bucket in buckets(lattice) {
        all.publish(format!("$KV.{bucket}.>"));
        reads(&mut all, &bucket);
        for verb in ["CREATE", "INFO", "DELETE"] {
            all.publish(format!("$JS.API.CONSUMER.{verb}.KV_{bucket}.>"));
        }
        // The older way to create one, without a name.
        all.publish(format!("$JS.API.CONSUMER.CREATE.KV_{bucket}"));
        all.publish(format!("$JS.FC.KV_{bucket}.>"));
    }
    all
}

/// An identity: it alone answers for what it serves, and it calls under its own names.
#[must_use]
pub fn member(part: &Part) -> Permissions {
    let mut all = caller(&part.calling);
    for Serving { target, callers } in &part.serving {
        let Target { lattice, id } = target;
        all.subscribe_in(&served(target), &queue(target));
        // Results for hosts: they have one inbox for all, and cannot have another.
        all.publish(format!("{COMMON_INBOX}.>"));
        if callers.len() > MAX_LISTED {
            all.publish(format!("{INBOXES}.{lattice}.>"));
        } else {
            callers.iter().for_each(|name| all.publish(format!("{}.>", inbox(lattice, name))));
        }
        // Links that name it.
        all.subscribe(format!("wasmbus.rpc.{lattice}.vc.{id}.>"));
        all.publish(links(target));
    }
    all
}

/// A node: calls under its entries' names.
#[must_use]
pub fn node(parts: &[Part]) -> Permissions {
    let mut all = Permissions::default();
    parts.iter().for_each(|part| all.extend(caller(&part.calling)));
    all
}

fn caller(calling: &[Calling]) -> Permissions {
    let mut all = Permissions::default();
    for Calling { lattice, name, reach, hosted } in calling {
        all.inbox(&inbox(lattice, name));
        if reach.len() > MAX_LISTED {
            all.publish(format!("{lattice}.vc.*.{name}.{WRPC}.>"));
        } else {
            let target = |id: &ComponentId| Target { lattice: lattice.clone(), id: id.clone() };
            reach.iter().for_each(|id| all.publish(called(&target(id), name.as_str())));
        }
        if *hosted == Hosted::Callable {
            all.publish(format!("{lattice}.*.{WRPC}.>"));
            // Where a host takes the parameters that did not fit into the request, and their end.
            all.publish(format!("{COMMON_INBOX}.>"));
        }
    }
    all
}

/// A stock provider.
#[must_use]
pub fn provider(lattice: &Lattice, id: &ComponentId) -> Permissions {
    let mut all = Permissions::default();
    all.inbox(COMMON_INBOX);
    all.subscribe(format!("{lattice}.{id}.wrpc.>"));
    all.subscribe(format!("wasmbus.rpc.{lattice}.{id}.>"));
    all.publish(format!("{lattice}.*.wrpc.>"));
    all
}

/// `wash`: what an operator types.
#[must_use]
pub fn operator(lattice: &Lattice) -> Permissions {
    let mut all = Permissions::default();
    all.inbox(COMMON_INBOX);
    all.publish(format!("wasmbus.ctl.v1.{lattice}.>"));
    all.publish(format!("wadm.api.{lattice}.>"));
    all.publish(format!("{lattice}.*.wrpc.>"));
    all.subscribe(format!("wasmbus.evt.{lattice}.>"));
    all.subscribe(format!("wadm.evt.{lattice}.>"));
    all
}

/// wadm: keeps its state in streams of its own, and drives every lattice it is told of. It could reach everything through JetStream.
#[must_use]
pub fn wadm(lattice: &Lattice) -> Permissions {
    let mut all = Permissions::default();
    all.inbox(COMMON_INBOX);
    all.publish(format!("wasmbus.ctl.v1.{lattice}.>"));
    all.subscribe(format!("wasmbus.evt.{lattice}.>"));
    for subject in ["wadm.>", "$JS.API.>", "$JS.ACK.>", "$JS.FC.>", "$KV.>"] {
        all.publish(subject);
    }
    all.subscribe("wadm.>");
    all
}

/// A broker: makes the buckets of lattices, tells members their links, and answers the hosts' policy questions.
#[must_use]
pub fn broker() -> Permissions {
    let mut all = Permissions::default();
    all.inbox(BROKER_INBOX);
    all.publish("$JS.API.STREAM.INFO.*");
    all.publish("$JS.API.STREAM.CREATE.*");
    for questions in QUESTIONS {
        all.subscribe_in(questions, QUESTIONS_QUEUE);
    }
    all.publish("portcullis.policy.*.changes");
    all.subscribe_in(LINKS, LINKS_QUEUE);
    all.publish("$JS.API.DIRECT.GET.*");
    all.publish(format!("{INBOXES}.>"));
    // The hosts' questions come from their common inbox.
    all.publish(format!("{COMMON_INBOX}.>"));
    all
}

/// What a host may read of a bucket without making a consumer.
fn reads(all: &mut Permissions, bucket: &str) {
    all.publish(format!("$JS.API.STREAM.INFO.KV_{bucket}"));
    all.publish(format!("$JS.API.STREAM.MSG.GET.KV_{bucket}"));
    all.publish(format!("$JS.API.DIRECT.GET.KV_{bucket}"));
    all.publish(format!("$JS.API.DIRECT.GET.KV_{bucket}.>"));
}

#[cfg(test)]
mod tests;
