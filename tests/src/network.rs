use std::ffi::OsString;
use std::process::{Child, Command, Stdio};

use rustix::process::geteuid;

use crate::eventually;

/// Set for a test that runs in a network of its own.
const OWN: &str = "PORTCULLIS_TEST_OWN_NETWORK";

/// Whether this process has a network namespace of its own. If not, the test of this name is run again in a process that has, has to
/// succeed there, and the caller has nothing left to do. Needs a Linux that lets its users make namespaces.
pub fn has_own_network(test: &str) -> bool {
    if std::env::var_os(OWN).is_some() {
        return true;
    }
    let mut unshare = Command::new("unshare");
    if !geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    let ran = unshare
        .arg("--net")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(OWN, "1")
        .stdin(Stdio::null())
        .output()
        .expect("unshare, of util-linux, starts");
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && out.contains("1 passed"), "in a network of its own: {}\n{out}\n{err}", ran.status);
    false
}

/// Another host: a network namespace that is reached from this process's own by cables alone. Only where [`has_own_network`] is true.
#[derive(Debug)]
pub struct Host {
    /// Does nothing; the namespace is there as long as it is.
    holder: Child,
}

impl Host {
    pub fn new() -> Self {
        let holder = Command::new("unshare").args(["--net", "sleep", "infinity"]).stdin(Stdio::null()).spawn().unwrap();
        let ours = std::fs::read_link("/proc/self/ns/net").unwrap();
        let theirs = format!("/proc/{}/ns/net", holder.id());
        eventually("the other host's namespace", || {
            std::fs::read_link(&theirs).ok().filter(|namespace| *namespace != ours)
        });
        Self { holder }
    }

    /// Lays a cable to it, the `number`th.
    pub fn cable(&self, number: u8) -> Cable {
        let (near, far) = (format!("near{number}"), format!("far{number}"));
        let process = self.holder.id().to_string();
        ip(&[], &["link", "add", &near, "type", "veth", "peer", "name", &far, "netns", &process]);
        let cable = Cable { inside: self.inside(), far, address: format!("10.0.{number}.2") };
        ip(&[], &["address", "add", &format!("10.0.{number}.1/24"), "dev", &near]);
        ip(&[], &["link", "set", &near, "up"]);
        ip(&cable.inside, &["address", "add", &format!("{}/24", cable.address), "dev", &cable.far]);
        cable.mend();
        cable
    }

    /// What runs a command there.
    pub fn inside(&self) -> Vec<OsString> {
        vec!["nsenter".into(), format!("--net=/proc/{}/ns/net", self.holder.id()).into()]
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// What connects this process with another [`Host`].
#[derive(Debug)]
pub struct Cable {
    inside: Vec<OsString>,
    far: String,
    /// The host's, reached by this cable alone.
    pub address: String,
}

impl Cable {
    /// From now on what is sent arrives nowhere, and neither end is told.
    pub fn cut(&self) {
        ip(&self.inside, &["link", "set", &self.far, "down"]);
    }

    pub fn mend(&self) {
        ip(&self.inside, &["link", "set", &self.far, "up"]);
    }
}

fn ip(inside: &[OsString], arguments: &[&str]) {
    let words: Vec<OsString> =
        inside.iter().cloned().chain(["ip".into()]).chain(arguments.iter().map(OsString::from)).collect();
    let ran = Command::new(&words[0]).args(&words[1..]).stdin(Stdio::null()).output().expect("ip, of iproute2, starts");
    assert!(ran.status.success(), "{words:?}: {}", String::from_utf8_lossy(&ran.stderr));
}
