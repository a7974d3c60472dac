//! Which segments stay, and why. With a segment stays and goes all that is stored under its name.

use super::backups::Chosen;
use super::{WalFate, WhyWal};
use crate::keep::policy::Policy;
use crate::keep::snapshot::{Snapshot, stretches};
use crate::keep::spans::Spans;
use std::collections::{BTreeMap, BTreeSet};
use walpoint_archive::SegmentObjects;
use walpoint_wal::{TimelineId, Timestamp};

/// Segments that are asked for, by timeline and reason, whether they are listed or not.
pub type Asked = BTreeMap<TimelineId, BTreeMap<WhyWal, Spans>>;

/// What is asked for.
pub fn asked(snapshot: &Snapshot, policy: &Policy, now: Timestamp, chosen: &Chosen) -> Asked {
    let mut asked = by_backups(snapshot, chosen);
    let cut = policy.wal.map(|wal| snapshot.signs.so_long_ago(now, wal));
    for (timeline, segments) in &snapshot.wal {
        let own = asked.entry(*timeline).or_default();
        // From the first that came after it: what was stored late may have been written early.
        let first = cut.and_then(|cut| segments.iter().find(|segment| segment.newest > cut));
        if let Some(first) = first {
            own.entry(WhyWal::Age).or_default().add(first.number, u64::MAX);
        }
        if snapshot.backups.is_empty() || chosen.unled.contains(timeline) {
            own.entry(WhyWal::NoBackup).or_default().add(0, u64::MAX);
        }
    }
    asked
}

/// What is to become of all segments.
pub fn fates(snapshot: &Snapshot, asked: &Asked) -> Vec<WalFate> {
    let nothing = BTreeMap::new();
    let of = |(timeline, segments): (&TimelineId, &Vec<SegmentObjects>)| {
        runs(*timeline, segments, asked.get(timeline).unwrap_or(&nothing))
    };
    snapshot.wal.iter().flat_map(of).collect()
}

fn by_backups(snapshot: &Snapshot, chosen: &Chosen) -> Asked {
    let mut asked = Asked::new();
    let size = snapshot.segment_size;
    let mut ask = |target: TimelineId, why: WhyWal, first: u64, last: u64| {
        let path = snapshot.paths.get(&target).map(Vec::as_slice).unwrap_or_default();
        for (timeline, from, to) in stretches(path, first, last, size) {
            asked.entry(timeline).or_default().entry(why).or_default().add(from, to);
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

/// Neighbours with the same fate together. Between two that go together nothing is asked for, listed or not.
fn runs(timeline: TimelineId, segments: &[SegmentObjects], asked: &BTreeMap<WhyWal, Spans>) -> Vec<WalFate> {
    let mut runs: Vec<WalFate> = Vec::new();
    for segment in segments {
        let holding = asked.iter().filter(|(_, spans)| spans.hold(segment.number));
        let stays: BTreeSet<WhyWal> = holding.map(|(why, _)| *why).collect();
        let goes_on = |run: &&mut WalFate| {
            let between = (run.last, segment.number);
            run.stays == stays
                && (!stays.is_empty() || !asked.values().any(|spans| spans.hold_any(between.0, between.1)))
        };
        match runs.last_mut().filter(goes_on) {
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
