//! Which components are linked to this one on its lattice, as wasmCloud hosts say it.
//!
//! For the operator's eyes: a link says where a host sends its component's calls, and permits nothing. Hosts announce a link once, with its
//! configuration, to `wasmbus.rpc.LATTICE.TARGET.linkdefs.put` and `.del`; what stands is in the lattice's bucket, of which the broker tells
//! at the start and now and then. On a lattice that no broker looks after, the bucket is read here. Without one the announcements are all there
//! is.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use portcullis_transport::nats::{Announcement, AskError, Link, Listening, Session, SubscribeError, VirtualAddress};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::debug;

/// How often the bucket is read.
const LOOK: Duration = Duration::from_secs(60);
/// The wait after the subscription failed.
const PAUSE: Duration = Duration::from_secs(5);
/// How long the bucket may take.
const ANSWER: Duration = Duration::from_secs(5);
/// The most links that are kept, and values of the bucket that are read: as many as one direct get may have.
const MOST: usize = 1024;
/// Bytes of a name or value in one.
const LONGEST: usize = 1024;
/// Bytes of an announcement.
const LONGEST_ANNOUNCEMENT: usize = 256 << 10;
/// Interfaces, and values of the configuration, of one.
const MOST_PARTS: usize = 64;

/// A component whose calls a host sends here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Linked {
    /// The component's id.
    pub source: String,
    /// The link's name.
    pub name: String,
    /// What the component calls here: `namespace:package/interface`.
    pub interfaces: Vec<String>,
    /// The target in full, with the caller's token.
    pub target: String,
    /// What configurations the link names for us.
    pub config_names: Vec<String>,
    /// What is in them, as far as a host announced it.
    pub config: BTreeMap<String, String>,
}

/// A link's key in wasmCloud: source, name, namespace and package.
type Key = (String, String, String, String);

/// The links that are known.
#[derive(Debug, Default)]
pub(crate) struct Links(Mutex<BTreeMap<Key, Linked>>);

/// A link as hosts write it; the configuration by name or by value.
#[derive(Debug, Deserialize)]
struct Definition {
    source_id: String,
    target: String,
    #[serde(default = "default_name")]
    name: String,
    wit_namespace: String,
    wit_package: String,
    interfaces: Vec<String>,
    #[serde(default)]
    target_config: Configuration,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Configuration {
    Named(Vec<String>),
    Resolved(BTreeMap<String, String>),
}

impl Default for Configuration {
    fn default() -> Self {
        Self::Named(Vec::new())
    }
}

/// What the bucket holds of a component, and what the broker answers. One link that cannot be read does not hide the others.
#[derive(Debug, Deserialize)]
struct Specification {
    #[serde(default)]
    links: Vec<Value>,
}

/// What stands cannot be learnt.
#[derive(Debug, thiserror::Error)]
enum Unknown {
    #[error(transparent)]
    Asked(#[from] AskError),
    #[error("the broker's answer cannot be read")]
    Unreadable(#[from] serde_json::Error),
    #[error("the broker cannot tell: {0}")]
    Broker(String),
}

/// The broker's answer: links or an error.
#[derive(Debug, Deserialize)]
struct Told {
    #[serde(default)]
    error: Option<String>,
    /// Whether these are all the links there are.
    #[serde(default = "is_whole")]
    complete: bool,
}

/// What stands.
struct Stand {
    /// Of each component, or of all together.
    values: Vec<Bytes>,
    complete: bool,
}

/// The question of a direct get.
#[derive(Serialize)]
struct LastOfEach<'q> {
    multi_last: [&'q str; 1],
    batch: usize,
}

const fn is_whole() -> bool {
    true
}

fn default_name() -> String {
    "default".to_owned()
}

impl Definition {
    fn concerns(&self, at: &Listening) -> bool {
        let named = match at {
            Listening::Virtual(VirtualAddress { id, .. }) => {
                let behind = self.target.strip_prefix("vc.").and_then(|rest| rest.strip_prefix(id.as_str()));
                behind.is_some_and(|rest| rest.starts_with('.'))
            }
            Listening::Plain(VirtualAddress { id, .. }) => self.target == id.as_str(),
        };
        named && self.is_sane()
    }

    /// Whether it can be shown to somebody: whoever can announce links could write anything here.
    fn is_sane(&self) -> bool {
        let Self { source_id, target, name, wit_namespace, wit_package, interfaces, target_config } = self;
        let sane = |text: &String| text.len() <= LONGEST && !text.chars().any(char::is_control);
        let names = [source_id, target, name, wit_namespace, wit_package];
        let (count, configured) = match target_config {
            Configuration::Named(names) => (names.len(), names.iter().all(sane)),
            Configuration::Resolved(values) => {
                (values.len(), values.iter().all(|(key, value)| sane(key) && sane(value)))
            }
        };
        let few = count <= MOST_PARTS && interfaces.len() <= MOST_PARTS;
        few && configured && names.into_iter().chain(interfaces).all(sane)
    }

    fn linked(self) -> (Key, Linked) {
        let Self { source_id, target, name, wit_namespace, wit_package, interfaces, target_config } = self;
        let (config_names, config) = match target_config {
            Configuration::Named(names) => (names, BTreeMap::new()),
            Configuration::Resolved(values) => (Vec::new(), values),
        };
        let interfaces = interfaces.iter().map(|name| format!("{wit_namespace}:{wit_package}/{name}")).collect();
        let key = (source_id.clone(), name.clone(), wit_namespace, wit_package);
        (key, Linked { source: source_id, name, interfaces, target, config_names, config })
    }
}

impl Links {
    pub(crate) fn all(&self) -> Vec<Linked> {
        self.known().values().cloned().collect()
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Linked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an announcement. What is none is nobody's business.
    fn hear(&self, announced: &Announcement, at: &Listening) {
        if announced.payload.len() > LONGEST_ANNOUNCEMENT {
            return;
        }
        let verb = announced.subject.rsplit_once(".linkdefs.").map(|(_, verb)| verb);
        let Ok(definition) = serde_json::from_slice::<Definition>(&announced.payload) else { return };
        if !definition.concerns(at) {
            return;
        }
        let (key, linked) = definition.linked();
        let mut known = self.known();
        match verb {
            Some("put") if known.len() < MOST || known.contains_key(&key) => {
                // The names are in the bucket alone.
                let config_names = known.get(&key).map(|before| before.config_names.clone()).unwrap_or_default();
                known.insert(key, Linked { config_names, ..linked });
            }
            Some("del") => drop(known.remove(&key)),
            Some(_) | None => {}
        }
    }

    /// Takes what stands in the bucket for the truth, but for what only announcements tell; for the whole of it where it is `complete`.
    fn replace(&self, Stand { values, complete }: &Stand, at: &Listening) {
        let stands = values.iter().filter_map(|value| serde_json::from_slice::<Specification>(value).ok());
        let links = stands.flat_map(|component| component.links);
        let links = links.filter_map(|link| serde_json::from_value::<Definition>(link).ok());
        let stands = links.filter(|link| link.concerns(at));
        let mut known = self.known();
        let replaced = stands.map(Definition::linked).take(MOST).map(|(key, mut linked)| {
            if let Some(before) = known.get(&key) {
                linked.config.clone_from(&before.config);
            }
            (key, linked)
        });
        let mut stands: BTreeMap<Key, Linked> = replaced.collect();
        if !complete {
            let room = MOST.saturating_sub(stands.len());
            let others: Vec<Key> = known.keys().filter(|key| !stands.contains_key(key)).take(room).cloned().collect();
            stands.extend(others.into_iter().filter_map(|key| known.remove_entry(&key)));
        }
        *known = stands;
    }
}

/// Follows the links to the component as long as it is on its lattice.
pub(crate) async fn follow(session: Session, at: Listening, links: &Links) {
    loop {
        let link = session.link();
        tokio::select! {
            () = session.moved_from(&link) => continue,
            ended = listen(&link, &at, links) => {
                if let Err(error) = ended {
                    debug!(%error, "cannot hear of links");
                }
            }
        }
        tokio::select! {
            () = session.moved_from(&link) => {}
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

async fn listen(link: &Link, at: &Listening, links: &Links) -> Result<(), SubscribeError> {
    // Before the bucket is read: nothing is announced in between that is not heard.
    let mut hearing = match link.hear(format!("wasmbus.rpc.{}.>", at.prefix())).await {
        Ok(hearing) => Some(hearing),
        // What stands can be learnt all the same.
        Err(SubscribeError::NotPermitted { .. }) => None,
        Err(error) => return Err(error),
    };
    let mut looks = tokio::time::interval(LOOK);
    loop {
        let announced = async {
            match &mut hearing {
                Some(hearing) => hearing.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            announced = announced => match announced {
                Some(announced) => links.hear(&announced, at),
                None => return Ok(()),
            },
            _ = looks.tick() => match stand(link, at.address()).await {
                Ok(stand) => links.replace(&stand, at),
                Err(error) => debug!(%error, "cannot read the lattice's links"),
            },
        }
    }
}

/// Every link that the broker tells of, or every value of the lattice's bucket.
async fn stand(link: &Link, VirtualAddress { lattice, id }: &VirtualAddress) -> Result<Stand, Unknown> {
    match link.ask_once(&format!("portcullis.links.{lattice}.{id}"), Bytes::new(), ANSWER).await {
        Ok(answer) => match serde_json::from_slice::<Told>(&answer)? {
            Told { error: Some(error), .. } => return Err(Unknown::Broker(error)),
            Told { error: None, complete } => return Ok(Stand { values: vec![answer], complete }),
        },
        // Nobody looks after this lattice.
        Err(AskError::NoResponder) => {}
        Err(error) => return Err(error.into()),
    }
    let bucket = format!("LATTICEDATA_{lattice}");
    let everything = format!("$KV.{bucket}.>");
    let question = LastOfEach { multi_last: [&everything], batch: MOST };
    let question = serde_json::to_vec(&question)?;
    let values = link.ask(&format!("$JS.API.DIRECT.GET.KV_{bucket}"), question.into(), MOST, ANSWER).await?;
    Ok(Stand { values, complete: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUT: &str = r#"{"source_id":"cart","target":"vc.shop.host","name":"default","wit_namespace":"test","wit_package":"shop",
        "interfaces":["items"],"source_config":{},"target_config":{"currency":"EUR"},"source_secrets":null,"target_secrets":null}"#;
    const STANDS: &str = r#"{"url":"file:///cart.wasm","links":[
        {"source_id":"cart","target":"vc.shop.host","name":"default","wit_namespace":"test","wit_package":"shop","interfaces":["items"],"target_config":["prices"]},
        {"source_id":"cart","target":"vc.shop2.host","name":"default","wit_namespace":"test","wit_package":"other","interfaces":["items"]}]}"#;

    fn address() -> Listening {
        VirtualAddress { lattice: "demo".parse().unwrap(), id: "shop".parse().unwrap() }.into()
    }

    fn say(links: &Links, verb: &str, payload: &str) {
        let subject = format!("wasmbus.rpc.demo.vc.shop.host.linkdefs.{verb}");
        links.hear(&Announcement { subject, payload: Bytes::copy_from_slice(payload.as_bytes()) }, &address());
    }

    #[test]
    fn a_link_is_known_from_its_announcement_to_its_end() {
        let links = Links::default();
        say(&links, "put", PUT);
        let [linked] = &links.all()[..] else { panic!("{links:?}") };
        assert_eq!((linked.source.as_str(), linked.config["currency"].as_str()), ("cart", "EUR"));
        assert_eq!(linked.interfaces, ["test:shop/items"]);
        let long = PUT.replace("EUR", &"x".repeat(LONGEST + 1));
        let other = PUT.replace("vc.shop.host", "vc.shopping.host");
        for nonsense in ["", "{}", "[1]", &other, &PUT.replace("EUR", "\\u001b[2J"), &long] {
            say(&links, "put", nonsense);
            assert_eq!(links.all().len(), 1, "{nonsense}");
        }
        say(&links, "del", PUT);
        assert_eq!(links.all(), []);
    }

    #[test]
    fn what_stands_is_the_truth_and_keeps_what_was_announced() {
        let links = Links::default();
        say(&links, "put", PUT);
        say(&links, "put", &PUT.replace("cart", "gone"));
        let values = vec![Bytes::from_static(STANDS.as_bytes()), Bytes::from_static(b"claims, perhaps")];
        links.replace(&Stand { values: values.clone(), complete: false }, &address());
        assert_eq!(links.all().len(), 2);
        links.replace(&Stand { values, complete: true }, &address());
        let [linked] = &links.all()[..] else { panic!("{links:?}") };
        assert_eq!((linked.config["currency"].as_str(), linked.config_names[0].as_str()), ("EUR", "prices"));
    }

    #[test]
    fn links_that_somebody_makes_up_cost_little_memory() {
        let links = Links::default();
        for number in 0..2 * MOST {
            say(&links, "put", &PUT.replace("cart", &format!("cart-{number}")));
        }
        assert_eq!(links.all().len(), MOST);
    }
}
