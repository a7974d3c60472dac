//! A body that goes on where it broke off.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;

use super::{RetryPolicy, Tries};
use crate::object_key::ObjectKey;
use crate::store::{ByteStream, Metadata, Object, ObjectStore, StoreError, StoreErrorKind};

/// The object as it was opened, with a body that survives breaks.
pub(super) fn resumed(
    store: Arc<dyn ObjectStore>,
    policy: RetryPolicy,
    key: ObjectKey,
    range: Option<Range<u64>>,
    object: Object,
) -> Object {
    let Object { metadata, size, body } = object;
    let range = range.unwrap_or(0..size);
    let left = range.start.min(size)..range.end.min(size);
    let resumed =
        Resumed { store, policy, key, size, metadata: metadata.clone(), left, body: Some(body), tries: None };
    let body = futures::stream::try_unfold(resumed, |mut resumed| async move {
        Ok(resumed.next().await?.map(|bytes| (bytes, resumed)))
    });
    Object { metadata, size, body: body.boxed() }
}

struct Resumed {
    store: Arc<dyn ObjectStore>,
    policy: RetryPolicy,
    key: ObjectKey,
    size: u64,
    metadata: Metadata,
    /// The bytes that have not come yet.
    left: Range<u64>,
    /// None after a break.
    body: Option<ByteStream>,
    /// Failures since the last byte that came.
    tries: Option<Tries>,
}

impl Resumed {
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        while !self.left.is_empty() {
            match self.try_next().await {
                Ok(bytes) => {
                    self.advance(&bytes)?;
                    return Ok(Some(bytes));
                }
                Err(error) => {
                    self.body = None;
                    self.tries().pause_after(error).await?;
                }
            }
        }
        Ok(None)
    }

    async fn try_next(&mut self) -> Result<Bytes, StoreError> {
        if self.body.is_none() {
            self.body = Some(self.reopen().await?);
        }
        loop {
            match self.body.as_mut() {
                Some(body) => match body.next().await {
                    Some(Ok(bytes)) if bytes.is_empty() => {}
                    Some(result) => return result,
                    None => return Err(self.error(StoreErrorKind::Transient, "its body ended too early")),
                },
                None => return Err(self.error(StoreErrorKind::Other, "its body is gone")),
            }
        }
    }

    async fn reopen(&mut self) -> Result<ByteStream, StoreError> {
        let (store, key, left) = (Arc::clone(&self.store), self.key.clone(), self.left.clone());
        let object = self.tries().attempt(async move { store.get(&key, Some(left)).await }).await?;
        if object.size != self.size || object.metadata != self.metadata {
            return Err(self.error(StoreErrorKind::Other, "it was replaced while it was read"));
        }
        Ok(object.body)
    }

    fn advance(&mut self, bytes: &Bytes) -> Result<(), StoreError> {
        let length = bytes.len() as u64;
        if length > self.left.end - self.left.start {
            return Err(self.error(StoreErrorKind::Other, "its body is longer than announced"));
        }
        self.left.start += length;
        self.tries = None;
        Ok(())
    }

    fn tries(&mut self) -> &mut Tries {
        let (policy, key) = (self.policy, &self.key);
        self.tries.get_or_insert_with(|| Tries::new(policy, "get", key))
    }

    fn error(&self, kind: StoreErrorKind, detail: &str) -> StoreError {
        StoreError::new("get", &self.key, kind, detail)
    }
}
