//! The last looks of a backup at what it names, of every backup: one right before its summary is stored, and one right
//! after, when an expiry that comes later must see it. FORMAT.md section 10 says why nothing it names can go then.

use walpoint_archive::{Archive, ArchiveError, BackupId, BackupSummary};
use walpoint_pitr::path::TimelinePath;

use super::marked::Marked;
use crate::exit::Failure;

/// A backup of which everything is stored but the summary, which may be.
#[derive(Clone, Copy)]
pub struct LastLook<'a> {
    pub archive: &'a Archive,
    pub summary: &'a BackupSummary,
    /// The way to its timeline.
    pub path: &'a TimelinePath,
    /// What stood in marks before anything of it was stored.
    pub at_begin: &'a Marked,
}

/// Why it cannot be said that all is there and stays.
#[derive(Debug)]
enum Doubt {
    /// It is not.
    Gone(String),
    /// The archive does not say.
    Unanswered(Failure),
}

impl From<ArchiveError> for Doubt {
    fn from(error: ArchiveError) -> Self {
        Doubt::Unanswered(error.into())
    }
}

impl From<Failure> for Doubt {
    fn from(failure: Failure) -> Self {
        Doubt::Unanswered(failure)
    }
}

impl LastLook<'_> {
    /// Refuses to complete a backup that names what is gone, or may be in a moment.
    ///
    /// # Errors
    /// When that is so, and when the archive does not answer.
    pub async fn before(self) -> Result<(), Failure> {
        match self.look(self.summary.parent.as_ref()).await {
            Ok(()) => Ok(()),
            Err(Doubt::Gone(why)) => Err(given_up(&why)),
            Err(Doubt::Unanswered(failure)) => Err(failure),
        }
    }

    /// Takes the summary back when something went while it was stored, which may have taken many tries.
    ///
    /// # Errors
    /// When that is so, and when the archive does not answer.
    pub async fn after(self) -> Result<(), Failure> {
        // The parent may stand in a mark just because this backup was seen. While its summary is there nothing that it
        // names goes before another look at all summaries.
        match self.look(None).await {
            Ok(()) => Ok(()),
            Err(Doubt::Gone(why)) => Err(self.take_back(&why).await),
            Err(Doubt::Unanswered(failure)) => Err(self.unsure(failure)),
        }
    }

    /// In this order: what no mark names now, and is there after that, goes by no mark of before.
    async fn look(self, parent_unmarked: Option<&BackupId>) -> Result<(), Doubt> {
        let marked = Marked::now(self.archive).await?;
        if let Some(why) = why_not(&marked, &self, parent_unmarked) {
            return Err(Doubt::Gone(why));
        }
        self.parent_must_be_there().await?;
        self.packs_must_be_there().await
    }

    /// A summary goes before what it names.
    async fn parent_must_be_there(self) -> Result<(), Doubt> {
        let Some(parent) = &self.summary.parent else { return Ok(()) };
        match self.archive.store().head(&self.archive.layout().summary(parent)).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Err(Doubt::Gone(format!("its parent {parent} is gone"))),
            Err(error) => Err(ArchiveError::from(error).into()),
        }
    }

    async fn packs_must_be_there(self) -> Result<(), Doubt> {
        match self.archive.missing_packs(&self.summary.packs).await?.first() {
            None => Ok(()),
            Some(missing) => Err(Doubt::Gone(format!(
                "\"{missing}\", which it needs, is not in the archive any more as it was stored"
            ))),
        }
    }

    /// Without its summary the backup does not exist.
    async fn take_back(self, why: &str) -> Failure {
        let key = self.archive.layout().summary(&self.summary.id);
        let Err(error) = self.archive.store().delete(&key).await else { return given_up(why) };
        Failure::failed(format!(
            "could not complete the base backup: {why}; and \"{key}\", by which it looks complete, could not be deleted: {}",
            error.detail
        ))
        .with_hint(format!("delete \"{key}\" from a host that may, and take the backup again"))
    }

    fn unsure(self, failure: Failure) -> Failure {
        let id = &self.summary.id;
        let error = format!(
            "could not make sure that base backup {id} is whole: it is stored, but whether all that it needs is still there could not be asked: {}",
            failure.error
        );
        Failure { error, ..failure }.with_hint(
            "walpoint verify --quick says whether something of it is missing; else take another one",
        )
    }
}

/// Why a backup must not be completed: its own folder, its parent or its own WAL stands in a mark.
fn why_not(marked: &Marked, look: &LastLook<'_>, parent: Option<&BackupId>) -> Option<String> {
    let own = &look.summary.id;
    if let Some(why) = marked.since(look.at_begin).why_not(own) {
        return Some(format!("packs of {own} may go: {why}"));
    }
    if let Some((parent, why)) = parent.and_then(|parent| Some((parent, marked.why_not(parent)?))) {
        return Some(format!("packs of {parent} may go: {why}"));
    }
    marked.why_not_its_wal(look.summary, &look.path.steps)
}

fn given_up(why: &str) -> Failure {
    Failure::failed(format!("could not complete the base backup: {why}"))
        .with_hint("take the backup again; it uses only what stays")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::Arc;

    use bytes::Bytes;
    use walpoint_archive::compress::CompressionLevel;
    use walpoint_archive::store::dir::DirStore;
    use walpoint_archive::store::faulty::{Fault, Faulty, Verb};
    use walpoint_archive::store::{Metadata, PutMode, StoreErrorKind};
    use walpoint_archive::summary::StoredObject;
    use walpoint_archive::{ContentHash, ExpiryMark, KeyRing, MarkedWal, Sealer, StoredHash};
    use walpoint_wal::{SystemIdentifier, TimelineHistory};

    use crate::backup::parent::choice::tests::backup;

    struct Stage {
        _root: tempfile::TempDir,
        store: Faulty,
        archive: Archive,
        path: TimelinePath,
        at_begin: Marked,
    }

    impl Stage {
        async fn new() -> Stage {
            let root = tempfile::tempdir().unwrap();
            let store = Faulty::new(Arc::new(DirStore::open(root.path()).await.unwrap()));
            let sealer = Sealer::new(CompressionLevel::default(), Arc::new(KeyRing::default()));
            let archive = Archive::new(Arc::new(store.clone()), SystemIdentifier(7), sealer);
            let first = TimelineHistory::first();
            let path = TimelinePath { timeline: first.timeline, steps: first.path() };
            Stage { _root: root, store, archive, path, at_begin: Marked::default() }
        }

        fn look<'a>(&'a self, summary: &'a BackupSummary) -> LastLook<'a> {
            LastLook { archive: &self.archive, summary, path: &self.path, at_begin: &self.at_begin }
        }

        async fn before(&self, summary: &BackupSummary) -> Result<(), String> {
            self.look(summary).before().await.map_err(|failure| failure.error)
        }

        async fn after(&self, summary: &BackupSummary) -> Result<(), String> {
            self.look(summary).after().await.map_err(|failure| failure.error)
        }

        /// A full backup of one pack, in the second segment.
        async fn with_pack(&self) -> BackupSummary {
            self.with_pack_of(2).await
        }

        async fn with_pack_of(&self, number: u32) -> BackupSummary {
            let mut summary = backup(number, 1, 0x10_0028, 0x10_0200);
            let content = ContentHash::of(b"").id();
            let key = self.archive.layout().pack(&summary.id, 0, content, false);
            let (nothing, metadata) = (Bytes::new(), Metadata::new());
            let _ = self.archive.store().put(&key, nothing, &metadata, PutMode::CreateOnly).await.unwrap();
            summary.packs = vec![StoredObject { key, size: 0, sha256: StoredHash::of(b"") }];
            summary
        }

        async fn is_complete(&self, summary: &BackupSummary) -> bool {
            self.archive.summary(&summary.id).await.is_ok()
        }
    }

    fn of(backups: &[&BackupId]) -> ExpiryMark {
        let backups = backups.iter().map(|id| (*id).clone()).collect();
        ExpiryMark { backups, ..ExpiryMark::default() }
    }

    #[tokio::test]
    async fn a_backup_is_not_completed_on_what_was_marked_or_went_meanwhile() {
        let stage = Stage::new().await;
        let parent = backup(1, 1, 0, 1);
        let own = BackupSummary { parent: Some(parent.id.clone()), ..backup(2, 1, 0, 1) };
        let gone = stage.before(&own).await.unwrap_err();
        assert!(gone.contains("is gone"), "{gone}");
        stage.archive.put_summary(&parent).await.unwrap();
        assert_eq!(stage.before(&own).await, Ok(()));
        for marked in [&parent.id, &own.id] {
            let key = stage.archive.put_expiry_mark(&of(&[marked])).await.unwrap();
            let refused = stage.before(&own).await.unwrap_err();
            assert!(refused.contains(marked.as_str()) && refused.contains(key.as_str()), "{refused}");
            stage.archive.store().delete(&key).await.unwrap();
        }
        assert_eq!(stage.before(&own).await, Ok(()));
    }

    /// One that stores nothing for days looks like one that was given up.
    #[tokio::test]
    async fn a_full_backup_is_not_completed_when_its_own_folder_was_marked_or_a_pack_went() {
        let stage = Stage::new().await;
        let own = stage.with_pack().await;
        assert_eq!(stage.before(&own).await, Ok(()));
        let key = stage.archive.put_expiry_mark(&of(&[&own.id])).await.unwrap();
        let refused = stage.before(&own).await.unwrap_err();
        assert!(refused.contains(own.id.as_str()) && refused.contains(key.as_str()), "{refused}");
        stage.archive.store().delete(&key).await.unwrap();
        stage.archive.store().delete(&own.packs[0].key).await.unwrap();
        let refused = stage.before(&own).await.unwrap_err();
        assert!(refused.contains(own.packs[0].key.as_str()), "{refused}");
    }

    /// What stood before it began cannot name it; else a mark that a newer version made would end all backups.
    #[tokio::test]
    async fn a_mark_that_cannot_be_read_ends_only_the_backups_it_may_name() {
        let mut stage = Stage::new().await;
        let own = stage.with_pack().await;
        let key = stage.archive.layout().expiry_mark("0123456789abcdef");
        let newer = Bytes::from_static(b"{\"format\":99}");
        let _ = stage.archive.store().put(&key, newer, &Metadata::new(), PutMode::CreateOnly).await.unwrap();
        let refused = stage.before(&own).await.unwrap_err();
        assert!(refused.contains(key.as_str()) && refused.contains("cannot be read"), "{refused}");
        stage.at_begin = Marked::now(&stage.archive).await.unwrap();
        assert_eq!(stage.before(&own).await, Ok(()));
    }

    #[tokio::test]
    async fn a_backup_whose_own_wal_was_marked_is_not_completed() {
        let stage = Stage::new().await;
        let own = stage.with_pack().await;
        let (first, last) = ("000000010000000000000000", "000000010000000000000001");
        let wal = MarkedWal { first: first.parse().unwrap(), last: last.parse().unwrap() };
        let mark = ExpiryMark { wal: vec![wal], ..ExpiryMark::default() };
        let key = stage.archive.put_expiry_mark(&mark).await.unwrap();
        let refused = stage.before(&own).await.unwrap_err();
        assert!(refused.contains(key.as_str()) && refused.contains("WAL"), "{refused}");
    }

    #[tokio::test]
    async fn a_summary_is_taken_back_when_what_it_names_went_while_it_was_stored() {
        let stage = Stage::new().await;
        let parent = backup(1, 1, 0, 1);
        stage.archive.put_summary(&parent).await.unwrap();
        let own = BackupSummary { parent: Some(parent.id.clone()), ..stage.with_pack().await };
        stage.archive.put_summary(&own).await.unwrap();
        // By a mark that saw the new one; who deletes sees it, too.
        let key = stage.archive.put_expiry_mark(&of(&[&parent.id])).await.unwrap();
        assert_eq!(stage.after(&own).await, Ok(()));
        assert!(stage.is_complete(&own).await);
        stage.archive.store().delete(&key).await.unwrap();

        stage.archive.store().delete(&stage.archive.layout().summary(&parent.id)).await.unwrap();
        let refused = stage.after(&own).await.unwrap_err();
        assert!(refused.contains("is gone") && !refused.contains("could not be deleted"), "{refused}");
        assert!(!stage.is_complete(&own).await);

        let full = stage.with_pack_of(3).await;
        stage.archive.put_summary(&full).await.unwrap();
        stage.archive.store().delete(&full.packs[0].key).await.unwrap();
        let refused = stage.after(&full).await.unwrap_err();
        assert!(refused.contains(full.packs[0].key.as_str()), "{refused}");
        assert!(!stage.is_complete(&full).await);
    }

    #[tokio::test]
    async fn a_summary_that_cannot_be_taken_back_is_named() {
        let stage = Stage::new().await;
        let own = stage.with_pack().await;
        stage.archive.put_summary(&own).await.unwrap();
        stage.archive.store().delete(&own.packs[0].key).await.unwrap();
        let key = stage.archive.layout().summary(&own.id);
        stage.store.fail_every(Verb::Delete, Some(Fault::Before(StoreErrorKind::Denied)));
        let failure = stage.look(&own).after().await.unwrap_err();
        assert!(failure.error.contains(&format!("\"{key}\"")), "{failure:?}");
        assert!(failure.error.contains("could not be deleted"), "{failure:?}");
        assert!(failure.hint.unwrap().contains(key.as_str()));
    }
}
