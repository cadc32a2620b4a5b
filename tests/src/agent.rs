use std::path::{Path, PathBuf};

use portcullis_api::v1;

use crate::{Daemon, Lab};

/// An agent of a lab: identities for this machine, over the Workload API.
#[derive(Debug)]
pub struct Agent {
    name: String,
    pub daemon: Daemon,
    pub socket: PathBuf,
    /// Of the Delegated Identity API, where it is served.
    pub delegated: Option<PathBuf>,
}

impl Agent {
    /// Joins as the node `name` and serves a socket.
    pub fn start(lab: &Lab, name: &str) -> Self {
        Self::start_with(lab, name, "")
    }

    /// The same, with further keys of `[workload_api]`.
    pub fn start_with(lab: &Lab, name: &str, keys: &str) -> Self {
        let socket = lab.path().join(format!("{name}-api/workload.sock"));
        let token = lab.token(name);
        let config = format!(
            "[node]\nstate = \"{name}-state\"\njoin_token_file = \"{}\"\n[workload_api]\nsocket = \"{}\"\n{keys}\n",
            token.display(),
            socket.display()
        );
        std::fs::write(Self::config(lab, name), config).unwrap();
        let daemon = lab.start_sidecar(name, &Self::config(lab, name));
        Self { name: name.to_owned(), daemon, socket, delegated: None }
    }

    /// The same, and a socket at which hosts ask for the tokens of their components.
    pub fn start_delegating(lab: &Lab, name: &str) -> Self {
        let socket = lab.path().join(format!("{name}-admin/delegated.sock"));
        let keys = format!("[delegated_identity]\nsocket = \"{}\"", socket.display());
        Self { delegated: Some(socket), ..Self::start_with(lab, name, &keys) }
    }

    fn config(lab: &Lab, name: &str) -> PathBuf {
        lab.path().join(format!("{name}.toml"))
    }

    /// Killed and started again.
    pub fn restart(&mut self, lab: &Lab) {
        self.daemon.kill();
        self.daemon = lab.start_sidecar(&self.name, &Self::config(lab, &self.name));
    }

    /// What SPIFFE clients are told.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Its folder of keys.
    pub fn state(&self, lab: &Lab) -> PathBuf {
        lab.path().join(format!("{}-state", self.name))
    }

    /// An entry of this agent that every process of this user meets: `spiffe://test.example/PATH`.
    pub fn entry(&self, path: &str) -> v1::CreateEntryRequest {
        v1::CreateEntryRequest {
            node: self.name.clone(),
            spiffe_id: format!("spiffe://test.example/{path}"),
            selectors: vec![own_uid()],
            ..Default::default()
        }
    }
}

impl Lab {
    /// Registers an entry and returns its id.
    pub fn create(&self, entry: v1::CreateEntryRequest) -> String {
        let reply = self.operator(async |mut operator| operator.create_entry(entry).await).unwrap();
        reply.entry.unwrap().id
    }

    pub fn remove_entry(&self, id: &str) {
        let id = id.to_owned();
        self.operator(async |mut operator| operator.remove_entry(v1::RemoveEntryRequest { id }).await).unwrap();
    }
}

/// The selector that this process meets whatever it runs.
pub fn own_uid() -> String {
    format!("unix:uid:{}", rustix::process::getuid().as_raw())
}

/// How many file descriptors a process has open.
pub fn open_files(pid: u32) -> usize {
    std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd")).unwrap().count()
}
