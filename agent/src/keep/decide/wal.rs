//! Which segments stay, and why. With a segment stays and goes all that is stored under its name.

use super::backups::Chosen;
use super::{WalFate, WhyWal};
use crate::keep::policy::Policy;
use crate::keep::snapshot::{Snapshot, stretches};
use std::collections::{BTreeMap, BTreeSet};
use walpoint_archive::SegmentObjects;
use walpoint_wal::{TimelineId, Timestamp};

/// Segments that stay, by timeline and reason: from one number to another, in no order.
type Asked = BTreeMap<TimelineId, BTreeMap<WhyWal, Vec<(u64, u64)>>>;

/// What is to become of all segments.
pub fn fates(snapshot: &Snapshot, policy: &Policy, now: Timestamp, chosen: &Chosen) -> Vec<WalFate> {
    let mut asked = asked(snapshot, chosen);
    let cut = policy.wal.map(|wal| snapshot.signs.so_long_ago(now, wal));
    let mut fates = Vec::new();
    for (timeline, segments) in &snapshot.wal {
        let mut own = asked.remove(timeline).unwrap_or_default();
        // From the first that came after it: what was stored late may have been written early.
        let first = cut.and_then(|cut| segments.iter().find(|segment| segment.newest > cut));
        if let Some(first) = first {
            own.entry(WhyWal::Age).or_default().push((first.number, u64::MAX));
        }
        if snapshot.backups.is_empty() {
            own.entry(WhyWal::NoBackup).or_default().push((0, u64::MAX));
        }
        fates.extend(runs(*timeline, segments, own));
    }
    fates
}

fn asked(snapshot: &Snapshot, chosen: &Chosen) -> Asked {
    let mut asked = Asked::new();
    let size = snapshot.segment_size;
    let mut ask = |target: TimelineId, why: WhyWal, first: u64, last: u64| {
        let path = snapshot.paths.get(&target).map(Vec::as_slice).unwrap_or_default();
        for (timeline, from, to) in stretches(path, first, last, size) {
            asked.entry(timeline).or_default().entry(why).or_default().push((from, to));
        }
    };
    for backup in chosen.backups.keys().filter_map(|index| snapshot.backups.get(*index)) {
        let (first, last) = backup.own_wal(size);
        ask(backup.timeline, WhyWal::Backup, first, last);
    }
    for (timeline, onward) in &chosen.onward {
        for (why, from) in onward {
            ask(*timeline, *why, from.segment_number(size), u64::MAX);
        }
    }
    asked
}

/// Neighbours with the same fate together.
fn runs(
    timeline: TimelineId,
    segments: &[SegmentObjects],
    asked: BTreeMap<WhyWal, Vec<(u64, u64)>>,
) -> Vec<WalFate> {
    let mut reasons: Vec<(WhyWal, Spans)> =
        asked.into_iter().map(|(why, spans)| (why, Spans::of(spans))).collect();
    let mut runs: Vec<WalFate> = Vec::new();
    for segment in segments {
        let holding =
            reasons.iter_mut().filter_map(|(why, spans)| spans.hold(segment.number).then_some(*why));
        let stays: BTreeSet<WhyWal> = holding.collect();
        match runs.last_mut().filter(|run| run.stays == stays) {
            Some(run) => {
                run.last = segment.number;
                run.segments += 1;
                run.bytes += segment.bytes;
                run.objects += u64::from(segment.objects);
            }
            None => runs.push(WalFate {
                timeline,
                first: segment.number,
                last: segment.number,
                segments: 1,
                bytes: segment.bytes,
                objects: u64::from(segment.objects),
                stays,
            }),
        }
    }
    runs
}

/// Spans of numbers, asked in rising order.
struct Spans {
    /// By their beginnings; the next one first from the end.
    left: Vec<(u64, u64)>,
    reached: Option<u64>,
}

impl Spans {
    fn of(mut spans: Vec<(u64, u64)>) -> Self {
        spans.sort_unstable_by(|one, other| other.cmp(one));
        Self { left: spans, reached: None }
    }

    /// Whether any of them holds this number.
    fn hold(&mut self, number: u64) -> bool {
        while let Some((_, last)) = self.left.pop_if(|(first, _)| *first <= number) {
            self.reached = self.reached.max(Some(last));
        }
        self.reached.is_some_and(|reached| number <= reached)
    }
}
