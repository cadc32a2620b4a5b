//! HTTPS as a stranger speaks and serves it, by hand, so that both can lie.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// An authority of the web with a certificate for some names, as files.
pub(crate) struct WebCa {
    folder: tempfile::TempDir,
}

impl WebCa {
    pub(crate) fn for_names(names: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = params.self_signed(&key).unwrap();
        let issuer = Issuer::from_ca_cert_der(root.der(), key).unwrap();
        let leaf_key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let leaf = CertificateParams::new(names).unwrap().signed_by(&leaf_key, &issuer).unwrap();
        let ca = Self { folder };
        std::fs::write(ca.root(), root.pem()).unwrap();
        std::fs::write(ca.chain(), leaf.pem()).unwrap();
        std::fs::write(ca.key(), leaf_key.serialize_pem()).unwrap();
        std::fs::set_permissions(ca.key(), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        ca
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("root.pem")
    }

    pub(crate) fn chain(&self) -> PathBuf {
        self.folder.path().join("chain.pem")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    fn server(&self) -> ServerConfig {
        let chain = CertificateDer::pem_file_iter(self.chain()).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(self.key()).unwrap();
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap()
    }
}

/// What a server answers, byte for byte; the connection stays open where it holds.
#[derive(Clone)]
pub(crate) enum Answer {
    Bytes(Vec<u8>),
    Silence,
}

impl Answer {
    pub(crate) fn document(body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        Self::Bytes([head.as_bytes(), body].concat())
    }

    pub(crate) fn redirect(status: u16, location: &str) -> Self {
        Self::Bytes(format!("HTTP/1.1 {status} Go\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n").into_bytes())
    }

    pub(crate) fn raw(text: &str) -> Self {
        Self::Bytes(text.as_bytes().to_vec())
    }
}

/// A bundle endpoint that answers what it is told to.
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    requests: Arc<AtomicUsize>,
    paths: Arc<Mutex<Vec<String>>>,
}

impl Endpoint {
    pub(crate) async fn start(ca: &WebCa, answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Self {
            address: listener.local_addr().unwrap(),
            answer: Arc::new(Mutex::new(answer)),
            requests: Arc::default(),
            paths: Arc::default(),
        };
        let acceptor = TlsAcceptor::from(Arc::new(ca.server()));
        let (answer, requests) = (Arc::clone(&endpoint.answer), Arc::clone(&endpoint.requests));
        let paths = Arc::clone(&endpoint.paths);
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = tls.read_u8().await else { break };
                    head.push(byte);
                }
                requests.fetch_add(1, Ordering::SeqCst);
                let head = String::from_utf8(head).unwrap();
                paths.lock().unwrap().push(head.split(' ').nth(1).unwrap_or_default().to_owned());
                let answer = answer.lock().unwrap().clone();
                match answer {
                    Answer::Bytes(bytes) => {
                        let _ = tls.write_all(&bytes).await;
                        let _ = tls.shutdown().await;
                    }
                    // Until the client gives up.
                    Answer::Silence => drop(tls.read_u8().await),
                }
            }
        });
        endpoint
    }

    pub(crate) fn say(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}/bundle", self.address)
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn take_paths(&self) -> Vec<String> {
        std::mem::take(&mut self.paths.lock().unwrap())
    }
}

/// An answer as it came.
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// Asks as any client of the web: no client certificate; trusts `root`.
pub(crate) async fn ask(
    address: SocketAddr,
    root: &Path,
    version: &'static SupportedProtocolVersion,
    request: &str,
) -> std::io::Result<Got> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(root).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
    tls.write_all(format!("{request} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    tls.read_to_end(&mut answer).await?;
    let text = String::from_utf8(answer).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Ok(Got { status, head: head.to_lowercase(), body: body.to_owned() })
}
