//! WAL by timeline: from where to where, with the gaps, the undecided conflicts and the damage.

use super::damage::{self, DamagedSegment};
use crate::exit::Failure;
use crate::output;
use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use walpoint_archive::Archive;
use walpoint_archive::catalog::{Catalog, CatalogScope, SegmentState, Usable};
use walpoint_wal::{Lsn, SegmentName, SegmentSize, TimelineId};

#[derive(Debug, Serialize)]
struct Wal {
    cluster: walpoint_wal::SystemIdentifier,
    timelines: Vec<Timeline>,
    /// Objects that should say something and cannot be read.
    damaged: Vec<serde_json::Value>,
}

#[derive(Debug, Serialize)]
struct Timeline {
    timeline: TimelineId,
    parent: Option<TimelineId>,
    fork_lsn: Option<Lsn>,
    first: Option<SegmentName>,
    last: Option<SegmentName>,
    count: u64,
    /// The segment that is being written, as far as its beginning was shipped.
    tail: Option<TailEnd>,
    gaps: Vec<Gap>,
    conflicts: Vec<SegmentName>,
    damaged: Vec<DamagedSegment>,
    partials: Vec<SegmentName>,
    has_history: bool,
}

/// How far the newest segment reaches when it is not there whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct TailEnd {
    segment: SegmentName,
    lsn: Lsn,
}

/// Segments that are missing between others, or before the fork of a later timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Gap {
    first: SegmentName,
    last: SegmentName,
}

/// Renders the archive's WAL.
pub async fn list(archive: &Archive, workers: NonZeroUsize, as_json: bool) -> Result<String, Failure> {
    let catalog = archive.catalog(CatalogScope::All).await?;
    let size = catalog.cluster.segment_size;
    let timelines = known_timelines(&catalog);
    let timelines: Vec<Timeline> = stream::iter(timelines)
        .map(|timeline| describe(archive, &catalog, timeline, size))
        .buffered(workers.get())
        .try_collect()
        .await?;
    let damaged = super::unreadable(&catalog);
    let wal = Wal { cluster: catalog.cluster.system_identifier, timelines, damaged };
    if as_json { output::json_line(&wal) } else { Ok(text(&wal) + &super::unreadable_text(&catalog)) }
}

fn known_timelines(catalog: &Catalog) -> BTreeSet<TimelineId> {
    let mut timelines: BTreeSet<TimelineId> = catalog.wal.keys().copied().collect();
    timelines.extend(catalog.histories.keys());
    timelines.extend(catalog.history_conflicts.iter());
    timelines.extend(catalog.partials.keys().map(|name| name.timeline));
    timelines
}

async fn describe(
    archive: &Archive,
    catalog: &Catalog,
    timeline: TimelineId,
    size: SegmentSize,
) -> Result<Timeline, Failure> {
    let none = BTreeMap::new();
    let segments = catalog.wal.get(&timeline).unwrap_or(&none);
    let name = |number: u64| SegmentName::from_number(timeline, number, size);
    let numbers: Vec<u64> = segments
        .iter()
        .filter(|(_, state)| state.available() != Usable::Nothing)
        .map(|(number, _)| *number)
        .collect();
    let origin = catalog.histories.get(&timeline).and_then(|history| history.ancestors.last());
    Ok(Timeline {
        timeline,
        parent: origin.map(|parent| parent.timeline),
        fork_lsn: origin.map(|parent| parent.fork),
        first: numbers.first().copied().and_then(name),
        last: numbers.last().copied().and_then(name),
        count: numbers.len() as u64,
        tail: segments.last_key_value().and_then(|(number, state)| tail_end(name(*number)?, state, size)),
        gaps: gaps(&numbers, known_end(catalog, timeline, size))
            .into_iter()
            .filter_map(|(first, last)| Some(Gap { first: name(first)?, last: name(last)? }))
            .collect(),
        conflicts: undecided(segments).filter_map(name).collect(),
        damaged: damage::of_timeline(archive, timeline, segments, size).await?,
        partials: catalog.partials.keys().filter(|name| name.timeline == timeline).copied().collect(),
        has_history: timeline == TimelineId::FIRST || catalog.histories.contains_key(&timeline),
    })
}

fn undecided(segments: &BTreeMap<u64, SegmentState>) -> impl Iterator<Item = u64> {
    let is_undecided = |state: &SegmentState| matches!(state.usable(), Usable::Ambiguous(_));
    segments.iter().filter(move |(_, state)| is_undecided(state)).map(|(number, _)| *number)
}

fn tail_end(segment: SegmentName, state: &SegmentState, size: SegmentSize) -> Option<TailEnd> {
    let Usable::One(variant) = state.available() else { return None };
    let end = u64::from(variant.tail.as_ref()?.end());
    Some(TailEnd { segment, lsn: segment.start(size).ok()?.checked_add(end)? })
}

/// The first segment that need not be on this timeline: the one in which the last of those that descend
/// from it forks off, and of which that has a copy.
fn known_end(catalog: &Catalog, timeline: TimelineId, size: SegmentSize) -> Option<u64> {
    let ancestors = catalog.histories.values().flat_map(|history| &history.ancestors);
    let forks = ancestors.filter(|ancestor| ancestor.timeline == timeline);
    forks.map(|ancestor| ancestor.fork.segment_number(size)).max()
}

/// The ranges that are missing between ascending numbers, and from the last of them to the known end.
fn gaps(numbers: &[u64], end: Option<u64>) -> Vec<(u64, u64)> {
    let behind = end.filter(|end| numbers.last().is_some_and(|last| last < end));
    let next = numbers.iter().skip(1).chain(&behind);
    let pairs = numbers.iter().zip(next);
    pairs.filter(|(one, next)| **one + 1 < **next).map(|(one, next)| (one + 1, next - 1)).collect()
}

fn text(wal: &Wal) -> String {
    let mut text = format!("cluster {}\n", wal.cluster);
    let header = ["timeline", "parent", "fork", "first", "last", "segments"];
    let or_none = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let row = |timeline: &Timeline| {
        vec![
            timeline.timeline.to_string(),
            or_none(timeline.parent.map(|parent| parent.to_string())),
            or_none(timeline.fork_lsn.map(|fork| fork.to_string())),
            or_none(timeline.first.map(|name| name.to_string())),
            or_none(timeline.last.map(|name| name.to_string())),
            timeline.count.to_string(),
        ]
    };
    text += &output::table(&header, &wal.timelines.iter().map(row).collect::<Vec<_>>());
    for timeline in &wal.timelines {
        text += &remarks(timeline);
    }
    text
}

fn remarks(timeline: &Timeline) -> String {
    let mut text = String::new();
    if !timeline.has_history {
        text += &format!("timeline {}: its history file is missing\n", timeline.timeline);
    }
    if let Some(tail) = &timeline.tail {
        text += &format!("tail: {} up to {}\n", tail.segment, tail.lsn);
    }
    for gap in &timeline.gaps {
        text += &format!("gap: {} to {}\n", gap.first, gap.last);
    }
    for name in &timeline.conflicts {
        text += &format!("undecided: {name} (walpoint list --wal {name})\n");
    }
    for damage in &timeline.damaged {
        text += &format!("damaged: {} at {}\n", damage.segment, damage.lsn);
    }
    for name in &timeline.partials {
        text += &format!("partial: {name}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_lie_between_what_is_there_and_before_the_last_fork() {
        for (numbers, end, expected) in [
            (&[][..], None, &[][..]),
            (&[], Some(7), &[]),
            (&[3], None, &[]),
            (&[3, 4, 5], None, &[]),
            (&[3, 4, 5], Some(5), &[]),
            (&[3, 4, 5], Some(6), &[]),
            (&[3, 5], None, &[(4, 4)]),
            (&[1, 5, 6, 9], Some(8), &[(2, 4), (7, 8)]),
            (&[1, 5, 6], Some(9), &[(2, 4), (7, 8)]),
        ] {
            assert_eq!(gaps(numbers, end), expected, "{numbers:?} {end:?}");
        }
    }
}
