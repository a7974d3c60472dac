//! A store in memory with a clock of its own, for several at once: before each request a hand lets the others do some
//! of theirs, so that what interleaves is chosen by the test and is the same each time.

use async_trait::async_trait;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use walpoint_archive::store::{
    ChecksumCheck, Head, Listed, Metadata, Object, ObjectStore, PutMode, PutOutcome, StoreError,
    StoreErrorKind, Upload,
};
use walpoint_archive::{ObjectKey, Prefix, StoredHash};
use walpoint_wal::Timestamp;

/// An object.
#[derive(Clone, Debug)]
pub struct Stored {
    body: Bytes,
    metadata: Metadata,
    /// When it was stored, truly and by the store's clock.
    pub at: i64,
    pub shown: i64,
}

/// What lies in the store.
#[derive(Debug, Default)]
pub struct Shelf {
    pub objects: BTreeMap<ObjectKey, Stored>,
    /// What time it is, truly, and how wrong the store's clock is.
    pub now: i64,
    pub off: i64,
    /// What was deleted since somebody last looked.
    pub deleted: Vec<(ObjectKey, Stored)>,
}

/// How somebody's requests go.
#[derive(Clone, Debug, Default)]
pub struct Manner {
    /// How often others get a turn before each request, in turns of their own.
    pub pauses: Vec<u8>,
    /// After so many requests it is killed: none has an effect any more.
    pub dies_after: Option<u32>,
    /// The deletes that the store refuses, by their order.
    pub denied: BTreeSet<u32>,
}

/// Somebody's way to the store.
#[derive(Clone, Debug)]
pub struct Hand {
    shelf: Arc<Mutex<Shelf>>,
    manner: Arc<Manner>,
    /// Requests, and deletes among them.
    done: Arc<Mutex<(u32, u32)>>,
    /// Whether the store tells how old an object is.
    tells_age: bool,
}

impl Hand {
    pub fn new(shelf: &Arc<Mutex<Shelf>>, manner: Manner, tells_age: bool) -> Hand {
        Hand { shelf: Arc::clone(shelf), manner: Arc::new(manner), done: Arc::default(), tells_age }
    }

    /// Whether it was killed.
    pub fn is_dead(&self) -> bool {
        self.manner.dies_after.is_some_and(|last| self.done.lock().unwrap().0 > last)
    }

    async fn turn(&self, verb: &'static str, at: &str) -> Result<MutexGuard<'_, Shelf>, StoreError> {
        let number = {
            let mut done = self.done.lock().unwrap();
            done.0 += 1;
            done.0 - 1
        };
        let pauses = self.manner.pauses.get(number as usize % self.manner.pauses.len().max(1));
        for _ in 0..pauses.copied().unwrap_or(0) {
            tokio::task::yield_now().await;
        }
        if self.is_dead() {
            return Err(StoreError::new(verb, at, StoreErrorKind::Transient, "killed"));
        }
        Ok(self.shelf.lock().unwrap())
    }
}

fn absent(verb: &'static str, key: &ObjectKey) -> StoreError {
    StoreError::new(verb, key, StoreErrorKind::NotFound, "there is no such object")
}

#[async_trait]
impl ObjectStore for Hand {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    async fn put(
        &self,
        key: &ObjectKey,
        body: Bytes,
        metadata: &Metadata,
        mode: PutMode,
    ) -> Result<PutOutcome, StoreError> {
        let mut shelf = self.turn("put", key.as_str()).await?;
        if mode == PutMode::CreateOnly && shelf.objects.contains_key(key) {
            return Ok(PutOutcome::Exists);
        }
        let (at, shown) = (shelf.now, shelf.now + shelf.off);
        shelf.objects.insert(key.clone(), Stored { body, metadata: metadata.clone(), at, shown });
        Ok(PutOutcome::Created)
    }

    async fn begin_upload(
        &self,
        key: &ObjectKey,
        _: &Metadata,
        _: PutMode,
    ) -> Result<Box<dyn Upload>, StoreError> {
        Err(StoreError::new("put", key, StoreErrorKind::Other, "nothing here comes in parts"))
    }

    async fn get(&self, key: &ObjectKey, range: Option<Range<u64>>) -> Result<Object, StoreError> {
        let shelf = self.turn("get", key.as_str()).await?;
        let stored = shelf.objects.get(key).ok_or_else(|| absent("get", key))?;
        let size = stored.body.len();
        let range = range.map_or(0..size, |it| (it.start as usize).min(size)..(it.end as usize).min(size));
        let body = stored.body.slice(range);
        let body: walpoint_archive::store::ByteStream = Box::pin(futures::stream::iter([Ok(body)]));
        Ok(Object { metadata: stored.metadata.clone(), size: size as u64, body })
    }

    async fn head(&self, key: &ObjectKey) -> Result<Head, StoreError> {
        let shelf = self.turn("head", key.as_str()).await?;
        let stored = shelf.objects.get(key).ok_or_else(|| absent("head", key))?;
        Ok(Head { metadata: stored.metadata.clone(), size: stored.body.len() as u64 })
    }

    async fn list(
        &self,
        prefix: &Prefix,
        start_after: Option<&ObjectKey>,
        limit: Option<usize>,
    ) -> Result<Vec<Listed>, StoreError> {
        let shelf = self.turn("list", prefix.as_str()).await?;
        let found = shelf.objects.iter().filter(|(key, _)| key.as_str().starts_with(prefix.as_str()));
        let found = found.filter(|(key, _)| start_after.is_none_or(|after| *key > after));
        let listed = |(key, stored): (&ObjectKey, &Stored)| Listed {
            key: key.clone(),
            size: stored.body.len() as u64,
            modified: Some(Timestamp(stored.shown)),
        };
        Ok(found.map(listed).take(limit.unwrap_or(usize::MAX)).collect())
    }

    async fn list_folders(&self, prefix: &Prefix) -> Result<Vec<String>, StoreError> {
        let shelf = self.turn("list", prefix.as_str()).await?;
        let folder = |key: &ObjectKey| {
            let rest = key.as_str().strip_prefix(prefix.as_str())?;
            Some(format!("{}{}/", prefix.as_str(), rest.split_once('/')?.0))
        };
        let folders: BTreeSet<String> = shelf.objects.keys().filter_map(folder).collect();
        let name = |path: String| path.trim_end_matches('/').rsplit('/').next().map(str::to_owned);
        Ok(folders.into_iter().filter_map(name).collect())
    }

    async fn settle(&self, _: &ObjectKey) -> Result<(), StoreError> {
        Ok(())
    }

    async fn age(&self, key: &ObjectKey) -> Result<Option<std::time::Duration>, StoreError> {
        let shelf = self.turn("head", key.as_str()).await?;
        let stored = shelf.objects.get(key).ok_or_else(|| absent("head", key))?;
        let age = u64::try_from(shelf.now + shelf.off - stored.shown).ok();
        Ok(age.filter(|_| self.tells_age).map(std::time::Duration::from_micros))
    }

    async fn try_checksum(&self, _: &ObjectKey) -> Result<ChecksumCheck, StoreError> {
        Ok(ChecksumCheck::NotSent)
    }

    async fn kept_checksum(&self, _: &ObjectKey) -> Result<Option<StoredHash>, StoreError> {
        Ok(None)
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let mut shelf = self.turn("delete", key.as_str()).await?;
        let number = {
            let mut done = self.done.lock().unwrap();
            done.1 += 1;
            done.1 - 1
        };
        if self.manner.denied.contains(&number) {
            return Err(StoreError::new("delete", key, StoreErrorKind::Denied, "locked"));
        }
        if let Some(stored) = shelf.objects.remove(key) {
            shelf.deleted.push((key.clone(), stored));
        }
        Ok(())
    }
}
