//! The proxy somebody would write in an afternoon: every QUIC stream becomes a connection to the Unix socket, and bytes are copied both ways.
//! No policy, no limits, no deadlines, no refusals.

use std::path::{Path, PathBuf};

use quinn::{Connection, Endpoint, RecvStream, SendStream};
use tokio::io::{AsyncWriteExt as _, copy};
use tokio::net::UnixStream;

/// Proxies every connection of `endpoint` to `socket`, for ever.
pub async fn serve(endpoint: Endpoint, socket: PathBuf) {
    while let Some(incoming) = endpoint.accept().await {
        let socket = socket.clone();
        tokio::spawn(async move {
            let connection = incoming.await.expect("the handshake succeeds");
            streams(&connection, &socket).await;
        });
    }
}

async fn streams(connection: &Connection, socket: &Path) {
    while let Ok((send, recv)) = connection.accept_bi().await {
        let socket = socket.to_owned();
        tokio::spawn(async move {
            // A caller that gives up after its answer is no news.
            let _ = splice(send, recv, &socket).await;
        });
    }
}

async fn splice(mut send: SendStream, mut recv: RecvStream, socket: &Path) -> std::io::Result<()> {
    let (mut read, mut write) = UnixStream::connect(socket).await?.into_split();
    let up = async {
        copy(&mut recv, &mut write).await?;
        write.shutdown().await
    };
    let down = async {
        copy(&mut read, &mut send).await?;
        send.shutdown().await
    };
    tokio::try_join!(up, down).map(drop)
}
