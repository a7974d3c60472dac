//! The deletion itself: backups, then WAL, object by object.

use super::held::Held;
use super::marks::Ripe;
use super::{Applied, Expiry, Stuck};
use crate::exit::Failure;
use crate::keep::decide::Decision;
use crate::keep::snapshot::{Backup, Snapshot};
use futures::{StreamExt, stream};
use std::collections::BTreeSet;
use walpoint_archive::store::Listed;
use walpoint_archive::{BackupId, Entry, Verification};
use walpoint_wal::{SegmentName, TimelineId, Timestamp};

/// Objects that are deleted at the same time.
const DELETED_AT_ONCE: usize = 16;

/// Folders that go before it is looked for new backups again: each look lists all folders.
const FOLDERS_BETWEEN_LOOKS: usize = 16;

/// When so many were not deleted, a right is missing or the store is away: no more are tried.
const MOST_FAILURES: usize = 100;

/// What is deleted, and what must not be although it is marked.
pub(super) struct Deletion<'a> {
    expiry: Expiry<'a>,
    snapshot: &'a Snapshot,
    ripe: &'a Ripe,
    /// What backups need whose summaries are there when this is done, and what policies ask for.
    held: Held<'a>,
    /// Folders that cannot hold a backup that is new to us.
    known: BTreeSet<BackupId>,
    /// Folders in which one may be being made.
    young: BTreeSet<BackupId>,
}

impl<'a> Deletion<'a> {
    pub(super) fn new(
        expiry: Expiry<'a>,
        snapshot: &'a Snapshot,
        decision: &Decision,
        ripe: &'a Ripe,
    ) -> Self {
        let complete = snapshot.folders.iter().filter(|(_, folder)| folder.summary.is_some());
        let known = complete.map(|(id, _)| id.clone()).collect();
        let young = decision.folders.iter().filter(|folder| folder.is_young).map(|folder| folder.id.clone());
        let (young, held) = (young.collect(), Held::of(snapshot, decision, ripe));
        Self { expiry, snapshot, ripe, held, known, young }
    }

    pub(super) async fn run(mut self, applied: &mut Applied) -> Result<(), Failure> {
        let ripe = self.ripe;
        // All summaries first: after this no backup is visible that lacks anything.
        let mut gone = Vec::new();
        for (id, since) in &ripe.backups {
            if self.delete_summary(id, *since, applied).await? {
                gone.push((id, *since));
            }
        }
        self.take_in_new_backups().await?;
        // One that was given up is not looked at again for each of the others.
        let given_up = self.snapshot.folders.keys().filter(|id| !self.young.contains(*id));
        self.known.extend(given_up.cloned());
        for some in gone.chunks(FOLDERS_BETWEEN_LOOKS) {
            self.take_in_new_backups().await?;
            for (id, since) in some {
                self.delete_folder(id, *since, applied).await?;
            }
        }
        for (timeline, first, last, since) in &ripe.wal {
            self.delete_wal(*timeline, *first, *last, *since, applied).await?;
        }
        self.delete_aside(applied).await?;
        if applied.failed.len() >= MOST_FAILURES {
            applied.notes.push(format!("{MOST_FAILURES} deletes failed, so no more were tried"));
        }
        Ok(())
    }

    /// Deletes a backup's summary, if it has one. When that cannot be done the backup is still there, and keeps all
    /// that it needs.
    async fn delete_summary(
        &mut self,
        id: &BackupId,
        since: Timestamp,
        applied: &mut Applied,
    ) -> Result<bool, Failure> {
        let archive = self.expiry.archive;
        let folder = self.snapshot.folders.get(id);
        let Some(stored_at) = folder.and_then(|folder| folder.summary) else {
            // One that was given up; unless somebody has just completed it.
            return Ok(!self.hold_if_complete(id).await?);
        };
        let key = archive.layout().summary(id);
        // A summary that came after the mark is not what was marked.
        let deleted = stored_at <= since && {
            let listed = Listed { key, size: 0, modified: Some(stored_at) };
            self.delete_objects(vec![listed], applied).await == 1
        };
        if deleted {
            applied.backups += 1;
        } else if let Some(backup) = self.snapshot.backups.iter().find(|backup| backup.id == *id) {
            self.held.hold(backup);
        }
        Ok(deleted)
    }

    /// Deletes what is left of a backup: its manifest and the packs that no other backup names.
    async fn delete_folder(
        &mut self,
        id: &BackupId,
        since: Timestamp,
        applied: &mut Applied,
    ) -> Result<(), Failure> {
        if self.hold_if_complete(id).await? {
            return Ok(());
        }
        let goes = |(entry, object): (Entry, Listed)| {
            let is_needed = match entry {
                Entry::Pack { number, .. } => self.held.has_pack(id, number),
                Entry::Manifest { .. } => false,
                // It came just now.
                _ => true,
            };
            (!is_needed && was_there(&object, since)).then_some(object)
        };
        let objects = self.expiry.archive.objects_of_backup(id).await?;
        self.delete_objects(objects.into_iter().filter_map(goes).collect(), applied).await;
        Ok(())
    }

    /// Backups that were completed since the archive was looked at name packs, too.
    async fn take_in_new_backups(&mut self) -> Result<(), Failure> {
        for id in self.expiry.archive.backup_folders().await?.ids {
            if !self.known.contains(&id) && self.hold_if_complete(&id).await? {
                self.known.insert(id);
            }
        }
        Ok(())
    }

    /// All that a backup needs stays, when its summary is there by now; without one it is still being made, or goes.
    async fn hold_if_complete(&mut self, id: &BackupId) -> Result<bool, Failure> {
        let archive = self.expiry.archive;
        match archive.head(id).await {
            Ok(head) => {
                let unread = Verification::new();
                self.held.hold(&Backup::of(&head, archive.layout(), Timestamp(i64::MAX), &unread));
                Ok(true)
            }
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn delete_wal(
        &mut self,
        timeline: TimelineId,
        first: u64,
        last: u64,
        since: Timestamp,
        applied: &mut Applied,
    ) -> Result<(), Failure> {
        let (snapshot, size) = (self.snapshot, self.snapshot.segment_size);
        let own = snapshot.wal.get(&timeline).map(Vec::as_slice).unwrap_or_default();
        let mut at = first;
        // Folder by folder, as far as there is something: a listing of each is small.
        while let Some(next) = own.get(own.partition_point(|it| it.number < at)).map(|it| it.number)
            && next <= last
        {
            let end = (next / size.segments_per_log() + 1).saturating_mul(size.segments_per_log()) - 1;
            let name = |number| SegmentName::from_number(timeline, number, size);
            let Some((from, to)) = name(next).zip(name(end.min(last))) else { return Ok(()) };
            let listed = self.expiry.archive.objects_of_segments(&from, &to).await?;
            let marked = listed.into_iter().filter(|(_, object)| was_there(object, since)).collect();
            self.delete_segments(marked, applied).await?;
            at = end.saturating_add(1);
        }
        Ok(())
    }

    /// Deletes those of these that no backup needs, of those that were completed since the last look either.
    async fn delete_segments(
        &mut self,
        marked: Vec<(SegmentName, Listed)>,
        applied: &mut Applied,
    ) -> Result<(), Failure> {
        if marked.is_empty() {
            return Ok(());
        }
        self.take_in_new_backups().await?;
        let goes = marked.into_iter().filter(|(segment, _)| !self.is_held(segment));
        self.delete_objects(goes.map(|(_, object)| object).collect(), applied).await;
        Ok(())
    }

    /// Deletes what was put aside of segments that go.
    async fn delete_aside(&mut self, applied: &mut Applied) -> Result<(), Failure> {
        if self.ripe.wal.is_empty() {
            return Ok(());
        }
        let size = self.snapshot.segment_size;
        let goes = |(segment, object): &(SegmentName, Listed)| {
            let Ok(number) = segment.number(size) else { return false };
            let mut ripe = self.ripe.wal.iter();
            ripe.any(|(timeline, first, last, since)| {
                *timeline == segment.timeline
                    && (*first..=*last).contains(&number)
                    && was_there(object, *since)
            })
        };
        let aside = self.expiry.archive.segments_aside().await?;
        let marked = aside.into_iter().filter(goes).collect();
        self.delete_segments(marked, applied).await
    }

    fn is_held(&self, segment: &SegmentName) -> bool {
        let Ok(number) = segment.number(self.snapshot.segment_size) else { return true };
        self.held.has_segment(segment.timeline, number)
    }

    /// Deletes objects, and says how many went. One that the store holds on to does not keep the others.
    async fn delete_objects(&self, objects: Vec<Listed>, applied: &mut Applied) -> usize {
        if applied.failed.len() >= MOST_FAILURES {
            return 0;
        }
        let store = self.expiry.archive.store();
        let deleted = objects.into_iter().map(|object| async move {
            let deleted = store.delete(&object.key).await.map_err(|error| error.detail);
            (object, deleted)
        });
        let mut deleted = stream::iter(deleted).buffered(DELETED_AT_ONCE);
        let mut count = 0;
        while let Some((object, outcome)) = deleted.next().await {
            match outcome {
                Ok(()) => {
                    count += 1;
                    applied.objects += 1;
                    applied.bytes += object.size;
                }
                Err(why) => applied.failed.push(Stuck { key: object.key.to_string(), why }),
            }
            if applied.failed.len() >= MOST_FAILURES {
                break;
            }
        }
        count
    }
}

/// Whether it was there when the mark was made. What came later was not marked.
fn was_there(object: &Listed, since: Timestamp) -> bool {
    object.modified.is_some_and(|stored_at| stored_at <= since)
}
