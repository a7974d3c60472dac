//! Marks: which still are true, which are old enough, and what is not marked yet. Pure.

use crate::keep::decide::{Decision, WalFate};
use crate::keep::snapshot::Snapshot;
use crate::keep::spans::Spans;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use walpoint_archive::{BackupId, ExpiryMark, MarkedWal, ObjectKey, StandingMark};
use walpoint_wal::{SegmentName, SegmentSize, TimelineId, Timestamp};

/// A mark, and whether its time of grace is over.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Where it lies.
    pub key: ObjectKey,
    /// What it says; nothing when it cannot be read.
    pub mark: ExpiryMark,
    /// Since when, by the store's clock.
    pub stored_at: Option<Timestamp>,
    /// Whether it is old enough.
    pub is_ripe: bool,
    /// Whether it says anything at all.
    is_sound: bool,
}

impl Standing {
    /// Judges a mark's age: the store must say that it is so old, and so much time must have passed by all else that
    /// the archive shows.
    pub fn of(mark: StandingMark, snapshot: &Snapshot, grace: Duration) -> Self {
        let passed = |now, since| snapshot.signs.has_passed(since, now, grace);
        let by_signs = snapshot.now.zip(mark.stored_at).is_some_and(|(now, since)| passed(now, since));
        let since_then = snapshot.now.zip(mark.stored_at).and_then(|(now, since)| elapsed(since, now));
        let by_store = mark.age.or(since_then).is_some_and(|age| age >= grace);
        let is_sound = mark.mark.is_ok();
        let is_ripe = is_sound && by_store && by_signs;
        let (key, stored_at) = (mark.key, mark.stored_at);
        Self { key, mark: mark.mark.unwrap_or_default(), stored_at, is_ripe, is_sound }
    }

    /// Whether this is the other one, as it was.
    pub fn is_still(&self, other: &Self) -> bool {
        (&self.key, &self.mark, self.stored_at) == (&other.key, &other.mark, other.stored_at)
    }

    /// Whether it says anything at all.
    pub fn is_sound(&self) -> bool {
        self.is_sound
    }
}

fn elapsed(since: Timestamp, now: Timestamp) -> Option<Duration> {
    u64::try_from(now.0.checked_sub(since.0)?).ok().map(Duration::from_micros)
}

/// Whether all that a mark names, as far as it is still there, is to go and was there when it was made. A mark that
/// is not true any more is taken away, so that nothing goes by an old mark which was wanted in between.
pub fn is_true(mark: &Standing, snapshot: &Snapshot, decision: &Decision) -> bool {
    if !mark.is_sound {
        return false;
    }
    let doomed = decision.doomed_backups();
    let young: BTreeSet<&BackupId> =
        decision.folders.iter().filter(|folder| folder.is_young).map(|folder| &folder.id).collect();
    let stays: BTreeSet<&BackupId> =
        decision.backups.iter().filter(|it| !it.stays.is_empty()).map(|it| &it.id).collect();
    let mut names_something = false;
    for id in &mark.mark.backups {
        let newest = snapshot.folders.get(id).and_then(|folder| folder.newest);
        if stays.contains(id) || young.contains(id) || newest > mark.stored_at {
            return false;
        }
        names_something |= doomed.contains(id);
    }
    let size = snapshot.segment_size;
    for wal in &mark.mark.wal {
        let Some((timeline, first, last)) = numbers(wal, size) else { return false };
        for fate in touched(&decision.wal, timeline, first, last) {
            if !fate.stays.is_empty() {
                return false;
            }
            names_something = true;
        }
        let own = snapshot.wal.get(&timeline).map(Vec::as_slice).unwrap_or_default();
        let begin = own.partition_point(|segment| segment.number < first);
        let mut named = own.iter().skip(begin).take_while(|segment| segment.number <= last);
        if named.any(|segment| Some(segment.newest) > mark.stored_at) {
            return false;
        }
    }
    // What it named is gone: it has done its work.
    names_something
}

/// What goes and no mark names yet.
pub fn fresh(snapshot: &Snapshot, decision: &Decision, marks: &[&Standing]) -> ExpiryMark {
    let size = snapshot.segment_size;
    let marked: BTreeSet<&BackupId> = marks.iter().flat_map(|mark| &mark.mark.backups).collect();
    let doomed = decision.doomed_backups();
    let backups = doomed.into_iter().filter(|id| !marked.contains(id)).cloned().collect();
    let mut covered: BTreeMap<TimelineId, Spans> = BTreeMap::new();
    for (timeline, first, last) in
        marks.iter().flat_map(|mark| &mark.mark.wal).filter_map(|wal| numbers(wal, size))
    {
        covered.entry(timeline).or_default().add(first, last);
    }
    let mut wal = Vec::new();
    for fate in decision.doomed_wal() {
        let uncovered = match covered.get(&fate.timeline) {
            Some(covered) => covered.others(fate.first, fate.last),
            None => vec![(fate.first, fate.last)],
        };
        for (first, last) in uncovered {
            let name = |number| SegmentName::from_number(fate.timeline, number, size);
            wal.extend(name(first).zip(name(last)).map(|(first, last)| MarkedWal { first, last }));
        }
    }
    let seen = snapshot.backups.iter().map(|backup| backup.id.clone()).collect();
    ExpiryMark { backups, wal, seen }
}

/// What may be deleted now: marked for long enough, and wanted in neither of two looks.
#[derive(Clone, Debug, Default)]
pub struct Ripe {
    /// Folders of backups; what was stored in them by then.
    pub backups: BTreeMap<BackupId, Timestamp>,
    /// Segments of a timeline, from one number to another; what was stored of them by then.
    pub wal: Vec<(TimelineId, u64, u64, Timestamp)>,
}

impl Ripe {
    /// By these marks.
    pub fn of(marks: &[&Standing], size: SegmentSize, first: &Decision, again: &Decision) -> Self {
        let mut ripe = Self::default();
        let (doomed, still) = (first.doomed_backups(), again.doomed_backups());
        let (wal, wal_still) = (doomed_by_timeline(first), doomed_by_timeline(again));
        for mark in marks.iter().filter(|mark| mark.is_ripe) {
            let Some(since) = mark.stored_at else { continue };
            for id in mark.mark.backups.iter().filter(|id| doomed.contains(id) && still.contains(id)) {
                let known = ripe.backups.entry(id.clone()).or_insert(since);
                *known = since.max(*known);
            }
            for marked in &mark.mark.wal {
                let Some((timeline, from, to)) = numbers(marked, size) else { continue };
                let own = wal.get(&timeline).map(Vec::as_slice).unwrap_or_default();
                let own_still = wal_still.get(&timeline).map(Vec::as_slice).unwrap_or_default();
                for (from, to) in common(own, from, to) {
                    let both = common(own_still, from, to);
                    ripe.wal.extend(both.map(|(from, to)| (timeline, from, to, since)));
                }
            }
        }
        ripe
    }
}

/// The runs that share a segment with a span; they come by timeline and number, each once.
fn touched(runs: &[WalFate], timeline: TimelineId, first: u64, last: u64) -> impl Iterator<Item = &WalFate> {
    let begin = runs.partition_point(|run| (run.timeline, run.last) < (timeline, first));
    runs.iter().skip(begin).take_while(move |run| run.timeline == timeline && run.first <= last)
}

/// What goes, by timeline, as spans in their order.
fn doomed_by_timeline(decision: &Decision) -> BTreeMap<TimelineId, Vec<(u64, u64)>> {
    let mut doomed: BTreeMap<TimelineId, Vec<(u64, u64)>> = BTreeMap::new();
    for fate in decision.doomed_wal() {
        doomed.entry(fate.timeline).or_default().push((fate.first, fate.last));
    }
    doomed
}

/// What of a span lies in one of others, which come in their order.
fn common(spans: &[(u64, u64)], first: u64, last: u64) -> impl Iterator<Item = (u64, u64)> {
    let begin = spans.partition_point(|(_, to)| *to < first);
    let touched = spans.iter().skip(begin).take_while(move |(from, _)| *from <= last);
    touched.map(move |(from, to)| (first.max(*from), last.min(*to)))
}

fn numbers(wal: &MarkedWal, size: SegmentSize) -> Option<(TimelineId, u64, u64)> {
    if wal.first.timeline != wal.last.timeline {
        return None;
    }
    Some((wal.first.timeline, wal.first.number(size).ok()?, wal.last.number(size).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keep::decide::WhyWal;
    use proptest::prelude::*;

    /// Runs that go or stay, with and without room between them, in their order.
    fn runs() -> impl Strategy<Value = Vec<WalFate>> {
        prop::collection::vec((1u32..3, 0u64..4, 0u64..5, any::<bool>()), 0..12).prop_map(|parts| {
            let mut parts: Vec<_> = parts;
            parts.sort_by_key(|(timeline, ..)| *timeline);
            let (mut next, mut on) = (0, 1);
            let run = |(timeline, room, more, goes): (u32, u64, u64, bool)| {
                next = if timeline == on { next } else { 0 };
                on = timeline;
                let (first, last) = (next + room, next + room + more);
                next = last + 1;
                let stays = if goes { BTreeSet::new() } else { BTreeSet::from([WhyWal::Backup]) };
                let timeline = TimelineId::new(timeline).unwrap_or(TimelineId::FIRST);
                WalFate { timeline, first, last, segments: more + 1, bytes: 0, objects: 0, stays }
            };
            parts.into_iter().map(run).collect()
        })
    }

    proptest! {
        #[test]
        fn a_span_is_compared_with_the_runs_that_share_a_segment_with_it(
            runs in runs(), timeline in 1u32..3, first in 0u64..50, more in 0u64..20,
        ) {
            let (timeline, last) = (TimelineId::new(timeline).unwrap_or(TimelineId::FIRST), first + more);
            let found: Vec<&WalFate> = touched(&runs, timeline, first, last).collect();
            let shares = |run: &&WalFate| run.timeline == timeline && run.first <= last && first <= run.last;
            prop_assert_eq!(found, runs.iter().filter(shares).collect::<Vec<_>>());
            let spans: Vec<(u64, u64)> =
                runs.iter().filter(|run| run.timeline == timeline).map(|run| (run.first, run.last)).collect();
            let found: Vec<(u64, u64)> = common(&spans, first, last).collect();
            for number in 0..120 {
                let holds = |spans: &[(u64, u64)]| spans.iter().any(|(from, to)| (*from..=*to).contains(&number));
                prop_assert_eq!(holds(&found), holds(&spans) && (first..=last).contains(&number), "{}", number);
            }
        }
    }
}
