//! The one place where a request to a store is tried again.
//!
//! Transient errors only, with exponential back-off and full jitter, until a
//! deadline. A body that breaks off is opened again at the byte reached.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use crate::content::StoredHash;
use crate::object_key::{ObjectKey, Prefix};
use crate::store::{
    ChecksumCheck, Head, Listed, Metadata, Object, ObjectStore, PutMode, PutOutcome, StoreError,
    StoreErrorKind, Upload,
};

mod body;
#[cfg(test)]
mod tests;

/// Trying again for longer than this is said aloud, once a request: whoever waits
/// should know for what.
const SILENCE: Duration = Duration::from_secs(5);

/// How long and how often to try again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RetryPolicy {
    /// After this time a request is given up, also while a try is under way.
    /// Counted per request, and for a body from its last byte. Zero: one try,
    /// as long as the store itself lets it take.
    pub give_up_after: Duration,
    /// A request that failed this long after its beginning is not tried again, though a
    /// try that is under way may go on. At most `give_up_after`, which is what it is for
    /// one who has nothing else to do.
    pub try_again_for: Duration,
    /// Upper limit of the pause after the first failure; it doubles each time.
    pub first_pause: Duration,
    /// The pauses' limit grows no further than this.
    pub longest_pause: Duration,
}

impl RetryPolicy {
    /// Tries for this long, with pauses up to 100 ms, 200 ms, … 5 s.
    pub fn for_at_most(give_up_after: Duration) -> Self {
        Self {
            give_up_after,
            try_again_for: give_up_after,
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(5),
        }
    }

    /// One try.
    pub fn once() -> Self {
        Self::for_at_most(Duration::ZERO)
    }

    /// Upper limit of the pause after so many failures.
    fn pause_limit(&self, failures: u32) -> Duration {
        let doubled = 2u32.saturating_pow(failures.saturating_sub(1));
        self.first_pause.saturating_mul(doubled).min(self.longest_pause)
    }
}

/// A store whose transient failures are tried again.
#[derive(Clone, Debug)]
pub struct Retry {
    inner: Arc<dyn ObjectStore>,
    policy: RetryPolicy,
}

impl Retry {
    /// Wraps a store.
    pub fn new(inner: Arc<dyn ObjectStore>, policy: RetryPolicy) -> Self {
        Self { inner, policy }
    }
}

/// The tries of one request.
#[derive(Debug)]
struct Tries {
    policy: RetryPolicy,
    verb: &'static str,
    key: String,
    since: Instant,
    failures: u32,
    is_said: bool,
}

impl Tries {
    fn new(policy: RetryPolicy, verb: &'static str, key: impl ToString) -> Self {
        Self { policy, verb, key: key.to_string(), since: Instant::now(), failures: 0, is_said: false }
    }

    fn deadline(&self) -> Option<Instant> {
        self.since.checked_add(self.policy.give_up_after)
    }

    /// One try, cut off at the deadline. An error is what to do next about.
    async fn attempt<T>(
        &mut self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let result = match self.deadline() {
            Some(deadline) if !self.policy.give_up_after.is_zero() => {
                tokio::time::timeout_at(deadline, work).await
            }
            _ => Ok(work.await),
        };
        result.unwrap_or_else(|_| {
            Err(StoreError::new(
                self.verb,
                &self.key,
                StoreErrorKind::Transient,
                "no answer in the time left",
            ))
        })
    }

    /// Waits before the next try, or says why there is none.
    async fn pause_after(&mut self, error: StoreError) -> Result<(), StoreError> {
        self.failures += 1;
        if !error.is_transient() {
            return Err(error);
        }
        let pause = self.policy.pause_limit(self.failures).mul_f64(rand::random::<f64>());
        let next = Instant::now() + pause;
        let last = self.since.checked_add(self.policy.try_again_for.min(self.policy.give_up_after));
        if last.is_some_and(|last| next >= last) {
            return Err(self.given_up(error));
        }
        self.say(&error);
        tokio::time::sleep_until(next).await;
        Ok(())
    }

    fn say(&mut self, error: &StoreError) {
        if self.is_said || self.since.elapsed() < SILENCE {
            tracing::debug!(%error, tries = self.failures, "trying again");
            return;
        }
        self.is_said = true;
        let limit = self.policy.try_again_for.min(self.policy.give_up_after).as_secs();
        tracing::warn!("{error}; trying again for up to {limit} s");
    }

    fn given_up(&self, mut error: StoreError) -> StoreError {
        if self.failures > 1 {
            let seconds = self.since.elapsed().as_secs_f64();
            error.detail = format!("{} tries in {seconds:.1} s: {}", self.failures, error.detail);
        }
        error
    }
}

/// Runs `request` until it succeeds, fails for good, or the time is over.
async fn run<T, F>(mut tries: Tries, mut request: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    loop {
        match tries.attempt(request()).await {
            Ok(done) => return Ok(done),
            Err(error) => tries.pause_after(error).await?,
        }
    }
}

#[async_trait]
impl ObjectStore for Retry {
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
        let tries = Tries::new(self.policy, "put", key);
        run(tries, || self.inner.put(key, body.clone(), metadata, mode)).await
    }

    async fn begin_upload(
        &self,
        key: &ObjectKey,
        metadata: &Metadata,
        mode: PutMode,
    ) -> Result<Box<dyn Upload>, StoreError> {
        let tries = Tries::new(self.policy, "put", key);
        let inner = run(tries, || self.inner.begin_upload(key, metadata, mode)).await?;
        Ok(Box::new(RetriedUpload { inner, policy: self.policy, key: key.to_string() }))
    }

    async fn get(&self, key: &ObjectKey, range: Option<Range<u64>>) -> Result<Object, StoreError> {
        let tries = Tries::new(self.policy, "get", key);
        let object = run(tries, || self.inner.get(key, range.clone())).await?;
        Ok(body::resumed(Arc::clone(&self.inner), self.policy, key.clone(), range, object))
    }

    async fn head(&self, key: &ObjectKey) -> Result<Head, StoreError> {
        run(Tries::new(self.policy, "head", key), || self.inner.head(key)).await
    }

    async fn list(
        &self,
        prefix: &Prefix,
        start_after: Option<&ObjectKey>,
        limit: Option<usize>,
    ) -> Result<Vec<Listed>, StoreError> {
        let tries = Tries::new(self.policy, "list", prefix);
        run(tries, || self.inner.list(prefix, start_after, limit)).await
    }

    async fn list_folders(&self, prefix: &Prefix) -> Result<Vec<String>, StoreError> {
        run(Tries::new(self.policy, "list", prefix), || self.inner.list_folders(prefix)).await
    }

    async fn settle(&self, key: &ObjectKey) -> Result<(), StoreError> {
        run(Tries::new(self.policy, "settle", key), || self.inner.settle(key)).await
    }

    async fn age(&self, key: &ObjectKey) -> Result<Option<Duration>, StoreError> {
        run(Tries::new(self.policy, "head", key), || self.inner.age(key)).await
    }

    async fn try_checksum(&self, key: &ObjectKey) -> Result<ChecksumCheck, StoreError> {
        run(Tries::new(self.policy, "put", key), || self.inner.try_checksum(key)).await
    }

    async fn kept_checksum(&self, key: &ObjectKey) -> Result<Option<StoredHash>, StoreError> {
        run(Tries::new(self.policy, "head", key), || self.inner.kept_checksum(key)).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        run(Tries::new(self.policy, "delete", key), || self.inner.delete(key)).await
    }
}

#[derive(Debug)]
struct RetriedUpload {
    inner: Box<dyn Upload>,
    policy: RetryPolicy,
    key: String,
}

#[async_trait]
impl Upload for RetriedUpload {
    async fn part(&mut self, body: Bytes) -> Result<(), StoreError> {
        let mut tries = Tries::new(self.policy, "put", &self.key);
        loop {
            match tries.attempt(self.inner.part(body.clone())).await {
                Ok(()) => return Ok(()),
                Err(error) => tries.pause_after(error).await?,
            }
        }
    }

    async fn finish(&mut self) -> Result<PutOutcome, StoreError> {
        let mut tries = Tries::new(self.policy, "put", &self.key);
        loop {
            match tries.attempt(self.inner.finish()).await {
                Ok(outcome) => return Ok(outcome),
                Err(error) => tries.pause_after(error).await?,
            }
        }
    }

    async fn abort(&mut self) -> Result<(), StoreError> {
        let mut tries = Tries::new(self.policy, "put", &self.key);
        loop {
            match tries.attempt(self.inner.abort()).await {
                Ok(()) => return Ok(()),
                Err(error) => tries.pause_after(error).await?,
            }
        }
    }
}
