//! How the store answers: measured at the seam, where every request passes. Tries that failed and the pauses between
//! them count as the store's.

use async_trait::async_trait;
use bytes::Bytes;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use walpoint_archive::store::{
    ChecksumCheck, Head, Listed, Metadata, Object, ObjectStore, PutMode, PutOutcome, StoreError, Upload,
};
use walpoint_archive::{ObjectKey, Prefix, StoredHash};

/// So much of the average is the newest request.
const NEWEST: f64 = 0.2;
/// Smaller bodies say more about latency than about the rate.
const RATED_BYTES: usize = 64 << 10;

/// What was measured lately.
#[derive(Clone, Copy, Debug, Default)]
pub struct Speed {
    /// Seconds that a request takes.
    pub latency: Option<f64>,
    /// Bytes a second while one body is sent.
    pub rate: Option<f64>,
}

/// Where it is kept.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<Mutex<Speed>>);

impl Gauge {
    /// As of now.
    pub fn read(&self) -> Speed {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answered(&self, took: Duration) {
        let mut speed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        speed.latency = Some(average(speed.latency, took.as_secs_f64()));
    }

    fn sent(&self, bytes: usize, took: Duration) {
        if bytes < RATED_BYTES || took.is_zero() {
            return;
        }
        let mut speed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = bytes as f64 / took.as_secs_f64();
        speed.rate = Some(average(speed.rate, rate));
    }
}

fn average(before: Option<f64>, newest: f64) -> f64 {
    before.map_or(newest, |before| before + NEWEST * (newest - before))
}

/// A store whose answers are timed.
#[derive(Debug)]
pub struct Measured {
    inner: Arc<dyn ObjectStore>,
    gauge: Gauge,
}

impl Measured {
    /// Times this store.
    pub fn new(inner: Arc<dyn ObjectStore>, gauge: Gauge) -> Self {
        Self { inner, gauge }
    }

    async fn timed<T>(
        &self,
        bytes: usize,
        request: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let started = Instant::now();
        let answer = request.await;
        if answer.is_ok() {
            self.gauge.answered(started.elapsed());
            self.gauge.sent(bytes, started.elapsed());
        }
        answer
    }
}

#[async_trait]
impl ObjectStore for Measured {
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
        self.timed(body.len(), self.inner.put(key, body, metadata, mode)).await
    }

    async fn begin_upload(
        &self,
        key: &ObjectKey,
        metadata: &Metadata,
        mode: PutMode,
    ) -> Result<Box<dyn Upload>, StoreError> {
        self.timed(0, self.inner.begin_upload(key, metadata, mode)).await
    }

    async fn get(&self, key: &ObjectKey, range: Option<Range<u64>>) -> Result<Object, StoreError> {
        self.timed(0, self.inner.get(key, range)).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<Head, StoreError> {
        self.timed(0, self.inner.head(key)).await
    }

    async fn list(
        &self,
        prefix: &Prefix,
        start_after: Option<&ObjectKey>,
        limit: Option<usize>,
    ) -> Result<Vec<Listed>, StoreError> {
        self.timed(0, self.inner.list(prefix, start_after, limit)).await
    }

    async fn list_folders(&self, prefix: &Prefix) -> Result<Vec<String>, StoreError> {
        self.timed(0, self.inner.list_folders(prefix)).await
    }

    async fn settle(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.timed(0, self.inner.settle(key)).await
    }

    async fn age(&self, key: &ObjectKey) -> Result<Option<Duration>, StoreError> {
        self.timed(0, self.inner.age(key)).await
    }

    async fn try_checksum(&self, key: &ObjectKey) -> Result<ChecksumCheck, StoreError> {
        self.timed(0, self.inner.try_checksum(key)).await
    }

    async fn kept_checksum(&self, key: &ObjectKey) -> Result<Option<StoredHash>, StoreError> {
        self.timed(0, self.inner.kept_checksum(key)).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.timed(0, self.inner.delete(key)).await
    }
}
