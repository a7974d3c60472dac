//! The body of an object while it comes in.

use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream as SdkStream;
use bytes::Bytes;
use futures::StreamExt;
use tokio::time::Instant;

use super::LEAST_BYTES_PER_WINDOW;
use super::failure::Attempt;
use crate::store::{ByteStream, StoreError, StoreErrorKind};

/// The body, which must bring exactly `length` bytes, and not in a trickle.
pub(super) fn checked(body: SdkStream, length: u64, window: Duration, attempt: Attempt) -> ByteStream {
    let incoming = Incoming { body, left: length, length, pace: Pace::new(window), attempt };
    futures::stream::try_unfold(incoming, |mut incoming| async move {
        Ok(incoming.next().await?.map(|bytes| (bytes, incoming)))
    })
    .boxed()
}

struct Incoming {
    body: SdkStream,
    left: u64,
    length: u64,
    pace: Pace,
    attempt: Attempt,
}

impl Incoming {
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        let waiting = Instant::now();
        loop {
            let patience = self.pace.patience(waiting.elapsed());
            match tokio::time::timeout(patience, self.body.next()).await {
                Ok(Some(Ok(bytes))) if bytes.is_empty() => {}
                Ok(Some(Ok(bytes))) => {
                    self.pace.brought(bytes.len() as u64, waiting.elapsed());
                    return self.take(bytes).map(Some);
                }
                Ok(Some(Err(error))) => return Err(self.broken(&error.to_string())),
                Ok(None) if self.left == 0 => return Ok(None),
                Ok(None) => return Err(self.broken("the body ended too early")),
                Err(_) if self.pace.is_too_slow() => return Err(self.broken("the body has stalled")),
                Err(_) => self.pace.next_window(),
            }
        }
    }

    fn take(&mut self, bytes: Bytes) -> Result<Bytes, StoreError> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or_else(|| self.attempt.not_s3("the body is longer than announced"))?;
        Ok(bytes)
    }

    fn broken(&self, why: &str) -> StoreError {
        let came = self.length - self.left;
        self.attempt.error(StoreErrorKind::Transient, format!("{why} ({came} of {} bytes came)", self.length))
    }
}

/// Bytes that came in the present window. A window is as much time as was
/// spent waiting for bytes: a slow reader is not a slow store.
struct Pace {
    window: Duration,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    fn new(window: Duration) -> Self {
        Self { window, waited: Duration::ZERO, bytes: 0 }
    }

    /// How much longer to wait before the window is over.
    fn patience(&self, waiting: Duration) -> Duration {
        self.window.saturating_sub(self.waited).saturating_sub(waiting)
    }

    fn brought(&mut self, bytes: u64, waited: Duration) {
        self.waited += waited;
        self.bytes += bytes;
        if self.waited >= self.window && !self.is_too_slow() {
            self.next_window();
        }
    }

    fn is_too_slow(&self) -> bool {
        self.bytes < LEAST_BYTES_PER_WINDOW
    }

    fn next_window(&mut self) {
        self.waited = Duration::ZERO;
        self.bytes = 0;
    }
}
