//! Marks: which still are true, which are old enough, and what is not marked yet. Pure.

use crate::keep::decide::{Decision, WalFate};
use crate::keep::snapshot::Snapshot;
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
        let touched = |fate: &&WalFate| fate.timeline == timeline && fate.first <= last && first <= fate.last;
        for fate in decision.wal.iter().filter(touched) {
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
    let ranges: Vec<(TimelineId, u64, u64)> =
        marks.iter().flat_map(|mark| &mark.mark.wal).filter_map(|wal| numbers(wal, size)).collect();
    let mut wal = Vec::new();
    for fate in decision.doomed_wal() {
        let of_timeline = ranges.iter().filter(|(timeline, ..)| *timeline == fate.timeline);
        let covered: Vec<(u64, u64)> = of_timeline.map(|(_, first, last)| (*first, *last)).collect();
        for (first, last) in uncovered(fate.first, fate.last, covered) {
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
        for mark in marks.iter().filter(|mark| mark.is_ripe) {
            let Some(since) = mark.stored_at else { continue };
            for id in mark.mark.backups.iter().filter(|id| doomed.contains(id) && still.contains(id)) {
                let known = ripe.backups.entry(id.clone()).or_insert(since);
                *known = since.max(*known);
            }
            for wal in &mark.mark.wal {
                let Some((timeline, from, to)) = numbers(wal, size) else { continue };
                let of = |decision: &Decision| -> Vec<(u64, u64)> {
                    let own = decision.doomed_wal().filter(|fate| fate.timeline == timeline);
                    own.map(|fate| (fate.first, fate.last)).collect()
                };
                for (from, to) in both(&both(&[(from, to)], &of(first)), &of(again)) {
                    ripe.wal.push((timeline, from, to, since));
                }
            }
        }
        ripe
    }
}

fn numbers(wal: &MarkedWal, size: SegmentSize) -> Option<(TimelineId, u64, u64)> {
    if wal.first.timeline != wal.last.timeline {
        return None;
    }
    Some((wal.first.timeline, wal.first.number(size).ok()?, wal.last.number(size).ok()?))
}

/// What lies in a span of each list.
fn both(one: &[(u64, u64)], other: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut common = Vec::new();
    for (first, last) in one {
        for (from, to) in other {
            let (from, to) = (*first.max(from), *last.min(to));
            if from <= to {
                common.push((from, to));
            }
        }
    }
    common
}

/// What of a span lies in none of the others.
fn uncovered(first: u64, last: u64, mut spans: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    spans.sort_unstable();
    let mut left = Vec::new();
    let mut next = Some(first);
    for (from, to) in spans {
        let Some(at) = next.filter(|at| *at <= last) else { break };
        if from > at && from <= last {
            left.push((at, from - 1));
        }
        if from <= last && to >= at {
            next = to.checked_add(1);
        }
    }
    left.extend(next.filter(|at| *at <= last).map(|at| (at, last)));
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spans() -> impl Strategy<Value = Vec<(u64, u64)>> {
        prop::collection::vec((0u64..30, 0u64..10).prop_map(|(from, more)| (from, from + more)), 0..6)
    }

    fn holds(spans: &[(u64, u64)], number: u64) -> bool {
        spans.iter().any(|(from, to)| (*from..=*to).contains(&number))
    }

    proptest! {
        #[test]
        fn what_is_marked_and_what_is_not_are_a_whole(first in 0u64..30, more in 0u64..20, marked in spans()) {
            let last = first + more;
            let left = uncovered(first, last, marked.clone());
            for number in 0..60 {
                let expected = (first..=last).contains(&number) && !holds(&marked, number);
                prop_assert_eq!(holds(&left, number), expected, "{} of {:?}", number, left);
            }
        }

        #[test]
        fn only_what_both_looks_let_go_is_ripe(one in spans(), other in spans()) {
            let common = both(&one, &other);
            for number in 0..60 {
                prop_assert_eq!(holds(&common, number), holds(&one, number) && holds(&other, number));
            }
        }
    }
}
