//! HTTP/1.1 on a listener, until told to stop.

use std::{
    convert::Infallible,
    io::{self, Write as _},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    ledger::Ledger,
    routes::{self, Answer},
};

/// The longest body that is read, in bytes.
const BODY_LIMIT: usize = 64 * 1024;
/// How long a client may take to send the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait after an accept that failed, most likely for want of a file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves invoices on `listener` until `shutdown` is cancelled, then finishes the requests in progress.
///
/// Every request is one line on stderr: method, path, status and what the `x-caller` header says.
pub async fn serve(listener: TcpListener, shutdown: CancellationToken) {
    let ledger = Arc::new(Mutex::new(Ledger::with_history()));
    let connections = TaskTracker::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, Arc::clone(&ledger), shutdown.clone()));
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
        }
    }
    connections.close();
    connections.wait().await;
}

async fn connection(stream: TcpStream, ledger: Arc<Mutex<Ledger>>, shutdown: CancellationToken) {
    // Small answers must not wait for the client's acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| respond(request, Arc::clone(&ledger)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // A client that breaks off is no event for this service.
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = shutdown.cancelled() => None,
    };
    if ended.is_none() {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

async fn respond(request: Request<Incoming>, ledger: Arc<Mutex<Ledger>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let answer = match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(body) => {
            let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
            routes::answer(&mut ledger, &parts, &body.to_bytes())
        }
        Err(_) => Answer::error(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "the body is longer than 64 KiB"),
    };
    let caller = parts.headers.get("x-caller").and_then(|value| value.to_str().ok()).unwrap_or("-");
    let line = format!("{} {} {} caller={caller}\n", parts.method, parts.uri, answer.status.as_u16());
    // Without a stderr there is nobody to tell.
    let _ = io::stderr().write_all(line.as_bytes());
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() = answer.status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn exchange(stream: &mut TcpStream, request: &str) -> String {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn it_answers_over_http_and_ends_when_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let served = TaskTracker::new();
        let server = served.spawn(serve(listener, shutdown.clone()));

        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = "GET /api/v1/invoices/INV-1001 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let answer = exchange(&mut stream, request).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains(r#""id":"INV-1001""#), "{answer}");

        let mut stream = TcpStream::connect(address).await.unwrap();
        let body = "x".repeat(BODY_LIMIT + 1);
        let request =
            format!("POST /api/v1/invoices HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 413");

        let idle = TcpStream::connect(address).await.unwrap();
        shutdown.cancel();
        server.await.unwrap();
        drop(idle);
    }
}
