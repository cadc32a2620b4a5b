use std::path::Path;
use std::sync::Mutex;
use std::thread::JoinHandle;

use portcullis_policy::{AdmissionSet, PolicyFile};
use serde_json::{Value, json};

use super::super::memory::Room;
use super::*;

const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const ALL: &str = "@id(\"all\") permit (principal, action, resource);";

struct Scene {
    policies: Arc<Mutex<Arc<Admissions>>>,
    jobs: mpsc::Sender<Job>,
    changes: mpsc::Receiver<Change>,
    counts: Arc<Counts>,
    thread: JoinHandle<()>,
}

fn parsed(text: &str) -> Arc<Admissions> {
    let file = PolicyFile { name: "a.cedar".to_owned(), text: text.to_owned() };
    Arc::new(Admissions::new([&AdmissionSet::parse(&[file]).unwrap()]).unwrap())
}

fn question(request: &str, id: &str, image: &str) -> Vec<u8> {
    json!({"requestId": request, "kind": "startComponent", "version": "v1",
        "request": {"componentId": id, "imageRef": image, "maxInstances": 1, "annotations": {}, "claims": null},
        "host": {"publicKey": "N1", "lattice": "demo", "labels": {}}})
    .to_string()
    .into_bytes()
}

impl Scene {
    fn start(folder: &Path, policies: Arc<Admissions>, room: Room) -> Self {
        let (disk, kept) = Disk::open(&folder.join("answers.redb")).unwrap();
        let (jobs, queue) = mpsc::channel(64);
        let (tell, changes) = mpsc::channel(64);
        let policies = Arc::new(Mutex::new(policies));
        let held = Arc::clone(&policies);
        let in_force = Box::new(move || Arc::clone(&held.lock().unwrap()));
        let counts = Arc::<Counts>::default();
        let judge = Judge::new(in_force, (disk, Memory::new(room, kept)), tell, Arc::clone(&counts));
        let thread = std::thread::spawn(move || judge.run(queue));
        Self { policies, jobs, changes, counts, thread }
    }

    fn ask_as(&self, host: Option<&str>, bytes: Vec<u8>) -> Answer {
        let host = host.map(|id| portcullis_identity::parse_spiffe_id(id).unwrap());
        let asker = Asker { lattice: "demo".parse().unwrap(), host };
        let (reply, answer) = oneshot::channel();
        let question = Question::parse(&bytes).unwrap();
        let asked = Asked { question, bytes: bytes.into(), asker, reply };
        self.jobs.blocking_send(Job::Answer(Box::new(asked))).unwrap();
        answer.blocking_recv().unwrap()
    }

    fn ask(&self, request: &str, id: &str) -> Answer {
        self.ask_as(None, question(request, id, "ghcr.io/acme/app:1"))
    }

    fn put(&self, policies: Arc<Admissions>) {
        *self.policies.lock().unwrap() = policies;
        self.jobs.blocking_send(Job::Look).unwrap();
    }

    fn change(&mut self) -> (String, bool, String, Telling) {
        let Change { lattice, bytes, telling } = self.changes.blocking_recv().unwrap();
        assert_eq!(lattice.as_str(), "demo");
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        let message = value["message"].as_str().unwrap_or_default().to_owned();
        (value["requestId"].as_str().unwrap().to_owned(), value["permitted"].as_bool().unwrap(), message, telling)
    }

    /// Ends the judge, as a broker that is killed would: what it answered is on disk.
    fn end(mut self) -> Vec<Change> {
        drop(self.jobs);
        let mut left = Vec::new();
        while let Some(change) = self.changes.blocking_recv() {
            left.push(change);
        }
        self.thread.join().unwrap();
        left
    }
}

fn denied(answer: Answer) -> String {
    match answer {
        Answer::Denied(reason) => reason,
        other @ (Answer::Permitted | Answer::Undecided(_)) => panic!("{other:?}"),
    }
}

#[test]
fn without_policies_for_the_lattice_nothing_starts_and_the_answer_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::start(folder.path(), Arc::default(), Room::DEFAULT);
    assert!(denied(scene.ask("a", "app")).contains("no admission policy for lattice `demo`"));
    scene.put(parsed("permit (principal, action, resource in Lattice::\"other\");"));
    assert!(denied(scene.ask("b", "app")).contains("no admission policy for lattice `demo`"));
    scene.put(parsed("permit (principal, action, resource == Component::\"demo/other\");"));
    assert_eq!(denied(scene.ask("c", "app")), "denied: no policy permits it");
    assert_eq!(scene.ask("d", "other"), Answer::Permitted);
    assert_eq!((scene.counts.of(Outcome::Allowed), scene.counts.of(Outcome::Denied)), (1, 3));
}

#[test]
fn a_changed_policy_changes_what_hosts_were_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::start(folder.path(), parsed(ALL), Room::DEFAULT);
    assert_eq!(scene.ask("one", "app"), Answer::Permitted);
    assert_eq!(scene.ask("two", "other"), Answer::Permitted);
    let frozen =
        "@id(\"frozen\") @advice(\"not now\") forbid (principal, action, resource == Component::\"demo/app\");";
    scene.put(parsed(&format!("{ALL}\n{frozen}")));
    let told = ("one".to_owned(), false, "denied by policy `frozen` (not now)".to_owned());
    let (request, permitted, message, telling) = scene.change();
    assert_eq!(((request, permitted, message), telling), (told.clone(), Telling::First));
    // Somebody may have missed it.
    scene.jobs.blocking_send(Job::Repeat).unwrap();
    let (request, permitted, message, telling) = scene.change();
    assert_eq!(((request, permitted, message), telling), (told, Telling::Again));
    scene.put(parsed(ALL));
    assert_eq!(scene.change(), ("one".to_owned(), true, String::new(), Telling::First));
    assert_eq!(scene.counts.of(Outcome::Overridden), 2);
    assert!(scene.end().is_empty());
}

#[test]
fn what_was_answered_before_a_restart_is_taken_back_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::start(folder.path(), parsed(ALL), Room::DEFAULT);
    assert_eq!(scene.ask("one", "app"), Answer::Permitted);
    scene.end();
    let mut scene = Scene::start(folder.path(), parsed(ALL), Room::DEFAULT);
    scene.put(Arc::default());
    assert_eq!(scene.change().0, "one");
    scene.end();
    // The policies were put back while nobody looked.
    let mut scene = Scene::start(folder.path(), parsed(ALL), Room::DEFAULT);
    assert_eq!(scene.change(), ("one".to_owned(), true, String::new(), Telling::First));
    scene.jobs.blocking_send(Job::Repeat).unwrap();
    assert_eq!(scene.change(), ("one".to_owned(), true, String::new(), Telling::Again));
}

#[test]
fn an_id_that_was_used_is_no_way_to_another_answer() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::start(
        folder.path(),
        parsed("permit (principal, action, resource == Component::\"demo/good\");"),
        Room::DEFAULT,
    );
    assert!(!denied(scene.ask("one", "bad")).contains("used"));
    // Were the second one remembered under this id, its change would be told to the host of the first.
    assert!(denied(scene.ask("one", "good")).contains("used for another question"));
    let same = question("one", "bad", "ghcr.io/acme/app:1");
    assert!(denied(scene.ask_as(Some("spiffe://a.test/host/x"), same.clone())).contains("used for another question"));
    assert!(!denied(scene.ask_as(None, same)).contains("used"));
    assert_eq!(scene.counts.remembered().get(), 1);
}

#[test]
fn a_digest_is_known_only_where_it_is_pinned() {
    let folder = tempfile::tempdir().unwrap();
    let rule = format!(
        "permit (principal, action, resource) when {{ resource.image has digest && resource.image.digest == \"{DIGEST}\" }};"
    );
    let scene = Scene::start(folder.path(), parsed(&rule), Room::DEFAULT);
    let ask = |request: &str, image: &str| scene.ask_as(None, question(request, "app", image));
    assert_eq!(ask("a", &format!("ghcr.io/acme/app@{DIGEST}")), Answer::Permitted);
    denied(ask("b", "ghcr.io/acme/app:1"));
    denied(ask("c", "file:///app.wasm"));
}

#[test]
fn what_cannot_be_remembered_any_more_is_denied_first() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::start(folder.path(), parsed(ALL), Room { of_asker: 2, ..Room::DEFAULT });
    for request in ["one", "two", "three"] {
        assert_eq!(scene.ask(request, "app"), Answer::Permitted);
    }
    let (request, permitted, message, _) = scene.change();
    assert_eq!((request.as_str(), permitted), ("one", false));
    assert!(message.contains("no room"), "{message}");
    scene.end();
    let (_, kept) = Disk::open(&folder.path().join("answers.redb")).unwrap();
    assert_eq!(kept.len(), 2);
}

#[test]
fn an_answer_that_nobody_waits_for_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::start(folder.path(), parsed(ALL), Room::DEFAULT);
    let bytes = question("gone", "app", "a/b");
    let (reply, answer) = oneshot::channel();
    drop(answer);
    let asker = Asker { lattice: "demo".parse().unwrap(), host: None };
    let asked = Asked { question: Question::parse(&bytes).unwrap(), bytes: bytes.into(), asker, reply };
    scene.jobs.blocking_send(Job::Answer(Box::new(asked))).unwrap();
    assert_eq!(scene.ask("one", "app"), Answer::Permitted);
    assert_eq!(scene.counts.remembered().get(), 1);
}
