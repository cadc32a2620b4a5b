use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use portcullis_transport::Header;
use portcullis_transport::nats::{
    Acceptor, Arrival, CallerToken, Deadlines, InboxPrefix, IncomingCall, Link, Login, NatsLimits,
    NatsServer as Address, NatsSettings, NatsTls, RequestSubject, Target, VirtualAddress,
};

use crate::{Cable, Host, eventually};

/// A real `nats-server` as a process of its own, in a folder of its own, at a port the kernel chose. Killed on drop.
#[derive(Debug)]
pub struct NatsServer {
    child: Child,
    folder: tempfile::TempDir,
    config: String,
    port: u16,
    place: Place,
}

/// Where a server runs.
#[derive(Debug)]
struct Place {
    /// What runs a command there.
    inside: Vec<OsString>,
    listen: &'static str,
}

/// The server that tests/run.sh installs beside the binaries. Without it a test fails.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    // TARGET/release/deps/NAME-…
    let target = test.ancestors().nth(3).unwrap();
    let path = target.join("test-python/bin/nats-server");
    assert!(path.exists(), "{} is not there: tests/run.sh installs it", path.display());
    path
}

impl NatsServer {
    /// A server that lets everybody do everything.
    pub fn start() -> Self {
        Self::with("")
    }

    /// The same, with streams.
    pub fn with_streams() -> Self {
        Self::with("jetstream { store_dir: \"$FOLDER/streams\" }")
    }

    /// A server with further lines of configuration, in which `$FOLDER` stands for its folder.
    pub fn with(config: &str) -> Self {
        Self::at(Place { inside: Vec::new(), listen: "127.0.0.1" }, config)
    }

    /// A server that lets everybody do everything, on another host, at all of its addresses.
    pub fn on(host: &Host) -> Self {
        Self::at(Place { inside: host.inside(), listen: "0.0.0.0" }, "")
    }

    fn at(place: Place, config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let child = launch(&place, folder.path(), config, -1);
        let mut server = Self { child, folder, config: config.to_owned(), port: 0, place };
        server.port = server.bound();
        server
    }

    fn bound(&mut self) -> u16 {
        let ports = self.folder.path().join(format!("nats-server_{}.ports", self.child.id()));
        eventually("nats-server to listen", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("nats-server ended with {status}:\n{}", self.log());
            }
            let ports: serde_json::Value = serde_json::from_slice(&std::fs::read(&ports).ok()?).ok()?;
            let url = ports["nats"].as_array()?.first()?.as_str()?;
            url.rsplit_once(':')?.1.parse().ok()
        })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Where a server on another host is reached by a cable.
    pub fn url_by(&self, cable: &Cable) -> String {
        format!("nats://{}:{}", cable.address, self.port)
    }

    /// Where its configuration may name files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its process id.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGHUP: it reads its configuration again.
    pub fn reload(&self) {
        let process = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(process, rustix::process::Signal::HUP).unwrap();
    }

    /// Ends it and starts it again, with other lines of configuration.
    pub fn begin_anew(&mut self, config: &str) {
        self.kill();
        config.clone_into(&mut self.config);
        self.revive();
    }

    /// Starts it again, at its port.
    pub fn revive(&mut self) {
        crate::until_free(([127, 0, 0, 1], self.port).into());
        self.child = launch(&self.place, self.folder.path(), &self.config, self.port.into());
        assert_eq!(self.bound(), self.port);
    }

    /// How our own ends connect here, answered below `inbox`.
    pub fn settings(&self, inbox: &str) -> NatsSettings {
        settings(&self.url(), inbox)
    }

    /// A link of its own, driven on this runtime.
    pub async fn link(&self, inbox: &str) -> Link {
        connect(&self.settings(inbox)).await
    }

    /// A client that is not ours.
    pub async fn stock(&self) -> async_nats::Client {
        async_nats::connect(self.url()).await.unwrap()
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn launch(place: &Place, folder: &Path, config: &str, port: i32) -> Child {
    let file = folder.join("nats.conf");
    let folder = folder.display();
    let listen = place.listen;
    let base = format!("listen: \"{listen}:{port}\"\nports_file_dir: \"{folder}\"\nlog_file: \"{folder}/log\"\n");
    std::fs::write(&file, base + &config.replace("$FOLDER", &folder.to_string())).unwrap();
    let mut words = place.inside.iter().cloned().chain([program().into()]);
    Command::new(words.next().unwrap())
        .args(words)
        .arg("-c")
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// How our own ends connect there, answered below `inbox`.
pub fn settings(url: &str, inbox: &str) -> NatsSettings {
    NatsSettings {
        servers: vec![url.parse::<Address>().unwrap()],
        tls: NatsTls::DangerPlain,
        login: Login::Certificate,
        inbox: inbox.parse::<InboxPrefix>().unwrap(),
        name: inbox.to_owned(),
        limits: NatsLimits::default(),
    }
}

/// Connects as the settings say, and drives the link on this runtime.
pub async fn connect(settings: &NatsSettings) -> Link {
    let (link, driver) = Link::connect(settings).await.unwrap();
    tokio::spawn(driver.run());
    link
}

/// The address of a virtual component that nobody else uses.
pub fn fresh_address() -> VirtualAddress {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let id = format!("vc{}", NEXT.fetch_add(1, Ordering::Relaxed));
    VirtualAddress { lattice: "lattice".parse().unwrap(), id: id.parse().unwrap() }
}

/// The subject on which `caller` calls a function there.
pub fn request_subject(address: &VirtualAddress, caller: &str, instance: &str, function: &str) -> RequestSubject {
    let target = Target::Virtual { address: address.clone(), caller: caller.parse::<CallerToken>().unwrap() };
    target.request_subject(&Header { instance: instance.into(), function: function.into() }).unwrap()
}

/// The next call of an acceptor, which has to be one.
pub async fn next_call(acceptor: &mut Acceptor) -> IncomingCall {
    match acceptor.next().await.expect("the acceptor goes on") {
        Arrival::Call(call) => call,
        Arrival::Rejected { subject, why } => panic!("{subject}: {why}"),
    }
}

/// Answers every call with its parameters, each in a task of its own, until the acceptor ends.
pub async fn echo(mut acceptor: Acceptor) {
    while let Some(arrival) = acceptor.next().await {
        if let Arrival::Call(call) = arrival {
            tokio::spawn(echo_one(call));
        }
    }
}

/// Answers one call with its parameters.
pub async fn echo_one(call: IncomingCall) {
    // A caller that is gone needs no answer.
    let Ok((mut params, results)) = call.accept(Deadlines::default()).await else { return };
    let Ok(params) = params.read_root(64 << 20).await else { return };
    let _ = results.finish_with(params).await;
}
