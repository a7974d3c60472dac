//! A store whose every request is a step that a test can fail: before it is sent,
//! and when its reply has come. So is every piece of a body.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use rustix::io::Errno;

use crate::content::StoredHash;
use crate::fault_point::injected::FaultPoint;
use crate::object_key::{ObjectKey, Prefix};
use crate::store::{
    ByteStream, ChecksumCheck, Head, Listed, Metadata, Object, ObjectStore, PutMode, PutOutcome, StoreError,
    StoreErrorKind, Upload,
};

/// A store with fault points.
#[derive(Clone, Debug)]
pub struct FaultPoints {
    inner: Arc<dyn ObjectStore>,
}

impl FaultPoints {
    /// Wraps a store.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner }
    }
}

async fn request<T>(
    verb: &'static str,
    at: &str,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let failed = |errno: Errno| {
        let kind = if errno == Errno::IO { StoreErrorKind::Transient } else { StoreErrorKind::Other };
        StoreError::new(verb, at, kind, format!("fault point: {errno}"))
    };
    let point = FaultPoint::reached(&format!("{verb} {at}"));
    point.before().map_err(failed)?;
    let done = work.await;
    point.after().map_err(failed)?;
    done
}

fn body(inner: ByteStream, key: String) -> ByteStream {
    futures::stream::unfold((inner, key), |(mut inner, key)| async move {
        let next = async { inner.next().await.transpose() };
        let piece = request("get", &format!("{key}, a piece of its body"), next).await.transpose()?;
        Some((piece, (inner, key)))
    })
    .boxed()
}

#[async_trait]
impl ObjectStore for FaultPoints {
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
        request("put", key.as_str(), self.inner.put(key, body, metadata, mode)).await
    }

    async fn begin_upload(
        &self,
        key: &ObjectKey,
        metadata: &Metadata,
        mode: PutMode,
    ) -> Result<Box<dyn Upload>, StoreError> {
        let inner = request("put", key.as_str(), self.inner.begin_upload(key, metadata, mode)).await?;
        Ok(Box::new(UploadInSteps { inner, key: key.to_string(), unanswered: None }))
    }

    async fn get(&self, key: &ObjectKey, range: Option<Range<u64>>) -> Result<Object, StoreError> {
        let mut object = request("get", key.as_str(), self.inner.get(key, range)).await?;
        object.body = body(object.body, key.to_string());
        Ok(object)
    }

    async fn head(&self, key: &ObjectKey) -> Result<Head, StoreError> {
        request("head", key.as_str(), self.inner.head(key)).await
    }

    async fn list(
        &self,
        prefix: &Prefix,
        start_after: Option<&ObjectKey>,
        limit: Option<usize>,
    ) -> Result<Vec<Listed>, StoreError> {
        request("list", prefix.as_str(), self.inner.list(prefix, start_after, limit)).await
    }

    async fn list_folders(&self, prefix: &Prefix) -> Result<Vec<String>, StoreError> {
        request("list", prefix.as_str(), self.inner.list_folders(prefix)).await
    }

    async fn settle(&self, key: &ObjectKey) -> Result<(), StoreError> {
        request("settle", key.as_str(), self.inner.settle(key)).await
    }

    async fn age(&self, key: &ObjectKey) -> Result<Option<Duration>, StoreError> {
        request("head", key.as_str(), self.inner.age(key)).await
    }

    async fn try_checksum(&self, key: &ObjectKey) -> Result<ChecksumCheck, StoreError> {
        request("put", key.as_str(), self.inner.try_checksum(key)).await
    }

    async fn kept_checksum(&self, key: &ObjectKey) -> Result<Option<StoredHash>, StoreError> {
        request("head", key.as_str(), self.inner.kept_checksum(key)).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        request("delete", key.as_str(), self.inner.delete(key)).await
    }
}

#[derive(Debug)]
struct UploadInSteps {
    inner: Box<dyn Upload>,
    key: String,
    /// A part that was taken, and nobody was told. Parts have numbers: sent again, it takes its own place.
    unanswered: Option<Bytes>,
}

#[async_trait]
impl Upload for UploadInSteps {
    async fn part(&mut self, body: Bytes) -> Result<(), StoreError> {
        let mut is_taken = self.unanswered.take().is_some_and(|taken| taken == body);
        let take = async {
            if !is_taken {
                self.inner.part(body.clone()).await?;
                is_taken = true;
            }
            Ok(())
        };
        let answered = request("put", &format!("{}, a part", self.key), take).await;
        self.unanswered = Some(body).filter(|_| is_taken && answered.is_err());
        answered
    }

    async fn finish(&mut self) -> Result<PutOutcome, StoreError> {
        request("put", &format!("{}, finish", self.key), self.inner.finish()).await
    }

    async fn abort(&mut self) -> Result<(), StoreError> {
        request("put", &format!("{}, abort", self.key), self.inner.abort()).await
    }
}
