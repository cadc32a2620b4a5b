use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// A request as the service saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// What the service does with a request.
#[derive(Clone, Debug)]
pub enum Behaviour {
    /// Answers with this status and body.
    Answer(u16, String),
    /// Waits this long, then answers 200 with the body.
    Slow(Duration, String),
    /// Never answers.
    Silent,
    /// Closes the connection.
    Hangup,
    /// Writes these bytes and closes.
    Raw(Vec<u8>),
}

/// A legacy HTTP service on loopback that behaves as told, well or badly. Its answers are written by hand, so that they can be wrong.
#[derive(Debug)]
pub struct LegacyService {
    pub address: SocketAddr,
    behaviour: Arc<Mutex<Behaviour>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl LegacyService {
    pub fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let behaviour = Arc::new(Mutex::new(behaviour));
        let (seen, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let state = (Arc::clone(&behaviour), Arc::clone(&seen), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let (behaviour, seen, stop) = state;
            for stream in listener.incoming() {
                if stop.load(Ordering::Acquire) {
                    return;
                }
                let (behaviour, seen, stop) = (Arc::clone(&behaviour), Arc::clone(&seen), Arc::clone(&stop));
                std::thread::spawn(move || connection(&stream.unwrap(), &behaviour, &seen, &stop));
            }
        });
        Self { address, behaviour, seen, stop, thread: Some(thread) }
    }

    pub fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for LegacyService {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn connection(stream: &TcpStream, behaviour: &Mutex<Behaviour>, seen: &Mutex<Vec<Seen>>, stop: &AtomicBool) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = request(&mut reader) {
        seen.lock().unwrap().push(request);
        let behaviour = behaviour.lock().unwrap().clone();
        let answered = match behaviour {
            Behaviour::Answer(status, body) => answer(stream, status, &body),
            Behaviour::Slow(wait, body) => {
                std::thread::sleep(wait);
                answer(stream, 200, &body)
            }
            Behaviour::Silent => {
                while !stop.load(Ordering::Acquire) && !closed(stream) {
                    std::thread::sleep(Duration::from_millis(10));
                }
                return;
            }
            Behaviour::Hangup => return,
            Behaviour::Raw(bytes) => {
                let mut stream = stream;
                let _ = stream.write_all(&bytes);
                return;
            }
        };
        if answered.is_err() {
            return;
        }
    }
}

fn closed(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let closed = matches!(stream.peek(&mut [0]), Ok(0));
    stream.set_nonblocking(false).unwrap();
    closed
}

fn request(reader: &mut BufReader<&TcpStream>) -> Option<Seen> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end();
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut seen = Seen { method, target, headers, body: String::new() };
    let length = seen.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    seen.body = String::from_utf8_lossy(&body).into_owned();
    Some(seen)
}

fn answer(mut stream: &TcpStream, status: u16, body: &str) -> std::io::Result<()> {
    let head =
        format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes())
}
