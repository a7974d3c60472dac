//! All that can be reached: ranges of moments, and the gaps between them.

use std::cmp::Reverse;

use serde::Serialize;
use walpoint_archive::{Archive, ArchiveError, BackupId, Catalog, SegmentState, Usable};
use walpoint_wal::{Lsn, SegmentName, TimelineId, Timestamp};

use crate::coverage::{Coverage, Gap, Illegible};
use crate::locate::{Content, Finder, PathWal, Search, WalSource, chains};
use crate::path::{TimelinePath, known};
use crate::plan::{Moment, Reachable, on_path, reachable, reachable_by_metadata, words};

/// What can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Window {
    /// By timeline, then by address.
    pub ranges: Vec<Range>,
    /// Segments that are missing, undecided or damaged, by timeline.
    pub gaps: Vec<WindowGap>,
    /// False when it was made without the key, by metadata alone: an end can lie later than
    /// it says, by less than a segment, a gap that says so may be none, and a time with
    /// `wal_level = minimal`, which no recovery gets across, is not seen.
    pub exact: bool,
}

/// Every moment from one to another can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Range {
    /// The timeline to recover to.
    pub timeline: TimelineId,
    /// The first moment: the end of a backup, or the fork where the timeline begins.
    pub from: Moment,
    /// The last moment.
    pub to: Moment,
    /// The backup that reaches furthest back in it.
    pub backup: BackupId,
}

/// Segments that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WindowGap {
    /// Their timeline.
    pub timeline: TimelineId,
    /// The first.
    pub first: SegmentName,
    /// The last.
    pub last: SegmentName,
    /// Why, in words.
    pub reason: String,
}

/// Everything that can be reached, on every timeline. Reads metadata of the segments where
/// runs of WAL end, and the segments where they do not meet. Of encrypted WAL for which
/// there is no key, metadata alone.
pub async fn window(archive: &Archive, catalog: &Catalog) -> Result<Window, ArchiveError> {
    match window_by(archive, catalog, Content::Read).await {
        Err(ArchiveError::NoKey { .. }) => window_by_metadata(archive, catalog).await,
        shown => shown,
    }
}

/// The same without the content of any segment.
pub(crate) async fn window_by_metadata(archive: &Archive, catalog: &Catalog) -> Result<Window, ArchiveError> {
    window_by(archive, catalog, Content::Sealed).await
}

async fn window_by(archive: &Archive, catalog: &Catalog, content: Content) -> Result<Window, ArchiveError> {
    let source = WalSource::new(archive, catalog.cluster.system_identifier, catalog.cluster.segment_size);
    let mut illegible = Illegible::default();
    let exact = content == Content::Read;
    let mut window = Window { ranges: Vec::new(), gaps: Vec::new(), exact };
    for timeline in known(catalog) {
        // A timeline that nothing leads to has no window; `list --wal` shows it.
        let Ok(path) = TimelinePath::to(catalog, timeline) else { continue };
        let own = loop {
            let coverage = Coverage::without(catalog, path.clone(), &illegible);
            match window_of(&source, catalog, &coverage, content).await {
                Ok(own) => break own,
                Err(error) if illegible.learns(&source, catalog, &error).await => {}
                Err(error) => return Err(error),
            }
        };
        window.ranges.extend(own.ranges);
        window.gaps.extend(own.gaps);
    }
    window.gaps = each_once(window.gaps);
    Ok(window)
}

/// By timeline, then by address, each once: the way to a child passes the gaps of its
/// parent as well, and sees no further than the fork.
fn each_once(mut gaps: Vec<WindowGap>) -> Vec<WindowGap> {
    // The longer one first.
    gaps.sort_by_key(|gap| (gap.timeline, gap.first, Reverse(gap.last)));
    let mut kept: Vec<WindowGap> = Vec::new();
    for gap in gaps {
        let is_shown = kept.last().is_some_and(|last| last.timeline == gap.timeline && gap.last <= last.last);
        if !is_shown {
            kept.push(gap);
        }
    }
    kept
}

/// The ranges that belong to the newest timeline of a path, and every gap on the way: a
/// hole in the parent before the fork may show on no other.
async fn window_of(
    source: &WalSource<'_>,
    catalog: &Catalog,
    coverage: &Coverage<'_>,
    content: Content,
) -> Result<Window, ArchiveError> {
    let exact = content == Content::Read;
    let mut window = Window { ranges: Vec::new(), gaps: Vec::new(), exact };
    let backups: Vec<_> = catalog.backups.iter().collect();
    let backups = on_path(&backups, &coverage.path);
    let wal = PathWal::new(source, coverage);
    let chains = chains(&wal, content).await?;
    let finder = Finder { wal: &wal, chains: &chains, backups: &backups, idle: &catalog.idle };
    let ranges = match content {
        Content::Read => reachable(finder).await?,
        Content::Sealed => reachable_by_metadata(finder).await?,
    };
    for range in ranges {
        window.ranges.extend(own_part(finder, catalog, range, content).await?);
    }
    window.gaps.extend(coverage.gaps.iter().map(named_gap));
    window.gaps.extend((0..chains.len()).filter_map(|at| broken(finder, at)));
    Ok(window)
}

/// What of a range lies on the newest timeline of the path; the rest is that of older ones.
async fn own_part(
    finder: Finder<'_>,
    catalog: &Catalog,
    range: Reachable<'_>,
    content: Content,
) -> Result<Option<Range>, ArchiveError> {
    let path = &finder.wal.coverage.path;
    let begin = own_begin(finder.wal, catalog);
    if range.to.lsn <= begin {
        return Ok(None);
    }
    let from = match range.from.lsn < begin {
        true if content == Content::Sealed => Moment { lsn: begin, time: None },
        true => Moment { lsn: begin, time: time_at(finder, begin).await? },
        false => range.from,
    };
    Ok(Some(Range { timeline: path.timeline, from, to: range.to, backup: range.backup.id.clone() }))
}

/// Where the newest timeline of the path begins: at its fork, or with the segment that the
/// fork is in when the parent's own file of it is not there.
fn own_begin(wal: &PathWal<'_>, catalog: &Catalog) -> Lsn {
    let mut steps = wal.coverage.path.steps.iter().rev();
    let begin = steps.next().map_or(Lsn::ZERO, |step| step.begin);
    let number = begin.segment_number(wal.size());
    let Some(parent) = steps.next() else { return begin };
    let own = catalog.wal.get(&parent.timeline).and_then(|segments| segments.get(&number));
    match own.map(SegmentState::available) {
        Some(Usable::One(_)) => begin,
        _ => wal.start_of(number).max(parent.begin),
    }
}

/// The first time that the WAL shows from here on, near by.
async fn time_at(finder: Finder<'_>, lsn: Lsn) -> Result<Option<Timestamp>, ArchiveError> {
    let number = lsn.segment_number(finder.wal.size());
    let Some(chain) = finder.chains.iter().find(|chain| chain.contains(number)) else { return Ok(None) };
    let scanned = Search { wal: finder.wal, chain }.scanned(number).await?;
    let mut events = scanned.events.iter().filter(|event| event.spot.lsn >= lsn);
    Ok(events.find_map(|event| event.event.time()))
}

fn named_gap(gap: &Gap) -> WindowGap {
    WindowGap { timeline: gap.timeline, first: gap.first, last: gap.last, reason: words::gap(gap).0 }
}

fn broken(finder: Finder<'_>, at: usize) -> Option<WindowGap> {
    let name = finder.chains.get(at)?.ends.segment()?;
    let (reason, _) = finder.break_after(at)?;
    Some(WindowGap { timeline: name.timeline, first: name, last: name, reason })
}

#[cfg(test)]
mod tests;
