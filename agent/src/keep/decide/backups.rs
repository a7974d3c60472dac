//! Which backups stay, and from where on all WAL does.

use super::{Why, WhyWal};
use crate::keep::calendar;
use crate::keep::policy::Policy;
use crate::keep::snapshot::{Backup, Snapshot, holds};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use walpoint_wal::{Lsn, PathStep, TimelineId, Timestamp};

/// How far two clocks that are right may differ.
const CLOCKS_DIFFER: i64 = 24 * 3600 * 1_000_000;

/// A timeline on which nothing came for so long is not in use, unless it is the newest one.
const IN_USE: Duration = crate::keep::elapsed::LONGEST_SILENCE;

/// What the policies ask for.
#[derive(Debug, Default)]
pub struct Chosen {
    /// The backups, by their place in the snapshot.
    pub backups: BTreeMap<usize, BTreeSet<Why>>,
    /// By the timeline that it leads to: from where on all WAL stays, and why.
    pub onward: BTreeMap<TimelineId, BTreeMap<WhyWal, Lsn>>,
    /// Timelines that are wanted and that no backup leads to.
    pub unled: BTreeSet<TimelineId>,
    /// Timelines that count as left behind, and the last backup that leads to the end of each.
    left_behind: BTreeMap<TimelineId, usize>,
}

/// Some of the backups, in some clock's order of age, oldest first.
struct Reading {
    order: Vec<usize>,
    times: Vec<Timestamp>,
}

impl Chosen {
    /// What all policies together ask for.
    pub fn by(snapshot: &Snapshot, policy: &Policy, now: Timestamp) -> Self {
        let mut chosen = Self::default();
        let whole: Vec<bool> = snapshot.backups.iter().map(|it| is_sound(snapshot, it)).collect();
        let readings = readings(snapshot, &whole, now);
        for reading in &readings {
            chosen.take_last(snapshot, policy.last, reading);
            for (place, unit) in calendar::picked(&policy.calendar, &reading.times) {
                chosen.keep(reading.order.get(place), Why::Stretch(unit));
            }
        }
        if let Some(window) = policy.window {
            chosen.take_window(snapshot, &whole, snapshot.signs.so_long_ago(now, window), now);
        }
        chosen.take_newest(snapshot, &whole, now);
        for (index, backup) in snapshot.backups.iter().enumerate() {
            if is_of_the_future(backup, now) {
                chosen.keep(Some(&index), Why::Future);
            }
            if !policy.is_of_backups() {
                chosen.keep(Some(&index), Why::NoPolicy);
            }
        }
        if chosen.backups.is_empty() {
            chosen.take_only(&readings);
        }
        chosen.take_verified(snapshot, &whole, policy.min_verified as usize);
        chosen
    }

    fn keep(&mut self, index: Option<&usize>, why: Why) {
        if let Some(index) = index {
            self.backups.entry(*index).or_default().insert(why);
        }
    }

    /// All WAL stays from here on, on the way to a timeline.
    fn lead_on(&mut self, timeline: TimelineId, why: WhyWal, from: Lsn) {
        let onward = self.onward.entry(timeline).or_default();
        onward.entry(why).and_modify(|known| *known = from.min(*known)).or_insert(from);
    }

    fn take_last(&mut self, snapshot: &Snapshot, last: u32, reading: &Reading) {
        for index in reading.order.iter().rev().take(last as usize) {
            self.keep(Some(index), Why::Last);
            let Some(backup) = snapshot.backups.get(*index) else { continue };
            for timeline in led_to(snapshot, backup) {
                self.lead_on(timeline, WhyWal::Last, backup.redo);
            }
        }
    }

    /// On every timeline that has moments of the window: the backup that serves the oldest of them, all later
    /// ones, and all WAL from it on.
    fn take_window(&mut self, snapshot: &Snapshot, whole: &[bool], cut: Timestamp, now: Timestamp) {
        for (timeline, path) in &snapshot.paths {
            if !was_written_since(snapshot, *timeline, cut) && !is_in_use(snapshot, *timeline, now) {
                continue;
            }
            self.note_unled(snapshot, *timeline, path);
            for on_path in [on_path(snapshot, path, None), on_path(snapshot, path, Some(whole))] {
                let base = serves_from(snapshot, &on_path, cut);
                for index in on_path.iter().skip(base) {
                    self.keep(Some(index), Why::Window);
                }
                let first = on_path.get(base).and_then(|index| snapshot.backups.get(*index));
                if let Some(backup) = first {
                    self.lead_on(*timeline, WhyWal::Window, backup.redo);
                }
            }
        }
    }

    fn take_newest(&mut self, snapshot: &Snapshot, whole: &[bool], now: Timestamp) {
        for (timeline, path) in &snapshot.paths {
            if !is_in_use(snapshot, *timeline, now) {
                let last = on_path(snapshot, path, None).last().copied();
                self.left_behind.extend(last.map(|last| (*timeline, last)));
                continue;
            }
            self.note_unled(snapshot, *timeline, path);
            for on_path in [on_path(snapshot, path, None), on_path(snapshot, path, Some(whole))] {
                let newest = on_path.last().and_then(|index| Some((index, snapshot.backups.get(*index)?)));
                if let Some((index, backup)) = newest {
                    self.keep(Some(index), Why::Newest);
                    self.lead_on(*timeline, WhyWal::Present, backup.redo);
                }
            }
        }
    }

    /// Timelines may all have been left behind, or have none yet: the last backup of an archive never goes.
    fn take_only(&mut self, readings: &[Reading]) {
        for reading in readings {
            self.keep(reading.order.last(), Why::Only);
        }
    }

    fn note_unled(&mut self, snapshot: &Snapshot, timeline: TimelineId, path: &[PathStep]) {
        if on_path(snapshot, path, None).is_empty() {
            self.unled.insert(timeline);
        }
    }

    /// What an operator should know of timelines before anything goes.
    pub fn notes(&self, snapshot: &Snapshot) -> Vec<String> {
        let unled = self.unled.iter().filter(|timeline| snapshot.wal.contains_key(*timeline)).map(|timeline| {
            format!("no backup leads to timeline {timeline}, which is in use: its WAL stays; take a backup there")
        });
        let leaves = self.left_behind.iter().filter(|(_, last)| !self.backups.contains_key(*last));
        let leaves = leaves.filter_map(|(timeline, last)| Some((timeline, snapshot.backups.get(*last)?)));
        let leaves = leaves.map(|(timeline, backup)| {
            format!(
                "timeline {timeline} counts as left behind, as nothing came on it for 8 days and there is a newer \
                 one: {}, the last backup that leads to its end, goes",
                backup.id
            )
        });
        unled.chain(leaves).collect()
    }

    /// So many that were verified stay. Where fewer were, any of the others may be the one that is good.
    fn take_verified(&mut self, snapshot: &Snapshot, whole: &[bool], wanted: usize) {
        let good = |index: &usize| {
            let backup = snapshot.backups.get(*index);
            backup.is_some_and(|it| it.verified_at.is_some()) && whole.get(*index) == Some(&true)
        };
        let mut good: Vec<usize> = (0..snapshot.backups.len()).filter(good).collect();
        if good.len() < wanted {
            for index in 0..snapshot.backups.len() {
                self.keep(Some(&index), Why::TooFewVerified);
            }
            return;
        }
        // Those that stay anyway count first, then the newest.
        let stored_at = |index: &usize| snapshot.backups.get(*index).map(|it| it.stored_at);
        good.sort_by_key(|index| (self.backups.contains_key(index), stored_at(index), *index));
        for index in good.iter().rev().take(wanted) {
            self.keep(Some(index), Why::Verified);
        }
    }
}

/// A backup that is whole as listings show it, was on the server's disk, and was when it was read back.
fn is_sound(snapshot: &Snapshot, backup: &Backup) -> bool {
    backup.damaged_pages == 0 && !backup.is_damaged && snapshot.is_whole(backup)
}

fn is_of_the_future(backup: &Backup, now: Timestamp) -> bool {
    backup.ended.max(backup.stored_at).0 > now.0.saturating_add(CLOCKS_DIFFER)
}

/// All backups and the sound ones, by the server's clock and by the store's, with those of the future and without:
/// they may be among the last ones, or in the place of those that are.
fn readings(snapshot: &Snapshot, whole: &[bool], now: Timestamp) -> Vec<Reading> {
    let clocks: [fn(&Backup) -> Timestamp; 2] = [|it| it.ended, |it| it.stored_at];
    let mut readings = Vec::new();
    for clock in clocks {
        for (only_sound, with_future) in [(false, false), (true, false), (false, true), (true, true)] {
            let counts = |(index, backup): &(usize, &Backup)| {
                (with_future || !is_of_the_future(backup, now))
                    && (!only_sound || whole.get(*index) == Some(&true))
            };
            let counted = snapshot.backups.iter().enumerate().filter(counts);
            let mut by_age: Vec<(Timestamp, usize)> =
                counted.map(|(index, backup)| (clock(backup), index)).collect();
            by_age.sort_unstable();
            let (times, order) = by_age.into_iter().unzip();
            readings.push(Reading { order, times });
        }
    }
    readings
}

/// The backups with which a recovery along this path can begin, in the order in which it passes them.
fn on_path(snapshot: &Snapshot, path: &[PathStep], whole: Option<&[bool]>) -> Vec<usize> {
    let counts = |(index, backup): &(usize, &Backup)| {
        holds(path, backup) && whole.is_none_or(|whole| whole.get(*index) == Some(&true))
    };
    let mut found: Vec<(Lsn, usize)> =
        snapshot.backups.iter().enumerate().filter(counts).map(|(index, it)| (it.stop, index)).collect();
    found.sort_unstable();
    found.into_iter().map(|(_, index)| index).collect()
}

/// The place of the backup that serves the oldest moment behind `cut`: the last of those that lie before it by
/// every clock. Time goes along the WAL whatever clocks say, so a later backup with an older time does not count, and
/// one that is said to be older than those before it lies before nothing.
fn serves_from(snapshot: &Snapshot, on_path: &[usize], cut: Timestamp) -> usize {
    let (mut newest, mut base) = (Timestamp(i64::MIN), 0);
    for (place, backup) in on_path.iter().filter_map(|index| snapshot.backups.get(*index)).enumerate() {
        let time = backup.ended.max(backup.stored_at);
        if time > cut {
            break;
        }
        if time >= newest {
            (newest, base) = (time, place);
        }
    }
    base
}

/// The timelines to which recovery can go from this backup.
fn led_to<'s>(snapshot: &'s Snapshot, backup: &'s Backup) -> impl Iterator<Item = TimelineId> + 's {
    let led = snapshot.paths.iter().filter(|(_, path)| holds(path, backup));
    led.map(|(timeline, _)| *timeline)
}

/// Whether something of this timeline's own came after `cut`, or a server said that there is nothing to come: moments
/// pass for one that is at rest, too.
fn was_written_since(snapshot: &Snapshot, timeline: TimelineId, cut: Timestamp) -> bool {
    if snapshot.idle.get(&timeline).is_some_and(|said_at| *said_at > cut) {
        return true;
    }
    let own = snapshot.wal.get(&timeline);
    let wal = own.is_some_and(|own| own.iter().any(|segment| segment.newest > cut));
    let is_later = |it: &Backup| it.timeline == timeline && it.ended.max(it.stored_at) > cut;
    wal || snapshot.backups.iter().any(is_later)
}

/// Whether a server is on this timeline: WAL or its proof of rest came of late, or there is no newer timeline.
fn is_in_use(snapshot: &Snapshot, timeline: TimelineId, now: Timestamp) -> bool {
    let newest = snapshot.paths.last_key_value().map(|(timeline, _)| *timeline);
    let last_sign = snapshot.signs.last().unwrap_or(now).min(now);
    let of_late = last_sign.0.saturating_sub(i64::try_from(IN_USE.as_micros()).unwrap_or(i64::MAX));
    newest == Some(timeline) || was_written_since(snapshot, timeline, Timestamp(of_late))
}
