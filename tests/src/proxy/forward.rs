//! A request on its way to the store and back.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

pub(super) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// The connection to the client is closed without an answer.
#[derive(Debug)]
pub(super) struct Dropped;

impl std::fmt::Display for Dropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("dropped by the proxy")
    }
}

impl std::error::Error for Dropped {}

/// Sends the request on and streams the reply back.
pub(super) async fn pass(
    request: Request<Incoming>,
    upstream: SocketAddr,
) -> Result<Response<Body>, Dropped> {
    let response = send(request, upstream).await?;
    Ok(response.map(|body| body.map_err(std::io::Error::other).boxed_unsync()))
}

/// Sends the request on and waits for the whole reply.
pub(super) async fn collect(
    request: Request<Incoming>,
    upstream: SocketAddr,
) -> Result<Response<Bytes>, Dropped> {
    let (parts, body) = send(request, upstream).await?.into_parts();
    let bytes = body.collect().await.map_err(|_| Dropped)?.to_bytes();
    Ok(Response::from_parts(parts, bytes))
}

/// One connection per request: slower, and nothing of one request can leak
/// into the next.
async fn send(request: Request<Incoming>, upstream: SocketAddr) -> Result<Response<Incoming>, Dropped> {
    let stream = TcpStream::connect(upstream).await.map_err(|_| Dropped)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|_| Dropped)?;
    tokio::spawn(async move {
        // Its error is the request's error too.
        let _ = connection.await;
    });
    sender.send_request(request).await.map_err(|_| Dropped)
}
