//! Looking at an archive: listings and summaries become a snapshot.
//!
//! What a listing leaves out must cost nothing, so what can be seen twice is looked at twice: the backups by the
//! folders and by the objects in them. Where the two differ, what one of them shows counts.

use super::elapsed::SignsOfLife;
use super::snapshot::{Backup, Snapshot};
use crate::exit::Failure;
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::{BTreeMap, BTreeSet};
use walpoint_archive::catalog::DamagedObject;
use walpoint_archive::{
    Archive, ArchiveError, BackupId, BackupInventory, Cluster, FolderObjects, Verification, WalInventory,
};
use walpoint_wal::{PathStep, TimelineHistory, TimelineId, Timestamp};

/// Summaries that are read at the same time.
const SUMMARIES_AT_ONCE: usize = 16;

/// What tells the time where the store itself does not.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// An object that is stored now: before anything is deleted.
    OfAPut,
    /// This host's, for one who only looks.
    OfTheHost(Timestamp),
}

/// Looks at everything once.
///
/// # Errors
/// As the archive's listings.
pub async fn look(archive: &Archive, cluster: &Cluster, clock: Clock) -> Result<Snapshot, Failure> {
    let size = cluster.segment_size;
    let now = match (archive.store_time().await?, clock) {
        (Some(now), _) => Some(now),
        (None, Clock::OfAPut) => archive.store_time_of_a_put().await?,
        (None, Clock::OfTheHost(now)) => Some(now),
    };
    let (inventory, folders, wal, idle, (verification, unreadable)) = futures::try_join!(
        archive.backup_inventory(),
        archive.backup_folders(),
        archive.wal_inventory(size),
        archive.idle_times(),
        archive.verification_and_unreadable(),
    )?;
    let BackupInventory { folders: mut objects, mut unknown } = inventory;
    for id in folders.ids {
        objects.entry(id).or_default();
    }
    let (backups, mut obstacles) = read_backups(archive, &objects, &wal, &verification).await?;
    obstacles.extend(unreadable.iter().map(unreadable_note));
    // After all that is of a timeline: its history came before.
    let timelines = archive.timelines().await?;
    let damaged = timelines.damaged.iter();
    obstacles.extend(damaged.map(|object| format!("\"{}\" is damaged: {}", object.key, object.reason)));
    let paths = paths(&timelines.histories);
    obstacles.extend(
        timelines.undecided.iter().map(|timeline| {
            format!("two histories of timeline {timeline} stand: decide with walpoint resolve")
        }),
    );
    obstacles.extend(without_a_way(&paths, &wal, &backups, &timelines.undecided));
    unknown.extend(folders.unknown);
    unknown.extend(timelines.unknown);
    let signs = signs(now, &objects, &wal, &idle);
    unknown.extend(wal.unknown);
    unknown.sort();
    unknown.dedup();
    Ok(Snapshot {
        now,
        signs,
        segment_size: size,
        paths,
        backups,
        folders: objects,
        wal: wal.segments,
        idle,
        obstacles,
        unknown,
    })
}

/// A backup that was found damaged would count as a sound one, and take the place of one that is.
pub fn unreadable_note(note: &DamagedObject) -> String {
    format!(
        "\"{}\" cannot be read, so nobody knows what verify found damaged: {} (hint: where a newer walpoint stored it \
         use that one; else run walpoint verify --anew to its end, and then delete the object)",
        note.key, note.reason
    )
}

/// A backup, or why it cannot be known.
type Read = Result<Backup, String>;

/// The complete backups, and what stands in the way of knowing them all.
async fn read_backups(
    archive: &Archive,
    objects: &BTreeMap<BackupId, FolderObjects>,
    wal: &WalInventory,
    verification: &Verification,
) -> Result<(Vec<Backup>, Vec<String>), Failure> {
    // Of a large archive all lists of packs together would not fit: what matters of one is taken at once.
    let read = objects.keys().map(|id| read_backup(archive, id, objects, wal, verification));
    let mut read = stream::iter(read).buffered(SUMMARIES_AT_ONCE);
    let (mut backups, mut obstacles) = (Vec::new(), Vec::new());
    while let Some(found) = read.try_next().await? {
        match found {
            None => {}
            Some(Ok(backup)) => backups.push(backup),
            Some(Err(why)) => obstacles.push(why),
        }
    }
    Ok((backups, obstacles))
}

/// A backup by its summary, which is asked for even where no listing shows it; none where there is none.
async fn read_backup(
    archive: &Archive,
    id: &BackupId,
    objects: &BTreeMap<BackupId, FolderObjects>,
    wal: &WalInventory,
    verification: &Verification,
) -> Result<Option<Read>, ArchiveError> {
    let (layout, key) = (archive.layout(), archive.layout().summary(id));
    let listed_at = objects.get(id).and_then(|folder| folder.summary);
    let reduced = archive.with_summary(id, |summary| {
        let (head, packs) = summary.split(layout);
        let backup = Backup::of(&head, layout, listed_at.unwrap_or(Timestamp(i64::MAX)), verification);
        backup.compared((&head, &packs), layout, verification, objects, &wal.segments)
    });
    let backup = match reduced.await {
        Ok(backup) => backup,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => {
            let DamagedObject { reason, .. } = DamagedObject::by(key.clone(), error)?;
            let why = format!("\"{key}\" cannot be read, so nobody knows what that backup needs: {reason}");
            return Ok(Some(Err(why)));
        }
    };
    // It may have come since the listing; a store that never shows it does not list all it has.
    let stored_at = match listed_at {
        Some(stored_at) => Some(stored_at),
        None => {
            let again = archive.objects_of_backup(id).await?;
            let summary = again.into_iter().find(|(_, object)| object.key == key);
            summary.map(|(_, object)| object.modified.unwrap_or(Timestamp(i64::MAX)))
        }
    };
    Ok(Some(match stored_at {
        Some(stored_at) => Ok(Backup { stored_at, ..backup }),
        None => Err(format!(
            "a listing left out backup {id}, whose summary is there: the store does not list all it has"
        )),
    }))
}

fn paths(histories: &BTreeMap<TimelineId, TimelineHistory>) -> BTreeMap<TimelineId, Vec<PathStep>> {
    let first = (TimelineId::FIRST, TimelineHistory::first().path());
    histories.iter().map(|(timeline, history)| (*timeline, history.path())).chain([first]).collect()
}

/// Timelines that something is of and that nothing leads to. What they need of their parents is not known.
fn without_a_way(
    paths: &BTreeMap<TimelineId, Vec<PathStep>>,
    wal: &WalInventory,
    backups: &[Backup],
    undecided: &[TimelineId],
) -> Vec<String> {
    let of_wal = wal.segments.iter().filter(|(_, segments)| segments.iter().any(|segment| segment.has_wal));
    let mut named: BTreeSet<TimelineId> = of_wal.map(|(timeline, _)| *timeline).collect();
    named.extend(backups.iter().map(|backup| backup.timeline));
    let lost = named.into_iter().filter(|it| !paths.contains_key(it) && !undecided.contains(it));
    lost.map(|timeline| {
        format!(
            "the history of timeline {timeline} is not in the archive: push {}.history from the cluster that made it",
            timeline.hex8()
        )
    })
    .collect()
}

fn signs(
    now: Option<Timestamp>,
    folders: &BTreeMap<BackupId, FolderObjects>,
    wal: &WalInventory,
    idle: &BTreeMap<TimelineId, Timestamp>,
) -> SignsOfLife {
    let Some(now) = now else { return SignsOfLife::default() };
    let segments = wal.segments.values().flatten().map(|segment| segment.newest);
    let folders = folders.values().flat_map(|folder| [folder.summary, folder.newest]).flatten();
    SignsOfLife::new(segments.chain(folders).chain(idle.values().copied()), now)
}
