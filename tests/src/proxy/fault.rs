//! What can go wrong between a client and its store.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response};

use super::forward::{Body, Dropped, collect, pass, tear};

#[derive(Debug, Clone)]
pub enum Fault {
    /// An S3 error with this status and code; the store sees nothing.
    Status { status: u16, code: String },
    /// A captive portal: 200 and a page of HTML.
    Html,
    /// 404 and a page of HTML: a balancer that knows no such host.
    NotFoundPage,
    /// 307 to another place.
    Redirect(String),
    /// Accepted and never answered.
    Blackhole,
    /// Passes after a while.
    Delay(Duration),
    /// The connection breaks; the store sees nothing.
    DropBefore,
    /// The store does it; the reply is lost.
    DropAfter,
    /// Half of what the client uploads reaches the store, which was told the whole length; then both
    /// connections break. Before the store has seen anything, where nothing is uploaded.
    HalfOfRequest,
    /// So many bytes of the body, then the connection breaks.
    Truncate(usize),
    /// Half of the body, then the connection breaks.
    Half,
    /// Half of the body, and then nothing more.
    Stall,
    /// So many bytes of the body in every tenth of a second.
    Trickle(usize),
    /// The body in so many pieces, one in every tenth of a second.
    Pieces(usize),
    /// One bit of the body's byte at this offset (modulo the length) differs.
    FlipBit(usize),
}

impl Fault {
    pub fn status(status: u16, code: &str) -> Fault {
        Fault::Status { status, code: code.to_owned() }
    }

    pub(super) async fn answer(
        self,
        request: Request<Incoming>,
        upstream: SocketAddr,
    ) -> Result<Response<Body>, Dropped> {
        match self {
            Fault::Status { status, code } => s3_error(status, &code),
            Fault::Html => page(200),
            Fault::NotFoundPage => page(404),
            Fault::Redirect(location) => redirect(&location),
            Fault::Blackhole => std::future::pending().await,
            Fault::Delay(time) => {
                tokio::time::sleep(time).await;
                pass(request, upstream).await
            }
            Fault::DropBefore => Err(Dropped),
            Fault::DropAfter => {
                collect(request, upstream).await?;
                Err(Dropped)
            }
            Fault::HalfOfRequest => Err(tear(request, upstream).await),
            Fault::Truncate(length) => with_body(request, upstream, |bytes| truncated(bytes, length)).await,
            Fault::Half => {
                let half = |bytes: Bytes| {
                    let length = bytes.len() / 2;
                    truncated(bytes, length)
                };
                with_body(request, upstream, half).await
            }
            Fault::Stall => with_body(request, upstream, stalled).await,
            Fault::Pieces(count) => {
                let in_pieces = |bytes: Bytes| {
                    let step = bytes.len().div_ceil(count.max(1));
                    trickled(bytes, step)
                };
                with_body(request, upstream, in_pieces).await
            }
            Fault::Trickle(step) => with_body(request, upstream, |bytes| trickled(bytes, step)).await,
            Fault::FlipBit(offset) => with_body(request, upstream, |bytes| flipped(&bytes, offset)).await,
        }
    }
}

fn s3_error(status: u16, code: &str) -> Result<Response<Body>, Dropped> {
    let xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>from the proxy</Message></Error>"
    );
    let response = Response::builder().status(status).header("content-type", "application/xml");
    response.body(whole(xml.into())).map_err(|_| Dropped)
}

fn redirect(location: &str) -> Result<Response<Body>, Dropped> {
    let response = Response::builder().status(307).header("location", location);
    response.body(whole(Bytes::new())).map_err(|_| Dropped)
}

fn page(status: u16) -> Result<Response<Body>, Dropped> {
    let html = "<!DOCTYPE html><html><body><h1>Welcome to the guest network</h1></body></html>";
    let response = Response::builder().status(status).header("content-type", "text/html");
    response.body(whole(html.into())).map_err(|_| Dropped)
}

/// The store's reply with its length announced as it is, and another body.
async fn with_body(
    request: Request<Incoming>,
    upstream: SocketAddr,
    change: impl FnOnce(Bytes) -> Body,
) -> Result<Response<Body>, Dropped> {
    let response = collect(request, upstream).await?;
    Ok(response.map(change))
}

/// The first bytes, and then the connection breaks.
pub(super) fn truncated(bytes: Bytes, length: usize) -> Body {
    let kept = bytes.slice(..length.min(bytes.len()));
    // The pause lets the bytes out before the break overtakes them.
    let broken = stream::once(async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Err(std::io::Error::other("cut by the proxy"))
    });
    streamed(stream::iter([Ok(Frame::data(kept))]).chain(broken).boxed())
}

fn stalled(bytes: Bytes) -> Body {
    let begun = bytes.slice(..bytes.len() / 2);
    streamed(stream::iter([Ok(Frame::data(begun))]).chain(stream::pending()).boxed())
}

fn trickled(bytes: Bytes, step: usize) -> Body {
    let pieces = stream::unfold(bytes, move |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let piece = rest.split_to(step.clamp(1, rest.len()));
        Some((Ok(Frame::data(piece)), rest))
    });
    streamed(pieces.boxed())
}

fn flipped(bytes: &Bytes, offset: usize) -> Body {
    let mut changed = BytesMut::from(&bytes[..]);
    let length = changed.len().max(1);
    if let Some(byte) = changed.get_mut(offset % length) {
        *byte ^= 0x10;
    }
    whole(changed.freeze())
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn streamed(stream: BoxStream<'static, std::io::Result<Frame<Bytes>>>) -> Body {
    StreamBody::new(stream).boxed_unsync()
}
