//! A store in memory whose requests wait for their turn.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use tokio::time::Instant;

use crate::archive::push::{MARKING, SETTLED};
use crate::content::StoredHash;
use crate::object_key::{ObjectKey, Prefix};
use crate::store::{
    ChecksumCheck, Head, Listed, Metadata, Object, ObjectStore, PutMode, PutOutcome, StoreError,
    StoreErrorKind, Upload,
};

#[derive(Debug, Default)]
pub(super) struct Model {
    pub objects: BTreeMap<ObjectKey, (Bytes, Metadata)>,
    /// Says "created" to everybody.
    pub overwrites: bool,
    pub late: Vec<LateMark>,
}

/// A mark whose pusher has given up, and until when it may arrive.
#[derive(Debug)]
pub(super) struct LateMark {
    pub key: ObjectKey,
    pub until: Instant,
    body: Bytes,
    metadata: Metadata,
}

impl Model {
    pub fn land(&mut self, number: usize) {
        let LateMark { key, body, metadata, .. } = self.late.remove(number);
        self.objects.insert(key, (body, metadata));
    }
}

/// One pusher's request.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// What it asks for.
    pub asked: Option<String>,
    pub is_served: bool,
    /// What it has been served, and what the latest listing and put said.
    pub served: Vec<String>,
    pub seen: String,
}

impl Turn {
    /// Differs when another request, or a wait, has begun.
    pub fn asking(&self) -> (usize, bool) {
        (self.served.len(), self.asked.is_some())
    }
}

/// One pusher's view of the model. What others cannot notice (objects that stay, and the
/// bytes kept aside) is served at once.
#[derive(Clone, Debug)]
pub(super) struct ModelStore {
    pub model: Arc<Mutex<Model>>,
    pub turn: Arc<Mutex<Turn>>,
}

/// A request on its way. Dropped before it was served, a mark may still arrive.
struct Asked<'a> {
    store: &'a ModelStore,
    mark: Option<(ObjectKey, Bytes, Metadata)>,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.store.turn.lock().unwrap().asked = None;
        if let Some((key, body, metadata)) = self.mark.take() {
            let until = Instant::now() + (SETTLED - MARKING);
            self.store.model.lock().unwrap().late.push(LateMark { key, until, body, metadata });
        }
    }
}

impl ModelStore {
    async fn turn(&self, what: &str, mark: Option<(ObjectKey, Bytes, Metadata)>) {
        self.turn.lock().unwrap().asked = Some(what.to_owned());
        let mut asked = Asked { store: self, mark };
        futures::future::poll_fn(|_| {
            let mut turn = self.turn.lock().unwrap();
            if !std::mem::take(&mut turn.is_served) {
                return Poll::Pending;
            }
            turn.served.push(what.to_owned());
            Poll::Ready(())
        })
        .await;
        asked.mark = None;
    }

    fn absent(verb: &'static str, key: &ObjectKey) -> StoreError {
        StoreError::new(verb, key.as_str(), StoreErrorKind::NotFound, "no such object")
    }

    fn object(&self, verb: &'static str, key: &ObjectKey) -> Result<(Bytes, Metadata), StoreError> {
        let found = self.model.lock().unwrap().objects.get(key).cloned();
        found.ok_or_else(|| Self::absent(verb, key))
    }
}

#[async_trait]
impl ObjectStore for ModelStore {
    fn describe(&self) -> String {
        "a model".to_owned()
    }

    async fn put(
        &self,
        key: &ObjectKey,
        body: Bytes,
        metadata: &Metadata,
        _mode: PutMode,
    ) -> Result<PutOutcome, StoreError> {
        if key.as_str().ends_with(".refused") {
            self.turn("mark", Some((key.clone(), body.clone(), metadata.clone()))).await;
        } else if !key.as_str().contains("/conflict/") {
            self.turn("put", None).await;
        }
        let mut model = self.model.lock().unwrap();
        let is_there = model.objects.contains_key(key);
        if !is_there || model.overwrites {
            model.objects.insert(key.clone(), (body, metadata.clone()));
        }
        let outcome = if is_there && !model.overwrites { PutOutcome::Exists } else { PutOutcome::Created };
        self.turn.lock().unwrap().served.push(format!("{outcome:?}"));
        Ok(outcome)
    }

    async fn begin_upload(
        &self,
        _key: &ObjectKey,
        _metadata: &Metadata,
        _mode: PutMode,
    ) -> Result<Box<dyn Upload>, StoreError> {
        unreachable!("what is put here is small")
    }

    async fn get(&self, key: &ObjectKey, _range: Option<Range<u64>>) -> Result<Object, StoreError> {
        let (body, metadata) = self.object("get", key)?;
        let size = body.len() as u64;
        Ok(Object { metadata, size, body: futures::stream::iter([Ok(body)]).boxed() })
    }

    async fn head(&self, key: &ObjectKey) -> Result<Head, StoreError> {
        let (body, metadata) = self.object("head", key)?;
        Ok(Head { metadata, size: body.len() as u64 })
    }

    async fn list(
        &self,
        prefix: &Prefix,
        _start_after: Option<&ObjectKey>,
        _limit: Option<usize>,
    ) -> Result<Vec<Listed>, StoreError> {
        let is_aside = prefix.as_str().contains("/conflict/");
        if !is_aside {
            self.turn("list", None).await;
        }
        let model = self.model.lock().unwrap();
        let found = model.objects.iter().filter(|(key, _)| key.as_str().starts_with(prefix.as_str()));
        let listed: Vec<Listed> = found
            .map(|(key, (body, _))| Listed { key: key.clone(), size: body.len() as u64, modified: None })
            .collect();
        if !is_aside {
            let keys: Vec<&str> = listed.iter().map(|object| object.key.as_str()).collect();
            self.turn.lock().unwrap().seen = keys.join(" ");
        }
        Ok(listed)
    }

    async fn list_folders(&self, _prefix: &Prefix) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    async fn settle(&self, _key: &ObjectKey) -> Result<(), StoreError> {
        Ok(())
    }

    async fn age(&self, _key: &ObjectKey) -> Result<Option<Duration>, StoreError> {
        Ok(None)
    }

    async fn try_checksum(&self, _key: &ObjectKey) -> Result<ChecksumCheck, StoreError> {
        Ok(ChecksumCheck::NotSent)
    }

    async fn kept_checksum(&self, _key: &ObjectKey) -> Result<Option<StoredHash>, StoreError> {
        Ok(None)
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.model.lock().unwrap().objects.remove(key);
        Ok(())
    }
}
