use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::net::{Shutdown, shutdown};

/// A service on a Unix socket that does with each connection what a test says, in a thread of its own.
#[derive(Debug)]
pub struct ScriptedUpstream {
    listener: UnixListener,
    thread: Option<JoinHandle<()>>,
}

impl ScriptedUpstream {
    pub fn start(socket: &Path, script: impl Fn(UnixStream) + Send + Sync + 'static) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let accepting = listener.try_clone().unwrap();
        let script = Arc::new(script);
        let thread = std::thread::spawn(move || {
            // Ends once the listener is shut down.
            while let Ok((stream, _)) = accepting.accept() {
                let script = Arc::clone(&script);
                std::thread::spawn(move || script(stream));
            }
        });
        Self { listener, thread: Some(thread) }
    }
}

impl Drop for ScriptedUpstream {
    fn drop(&mut self) {
        shutdown(&self.listener, Shutdown::Both).unwrap();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
