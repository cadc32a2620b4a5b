use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use portcullis_identity::{ClientAuth, PeerRule, PeerVerifier, Svid, SvidSlot, TrustSource, server_config};
use rustls::ServerConnection;

use crate::eventually;

/// Whoever sits at the broker's address: a TLS server with any SVID that shakes hands and then hangs up.
#[derive(Debug)]
pub struct Impostor {
    address: SocketAddr,
    outcomes: Arc<Mutex<Vec<Result<(), String>>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Impostor {
    /// Takes over `address`, which nobody must be listening on any more.
    pub fn start(address: SocketAddr, trust: &TrustSource, svid: Arc<Svid>) -> Self {
        let listener = eventually("the broker's address to be free", || TcpListener::bind(address).ok());
        let verifier = PeerVerifier::new(Arc::clone(trust), PeerRule::AnyTrusted);
        let mut config = server_config(verifier, SvidSlot::new(svid), ClientAuth::Optional).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let config = Arc::new(config);
        let (outcomes, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (seen, stopped) = (Arc::clone(&outcomes), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                let outcome = shake_hands(&stream.unwrap(), Arc::clone(&config));
                let outcomes: &Mutex<Vec<_>> = &seen;
                outcomes.lock().unwrap().push(outcome);
            }
        });
        Self { address, outcomes, stop, thread: Some(thread) }
    }

    /// How the handshakes so far ended on the impostor's side.
    pub fn outcomes(&self) -> Vec<Result<(), String>> {
        self.outcomes.lock().unwrap().clone()
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn shake_hands(mut stream: &TcpStream, config: Arc<rustls::ServerConfig>) -> Result<(), String> {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut tls = ServerConnection::new(config).unwrap();
    while tls.is_handshaking() {
        tls.complete_io(&mut stream).map_err(|error| error.to_string())?;
    }
    Ok(())
}
