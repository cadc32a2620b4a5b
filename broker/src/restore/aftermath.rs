//! What the audit log tells of changes that a store does not have.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;
use std::time::SystemTime;

use portcullis_identity::{NodeName, Revoked, SerialNumber};
use serde::Deserialize;

use crate::audit::{FolderError, Segment, segments};
use crate::registry::{Aftermath, Fate, JoinedBy, Standing, Version};

/// What happened to the records of a registry after a version, as far as the log tells.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The last version that the log names.
    pub(super) latest: Option<Version>,
    /// The version of the last restoration.
    restored: Option<Version>,
    items: Vec<Item>,
}

/// Something that an operator changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The version it made.
    pub version: Version,
    /// What kind of record.
    pub kind: String,
    /// Which.
    pub name: String,
    /// The operator's user id.
    pub uid: Option<u32>,
}

#[derive(Debug)]
struct Item {
    version: Version,
    what: What,
}

#[derive(Debug)]
enum What {
    Node(NodeName, Fate),
    Revoked(Revoked, SystemTime),
    Changed(Lost),
}

/// As much of a record as matters here; a record of another kind lacks most of it.
#[derive(Deserialize)]
struct Record {
    at: String,
    event: Event,
}

#[derive(Deserialize)]
struct Event {
    what: String,
    version: Option<String>,
    /// Of a restoration: the version that the backup had.
    backup: Option<String>,
    by: Option<serde_json::Value>,
    kind: Option<String>,
    name: Option<String>,
    change: Option<String>,
    authority: Option<String>,
    node: Option<String>,
    entry: Option<String>,
    key_sha256: Option<String>,
}

impl Told {
    /// Reads what the log in `folder` tells of what came after `since`.
    pub(super) fn read(folder: &Path, since: Version) -> Result<Self, FolderError> {
        let mut told = Self::default();
        for segment in segments(folder)? {
            each_line(&segment, |line| {
                if let Ok(record) = serde_json::from_slice(line) {
                    told.take(record, since);
                }
            })
            .map_err(|cause| FolderError { folder: folder.to_owned(), cause })?;
        }
        Ok(told)
    }

    fn take(&mut self, record: Record, since: Version) {
        let Record { at, event } = record;
        if event.what == "x509-issued" {
            return self.take_key(&event);
        }
        let Some(version) = event.version.as_deref().and_then(version) else { return };
        self.latest = self.latest.max(Some(version));
        if event.what == "restored" {
            // What operators changed after that backup was lost then, and is nobody's loss now. The rest was done again.
            let backup = event.backup.as_deref().and_then(self::version).unwrap_or(Version::FIRST);
            self.items.retain(|item| item.version <= backup || !matches!(item.what, What::Changed(_)));
            self.restored = Some(version);
        } else if event.what == "not-stored" {
            self.items.retain(|item| item.version != version);
        } else if version > since
            && self.restored != Some(version)
            && let Ok(at) = humantime::parse_rfc3339(&at)
        {
            let joined_by_token = self.items.iter().rev().take_while(|item| item.version == version).any(Item::joined);
            self.items.extend(what(event, version, at, joined_by_token).map(|what| Item { version, what }));
        }
    }

    /// The first certificate after a join is on the key that joined.
    fn take_key(&mut self, event: &Event) {
        let (Some(node), None, Some(key)) = (&event.node, &event.entry, &event.key_sha256) else { return };
        let joined = self.items.iter_mut().rev().find_map(|item| match &mut item.what {
            What::Node(name, Fate::Joined { key_sha256, .. }) if name.as_str() == node => Some(key_sha256),
            What::Node(..) | What::Revoked(..) | What::Changed(_) => None,
        });
        if let (Some(slot), Some(key)) = (joined, hex(key).and_then(|key| key.try_into().ok()))
            && *slot == [0; 32]
        {
            *slot = key;
        }
    }

    /// What is to be done again, and what is lost.
    pub(super) fn sort(self) -> (Aftermath, Vec<Lost>) {
        let (mut aftermath, mut lost) = (Aftermath::default(), Vec::new());
        for Item { version: _, what } in self.items {
            match what {
                // It says nothing that an earlier word does not.
                What::Node(node, Fate::Rejoined) => {
                    aftermath.nodes.entry(node).or_insert(Fate::Rejoined);
                }
                What::Node(node, fate) => {
                    aftermath.nodes.insert(node, fate);
                }
                What::Revoked(revoked, at) => aftermath.revocations.push((revoked, at)),
                What::Changed(change) => lost.push(change),
            }
        }
        (aftermath, lost)
    }
}

impl Item {
    fn joined(&self) -> bool {
        matches!(self.what, What::Node(_, Fate::Joined { by: JoinedBy::Token, .. }))
    }
}

fn what(event: Event, version: Version, at: SystemTime, joined_by_token: bool) -> Option<What> {
    let uid = || event.by.as_ref().and_then(|by| by.pointer("/operator/uid")?.as_u64()?.try_into().ok());
    let by_operator = event.by.as_ref().is_some_and(|by| by.get("operator").is_some());
    if event.what == "authority-changed" {
        let lost = Lost { version, kind: event.change?, name: event.authority?, uid: uid() };
        return by_operator.then_some(What::Changed(Lost { kind: format!("authority {}", lost.kind), ..lost }));
    }
    let (kind, name) = (event.kind.filter(|_| event.what == "changed")?, event.name?);
    let fate = |fate| Some(What::Node(name.parse().ok()?, fate));
    let joining = event.by.as_ref().is_some_and(|by| by.get("joining").is_some());
    match kind.as_str() {
        "join token redeemed" => fate(Fate::Joined { at, by: JoinedBy::Token, key_sha256: [0; 32] }),
        "node joined" if joining && !joined_by_token => {
            fate(Fate::Joined { at, by: JoinedBy::Certificate, key_sha256: [0; 32] })
        }
        "node joined" | "join token" | "join token removed" | "addresses" | "bundle" => None,
        "node" => fate(Fate::Rejoined).filter(|_| joining),
        "node quarantined" => fate(Fate::ShutOut(Standing::Quarantined)),
        "node barred" => fate(Fate::ShutOut(Standing::Barred)),
        "node removed" => fate(Fate::Removed),
        "revocation" => Some(What::Revoked(revoked(&name)?, at)),
        _ => by_operator.then(|| What::Changed(Lost { version, uid: uid(), kind, name })),
    }
}

/// What the ledger's name of a revocation says.
fn revoked(name: &str) -> Option<Revoked> {
    if let Some(serial) = name.strip_prefix("certificate ") {
        return Some(Revoked::Certificate(SerialNumber::new(&hex(serial)?).ok()?));
    }
    let id = name.strip_prefix("everything issued so far for ")?;
    Some(Revoked::Identity(portcullis_identity::parse_spiffe_id(id).ok()?))
}

/// The version that the store surely had once, by the end of the log in `folder`: whatever came before the last version that it names was
/// stored, because one change follows the other.
pub(crate) fn surely_stored(folder: &Path) -> Option<Version> {
    let last = segments(folder).ok()?.pop()?;
    let (mut sure, mut latest): (Option<Version>, Option<Version>) = (None, None);
    let read = each_line(&last, |line| {
        // Most lines tell of issuance, and name no version.
        let Some(told) = std::str::from_utf8(line).ok().filter(|line| line.contains("\"version\":")) else { return };
        let Ok(Record { event, .. }) = serde_json::from_str(told) else { return };
        let Some(version) = event.version.as_deref().and_then(version) else { return };
        match event.what.as_str() {
            "started" | "restored" => (sure, latest) = (Some(version), None),
            "not-stored" => latest = None,
            _ if latest != Some(version) => {
                sure = sure.max(latest);
                latest = Some(version);
            }
            _ => {}
        }
    });
    read.ok().and(sure)
}

fn each_line(segment: &Segment, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(64 << 10, File::open(&segment.path)?);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        take(line.trim_ascii_end());
        line.clear();
    }
    Ok(())
}

fn version(text: &str) -> Option<Version> {
    let (incarnation, epoch) = text.split_once('.')?;
    Some(Version { incarnation: incarnation.parse().ok()?, epoch: epoch.parse().ok()? })
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.len().is_multiple_of(2).then(|| digits.chunks_exact(2).map(byte).collect())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(events: &[serde_json::Value], since: &str) -> Told {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), events);
        Told::read(folder.path(), version(since).unwrap()).unwrap()
    }

    fn write(folder: &Path, events: &[serde_json::Value]) {
        let line =
            |event| serde_json::json!({ "n": 1, "at": "2027-01-01T00:00:00Z", "event": event }).to_string() + "\n";
        std::fs::write(folder.join("00000000000000000001.jsonl"), events.iter().map(line).collect::<String>()).unwrap();
    }

    fn changed(by: &str, version: &str, kind: &str, name: &str) -> serde_json::Value {
        let by = match by {
            "operator" => serde_json::json!({ "operator": { "uid": 7 } }),
            "joining" => serde_json::json!({ "joining": { "node": name, "address": "127.0.0.1:1" } }),
            node => serde_json::json!({ "node": { "node": node } }),
        };
        serde_json::json!({ "what": "changed", "by": by, "version": version, "kind": kind, "name": name })
    }

    fn fate(aftermath: &Aftermath, name: &str) -> Option<Fate> {
        aftermath.nodes.get(&name.parse().unwrap()).copied()
    }

    #[test]
    fn a_node_is_what_was_last_said_of_it() {
        let issued = serde_json::json!({ "what": "x509-issued", "node": "a", "key_sha256": "09".repeat(32) });
        let of_entry = serde_json::json!({ "what": "x509-issued", "node": "a", "entry": "e1-1", "key_sha256": "08" });
        let events = [
            changed("joining", "1.2", "node joined", "before"),
            changed("joining", "1.4", "join token redeemed", "a"),
            changed("joining", "1.4", "node joined", "a"),
            of_entry,
            issued,
            changed("a", "1.5", "node", "a"),
            changed("joining", "1.6", "node joined", "pop"),
            changed("joining", "1.7", "node", "old"),
            changed("joining", "1.8", "join token redeemed", "gone"),
            changed("joining", "1.8", "node joined", "gone"),
            changed("operator", "1.9", "node removed", "gone"),
            changed("joining", "1.10", "node quarantined", "twice"),
        ];
        let told = told(&events, "1.3");
        assert_eq!(told.latest, version("1.10"));
        let (aftermath, lost) = told.sort();
        let Some(Fate::Joined { by: JoinedBy::Token, key_sha256, .. }) = fate(&aftermath, "a") else { panic!() };
        assert_eq!(key_sha256, [9; 32]);
        assert!(matches!(fate(&aftermath, "pop"), Some(Fate::Joined { by: JoinedBy::Certificate, .. })));
        assert_eq!(fate(&aftermath, "before"), None);
        assert_eq!(fate(&aftermath, "old"), Some(Fate::Rejoined));
        assert_eq!(fate(&aftermath, "gone"), Some(Fate::Removed));
        assert_eq!(fate(&aftermath, "twice"), Some(Fate::ShutOut(Standing::Quarantined)));
        assert_eq!(lost, []);
    }

    #[test]
    fn what_operators_changed_is_lost_but_for_revocations() {
        let events = [
            changed("operator", "1.4", "entry", "e1-4 for spiffe://a.test/x on n"),
            changed("operator", "1.5", "join token", "n"),
            changed("n", "1.6", "addresses", "demo/x on n: []"),
            changed("operator", "1.7", "revocation", "certificate 0102"),
            changed("operator", "1.8", "revocation", "everything issued so far for spiffe://a.test/x"),
        ];
        let (aftermath, lost) = told(&events, "1.3").sort();
        let names: Vec<_> = lost.iter().map(|lost| (lost.kind.as_str(), lost.uid)).collect();
        assert_eq!(names, [("entry", Some(7))]);
        assert_eq!(aftermath.revocations.len(), 2);
    }

    #[test]
    fn what_an_earlier_restoration_did_is_not_done_twice_and_what_it_lost_is_not_lost_again() {
        let events = [
            changed("joining", "1.4", "join token redeemed", "a"),
            changed("operator", "1.5", "entry", "e1-5 for spiffe://a.test/x on n"),
            changed("operator", "1.6", "revocation", "certificate 0102"),
            serde_json::json!({ "what": "restored", "by": { "operator": { "uid": 0 } }, "version": "9.4", "backup": "1.3" }),
            changed("operator", "9.4", "node joined", "a"),
            changed("operator", "9.4", "revocation", "certificate 0102"),
            changed("operator", "9.5", "entry", "e9-5 for spiffe://a.test/y on n"),
        ];
        let told = told(&events, "1.3");
        assert_eq!(told.latest, version("9.5"));
        let (aftermath, lost) = told.sort();
        assert!(matches!(fate(&aftermath, "a"), Some(Fate::Joined { .. })));
        assert_eq!(aftermath.revocations.len(), 1);
        assert_eq!(lost.iter().map(|lost| lost.version).collect::<Vec<_>>(), [version("9.5").unwrap()]);
    }

    #[test]
    fn all_but_the_last_change_was_surely_stored() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(surely_stored(folder.path()), None);
        let told = |what: &str, at: &str| serde_json::json!({ "what": what, "version": at });
        let change = |version| changed("operator", version, "entry", "x");
        for (events, sure) in [
            (vec![told("started", "1.3")], "1.3"),
            (vec![told("started", "1.3"), change("1.4")], "1.3"),
            (vec![told("started", "1.3"), change("1.4"), change("1.4"), change("1.5")], "1.4"),
            (vec![told("started", "1.3"), change("1.1000"), told("not-stored", "1.1000"), change("1.4")], "1.3"),
            (vec![change("1.9"), told("restored", "5.4"), told("started", "5.4")], "5.4"),
        ] {
            write(folder.path(), &events);
            assert_eq!(surely_stored(folder.path()), version(sure), "{events:?}");
        }
    }
}
