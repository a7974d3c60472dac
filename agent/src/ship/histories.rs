//! History files: a segment of timeline N is of no use to a recovery that does not know where N came from.

use super::before::history_in;
use crate::exit::Failure;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use walpoint_archive::{Archive, WriterId};
use walpoint_wal::{TimelineId, WalFileName};

/// Between two looks for a history that somebody may be putting.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The same for the ancestors alone, when the timeline's own history is what is being pushed.
///
/// # Errors
/// As [`ensure`].
pub async fn ensure_ancestors(
    archive: &Archive,
    pg_wal: &Path,
    timeline: TimelineId,
    writer: WriterId,
) -> Result<(), Failure> {
    let mut timelines = with_ancestors(pg_wal, timeline);
    timelines.remove(&timeline);
    ensure_each(archive, pg_wal, timelines, writer).await
}

/// Makes sure that the histories of a timeline and of its ancestors are in the archive, from `pg_wal`. What
/// is in neither place is said; it does not keep the segment from being archived.
///
/// # Errors
/// As for any put; status 3 when the archive has another history of one of these timelines.
pub async fn ensure(
    archive: &Archive,
    pg_wal: &Path,
    timeline: TimelineId,
    writer: WriterId,
) -> Result<(), Failure> {
    ensure_each(archive, pg_wal, with_ancestors(pg_wal, timeline), writer).await
}

/// The same before a tail of that timeline: that they are there is enough. Whether one is refused in the end decides
/// about the whole timeline, with a tail or without, and to wait for that would cost seconds of commits.
///
/// # Errors
/// As [`ensure`].
pub async fn ensure_there(
    archive: &Archive,
    pg_wal: &Path,
    timeline: TimelineId,
    writer: WriterId,
) -> Result<(), Failure> {
    for timeline in with_ancestors(pg_wal, timeline) {
        let ensured = ensure_each(archive, pg_wal, BTreeSet::from([timeline]), writer);
        match history_in(pg_wal, timeline) {
            Some((_, bytes)) => tokio::select! {
                () = is_there(archive, timeline, &bytes) => {}
                ensured = ensured => ensured?,
            },
            None => ensured.await?,
        }
    }
    Ok(())
}

/// Returns when the archive has it, put by whomever. What cannot be asked now is asked again.
async fn is_there(archive: &Archive, timeline: TimelineId, bytes: &[u8]) {
    while !archive.has_history(timeline, bytes).await.unwrap_or(false) {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn ensure_each(
    archive: &Archive,
    pg_wal: &Path,
    timelines: BTreeSet<TimelineId>,
    writer: WriterId,
) -> Result<(), Failure> {
    for timeline in timelines {
        let name = WalFileName::History(timeline);
        match history_in(pg_wal, timeline) {
            // Also when the archive has one: another content under this name is another timeline's WAL.
            Some((_, bytes)) => {
                let outcome = archive.put_history(timeline, bytes.into(), writer).await?;
                tracing::info!("\"{name}\" is in the archive: {outcome:?}");
            }
            None if !archive.wal_variants(&name).await?.standing().is_empty() => {}
            None => tracing::warn!(
                "the archive lacks \"{name}\", and pg_wal does not have it: nothing can be recovered along \
                 timeline {timeline} until it is pushed from the cluster that made it"
            ),
        }
    }
    Ok(())
}

/// The timelines that must have a history: all but the first.
fn with_ancestors(pg_wal: &Path, timeline: TimelineId) -> BTreeSet<TimelineId> {
    let mut timelines = BTreeSet::from([timeline]);
    if let Some((history, _)) = history_in(pg_wal, timeline) {
        timelines.extend(history.ancestors.iter().map(|ancestor| ancestor.timeline));
    }
    timelines.remove(&TimelineId::FIRST);
    timelines
}
