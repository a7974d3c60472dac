//! An archive in a directory.
//!
//! An object `a/b` is the file `a/b`, and beside it `a/b.meta`, a JSON file
//! with its size and metadata. The `.meta` file is durable before the object
//! appears, so an object without one was never stored by us and does not
//! exist. Temporary files begin with a dot; neither they nor `.meta` files are
//! ever listed.
//!
//! Two processes that write into one folder take turns at placing files, by
//! `flock` on the folder, so that an object and its `.meta` always come from
//! the same put. Where the file system has no `flock` they do without: the
//! keys whose content could differ carry a hash of it.
//!
//! Replacing an object replaces two files, so a crash at the wrong moment can
//! leave new metadata beside an old body. A different size is noticed and
//! reported as damage; putting the object again mends it.
//!
//! Symbolic links below the root are not followed but refused: what lies
//! behind them may be another file system, with other promises. The root
//! itself may be one.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::config::ArchiveUrl;
use crate::content::StoredHash;
use crate::durable;
use crate::object_key::{ObjectKey, Prefix};
use crate::store::{
    ChecksumCheck, Head, Listed, Metadata, Object, ObjectStore, PutMode, PutOutcome, StoreError,
    StoreErrorKind, Upload,
};

mod age;
mod failure;
mod folder;
mod meta;
mod read;
#[cfg(test)]
mod tests;
mod walk;
mod write;

use failure::Attempt;

/// An archive in a directory; see the module's text.
#[derive(Clone, Debug)]
pub struct DirStore {
    root: PathBuf,
}

impl DirStore {
    /// The archive in this directory, which must exist: creating it here could
    /// fill the disk under a mount point.
    pub async fn open(root: &Path) -> Result<Self, StoreError> {
        let store = Self { root: root.to_owned() };
        store
            .blocking(Attempt::at_place("open", root), |root, attempt| {
                folder::open_root(root, attempt).map(drop)
            })
            .await?;
        Ok(store)
    }

    /// Runs file system calls where they may block.
    async fn blocking<T: Send + 'static>(
        &self,
        attempt: Attempt,
        work: impl FnOnce(&Path, &Attempt) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let root = self.root.clone();
        run_blocking(attempt, move |attempt| work(&root, attempt)).await
    }
}

async fn run_blocking<T: Send + 'static>(
    attempt: Attempt,
    work: impl FnOnce(&Attempt) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let stopped = attempt.clone();
    match tokio::task::spawn_blocking(move || work(&attempt)).await {
        Ok(result) => result,
        Err(error) => Err(stopped.error(StoreErrorKind::Other, format!("the work was cut off: {error}"))),
    }
}

/// Makes the directory of a new archive, durable, for its owner only. One that
/// exists is left as it is. Only `init` does this.
pub async fn create_dir_archive(root: &Path) -> Result<(), StoreError> {
    let root = root.to_owned();
    run_blocking(Attempt::at_place("create", &root), move |attempt| {
        durable::create_dirs(&root, durable::DIR_MODE)
            .map_err(|error| attempt.io("create the directory", &error))
    })
    .await
}

#[async_trait]
impl ObjectStore for DirStore {
    fn describe(&self) -> String {
        ArchiveUrl::Dir(self.root.clone()).to_string()
    }

    async fn put(
        &self,
        key: &ObjectKey,
        body: Bytes,
        metadata: &Metadata,
        mode: PutMode,
    ) -> Result<PutOutcome, StoreError> {
        let (owned_key, metadata) = (key.clone(), metadata.clone());
        self.blocking(Attempt::on("put", key), move |root, attempt| {
            write::put(root, &owned_key, &body, &metadata, mode, attempt)
        })
        .await
    }

    async fn begin_upload(
        &self,
        key: &ObjectKey,
        metadata: &Metadata,
        mode: PutMode,
    ) -> Result<Box<dyn Upload>, StoreError> {
        let (owned_key, metadata) = (key.clone(), metadata.clone());
        let pending = self.blocking(Attempt::on("put", key), move |root, attempt| {
            write::Pending::begin(root, &owned_key, metadata, mode, attempt)
        });
        Ok(Box::new(DirUpload { attempt: Attempt::on("put", key), pending: Some(pending.await?) }))
    }

    async fn get(&self, key: &ObjectKey, range: Option<Range<u64>>) -> Result<Object, StoreError> {
        let attempt = Attempt::on("get", key);
        let (owned_key, for_body) = (key.clone(), attempt.clone());
        let opened =
            self.blocking(attempt, move |root, attempt| read::open(root, &owned_key, attempt)).await?;
        Ok(read::object(opened, range, for_body))
    }

    async fn head(&self, key: &ObjectKey) -> Result<Head, StoreError> {
        let owned_key = key.clone();
        self.blocking(Attempt::on("head", key), move |root, attempt| {
            let opened = read::open(root, &owned_key, attempt)?;
            Ok(Head { metadata: opened.metadata, size: opened.size })
        })
        .await
    }

    async fn list(
        &self,
        prefix: &Prefix,
        start_after: Option<&ObjectKey>,
        limit: Option<usize>,
    ) -> Result<Vec<Listed>, StoreError> {
        let (owned, start_after) = (prefix.clone(), start_after.cloned());
        self.blocking(Attempt::on("list", prefix), move |root, attempt| {
            walk::list(root, &owned, start_after.as_ref(), limit, attempt)
        })
        .await
    }

    async fn list_folders(&self, prefix: &Prefix) -> Result<Vec<String>, StoreError> {
        let owned = prefix.clone();
        self.blocking(Attempt::on("list", prefix), move |root, attempt| {
            walk::list_folders(root, &owned, attempt)
        })
        .await
    }

    async fn settle(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let owned_key = key.clone();
        self.blocking(Attempt::on("settle", key), move |root, attempt| {
            write::settle(root, &owned_key, attempt)
        })
        .await
    }

    async fn age(&self, key: &ObjectKey) -> Result<Option<Duration>, StoreError> {
        let owned_key = key.clone();
        self.blocking(Attempt::on("look at", key), move |root, attempt| age::age(root, &owned_key, attempt))
            .await
    }

    async fn try_checksum(&self, _key: &ObjectKey) -> Result<ChecksumCheck, StoreError> {
        Ok(ChecksumCheck::NotSent)
    }

    async fn kept_checksum(&self, _key: &ObjectKey) -> Result<Option<StoredHash>, StoreError> {
        Ok(None)
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let owned_key = key.clone();
        self.blocking(Attempt::on("delete", key), move |root, attempt| {
            write::delete(root, &owned_key, attempt)
        })
        .await
    }
}

/// Parts go straight into the temporary file.
#[derive(Debug)]
struct DirUpload {
    attempt: Attempt,
    /// None once aborted, or while a part is written.
    pending: Option<write::Pending>,
}

impl DirUpload {
    /// Takes the file for a blocking step that gives it back, failed or not.
    async fn step<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut write::Pending, &Attempt) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let Some(mut pending) = self.pending.take() else {
            return Err(self.attempt.error(StoreErrorKind::Other, "the upload has ended before"));
        };
        let (pending, result) = run_blocking(self.attempt.clone(), move |attempt| {
            let result = work(&mut pending, attempt);
            Ok((pending, result))
        })
        .await?;
        self.pending = Some(pending);
        result
    }
}

#[async_trait]
impl Upload for DirUpload {
    async fn part(&mut self, body: Bytes) -> Result<(), StoreError> {
        self.step(move |pending, attempt| pending.write(&body, attempt)).await
    }

    async fn finish(&mut self) -> Result<PutOutcome, StoreError> {
        self.step(|pending, attempt| pending.commit(attempt)).await
    }

    async fn abort(&mut self) -> Result<(), StoreError> {
        let Some(pending) = self.pending.take() else { return Ok(()) };
        run_blocking(self.attempt.clone(), move |_attempt| {
            pending.abandon();
            Ok(())
        })
        .await
    }
}
