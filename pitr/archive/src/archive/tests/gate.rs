//! Stores that let a test decide what happens when.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::content::StoredHash;
use crate::object_key::{ObjectKey, Prefix};
use crate::store::{
    ChecksumCheck, Head, Listed, Metadata, Object, ObjectStore, PutMode, PutOutcome, StoreError, Upload,
};

/// Lets one request through for each permit, and says when one is done.
#[derive(Clone, Debug)]
pub(super) struct Gated {
    pub inner: Arc<dyn ObjectStore>,
    pub permits: Arc<Semaphore>,
    pub done: Arc<Semaphore>,
    /// Replaces objects although it is asked not to, as some S3 servers do.
    pub overwrites: bool,
}

impl Gated {
    pub fn new(inner: Arc<dyn ObjectStore>, overwrites: bool) -> Self {
        let (permits, done) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        Self { inner, permits, done, overwrites }
    }

    async fn wait(&self) -> Done {
        self.permits.acquire().await.unwrap().forget();
        Done(Arc::clone(&self.done))
    }
}

/// The request is over, whichever way it ends.
struct Done(Arc<Semaphore>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

#[async_trait]
impl ObjectStore for Gated {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn put(
        &self,
        key: &ObjectKey,
        body: Bytes,
        metadata: &Metadata,
        mode: PutMode,
    ) -> Result<PutOutcome, StoreError> {
        let _done = self.wait().await;
        let mode = if self.overwrites { PutMode::Overwrite } else { mode };
        self.inner.put(key, body, metadata, mode).await
    }

    async fn begin_upload(
        &self,
        key: &ObjectKey,
        metadata: &Metadata,
        mode: PutMode,
    ) -> Result<Box<dyn Upload>, StoreError> {
        let _done = self.wait().await;
        self.inner.begin_upload(key, metadata, mode).await
    }

    async fn get(&self, key: &ObjectKey, range: Option<Range<u64>>) -> Result<Object, StoreError> {
        let _done = self.wait().await;
        self.inner.get(key, range).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<Head, StoreError> {
        let _done = self.wait().await;
        self.inner.head(key).await
    }

    async fn list(
        &self,
        prefix: &Prefix,
        start_after: Option<&ObjectKey>,
        limit: Option<usize>,
    ) -> Result<Vec<Listed>, StoreError> {
        let _done = self.wait().await;
        self.inner.list(prefix, start_after, limit).await
    }

    async fn list_folders(&self, prefix: &Prefix) -> Result<Vec<String>, StoreError> {
        let _done = self.wait().await;
        self.inner.list_folders(prefix).await
    }

    async fn settle(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let _done = self.wait().await;
        self.inner.settle(key).await
    }

    async fn age(&self, key: &ObjectKey) -> Result<Option<Duration>, StoreError> {
        self.inner.age(key).await
    }

    async fn try_checksum(&self, key: &ObjectKey) -> Result<ChecksumCheck, StoreError> {
        self.inner.try_checksum(key).await
    }

    async fn kept_checksum(&self, key: &ObjectKey) -> Result<Option<StoredHash>, StoreError> {
        self.inner.kept_checksum(key).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let _done = self.wait().await;
        self.inner.delete(key).await
    }
}
