//! What the archive's other objects say about a file that is not there: did it
//! exist? Asked only where no contract says what is needed.

use walpoint_archive::{Archive, ArchiveError, Entry};
use walpoint_wal::{Lsn, SegmentName, TimelineHistory, TimelineId, Timestamp, WalFileName};

use super::{Asker, GetError, GetRequest};

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Testimony {
    /// Nothing says that the file ever existed.
    Nothing,
    /// It has appeared since it was looked for.
    ThereNow,
    /// It existed: how that is known.
    Existed(String),
}

/// An empty answer means something only in the archive of this very cluster: a wrong
/// prefix or an empty mount point is empty, too.
pub(super) async fn the_right_archive(archive: &Archive, request: &GetRequest) -> Result<(), GetError> {
    let found = archive.segment_size().await?.ok_or(ArchiveError::NoCluster(request.system_identifier))?;
    if found != request.segment_size {
        return Err(GetError::SegmentSize { expected: request.segment_size.bytes(), found: found.bytes() });
    }
    Ok(())
}

/// Asks everything that could know.
pub(super) async fn of(archive: &Archive, request: &GetRequest) -> Result<Testimony, GetError> {
    match request.name {
        WalFileName::Segment(segment) => of_segment(archive, request, segment).await,
        WalFileName::History(timeline) => of_history(archive, timeline).await,
        // PostgreSQL never asks for these in recovery; whoever does gets a plain answer.
        WalFileName::Partial(_) | WalFileName::BackupHistory { .. } => Ok(Testimony::Nothing),
    }
}

async fn of_segment(
    archive: &Archive,
    request: &GetRequest,
    segment: SegmentName,
) -> Result<Testimony, GetError> {
    let start = segment.start(request.segment_size).map_err(GetError::Name)?;
    // From the end of the segment before on: what belongs to this one (a refused
    // variant, a `.partial`, a tail) testifies as well as what comes after it.
    let layout = archive.layout();
    let before = segment.previous(request.segment_size).map(|previous| layout.after_segment(&previous));
    let prefix = layout.wal_timeline_prefix(segment.timeline);
    let found = archive.store().list(&prefix, before.as_ref(), Some(1)).await.map_err(ArchiveError::from)?;
    if let Some(object) = found.first() {
        let own = matches!(
            layout.parse(&object.key),
            Some(Entry::Wal { name, .. } | Entry::WalRefused { name, .. }) if name == request.name
        );
        // A refused variant stays out of use; any other has appeared meanwhile.
        if own && archive.wal_variants(&request.name).await?.variants.iter().any(|variant| !variant.refused) {
            return Ok(Testimony::ThereNow);
        }
        if request.asker != Asker::Standby || !is_being_written(archive, segment).await? {
            return Ok(Testimony::Existed(format!("\"{}\" is there", object.key)));
        }
    }
    let histories = archive.histories().await?;
    Ok(descendant(&histories, segment.timeline, start))
}

/// Whether the archive has nothing of the segment but pieces of it, and nothing of its timeline behind them.
async fn is_being_written(archive: &Archive, segment: SegmentName) -> Result<bool, GetError> {
    let state = archive.segment_state(&segment).await?;
    let Some(last) = state.chunks.iter().map(|chunk| &chunk.key).max().filter(|_| state.variants.is_empty())
    else {
        return Ok(false);
    };
    let prefix = archive.layout().wal_timeline_prefix(segment.timeline);
    let behind = archive.store().list(&prefix, Some(last), Some(1)).await.map_err(ArchiveError::from)?;
    Ok(behind.is_empty())
}

/// When the first object of the same timeline behind this segment was stored.
pub(super) async fn followed_since(
    archive: &Archive,
    segment: SegmentName,
) -> Result<Option<Timestamp>, GetError> {
    let (layout, store) = (archive.layout(), archive.store());
    let prefix = layout.wal_timeline_prefix(segment.timeline);
    let after = layout.after_segment(&segment);
    let found = store.list(&prefix, Some(&after), Some(1)).await.map_err(ArchiveError::from)?;
    Ok(found.first().and_then(|object| object.modified))
}

async fn of_history(archive: &Archive, timeline: TimelineId) -> Result<Testimony, GetError> {
    let state = archive.wal_variants(&WalFileName::History(timeline)).await?;
    if state.variants.iter().any(|variant| !variant.refused) {
        return Ok(Testimony::ThereNow);
    }
    if !state.is_empty() {
        return Ok(Testimony::Existed("it is there, and was refused".to_owned()));
    }
    let prefix = archive.layout().wal_timeline_prefix(timeline);
    let found = archive.store().list(&prefix, None, Some(1)).await.map_err(ArchiveError::from)?;
    if let Some(object) = found.first() {
        return Ok(Testimony::Existed(format!("\"{}\" is of that timeline", object.key)));
    }
    let histories = archive.histories().await?;
    Ok(descendant(&histories, timeline, Lsn::ZERO))
}

/// A timeline that branched off this one at or after `start` proves that this one had
/// WAL up to there.
fn descendant(histories: &[TimelineHistory], timeline: TimelineId, start: Lsn) -> Testimony {
    for history in histories {
        // The fork as written: a later one further up the path does not undo the proof.
        let mut ancestors = history.ancestors.iter();
        if let Some(ancestor) = ancestors.find(|it| it.timeline == timeline && it.fork >= start) {
            return Testimony::Existed(format!(
                "timeline {} branched off timeline {timeline} at {}",
                history.timeline, ancestor.fork
            ));
        }
    }
    Testimony::Nothing
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_a_fork_at_or_after_the_segment_testifies() {
        let one = TimelineId::FIRST;
        let child = TimelineHistory::parse(TimelineId::new(2).unwrap(), b"1\t0/800098\tno reason\n").unwrap();
        let says = |timeline, start| descendant(std::slice::from_ref(&child), timeline, Lsn(start));
        assert!(matches!(says(one, 0x80_0000), Testimony::Existed(proof) if proof.contains("0/800098")));
        assert!(matches!(says(one, 0x80_0098), Testimony::Existed(_)));
        assert_eq!(says(one, 0x90_0000), Testimony::Nothing);
        assert_eq!(says(TimelineId::new(2).unwrap(), 0), Testimony::Nothing);
    }
}
