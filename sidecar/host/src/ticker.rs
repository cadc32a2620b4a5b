//! Epochs: what makes a component that computes for long give way to others.

use std::{
    io,
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

use wasmtime::Engine;

/// How long a component computes before others get their turn, and how late its deadline may be noticed.
const EPOCH: Duration = Duration::from_millis(10);

/// Advances an engine's epoch until it is dropped. A thread and not a task: components may keep every worker of the runtime busy.
#[derive(Debug)]
pub(crate) struct Ticker {
    _stop: Sender<()>,
}

impl Ticker {
    pub(crate) fn start(engine: &Engine) -> io::Result<Self> {
        let (stop, stopped) = channel::<()>();
        let engine = engine.weak();
        thread::Builder::new().name("epochs".to_owned()).spawn(move || {
            while stopped.recv_timeout(EPOCH) == Err(RecvTimeoutError::Timeout) {
                let Some(engine) = engine.upgrade() else { return };
                engine.increment_epoch();
            }
        })?;
        Ok(Self { _stop: stop })
    }
}
