//! A store with scripted faults, for tests of what stands on a store.
//!
//! A fault is named by verb and by the number of the call with that verb,
//! counted from 0, so that a test can fail the n-th request for every n.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use walpoint_wal::Timestamp;

use crate::content::StoredHash;
use crate::object_key::{ObjectKey, Prefix};
use crate::store::{
    ByteStream, ChecksumCheck, Head, Listed, Metadata, Object, ObjectStore, PutMode, PutOutcome, StoreError,
    StoreErrorKind, Upload,
};

/// A kind of call.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Verb {
    /// [`ObjectStore::put`]
    Put,
    /// [`ObjectStore::begin_upload`]
    BeginUpload,
    /// [`Upload::part`]
    Part,
    /// [`Upload::finish`]
    Finish,
    /// [`ObjectStore::get`]
    Get,
    /// [`ObjectStore::head`]
    Head,
    /// [`ObjectStore::list`] and [`ObjectStore::list_folders`]
    List,
    /// [`ObjectStore::settle`]
    Settle,
    /// [`ObjectStore::delete`]
    Delete,
}

/// What goes wrong with a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// It fails and nothing was done.
    Before(StoreErrorKind),
    /// It is done and reported as failed: a lost reply.
    After(StoreErrorKind),
    /// It is done after a while.
    Delay(Duration),
    /// A get whose body breaks off after so many bytes with a transient error.
    CutBody(u64),
    /// A listing that leaves out every key, or folder, with this in it.
    LeaveOut(String),
}

#[derive(Debug, Default)]
struct Script {
    faults: BTreeMap<(Verb, u32), Fault>,
    every: BTreeMap<Verb, Fault>,
    calls: BTreeMap<Verb, u32>,
    clock_behind: Duration,
    kept: BTreeMap<ObjectKey, StoredHash>,
}

/// A store that does what the script says, and otherwise what the inner one does.
#[derive(Clone, Debug)]
pub struct Faulty {
    inner: Arc<dyn ObjectStore>,
    script: Arc<Mutex<Script>>,
}

impl Faulty {
    /// Wraps a store; no fault yet.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, script: Arc::default() }
    }

    /// Scripts a fault for the `index`-th call of that verb, counted from 0
    /// since the store was wrapped.
    pub fn fail(&self, verb: Verb, index: u32, fault: Fault) {
        self.script().faults.insert((verb, index), fault);
    }

    /// Scripts a fault for every call of that verb, or for none any more.
    pub fn fail_every(&self, verb: Verb, fault: Option<Fault>) {
        let mut script = self.script();
        match fault {
            Some(fault) => script.every.insert(verb, fault),
            None => script.every.remove(&verb),
        };
    }

    /// Has the store's clock be so much behind ours, as listings show it.
    pub fn set_clock_behind(&self, by: Duration) {
        self.script().clock_behind = by;
    }

    /// Has the store keep this checksum of an object.
    pub fn keep_checksum(&self, key: &ObjectKey, checksum: StoredHash) {
        self.script().kept.insert(key.clone(), checksum);
    }

    /// How many calls of that verb there were.
    pub fn calls(&self, verb: Verb) -> u32 {
        self.script().calls.get(&verb).copied().unwrap_or(0)
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_fault(&self, verb: Verb) -> Option<Fault> {
        let mut script = self.script();
        let calls = script.calls.entry(verb).or_default();
        let index = *calls;
        *calls += 1;
        script.faults.get(&(verb, index)).or_else(|| script.every.get(&verb)).cloned()
    }

    /// Makes one call with the fault that is its turn.
    async fn call<T>(
        &self,
        verb: Verb,
        at: &str,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        suffer(self.next_fault(verb), verb, at, work).await
    }
}

async fn suffer<T>(
    fault: Option<Fault>,
    verb: Verb,
    at: &str,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match fault {
        Some(Fault::Before(kind)) => Err(scripted(verb, at, kind, "scripted fault before")),
        Some(Fault::After(kind)) => {
            let _ = work.await?;
            Err(scripted(verb, at, kind, "scripted fault after"))
        }
        Some(Fault::Delay(delay)) => {
            tokio::time::sleep(delay).await;
            work.await
        }
        Some(Fault::CutBody(_) | Fault::LeaveOut(_)) | None => work.await,
    }
}

fn scripted(verb: Verb, at: &str, kind: StoreErrorKind, detail: &str) -> StoreError {
    let verb = match verb {
        Verb::Put | Verb::BeginUpload | Verb::Part | Verb::Finish => "put",
        Verb::Get => "get",
        Verb::Head => "head",
        Verb::List => "list",
        Verb::Settle => "settle",
        Verb::Delete => "delete",
    };
    StoreError::new(verb, at, kind, detail)
}

fn cut(body: ByteStream, after: u64, key: String) -> ByteStream {
    futures::stream::unfold(Some((body, after)), move |state| {
        let key = key.clone();
        async move {
            let (mut body, left) = state?;
            if left == 0 {
                let error =
                    scripted(Verb::Get, &key, StoreErrorKind::Transient, "scripted break of the body");
                return Some((Err(error), None));
            }
            match body.next().await? {
                Ok(bytes) => {
                    let length = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    Some((Ok(bytes.slice(..length)), Some((body, left - length as u64))))
                }
                Err(error) => Some((Err(error), None)),
            }
        }
    })
    .boxed()
}

#[async_trait]
impl ObjectStore for Faulty {
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
        self.call(Verb::Put, key.as_str(), self.inner.put(key, body, metadata, mode)).await
    }

    async fn begin_upload(
        &self,
        key: &ObjectKey,
        metadata: &Metadata,
        mode: PutMode,
    ) -> Result<Box<dyn Upload>, StoreError> {
        let begun =
            self.call(Verb::BeginUpload, key.as_str(), self.inner.begin_upload(key, metadata, mode)).await?;
        Ok(Box::new(FaultyUpload { inner: begun, store: self.clone(), key: key.to_string() }))
    }

    async fn get(&self, key: &ObjectKey, range: Option<Range<u64>>) -> Result<Object, StoreError> {
        let fault = self.next_fault(Verb::Get);
        let cut_after = match &fault {
            Some(Fault::CutBody(after)) => Some(*after),
            _ => None,
        };
        let mut object = suffer(fault, Verb::Get, key.as_str(), self.inner.get(key, range)).await?;
        if let Some(after) = cut_after {
            object.body = cut(object.body, after, key.to_string());
        }
        Ok(object)
    }

    async fn head(&self, key: &ObjectKey) -> Result<Head, StoreError> {
        self.call(Verb::Head, key.as_str(), self.inner.head(key)).await
    }

    async fn list(
        &self,
        prefix: &Prefix,
        start_after: Option<&ObjectKey>,
        limit: Option<usize>,
    ) -> Result<Vec<Listed>, StoreError> {
        let fault = self.next_fault(Verb::List);
        let listed = self.inner.list(prefix, start_after, limit);
        let mut listed = suffer(fault.clone(), Verb::List, prefix.as_str(), listed).await?;
        if let Some(Fault::LeaveOut(part)) = fault {
            listed.retain(|object| !object.key.as_str().contains(&part));
        }
        let behind = i64::try_from(self.script().clock_behind.as_micros()).unwrap_or(i64::MAX);
        for stored_at in listed.iter_mut().filter_map(|object| object.modified.as_mut()) {
            *stored_at = Timestamp(stored_at.0.saturating_sub(behind));
        }
        Ok(listed)
    }

    async fn list_folders(&self, prefix: &Prefix) -> Result<Vec<String>, StoreError> {
        let fault = self.next_fault(Verb::List);
        let listed = self.inner.list_folders(prefix);
        let mut listed = suffer(fault.clone(), Verb::List, prefix.as_str(), listed).await?;
        if let Some(Fault::LeaveOut(part)) = fault {
            listed.retain(|folder| !folder.contains(&part));
        }
        Ok(listed)
    }

    async fn settle(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.call(Verb::Settle, key.as_str(), self.inner.settle(key)).await
    }

    async fn age(&self, key: &ObjectKey) -> Result<Option<Duration>, StoreError> {
        self.call(Verb::Head, key.as_str(), self.inner.age(key)).await
    }

    async fn try_checksum(&self, key: &ObjectKey) -> Result<ChecksumCheck, StoreError> {
        self.call(Verb::Put, key.as_str(), self.inner.try_checksum(key)).await
    }

    async fn kept_checksum(&self, key: &ObjectKey) -> Result<Option<StoredHash>, StoreError> {
        let kept = self.script().kept.get(key).copied();
        let inner = self.call(Verb::Head, key.as_str(), self.inner.kept_checksum(key)).await?;
        Ok(kept.or(inner))
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.call(Verb::Delete, key.as_str(), self.inner.delete(key)).await
    }
}

#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn Upload>,
    store: Faulty,
    key: String,
}

#[async_trait]
impl Upload for FaultyUpload {
    async fn part(&mut self, body: Bytes) -> Result<(), StoreError> {
        self.store.call(Verb::Part, &self.key, self.inner.part(body)).await
    }

    async fn finish(&mut self) -> Result<PutOutcome, StoreError> {
        self.store.call(Verb::Finish, &self.key, self.inner.finish()).await
    }

    async fn abort(&mut self) -> Result<(), StoreError> {
        self.inner.abort().await
    }
}
