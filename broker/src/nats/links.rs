//! Tells members which links name the virtual component that they serve, from the bucket in which hosts keep them.
//!
//! A member could read the bucket itself, but whoever may ask JetStream may have its answer published anywhere (see [`super::subjects`]). The
//! subject says who asks, and is answered in that one's own inbox alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Message, Subscriber};
use portcullis_identity::{ComponentId, Lattice, Target};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::StreamExt as _;

use super::callout::Callout;
use super::connect::connect;
use super::{PAUSE, subjects};

/// For JetStream to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How long what was read is good.
const FRESH: Duration = Duration::from_secs(1);
/// Questions that wait. Further ones are not answered.
const MAX_WAITING: usize = 64;
/// Between two complaints of the log.
const SILENCE: Duration = Duration::from_secs(60);
/// Lattices whose links are remembered.
const MAX_LATTICES: usize = 64;
/// Components whose links are read: as many as one direct get may have.
const MAX_COMPONENTS: usize = 1024;
/// Bytes that are read of one lattice.
const MAX_READ: usize = 64 << 20;
/// Bytes of an answer, below every server's limit for a message.
const MAX_ANSWER: usize = 512 << 10;
/// Bytes of the subject of an answer.
const MAX_REPLY: usize = 256;

/// The links of one lattice, and when they were read.
type Read = (Instant, Result<Arc<[Value]>, String>);

/// Answers until the broker stops.
pub(super) async fn serve(callout: Arc<Callout>) {
    loop {
        match connect(&callout.settings, "links", &callout.material.users.lattice).await {
            Ok(client) => {
                callout.ways.connected("links", client.clone());
                if let Err(error) = answer_all(&client).await {
                    tracing::error!(%error, "cannot hear who asks for links");
                }
            }
            Err(error) => callout.ways.failed("links", &error),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn answer_all(client: &Client) -> Result<(), async_nats::SubscribeError> {
    let questions = client.queue_subscribe(subjects::LINKS, subjects::LINKS_QUEUE.to_owned()).await?;
    let (waiting, queue) = mpsc::channel(MAX_WAITING);
    tokio::join!(take(questions, waiting), answer_each(client, queue));
    Ok(())
}

/// Takes every question at once, so that what a member sends with it, perhaps a megabyte, waits for nothing.
async fn take(mut questions: Subscriber, waiting: mpsc::Sender<(Target, String)>) {
    let mut told: Option<Instant> = None;
    while let Some(message) = questions.next().await {
        match asked(&message) {
            Some(question) => {
                let full = |_| tracing::debug!("too many ask for links: one is not answered");
                waiting.try_send(question).unwrap_or_else(full);
            }
            // As often as a member pleases: not each is worth a line.
            None if told.is_none_or(|told| told.elapsed() >= SILENCE) => {
                tracing::warn!(subject = message.subject.as_str(), "who asks for links has no inbox for them");
                told = Some(Instant::now());
            }
            None => {}
        }
    }
}

/// One at a time: it is for people to look at, and hurries nobody.
async fn answer_each(client: &Client, mut queue: mpsc::Receiver<(Target, String)>) {
    let mut read: HashMap<Lattice, Read> = HashMap::new();
    while let Some((target, reply)) = queue.recv().await {
        let answer = match links_in(client, &target.lattice, &mut read).await {
            Ok(links) => answer(&links, &target.id),
            Err(error) => json!({ "error": error }).to_string(),
        };
        if let Err(error) = client.publish(reply, answer.into()).await {
            tracing::warn!(%error, "an answer to a member was not sent");
        }
    }
}

/// Whom the links are to name, and where in its own inbox the asker is answered.
fn asked(message: &Message) -> Option<(Target, String)> {
    let mut tokens = message.subject.strip_prefix("portcullis.links.")?.split('.');
    let (lattice, id) = (tokens.next()?.parse().ok()?, tokens.next()?.parse::<ComponentId>().ok()?);
    let inbox = subjects::inbox(&lattice, &id);
    let reply = message.reply.as_ref()?.to_string();
    let token =
        |token: &str| !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    let below = reply.strip_prefix(&inbox).and_then(|rest| rest.strip_prefix('.'));
    let own = reply.len() <= MAX_REPLY && below.is_some_and(|rest| rest.split('.').all(token));
    (own && tokens.next().is_none()).then_some((Target { lattice, id }, reply))
}

/// Those that name `id`, as long as there is room.
fn answer(links: &[Value], id: &ComponentId) -> String {
    let named = links.iter().filter(|link| {
        let target = link.get("target").and_then(Value::as_str).unwrap_or_default();
        let virtually = target.strip_prefix("vc.").and_then(|rest| rest.strip_prefix(id.as_str()));
        target == id.as_str() || virtually.is_some_and(|rest| rest.starts_with('.'))
    });
    let (mut all, mut bytes, mut complete) = (Vec::new(), 0_usize, true);
    for link in named {
        let text = link.to_string();
        bytes = bytes.saturating_add(text.len()).saturating_add(1);
        if bytes > MAX_ANSWER {
            complete = false;
            break;
        }
        all.push(text);
    }
    format!("{{\"links\":[{}],\"complete\":{complete}}}", all.join(","))
}

async fn links_in(
    client: &Client,
    lattice: &Lattice,
    read: &mut HashMap<Lattice, Read>,
) -> Result<Arc<[Value]>, String> {
    let now = Instant::now();
    if let Some((_, links)) = read.get(lattice).filter(|(at, _)| now.duration_since(*at) < FRESH) {
        return links.clone();
    }
    let links = tokio::time::timeout(ANSWER, read_links(client, lattice)).await;
    let links = links.unwrap_or_else(|_| Err("JetStream does not answer".to_owned())).map(Arc::from);
    if read.len() >= MAX_LATTICES {
        read.clear();
    }
    // Of an error, too: whoever asks next does not wait as long for the same. From now on, since it may have taken longer than it is good.
    read.insert(lattice.clone(), (Instant::now(), links.clone()));
    links
}

/// A direct get of the last value of every key (ADR-31 of NATS): any number of answers, and one with status 204.
async fn read_links(client: &Client, lattice: &Lattice) -> Result<Vec<Value>, String> {
    let [bucket, _] = subjects::buckets(lattice);
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.map_err(|error| error.to_string())?;
    let question = json!({"multi_last": [format!("$KV.{bucket}.>")], "batch": MAX_COMPONENTS});
    let asked =
        client.publish_with_reply(format!("$JS.API.DIRECT.GET.KV_{bucket}"), inbox, question.to_string().into());
    asked.await.map_err(|error| error.to_string())?;
    let (mut links, mut bytes) = (Vec::new(), 0_usize);
    while let Some(message) = answers.next().await {
        match message.status.map(|status| status.as_u16()) {
            None | Some(200) => {}
            // The end, or that there is nothing.
            Some(204 | 404) => return Ok(links),
            Some(503) => return Err(format!("there is no bucket `{bucket}`")),
            Some(other) => return Err(format!("JetStream answers with status {other}")),
        }
        bytes = bytes.saturating_add(message.payload.len());
        if bytes > MAX_READ {
            return Err(format!("there is more than {MAX_READ} bytes of it"));
        }
        if let Ok(Value::Object(mut component)) = serde_json::from_slice(&message.payload)
            && let Some(Value::Array(more)) = component.remove("links")
        {
            links.extend(more);
        }
    }
    Err("the connection ended".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(subject: &str, reply: Option<&str>) -> Message {
        let reply = reply.map(async_nats::Subject::from);
        let (payload, headers, status, description) = (Vec::new().into(), None, None, None);
        Message { subject: subject.into(), reply, payload, headers, status, description, length: 0 }
    }

    #[test]
    fn who_asks_is_answered_in_its_own_inbox_alone() {
        let read = |subject, reply| asked(&message(subject, Some(reply))).map(|(target, _)| target.to_string());
        assert_eq!(read("portcullis.links.demo.shop", "_I.demo.shop.ab.12"), Some("demo/shop".to_owned()));
        for reply in [
            "_I.demo.pay.ab",
            "_I.demo.shop",
            "_I.demo.shop.",
            "_I.demo.shop.>",
            "_I.demo.shop.a b",
            "_INBOX.a",
            "wasmbus.ctl.v1.demo.host.stop.N",
        ] {
            assert_eq!(read("portcullis.links.demo.shop", reply), None, "{reply}");
        }
        assert_eq!(read("portcullis.links.demo.shop.more", "_I.demo.shop.ab"), None);
        assert!(asked(&message("portcullis.links.demo.shop", None)).is_none());
    }

    #[test]
    fn an_answer_has_what_names_the_asker_and_has_bounds() {
        let link = |target: &str| json!({"source_id": "cart", "target": target});
        let links = [link("vc.shop.host"), link("vc.shopping.host"), link("shop"), link("pay"), json!(1)];
        let read: Value = serde_json::from_str(&answer(&links, &"shop".parse().unwrap())).unwrap();
        assert_eq!(read, json!({"links": [link("vc.shop.host"), link("shop")], "complete": true}));
        let many = vec![json!({"target": "shop", "name": "x".repeat(1000)}); 1000];
        let text = answer(&many, &"shop".parse().unwrap());
        assert!(text.len() < MAX_ANSWER + 100);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["complete"], json!(false));
    }
}
