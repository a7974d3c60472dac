//! Everything that can be reached on a path, and what of it is nearest to a place.

use walpoint_archive::{ArchiveError, BackupHead};
use walpoint_wal::Lsn;

use super::backup::{Fit, Need, fit};
use super::{Moment, Nearest, minimal};
use crate::coverage::last_segment_before;
use crate::locate::{Finder, Search, Spot};

/// Every record between two moments can be recovered to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reachable<'a> {
    /// The end of the first backup.
    pub from: Moment,
    /// The end of the unbroken WAL, or the last record before one that no recovery gets across.
    pub to: Moment,
    /// The last record of that.
    pub last: Spot,
    /// The first backup.
    pub backup: &'a BackupHead,
}

/// What can be reached with the backups of `finder`, in order of address.
pub(crate) async fn reachable<'a>(finder: Finder<'a>) -> Result<Vec<Reachable<'a>>, ArchiveError> {
    let mut ranges = Vec::new();
    for chain in finder.chains {
        let search = Search { wal: finder.wal, chain };
        let size = finder.wal.size();
        if !finder.backups.iter().any(|backup| chain.contains(backup.redo.segment_number(size))) {
            continue;
        }
        let (Some(mut begin), Some(last)) = (search.first_record().await?, search.last_record().await?)
        else {
            continue;
        };
        for minimal in minimal::records(search).await? {
            ranges.extend(range_before(finder, search, begin, minimal).await?);
            begin = minimal.end;
        }
        if let Some(backup) = first_serving(finder, begin, last) {
            let to = Moment { lsn: last.end, time: finder.known_time(search, last).await? };
            ranges.push(Reachable { from: end_of(backup), to, last, backup });
        }
    }
    Ok(ranges)
}

/// What can be reached from `begin` on before a record that no recovery gets across.
async fn range_before<'a>(
    finder: Finder<'a>,
    search: Search<'a>,
    begin: Lsn,
    minimal: Spot,
) -> Result<Option<Reachable<'a>>, ArchiveError> {
    let Some(last) = search.record_at(minimal.prev).await? else { return Ok(None) };
    let Some(backup) = first_serving(finder, begin, last) else { return Ok(None) };
    let commit = search.last_commit_until(last.lsn, last_segment_before(last.end, finder.wal.size())).await?;
    let time = commit.map(|commit| commit.time).max(Some(backup.stop.time));
    // Its end as a target would mean the record that is in the way.
    let (from, to) = (end_of(backup), Moment { lsn: last.lsn, time });
    Ok((from.lsn <= to.lsn).then_some(Reachable { from, to, last, backup }))
}

/// The backup that reaches furthest back in the WAL from `begin` to `last`.
fn first_serving<'a>(finder: Finder<'a>, begin: Lsn, last: Spot) -> Option<&'a BackupHead> {
    let need = Need {
        chain_start: begin,
        last_record: last.lsn,
        last_record_end: last.end,
        time: None,
        last_included: None,
    };
    let serving = finder.backups.iter().copied().filter(|backup| fit(backup, &need) == Fit::Serves);
    serving.min_by_key(|backup| (backup.stop.lsn, &backup.id))
}

fn end_of(backup: &BackupHead) -> Moment {
    Moment { lsn: backup.stop.lsn, time: Some(backup.stop.time) }
}

/// The same as far as metadata prove it: an end may lie up to a segment too early.
pub(crate) async fn reachable_by_metadata<'a>(
    finder: Finder<'a>,
) -> Result<Vec<Reachable<'a>>, ArchiveError> {
    let mut ranges = Vec::new();
    for chain in finder.chains {
        let search = Search { wal: finder.wal, chain };
        let (Some(chain_start), Some((last, time))) =
            (search.first_record().await?, finder.last_shown(search).await?)
        else {
            continue;
        };
        let need = Need {
            chain_start,
            last_record: last.start,
            last_record_end: last.end,
            time: None,
            last_included: None,
        };
        let serving = || finder.backups.iter().filter(|backup| fit(backup, &need) == Fit::Serves);
        let Some(backup) = serving().min_by_key(|backup| (backup.stop.lsn, &backup.id)) else { continue };
        let from = Moment { lsn: backup.stop.lsn, time: Some(backup.stop.time) };
        let to = Moment { lsn: last.end, time: time.max(serving().map(|backup| backup.stop.time).max()) };
        let last = Spot { lsn: last.start, end: last.end, prev: from.lsn };
        ranges.push(Reachable { from, to, last, backup });
    }
    Ok(ranges)
}

/// The last moment at or before `place`, and the first one after it.
pub(crate) fn nearest(ranges: &[Reachable<'_>], place: Lsn) -> Nearest {
    let before = ranges.iter().rev().find(|range| range.from.lsn <= place);
    let inside = before.filter(|range| range.last.lsn < place && place < range.to.lsn);
    let after = ranges.iter().map(|range| range.from).find(|from| from.lsn > place);
    Nearest {
        before: before.map(|range| range.last_until(place)),
        after: inside.map(|range| range.to).or(after),
    }
}

impl Reachable<'_> {
    /// The last moment that is not behind `place`, which is not before the first.
    fn last_until(&self, place: Lsn) -> Moment {
        let at = |lsn| Moment { lsn, time: None };
        match place {
            _ if self.to.lsn <= place => self.to,
            // Nothing starts between the last record's start and its end.
            _ if self.last.lsn >= place => at(place),
            _ if self.last.prev >= self.from.lsn => at(self.last.prev),
            _ => self.from,
        }
    }
}
