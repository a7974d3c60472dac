//! An archive in a bucket of S3 or of a store that speaks like it.
//!
//! What keeps the promises here:
//!
//! - Every body is sent with its SHA-256 (`x-amz-checksum-sha256`), which the
//!   store verifies before it answers; what it echoes is compared. Every
//!   request is signed over the SHA-256 of its body as well, so a store that
//!   does not know the checksum header verifies it all the same.
//! - An answer counts only when it is S3's: a proxy's or a captive portal's
//!   page is an outage, whatever its status. Absence is believed from
//!   `NoSuchKey` or from a listing, never from a bare 404.
//! - The SDK itself does not retry; [`crate::store::retry`] does.
//! - A request may take `request_timeout`, with a body that much and its size
//!   at [`SLOWEST_BYTES_PER_SECOND`]. A body being read must bring
//!   [`LEAST_BYTES_PER_WINDOW`] in any `request_timeout` spent waiting for it.
//!
//! Create-only is best effort: `If-None-Match: *` is sent, and some stores
//! ignore it. A store that refuses the header is asked without it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use bytes::Bytes;

use crate::config::ArchiveConfig;
use crate::content::StoredHash;
use crate::object_key::{ObjectKey, Prefix};
use crate::store::{
    ChecksumCheck, Head, Listed, Metadata, Object, ObjectStore, PutMode, PutOutcome, StoreError, Upload,
};

mod answer_date;
mod body;
mod client;
mod failure;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod guard;
mod listing;
mod put;
mod read;
mod signature;
#[cfg(test)]
mod tests;
mod trust;
mod upload;

use failure::Attempt;

/// A line slower than this is an outage, for bodies that are sent.
pub const SLOWEST_BYTES_PER_SECOND: u64 = 64 * 1024;

/// What a body that is read must bring in any `request_timeout` of waiting.
pub const LEAST_BYTES_PER_WINDOW: u64 = 64 * 1024;

/// An archive in a bucket; see the module's text.
#[derive(Clone, Debug)]
pub struct S3Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: Client,
    bucket: String,
    /// What precedes every key: empty, or ending with `/`.
    prefix: String,
    url: String,
    placing: put::Placing,
    request_timeout: Duration,
    /// False once the store has refused `If-None-Match`.
    knows_conditions: AtomicBool,
}

impl S3Store {
    /// The archive in a bucket. Sends no request yet.
    pub async fn open(config: &ArchiveConfig, bucket: &str, prefix: &str) -> Result<Self, StoreError> {
        let environment = client::environment(config).await;
        Self::open_in(&environment, config, bucket, prefix).await
    }

    async fn open_in(
        environment: &SdkConfig,
        config: &ArchiveConfig,
        bucket: &str,
        prefix: &str,
    ) -> Result<Self, StoreError> {
        Ok(Self::of(client::build(config, environment).await?, config, bucket, prefix))
    }

    fn of(client: Client, config: &ArchiveConfig, bucket: &str, prefix: &str) -> Self {
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let inner = Inner {
            client,
            bucket: bucket.to_owned(),
            prefix,
            url: config.url.to_string(),
            placing: put::Placing::new(config),
            request_timeout: config.request_timeout,
            knows_conditions: AtomicBool::new(true),
        };
        Self { inner: Arc::new(inner) }
    }
}

impl Inner {
    fn name_of(&self, key: &ObjectKey) -> String {
        format!("{}{key}", self.prefix)
    }

    fn attempt(&self, verb: &'static str, key: impl ToString) -> Attempt {
        // The prefix of everything is empty, and "" tells nobody what was listed.
        let key = Some(key.to_string()).filter(|key| !key.is_empty()).unwrap_or_else(|| self.url.clone());
        Attempt { verb, key, bucket: self.bucket.clone() }
    }

    /// The limit of a request that sends so many bytes.
    fn time_for(&self, bytes: usize) -> TimeoutConfig {
        let seconds = (bytes as u64).div_ceil(SLOWEST_BYTES_PER_SECOND);
        let limit = self.request_timeout.saturating_add(Duration::from_secs(seconds));
        TimeoutConfig::builder().operation_attempt_timeout(limit).build()
    }

    /// Whether to send `If-None-Match` with this put.
    fn sends_condition(&self, mode: PutMode) -> bool {
        mode == PutMode::CreateOnly && self.knows_conditions.load(Ordering::Relaxed)
    }

    fn forget_conditions(&self) {
        tracing::debug!(store = self.url, "the store does not know If-None-Match");
        self.knows_conditions.store(false, Ordering::Relaxed);
    }
}

#[async_trait]
impl ObjectStore for S3Store {
    fn describe(&self) -> String {
        self.inner.url.clone()
    }

    async fn put(
        &self,
        key: &ObjectKey,
        body: Bytes,
        metadata: &Metadata,
        mode: PutMode,
    ) -> Result<PutOutcome, StoreError> {
        put::put(&self.inner, key, body, metadata, mode).await
    }

    async fn begin_upload(
        &self,
        key: &ObjectKey,
        metadata: &Metadata,
        mode: PutMode,
    ) -> Result<Box<dyn Upload>, StoreError> {
        let begun = upload::begin(Arc::clone(&self.inner), key, metadata, mode).await?;
        Ok(Box::new(begun))
    }

    async fn get(&self, key: &ObjectKey, range: Option<Range<u64>>) -> Result<Object, StoreError> {
        read::get(&self.inner, key, range).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<Head, StoreError> {
        read::head(&self.inner, key, self.inner.attempt("head", key)).await
    }

    async fn list(
        &self,
        prefix: &Prefix,
        start_after: Option<&ObjectKey>,
        limit: Option<usize>,
    ) -> Result<Vec<Listed>, StoreError> {
        listing::list(&self.inner, prefix, start_after, limit).await
    }

    async fn list_folders(&self, prefix: &Prefix) -> Result<Vec<String>, StoreError> {
        listing::list_folders(&self.inner, prefix).await
    }

    async fn settle(&self, _key: &ObjectKey) -> Result<(), StoreError> {
        // S3 shows an object only once it is durable.
        Ok(())
    }

    async fn age(&self, key: &ObjectKey) -> Result<Option<Duration>, StoreError> {
        read::age(&self.inner, key).await
    }

    async fn try_checksum(&self, key: &ObjectKey) -> Result<ChecksumCheck, StoreError> {
        put::try_checksum(&self.inner, key).await
    }

    async fn kept_checksum(&self, key: &ObjectKey) -> Result<Option<StoredHash>, StoreError> {
        read::kept_checksum(&self.inner, key).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        put::delete(&self.inner, key).await
    }
}
