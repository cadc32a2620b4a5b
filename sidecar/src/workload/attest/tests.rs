//! Processes that really run: this one, and children that do what an attacker would.

use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use super::process::NoCaller;
use super::*;

/// Tells a child of these tests which socket to connect to, and what to do then.
const SOCKET: &str = "PORTCULLIS_TEST_SOCKET";
const DEED: &str = "PORTCULLIS_TEST_DEED";

/// Not a test of its own: what a child does. It connects, waits for a byte, and then becomes, or leaves the connection to, `sleep`.
#[test]
fn child() {
    let Ok(socket) = std::env::var(SOCKET) else { return };
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    std::io::Read::read_exact(&mut stream, &mut [0]).unwrap();
    let flags = rustix::io::FdFlags::empty();
    rustix::io::fcntl_setfd(&stream, flags).unwrap();
    let mut sleep = Command::new("sleep");
    sleep.arg("30");
    match std::env::var(DEED).unwrap().as_str() {
        "exec" => panic!("cannot exec: {}", sleep.exec()),
        "leave" => {
            let heir = sleep.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            println!("{} holds {}", heir.id(), stream.as_raw_fd());
            std::process::exit(0);
        }
        other => panic!("what is {other}?"),
    }
}

struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A child that connected, and its connection.
async fn child_on(socket: &Path, deed: &str) -> (Reaped, UnixStream) {
    let listener = UnixListener::bind(socket).unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "workload::attest::tests::child", "--nocapture"])
        .env(SOCKET, socket)
        .env(DEED, deed)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    (Reaped(child), stream)
}

fn selector_of(selectors: &Selectors, name: &str) -> Option<String> {
    let text = selectors.to_string();
    let prefix = format!("{name}:");
    text.split(' ').find_map(|selector| selector.strip_prefix(&prefix)).map(str::to_owned)
}

/// The file that `sleep` is, links followed.
fn sleep_path() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path)
        .map(|folder| folder.join("sleep"))
        .filter_map(|path| path.canonicalize().ok())
        .next()
        .unwrap()
}

#[tokio::test]
async fn this_process_is_known_by_user_path_and_digest() {
    let (one, _other) = UnixStream::pair().unwrap();
    let caller = Arc::new(Caller::of(&one).unwrap());
    assert_eq!(caller.pid(), i32::try_from(std::process::id()).unwrap());
    let attestor = Attestor::new();
    let selectors = attestor.attest(Arc::clone(&caller), Depth::WithDigest).await.unwrap();
    let exe = std::env::current_exe().unwrap();
    let bytes = std::fs::read(&exe).unwrap();
    let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
    let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(selector_of(&selectors, "unix:uid").unwrap(), rustix::process::geteuid().as_raw().to_string());
    assert_eq!(selector_of(&selectors, "unix:gid").unwrap(), rustix::process::getegid().as_raw().to_string());
    assert_eq!(selector_of(&selectors, "unix:path").unwrap(), exe.to_str().unwrap());
    assert_eq!(selector_of(&selectors, "unix:sha256").unwrap(), digest);
    let without = attestor.attest(caller, Depth::WithoutDigest).await.unwrap();
    assert_eq!(selector_of(&without, "unix:sha256"), None);
}

#[tokio::test]
async fn a_program_that_is_run_instead_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (_child, mut stream) = child_on(&folder.path().join("s"), "exec").await;
    let caller = Arc::new(Caller::of(&stream).unwrap());
    let attestor = Attestor::new();
    let path = async || {
        let selectors = attestor.attest(Arc::clone(&caller), Depth::WithDigest).await;
        selectors.ok().and_then(|selectors| selector_of(&selectors, "unix:path"))
    };
    assert_eq!(path().await.unwrap(), std::env::current_exe().unwrap().to_str().unwrap());
    stream.write_all(&[1]).await.unwrap();
    let sleep = sleep_path();
    while path().await.as_deref() != sleep.to_str() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_ended_process_is_nobody_though_its_connection_lives() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, mut stream) = child_on(&folder.path().join("s"), "leave").await;
    let caller = Arc::new(Caller::of(&stream).unwrap());
    let ended = caller.end().unwrap();
    stream.write_all(&[1]).await.unwrap();
    ended.await;
    child.0.wait().unwrap();
    let attestor = Attestor::new();
    assert_eq!(attestor.attest(caller, Depth::WithoutDigest).await, Err(NotAttested::Ended));
    assert!(matches!(Caller::of(&stream), Err(NoCaller::Ended)), "nobody new is found either");
    let nothing = tokio::time::timeout(Duration::from_millis(20), stream.read_u8()).await;
    assert!(nothing.is_err(), "the heir holds the connection");
}

#[tokio::test]
async fn a_deleted_executable_has_a_digest_and_no_path() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let socket = folder.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let child = Command::new(&program)
        .args(["--exact", "workload::attest::tests::child"])
        .env(SOCKET, &socket)
        .env(DEED, "exec")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let _child = Reaped(child);
    let (stream, _) = listener.accept().await.unwrap();
    let caller = Arc::new(Caller::of(&stream).unwrap());
    let attestor = Attestor::new();
    let before = attestor.attest(Arc::clone(&caller), Depth::WithDigest).await.unwrap();
    assert_eq!(selector_of(&before, "unix:path").unwrap(), program.canonicalize().unwrap().to_str().unwrap());
    std::fs::remove_file(&program).unwrap();
    std::fs::write(&program, "something else").unwrap();
    let after = attestor.attest(caller, Depth::WithDigest).await.unwrap();
    assert_eq!(selector_of(&after, "unix:path"), None);
    assert_eq!(selector_of(&after, "unix:sha256"), selector_of(&before, "unix:sha256"));
}
