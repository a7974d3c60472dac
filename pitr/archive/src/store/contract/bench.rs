//! What the checks have in common: keys of their own, bodies, reading back.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use super::{Broken, ensure, ensure_eq};
use crate::object_key::{ObjectKey, ObjectKeyError, Prefix};
use crate::store::{Metadata, MetadataError, ObjectStore, PutMode, PutOutcome, StoreError};

/// Requests under way at once, where there are many.
const AT_ONCE: usize = 16;

#[derive(Debug)]
pub(super) struct Bench {
    pub(super) store: Arc<dyn ObjectStore>,
    folder: String,
}

impl Bench {
    pub(super) fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, folder: format!("contract-{:016x}", rand::random::<u64>()) }
    }

    /// A key below the folder of this run.
    pub(super) fn key(&self, name: &str) -> Result<ObjectKey, ObjectKeyError> {
        ObjectKey::new(&format!("{}/{name}", self.folder))
    }

    pub(super) fn prefix(&self, start: &str) -> Result<Prefix, ObjectKeyError> {
        Prefix::new(&format!("{}/{start}", self.folder))
    }

    /// Puts one object, creating or replacing it.
    pub(super) async fn put(&self, name: &str, body: &Bytes, metadata: &Metadata) -> Result<(), Broken> {
        let outcome = self.store.put(&self.key(name)?, body.clone(), metadata, PutMode::Overwrite).await?;
        ensure_eq(&outcome, &PutOutcome::Created, "the outcome of overwriting")
    }

    pub(super) async fn put_small(&self, names: &[&str]) -> Result<(), Broken> {
        for name in names {
            self.put(name, &Bytes::copy_from_slice(name.as_bytes()), &Metadata::new()).await?;
        }
        Ok(())
    }

    /// Reads the bytes that were asked for, and how large the object is.
    pub(super) async fn read(&self, name: &str, range: Option<Range<u64>>) -> Result<(Vec<u8>, u64), Broken> {
        let object = self.store.get(&self.key(name)?, range).await?;
        let size = object.size;
        let bytes: Vec<Bytes> = object.body.try_collect().await?;
        Ok((bytes.concat(), size))
    }

    /// Reads an object by every way and compares.
    pub(super) async fn expect(&self, name: &str, body: &[u8], metadata: &Metadata) -> Result<(), Broken> {
        let key = self.key(name)?;
        let object = self.store.get(&key, None).await?;
        ensure_eq(&object.size, &(body.len() as u64), "the size with get")?;
        ensure_eq(&object.metadata, metadata, "the metadata with get")?;
        let bytes: Vec<Bytes> = object.body.try_collect().await?;
        let bytes = bytes.concat();
        ensure(bytes == body, || format!("{name} reads back as {} other bytes", bytes.len()))?;
        let head = self.store.head(&key).await?;
        ensure_eq(&head.size, &(body.len() as u64), "the size with head")?;
        ensure_eq(&head.metadata, metadata, "the metadata with head")
    }

    /// The names listed below a prefix, without the folder of this run.
    pub(super) async fn names(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        limit: Option<usize>,
    ) -> Result<Vec<String>, Broken> {
        let start_after = start_after.map(|name| self.key(name)).transpose()?;
        let listed = self.store.list(&self.prefix(prefix)?, start_after.as_ref(), limit).await?;
        let own = format!("{}/", self.folder);
        let names =
            listed.iter().map(|line| line.key.as_str().strip_prefix(&own).unwrap_or(line.key.as_str()));
        Ok(names.map(str::to_owned).collect())
    }

    /// Does the same to many objects, several at once.
    pub(super) async fn for_each<T, F>(
        &self,
        items: impl IntoIterator<Item = T>,
        work: impl Fn(Arc<dyn ObjectStore>, T) -> F,
    ) -> Result<(), Broken>
    where
        F: Future<Output = Result<(), StoreError>>,
    {
        let work = futures::stream::iter(items).map(|item| work(Arc::clone(&self.store), item));
        let results: Vec<Result<(), StoreError>> = work.buffer_unordered(AT_ONCE).collect().await;
        results.into_iter().try_for_each(|result| result.map_err(Broken::from))
    }
}

/// Bytes of which no two stretches are alike.
pub(super) fn bytes(length: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}

pub(super) fn metadata(values: &[(&str, &str)]) -> Result<Metadata, MetadataError> {
    let mut metadata = Metadata::new();
    values.iter().try_for_each(|(name, value)| metadata.insert(name, value))?;
    Ok(metadata)
}
