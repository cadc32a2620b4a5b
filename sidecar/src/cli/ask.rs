//! One GET at an admin address.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use http::Request;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use portcullis_admin::AdminAddress;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

const DEADLINE: Duration = Duration::from_secs(5);
const MAX_BODY: usize = 4 << 20;

/// The body of `path`, whatever its status.
pub(super) async fn get(address: &AdminAddress, path: &str) -> anyhow::Result<Vec<u8>> {
    let asking = async {
        match address {
            AdminAddress::Unix(socket) => {
                let stream = UnixStream::connect(socket).await.with_context(|| unreachable(socket))?;
                exchange(stream, path).await
            }
            AdminAddress::Loopback(peer) => {
                let stream = TcpStream::connect(peer).await.with_context(|| format!("cannot reach {peer}"))?;
                exchange(stream, path).await
            }
        }
    };
    match tokio::time::timeout(DEADLINE, asking).await {
        Ok(answer) => answer,
        Err(_) => bail!("no answer within {} s", DEADLINE.as_secs()),
    }
}

fn unreachable(socket: &Path) -> String {
    format!("cannot reach `{}`: is the sidecar running?", socket.display())
}

async fn exchange<S>(stream: S, path: &str) -> anyhow::Result<Vec<u8>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path).header("host", "localhost").body(Empty::<Bytes>::new())?;
    let answer = async move {
        let response = sender.send_request(request).await?;
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
        anyhow::Ok(body.map_err(|error| anyhow::anyhow!(error))?.to_bytes().to_vec())
    };
    let (answer, _) = tokio::join!(answer, connection);
    answer
}
