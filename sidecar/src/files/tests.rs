//! Sets in real folders, and services that are really told.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use super::*;
use crate::workload::fixture::{Ca, Fake, held, snapshot};

fn config(folder: &Path) -> FilesConfig {
    FilesConfig {
        spiffe_id: portcullis_identity::parse_spiffe_id("spiffe://a.test/nats").unwrap(),
        folder: folder.join("svid"),
        names: FileNames::default(),
        owner: None,
        mode: 0o600,
        bundle: BundleScope::Own,
        notice: None,
    }
}

fn set(ca: &Ca) -> FileSet {
    FileSet::new(&ca.svid("/nats"), &[&ca.certificate])
}

fn read(config: &FilesConfig) -> [String; 3] {
    let FileNames { certificate, key, bundle } = &config.names;
    [certificate, key, bundle].map(|name| fs::read_to_string(config.folder.join(name)).unwrap())
}

fn texts(set: &FileSet) -> [String; 3] {
    [set.certificate.clone(), set.key.to_string(), set.bundle.clone()]
}

async fn eventually(mut holds: impl FnMut() -> bool) {
    // The wait between two attempts to tell a service grows to a minute.
    let deadline = Duration::from_secs(90);
    let looking = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(deadline, looking).await.unwrap();
}

#[test]
fn a_set_is_replaced_as_a_whole_and_the_one_before_stays_for_a_while() {
    let (folder, ca) = (tempfile::tempdir().unwrap(), Ca::new("a.test"));
    let config = config(folder.path());
    let (first, second, third) = (set(&ca), set(&ca), set(&ca));
    assert!(Folder::new(&config).replace(&first).unwrap());
    assert_eq!(read(&config), texts(&first));
    let before = config.folder.join("..current").canonicalize().unwrap();
    assert!(Folder::new(&config).replace(&second).unwrap());
    assert_eq!(read(&config), texts(&second));
    assert_eq!(fs::read_to_string(before.join("svid.pem")).unwrap(), first.certificate);
    assert!(Folder::new(&config).replace(&third).unwrap());
    assert!(!before.exists(), "only the one before the last stays");
    assert!(!Folder::new(&config).replace(&third).unwrap(), "the same set is left alone");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&config.folder.join("svid_key.pem")), 0o600);
    assert_eq!(mode(&config.folder.join("..current")), 0o700);
}

#[test]
fn a_reader_never_sees_parts_of_two_sets() {
    let (folder, ca) = (tempfile::tempdir().unwrap(), Ca::new("a.test"));
    let config = config(folder.path());
    let sets: Vec<_> = (0..4).map(|_| set(&ca)).collect();
    Folder::new(&config).replace(&sets[0]).unwrap();
    let known: Vec<_> = sets.iter().map(texts).collect();
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            for round in 0..40 {
                Folder::new(&config).replace(&sets[round % 4]).unwrap();
            }
        });
        while !writing.is_finished() {
            // A reader that resolves the link once, as one who reads the folder it names.
            let Ok(current) = fs::read_link(config.folder.join("..current")) else { panic!("no set in force") };
            let current = config.folder.join(current);
            let read = ["svid.pem", "svid_key.pem", "bundle.pem"].map(|name| fs::read_to_string(current.join(name)));
            // A reader that slept for two whole changes finds nothing, but never something else.
            if let [Ok(certificate), Ok(key), Ok(bundle)] = read {
                assert!(known.contains(&[certificate, key, bundle]));
            }
        }
    });
}

#[test]
fn a_file_of_somebody_else_is_kept() {
    let (folder, ca) = (tempfile::tempdir().unwrap(), Ca::new("a.test"));
    let config = config(folder.path());
    fs::create_dir(&config.folder).unwrap();
    fs::write(config.folder.join("bundle.pem"), "precious").unwrap();
    let error = Folder::new(&config).replace(&set(&ca)).unwrap_err();
    assert!(matches!(error, folder::FolderError::Occupied(_)), "{error}");
    assert_eq!(fs::read_to_string(config.folder.join("bundle.pem")).unwrap(), "precious");
    assert!(!config.folder.join("svid.pem").exists());
}

#[test]
fn a_folder_that_others_can_write_gets_no_key() {
    let (folder, ca) = (tempfile::tempdir().unwrap(), Ca::new("a.test"));
    let config = config(folder.path());
    fs::create_dir(&config.folder).unwrap();
    for mode in [0o777, 0o1777, 0o770, 0o702] {
        fs::set_permissions(&config.folder, fs::Permissions::from_mode(mode)).unwrap();
        assert!(matches!(Folder::new(&config).replace(&set(&ca)), Err(folder::FolderError::Open(_))), "{mode:o}");
    }
    assert_eq!(fs::read_dir(&config.folder).unwrap().count(), 0);
    if rustix::process::geteuid().is_root() {
        fs::set_permissions(&config.folder, fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::chown(&config.folder, Some(4711), None).unwrap();
        assert!(matches!(Folder::new(&config).replace(&set(&ca)), Err(folder::FolderError::Open(_))));
    }
}

#[test]
fn what_a_killed_writer_left_is_swept_away() {
    let (folder, ca) = (tempfile::tempdir().unwrap(), Ca::new("a.test"));
    let config = config(folder.path());
    let (first, second) = (set(&ca), set(&ca));
    Folder::new(&config).replace(&first).unwrap();
    fs::create_dir(config.folder.join("..set-2")).unwrap();
    fs::write(config.folder.join("..set-2/svid.pem"), "half").unwrap();
    std::os::unix::fs::symlink("..set-2", config.folder.join("..next")).unwrap();
    assert_eq!(read(&config), texts(&first), "not in force");
    Folder::new(&config).replace(&second).unwrap();
    assert_eq!(read(&config), texts(&second));
}

#[test]
fn files_are_given_to_their_owner_with_their_mode() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (folder, ca) = (tempfile::tempdir().unwrap(), Ca::new("a.test"));
    let config = FilesConfig { owner: Some(Owner { uid: 4711, gid: 4712 }), mode: 0o640, ..config(folder.path()) };
    Folder::new(&config).replace(&set(&ca)).unwrap();
    assert_eq!(fs::metadata(config.folder.join("..current")).unwrap().uid(), 0, "the folders stay ours");
    for path in ["bundle.pem", "svid_key.pem", "svid.pem"] {
        let found = fs::metadata(config.folder.join(path)).unwrap();
        assert_eq!((found.uid(), found.gid()), (4711, 4712), "{path}");
    }
    assert_eq!(fs::metadata(config.folder.join("svid_key.pem")).unwrap().mode() & 0o777, 0o640);
}

#[tokio::test]
async fn renewals_are_written_and_the_service_is_told_each_time() {
    let (folder, ca) = (tempfile::tempdir().unwrap(), Ca::new("a.test"));
    let told = folder.path().join("told");
    let certificate = folder.path().join("svid/svid.pem");
    let arguments = ["-c", "cat \"$1\" >> \"$0\"", told.to_str().unwrap(), certificate.to_str().unwrap()];
    let notice = Notice::Command { program: "sh".to_owned(), arguments: arguments.map(str::to_owned).into() };
    let config = FilesConfig { notice: Some(notice), ..config(folder.path()) };
    let (fake, tasks, stop) = (Fake::new(), TaskTracker::new(), CancellationToken::new());
    let files = Files::keep(vec![config.clone()], &fake, &tasks, &stop);
    eventually(|| files.status()[0].error.is_some()).await;
    assert!(files.status()[0].error.as_ref().unwrap().contains("has not come yet"));
    let mut expected = String::new();
    for _ in 0..2 {
        let held = held(&ca, "e", "/nats", &[]);
        let set = FileSet::new(held.svid.as_ref().unwrap(), &[&ca.certificate]);
        fake.set(snapshot(&ca, vec![held]));
        expected.push_str(&set.certificate);
        eventually(|| fs::read_to_string(&told).is_ok_and(|told| told == expected)).await;
        assert_eq!(read(&config), texts(&set));
    }
    eventually(|| files.status()[0].error.is_none()).await;
    assert!(files.status()[0].not_after.is_some());
    stop.cancel();
}

#[tokio::test]
async fn a_service_is_told_again_only_where_an_earlier_run_did_not() {
    let (folder, ca) = (tempfile::tempdir().unwrap(), Ca::new("a.test"));
    let told = folder.path().join("told");
    let arguments = vec!["-c".to_owned(), "echo x >> \"$0\"".to_owned(), told.display().to_string()];
    let notice = Notice::Command { program: "sh".to_owned(), arguments };
    let config = FilesConfig { notice: Some(notice), ..config(folder.path()) };
    let held = held(&ca, "e", "/nats", &[]);
    let first = FileSet::new(held.svid.as_ref().unwrap(), &[&ca.certificate]);
    // A run that was killed after it wrote and before it told.
    Folder::new(&config).replace(&first).unwrap();
    for _ in 0..2 {
        let (fake, tasks, stop) = (Fake::new(), TaskTracker::new(), CancellationToken::new());
        fake.set(snapshot(&ca, vec![held.clone()]));
        let files = Files::keep(vec![config.clone()], &fake, &tasks, &stop);
        eventually(|| files.status()[0].not_after.is_some() && Folder::new(&config).is_told()).await;
        assert_eq!(fs::read_to_string(&told).unwrap(), "x\n");
        stop.cancel();
        tasks.close();
        tasks.wait().await;
    }
}

#[tokio::test]
async fn a_service_that_could_not_be_told_is_told_later() {
    let (folder, ca) = (tempfile::tempdir().unwrap(), Ca::new("a.test"));
    let (pid_file, ready, told) = (folder.path().join("pid"), folder.path().join("ready"), folder.path().join("told"));
    let notice = Notice::Signal { pid_file: pid_file.clone(), signal: Signal::Hangup };
    let config = FilesConfig { notice: Some(notice), ..config(folder.path()) };
    let (fake, tasks, stop) = (Fake::new(), TaskTracker::new(), CancellationToken::new());
    fake.set(snapshot(&ca, vec![held(&ca, "e", "/nats", &[])]));
    let files = Files::keep(vec![config.clone()], &fake, &tasks, &stop);
    eventually(|| files.status()[0].error.as_ref().is_some_and(|error| error.contains("pid file"))).await;
    assert_eq!(read(&config).len(), 3, "the files are there all the same");
    let script = "trap 'echo told > \"$1\"; exit 0' HUP; echo > \"$0\"; while :; do sleep 0.01; done";
    // A shell cannot trap what was ignored when it began, as under `nohup`.
    let mut service = std::process::Command::new("env")
        .args(["--default-signal=HUP", "sh", "-c", script, ready.to_str().unwrap(), told.to_str().unwrap()])
        .spawn()
        .unwrap();
    eventually(|| ready.exists()).await;
    fs::write(&pid_file, format!("{}\n", service.id())).unwrap();
    eventually(|| told.exists()).await;
    service.wait().unwrap();
    eventually(|| files.status()[0].error.is_none()).await;
    stop.cancel();
}

#[tokio::test]
async fn a_notice_that_fails_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let pid_file = folder.path().join("pid");
    let signal = Notice::Signal { pid_file: pid_file.clone(), signal: Signal::Hangup };
    for text in ["", "-1", "0", "1", "nonsense", "99999999999"] {
        fs::write(&pid_file, text).unwrap();
        assert!(matches!(signal.give().await, Err(NoticeError::NoPid(_))), "{text}");
    }
    let command = |program: &str, arguments: &[&str]| Notice::Command {
        program: program.to_owned(),
        arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
    };
    assert!(matches!(command("/nowhere/x", &[]).give().await, Err(NoticeError::Run { .. })));
    let error = command("sh", &["-c", "echo no such config >&2; exit 3"]).give().await.unwrap_err().to_string();
    assert!(error.contains("no such config") && error.contains('3'), "{error}");
}
