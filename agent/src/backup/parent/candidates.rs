//! The backups that may be the parent, looked at one after the other, the newest first: whether what an incremental
//! one would name is there, and whether its manifest can be read here.

use std::path::Path;

use walpoint_archive::{Archive, ArchiveError, BackupHead, BackupId, BackupSummary, DamagedObject};
use walpoint_wal::Lsn;

use super::NoParent;
use super::choice::{Now, fit, newest_on_the_way};
use super::manifest::{LastCopy, LocalManifest};
use crate::exit::Failure;

/// A backup that serves as far as can be said of it alone.
#[derive(Debug)]
pub struct Candidate {
    pub summary: BackupSummary,
    pub manifest: LocalManifest,
}

/// Those that were not looked at yet.
#[derive(Debug)]
pub struct Candidates {
    /// The newest last.
    left: Vec<BackupHead>,
    /// Why the newest of all does not serve.
    why: Option<NoParent>,
    /// The newest of what led here, whether it serves or not.
    newest: Option<BackupHead>,
    copy: LastCopy,
}

impl Candidates {
    /// Of all backups those that may serve.
    pub fn of(backups: Vec<BackupHead>, now: &Now<'_>) -> Candidates {
        let newest = newest_on_the_way(&backups, now.path).cloned();
        let (mut left, why) = fit(backups, now);
        left.reverse();
        Candidates { left, why, newest, copy: LastCopy::default() }
    }

    /// The newest backup of what led here: so far the server was at least.
    pub fn newest(&self) -> Option<&BackupHead> {
        self.newest.as_ref()
    }

    /// The newest that serves. The next time it is an older one.
    ///
    /// # Errors
    /// When the archive does not answer, or the disk does not.
    pub async fn next(
        &mut self,
        archive: &Archive,
        data_directory: &Path,
    ) -> Result<Option<Candidate>, Failure> {
        while let Some(head) = self.left.pop() {
            match self.look_at(archive, &head, data_directory).await? {
                Ok(found) => return Ok(Some(found)),
                Err(reason) => self.pass(&head.id, reason),
            }
        }
        Ok(None)
    }

    /// Goes on without this one.
    pub fn pass(&mut self, id: &BackupId, reason: NoParent) {
        if !self.left.is_empty() {
            tracing::info!("{id} cannot be the parent, older backups are looked at: {}", reason.0);
        }
        self.why.get_or_insert(reason);
    }

    /// Leaves out what ended behind this place.
    pub fn end_before(&mut self, start: Lsn) {
        self.left.retain(|backup| backup.stop.lsn <= start);
    }

    /// Why none serves: what is wrong with the newest.
    pub fn none(self) -> NoParent {
        self.why.unwrap_or_else(|| NoParent::new("no backup in the archive serves"))
    }

    /// The same, when this is wrong with the one that was found last, and would be with any older one.
    pub fn none_after(self, reason: NoParent) -> NoParent {
        match self.why {
            None => reason,
            Some(why) => {
                tracing::info!("an older backup cannot be the parent either: {}", reason.0);
                why
            }
        }
    }

    async fn look_at(
        &mut self,
        archive: &Archive,
        head: &BackupHead,
        data_directory: &Path,
    ) -> Result<Result<Candidate, NoParent>, Failure> {
        let summary = match archive.whole(head).await {
            Ok(summary) => summary,
            Err(error) => return no_summary(archive, head, error).map(Err),
        };
        // Before the manifest: a pack that is missing is missing to the whole chain, and each manifest is large.
        if let Some(reason) = packs_missing(archive, &summary).await? {
            return Ok(Err(reason));
        }
        let manifest = LocalManifest::of(archive, head, &mut self.copy, data_directory).await?;
        Ok(manifest.map(|manifest| Candidate { summary, manifest }))
    }
}

/// Why a summary that was there a moment ago cannot be gone by.
fn no_summary(archive: &Archive, head: &BackupHead, error: ArchiveError) -> Result<NoParent, Failure> {
    if error.is_not_found() {
        return Ok(NoParent(format!("{} went while a parent was looked for", head.id)));
    }
    let DamagedObject { key, reason } = DamagedObject::by(archive.layout().summary(&head.id), error)?;
    Ok(NoParent(format!("\"{key}\" is damaged: {reason}")))
}

async fn packs_missing(archive: &Archive, summary: &BackupSummary) -> Result<Option<NoParent>, Failure> {
    let missing = archive.missing_packs(&summary.packs).await?;
    Ok(missing.first().map(|first| {
        NoParent(format!(
            "{} of the {} packs of {} are not in the archive as they were stored, the first is \"{first}\"",
            missing.len(),
            summary.packs.len(),
            summary.id
        ))
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;
    use std::sync::Arc;

    use bytes::Bytes;
    use walpoint_archive::compress::CompressionLevel;
    use walpoint_archive::config::EncryptionConfig;
    use walpoint_archive::store::dir::DirStore;
    use walpoint_archive::store::faulty::{Fault, Faulty, Verb};
    use walpoint_archive::store::{Metadata, PutMode, StoreErrorKind};
    use walpoint_archive::summary::StoredObject;
    use walpoint_archive::{ContentHash, KeyRing, ObjectKey, Sealer, StoredHash, Verification};
    use walpoint_wal::{SystemIdentifier, TimelineHistory};

    use super::super::manifest::NewCopy;
    use super::*;
    use crate::backup::marked::Marked;
    use crate::backup::parent::choice::tests::backup;

    struct Stage {
        root: tempfile::TempDir,
        store: Faulty,
        archive: Archive,
        backups: Vec<BackupSummary>,
    }

    impl Stage {
        /// So many backups, each with a pack and a manifest, the `n`th from `n` hundred on.
        async fn with_backups(count: u32, keys: KeyRing) -> Stage {
            let root = tempfile::tempdir().unwrap();
            let store = Faulty::new(Arc::new(DirStore::open(root.path()).await.unwrap()));
            let sealer = Sealer::new(CompressionLevel::default(), Arc::new(keys));
            let archive = Archive::new(Arc::new(store.clone()), SystemIdentifier(7), sealer);
            let mut stage = Stage { root, store, archive, backups: Vec::new() };
            for number in 1..=count {
                let start = u64::from(number) * 100;
                let summary = backup(number, 1, start, start + 50);
                stage.put(summary).await;
            }
            stage
        }

        async fn put(&mut self, mut summary: BackupSummary) {
            let archive = &self.archive;
            let key = archive.layout().pack(&summary.id, 0, ContentHash::of(b"").id(), false);
            let (nothing, metadata) = (Bytes::new(), Metadata::new());
            let _ = archive.store().put(&key, nothing, &metadata, PutMode::CreateOnly).await.unwrap();
            summary.packs = vec![StoredObject { key, size: 0, sha256: StoredHash::of(b"") }];
            summary.manifest = archive.put_manifest(&summary.id, plain(&summary)).await.unwrap();
            archive.put_summary(&summary).await.unwrap();
            self.backups.push(summary);
        }

        async fn delete(&self, key: &ObjectKey) {
            self.archive.store().delete(key).await.unwrap();
        }

        fn candidates(&self) -> Candidates {
            let (marked, verification) = (Marked::default(), Verification::new());
            let history = TimelineHistory::first();
            let path =
                walpoint_pitr::path::TimelinePath { timeline: history.timeline, steps: history.path() };
            let now = Now {
                path: &path,
                block_size: 8192,
                data_checksums: true,
                marked: &marked,
                verification: &verification,
                layout: self.archive.layout(),
            };
            let heads = self.backups.iter().map(|it| it.clone().into_head(self.archive.layout()));
            Candidates::of(heads.collect(), &now)
        }

        /// The place among the backups of the one that is next.
        async fn next(&self, candidates: &mut Candidates) -> Option<usize> {
            let found = candidates.next(&self.archive, self.root.path()).await.unwrap()?;
            let place = self.backups.iter().position(|it| *it == found.summary);
            Some(place.unwrap())
        }
    }

    fn plain(summary: &BackupSummary) -> Vec<u8> {
        format!("what {} holds", summary.id).into_bytes()
    }

    #[tokio::test]
    async fn where_something_of_the_newest_is_missing_an_older_one_is_the_parent() {
        let stage = Stage::with_backups(5, KeyRing::default()).await;
        let mut candidates = stage.candidates();
        stage.delete(&stage.backups[4].packs[0].key).await;
        stage.delete(&stage.backups[3].manifest.key).await;
        stage.delete(&stage.archive.layout().summary(&stage.backups[1].id)).await;
        assert_eq!(stage.next(&mut candidates).await, Some(2));
        assert_eq!(stage.next(&mut candidates).await, Some(0));
        assert_eq!(stage.next(&mut candidates).await, None);
        let why = candidates.none().0;
        assert!(why.contains(&format!("packs of {}", stage.backups[4].id)), "{why}");
    }

    /// A standby begins at its last restartpoint.
    #[tokio::test]
    async fn what_ended_behind_the_place_where_a_standby_begins_is_passed_over() {
        let stage = Stage::with_backups(3, KeyRing::default()).await;
        let mut candidates = stage.candidates();
        assert_eq!(stage.next(&mut candidates).await, Some(2));
        candidates.pass(&stage.backups[2].id, NoParent::new("it ended later"));
        candidates.end_before(Lsn(249));
        assert_eq!(stage.next(&mut candidates).await, Some(0));
        assert_eq!(stage.next(&mut candidates).await, None);
        assert_eq!(candidates.none_after(NoParent::new("the WAL is broken")).0, "it ended later");
    }

    /// Backups are taken on the primary and on a standby by turns, and each has a copy of its own last manifest.
    #[tokio::test]
    async fn with_public_keys_the_parent_is_the_backup_whose_manifest_is_here() {
        let recipients = vec!["age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa".to_owned()];
        let config = EncryptionConfig { recipients, ..EncryptionConfig::default() };
        let stage = Stage::with_backups(3, KeyRing::from_config(&config).unwrap()).await;
        let mut candidates = stage.candidates();
        assert_eq!(stage.next(&mut candidates).await, None);
        let why = candidates.none().0;
        let newest = &stage.backups[2].id;
        assert!(why.contains("nor a copy") && why.contains(newest.as_str()), "{why}");

        let mut copy = NewCopy::begin(stage.root.path()).unwrap();
        copy.write_all(&plain(&stage.backups[1])).unwrap();
        copy.keep().unwrap();
        assert_eq!(stage.next(&mut stage.candidates()).await, Some(1));
    }

    #[tokio::test]
    async fn that_the_store_does_not_answer_says_nothing_of_a_backup() {
        let stage = Stage::with_backups(2, KeyRing::default()).await;
        let first = stage.store.calls(Verb::Get);
        stage.store.fail(Verb::Get, first, Fault::Before(StoreErrorKind::Transient));
        assert!(stage.candidates().next(&stage.archive, stage.root.path()).await.is_err());
    }
}
