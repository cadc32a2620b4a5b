//! The HTTP service: `POST /test/shop/items/echo` with `{"data": BASE64}` answers the string. Nothing is parsed, so that it costs little.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Serves for ever.
pub async fn serve(listener: TcpListener) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        tokio::spawn(async move {
            // Ends when the client's pool lets the connection go.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(echo)).await;
        });
    }
}

async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.expect("the request is whole").to_bytes();
    let start = body.iter().position(|byte| *byte == b':').expect("an object with one field") + 1;
    let answer = body.slice(start..body.len() - 1);
    let mut response = Response::new(Full::new(answer));
    response.headers_mut().insert("content-type", "application/json".parse().expect("a header value"));
    Ok(response)
}
