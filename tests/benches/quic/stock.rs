//! Stock wRPC servers of `echo`, as wRPC's own examples set them up.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use e2e::ITEMS;
use quinn::{Connection, Endpoint};
use tokio::net::UnixListener;
use tokio_stream::StreamExt as _;
use wrpc_transport::frame::ConnHandler;
use wrpc_transport::{Accept, ServeExt as _, Server};

/// Serves every connection of `endpoint`, for ever.
pub async fn quic(endpoint: Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            let connection: Connection = incoming.await.expect("the handshake succeeds");
            let server = Arc::new(wrpc_transport_quic::Server::new());
            serve(server, wrpc_transport_quic::Client::from(connection)).await;
        });
    }
}

/// Serves a Unix socket, for ever.
pub async fn unix(listener: UnixListener) {
    let server: Server<_, _, _, ()> = Server::new();
    serve(Arc::new(server), listener).await;
}

/// Where the stock server listens.
pub fn bind(path: &PathBuf) -> UnixListener {
    UnixListener::bind(path).unwrap()
}

async fn serve<C, I, O, H, A>(server: Arc<Server<C, I, O, H>>, listener: A)
where
    C: Send + Sync + 'static,
    I: tokio::io::AsyncRead + Send + Sync + Unpin + 'static,
    O: tokio::io::AsyncWrite + Send + Sync + Unpin + 'static,
    H: ConnHandler<I, O> + Send + Sync + 'static,
    for<'a> &'a A: Accept<Context = C, Incoming = I, Outgoing = O>,
{
    let calls = server.serve_values::<(Bytes,), (Bytes,)>(ITEMS, "echo", Vec::new()).await.unwrap();
    let accept = async {
        // Ends with the connection.
        while server.accept(&listener).await.is_ok() {}
    };
    let answer = async {
        tokio::pin!(calls);
        while let Some(call) = calls.next().await {
            let Ok((_, (data,), _, answer)) = call else { continue };
            tokio::spawn(async move {
                // The caller may be gone.
                let _ = answer((data,)).await;
            });
        }
    };
    tokio::join!(accept, answer);
}
