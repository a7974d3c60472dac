//! Storing and reading backups. Packs and manifest come first, the summary
//! last: only then does the backup exist.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};

use bytes::Bytes;
use futures::StreamExt;

use super::{Archive, plain_of, whole_of};
use crate::backup_id::BackupId;
use crate::content::{ContentHash, StoredHash, StoredHasher};
use crate::description::Description;
use crate::envelope::{Expected, Seal, Sealed};
use crate::error::ArchiveError;
use crate::layout::Entry;
use crate::object_key::ObjectKey;
use crate::store::{Metadata, MetadataError, PutOutcome};
use crate::summary::{BackupHead, BackupSummary, ManifestObject, StoredObject};

/// Largest summary that is read: a line for each pack of a backup of some 20 TiB.
pub(super) const MAX_SUMMARY_BYTES: u64 = 256 * 1024 * 1024;
/// So much of summaries is in memory at once; a larger one is there alone. What is made of them takes as much again.
pub(super) const SUMMARIES_KIB: u32 = 32 * 1024;

impl Archive {
    /// Stores a pack.
    pub async fn put_pack(
        &self,
        backup: &BackupId,
        number: u32,
        sealed: &Sealed,
    ) -> Result<StoredObject, ArchiveError> {
        let key = self.layout.pack(backup, number, sealed.content.id(), sealed.encrypted);
        self.put_sealed(key, sealed).await
    }

    /// Seals and stores a manifest.
    pub async fn put_manifest(
        &self,
        backup: &BackupId,
        plain: impl Into<Bytes>,
    ) -> Result<ManifestObject, ArchiveError> {
        let what = format!("the manifest of {backup}");
        let sealed = self.seal(&what, plain.into()).await?;
        let key = self.layout.manifest(backup, sealed.content.id(), sealed.encrypted);
        let StoredObject { key, size, sha256 } = self.put_sealed(key, &sealed).await?;
        Ok(ManifestObject { key, size, sha256, content: sealed.content, plain_size: sealed.plain_size })
    }

    /// Stores a manifest that was sealed before; `stored` gives its bytes. In parts, so that no more than
    /// one of them is in memory.
    pub async fn put_sealed_manifest<R: Read + Send + 'static>(
        &self,
        backup: &BackupId,
        seal: Seal,
        stored: R,
    ) -> Result<ManifestObject, ArchiveError> {
        let Seal { content, plain_size, stored: sha256, stored_size: size, encrypted } = seal;
        let key = self.layout.manifest(backup, content.id(), encrypted);
        let metadata = self
            .object_metadata(content, plain_size)
            .map_err(|error| ArchiveError::from_metadata(&key, error))?;
        let outcome = self.put_read(&key, size, stored, &metadata).await?;
        if outcome == PutOutcome::Exists && self.stored_hash(&key).await? != sha256 {
            return Err(ArchiveError::damaged(&key, "an object with other bytes is there"));
        }
        Ok(ManifestObject { key, size, sha256, content, plain_size })
    }

    /// Those of these packs that are not there, or not with their size: by listing, nothing is read.
    pub async fn missing_packs(&self, packs: &[StoredObject]) -> Result<Vec<ObjectKey>, ArchiveError> {
        let mut missing: BTreeMap<&ObjectKey, u64> =
            packs.iter().map(|pack| (&pack.key, pack.size)).collect();
        let backups: BTreeSet<BackupId> = self.backups_of(packs).collect();
        for backup in backups {
            for listed in self.store.list(&self.layout.backup_dir(&backup), None, None).await? {
                if missing.get(&listed.key) == Some(&listed.size) {
                    missing.remove(&listed.key);
                }
            }
        }
        Ok(missing.into_keys().cloned().collect())
    }

    fn backups_of(&self, packs: &[StoredObject]) -> impl Iterator<Item = BackupId> {
        packs.iter().filter_map(|pack| match self.layout.parse(&pack.key) {
            Some(Entry::Pack { backup, .. }) => Some(backup),
            _ => None,
        })
    }

    /// Stores the summary: with it the backup exists.
    ///
    /// # Errors
    /// [`ArchiveError::Damaged`] when a summary is there that says something else.
    pub async fn put_summary(&self, summary: &BackupSummary) -> Result<(), ArchiveError> {
        let key = self.layout.summary(&summary.id);
        let undescribable = |what: String| ArchiveError::Undescribable { key: key.to_string(), what };
        if let Some(what) = summary.contradiction(&self.layout) {
            return Err(undescribable(what));
        }
        let json = Bytes::from(summary.to_json().map_err(|error| undescribable(error.to_string()))?);
        let metadata = self
            .object_metadata(ContentHash::of(&json), json.len() as u64)
            .map_err(|error| undescribable(error.to_string()))?;
        // Asked first: a store that ignores the condition of a put would replace it.
        let same = match self.stored_hash(&key).await {
            Ok(there) => there == StoredHash::of(&json),
            Err(error) if error.is_not_found() => self.put_new(&key, json, &metadata).await?,
            Err(error) => return Err(error),
        };
        if same { Ok(()) } else { Err(ArchiveError::damaged(&key, "a summary with other content is there")) }
    }

    /// A backup's summary.
    pub async fn summary(&self, backup: &BackupId) -> Result<BackupSummary, ArchiveError> {
        self.with_summary(backup, |summary| summary).await
    }

    /// What a backup's summary says, without what its packs are.
    pub async fn head(&self, backup: &BackupId) -> Result<BackupHead, ArchiveError> {
        self.with_summary(backup, |summary| summary.into_head(&self.layout)).await
    }

    /// What is made of a backup's summary. However many are asked for at once, few large ones are in memory.
    pub async fn with_summary<T>(
        &self,
        backup: &BackupId,
        make: impl FnOnce(BackupSummary) -> T,
    ) -> Result<T, ArchiveError> {
        let key = self.layout.summary(backup);
        // The wait for room is one of a body that was opened: where that breaks off meanwhile, it is gone on with.
        let object = self.store.get(&key, None).await?;
        let wanted = u32::try_from(object.size.div_ceil(1024)).unwrap_or(SUMMARIES_KIB).min(SUMMARIES_KIB);
        // Nobody closes it.
        let _room = self.summaries.acquire_many(wanted).await.ok();
        let json = plain_of(&key, whole_of(&key, object, MAX_SUMMARY_BYTES).await?)?;
        BackupSummary::parse(&self.layout, backup, &json).map(make)
    }

    /// The summary of which this is the head, read again.
    ///
    /// # Errors
    /// [`ArchiveError::Damaged`] when it is not the same any more, and not found when the backup went meanwhile.
    pub async fn whole(&self, head: &BackupHead) -> Result<BackupSummary, ArchiveError> {
        let (again, packs) = self.with_summary(&head.id, |summary| summary.split(&self.layout)).await?;
        if again != *head {
            let what = "it is not what it was a moment ago, and a summary is never changed";
            return Err(ArchiveError::damaged(self.layout.summary(&head.id), what));
        }
        Ok(again.with_packs(packs).0)
    }

    /// Writes a backup's manifest to `out`, in bounded memory and verified; what
    /// was written counts only when this returns `Ok`.
    pub async fn fetch_manifest<P>(
        &self,
        summary: &BackupSummary<P>,
        out: &mut (impl Write + Send),
    ) -> Result<(), ArchiveError> {
        let manifest = &summary.manifest;
        let key = &manifest.key;
        let Some(Entry::Manifest { encrypted, .. }) = self.layout.parse(key) else {
            return Err(ArchiveError::damaged(key, "it is not the key of a manifest"));
        };
        let object = self.store.get(key, None).await?;
        if object.size != manifest.size {
            let what = format!("it has {} bytes, the summary says {}", object.size, manifest.size);
            return Err(ArchiveError::damaged(key, what));
        }
        let expected = Expected::content(manifest.content, manifest.plain_size);
        self.open_body(key, object.body, encrypted, expected, out).await.map(|_| ())
    }

    async fn put_sealed(&self, key: ObjectKey, sealed: &Sealed) -> Result<StoredObject, ArchiveError> {
        let metadata = self
            .object_metadata(sealed.content, sealed.plain_size)
            .map_err(|error| ArchiveError::from_metadata(&key, error))?;
        let there = self.put_new(&key, sealed.bytes.clone(), &metadata).await?;
        if !there {
            return Err(ArchiveError::damaged(&key, "an object with other bytes is there"));
        }
        Ok(StoredObject { key, size: sealed.bytes.len() as u64, sha256: sealed.stored })
    }

    /// Puts an object that only we can be putting. What is there already is an
    /// earlier try of this very put, if its bytes are the same: then `true` too.
    async fn put_new(
        &self,
        key: &ObjectKey,
        bytes: Bytes,
        metadata: &Metadata,
    ) -> Result<bool, ArchiveError> {
        match self.put_bytes(key, bytes.clone(), metadata).await? {
            PutOutcome::Created => Ok(true),
            PutOutcome::Exists => Ok(self.stored_hash(key).await? == StoredHash::of(&bytes)),
        }
    }

    /// SHA-256 of an object's stored bytes, read back.
    pub async fn stored_hash(&self, key: &ObjectKey) -> Result<StoredHash, ArchiveError> {
        let mut object = self.store.get(key, None).await?;
        let mut hasher = StoredHasher::new();
        while let Some(piece) = object.body.next().await {
            hasher.update(&piece?);
        }
        Ok(hasher.finish())
    }

    /// Metadata of a backup's objects; who wrote them stands in the summary.
    fn object_metadata(&self, content: ContentHash, plain_size: u64) -> Result<Metadata, MetadataError> {
        let mut description = Description::of(content, plain_size)?;
        description.put("system", Some(self.system_identifier()))?;
        description.finish()
    }
}
