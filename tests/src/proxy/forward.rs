//! A request on its way to the store and back.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::fault::truncated;

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

/// Sends half of the body on, under the length of the whole, and breaks off.
pub(super) async fn tear(request: Request<Incoming>, upstream: SocketAddr) -> Dropped {
    let (mut parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return Dropped };
    let body = body.to_bytes();
    if !body.is_empty() {
        parts.headers.remove(TRANSFER_ENCODING);
        parts.headers.insert(CONTENT_LENGTH, body.len().into());
        let half = body.len() / 2;
        // Whatever the store makes of it, the client does not hear it.
        let _ = send(Request::from_parts(parts, truncated(body, half)), upstream).await;
    }
    Dropped
}

/// One connection per request: slower, and nothing of one request can leak
/// into the next.
async fn send<B>(request: Request<B>, upstream: SocketAddr) -> Result<Response<Incoming>, Dropped>
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    let stream = TcpStream::connect(upstream).await.map_err(|_| Dropped)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|_| Dropped)?;
    tokio::spawn(async move {
        // Its error is the request's error too.
        let _ = connection.await;
    });
    sender.send_request(request).await.map_err(|_| Dropped)
}
