//! What a policy promises.

use super::{DAY, HOUR, World};
use crate::keep::elapsed::LONGEST_SILENCE;
use crate::keep::policy::{Policy, Unit};
use std::collections::BTreeSet;

/// What is promised, by looking at everything.
#[derive(Debug, Default)]
pub struct Promised {
    /// Backups, for their own sake.
    pub backups: BTreeSet<usize>,
    /// Moments.
    pub moments: BTreeSet<(usize, u64)>,
    /// From which backups on all WAL, on which branch.
    onward: BTreeSet<(usize, usize)>,
    /// Segments, for their own sake.
    pub segments: BTreeSet<(usize, u64)>,
    /// How many verified backups there must be, when there are as many.
    pub verified: usize,
}

impl Promised {
    /// `zone` is how many hours the policy's time zone is ahead of UTC.
    pub fn by(world: &World, policy: &Policy, zone: i64) -> Promised {
        let mut promised = Promised::default();
        let count = world.backups.len();
        for index in count.saturating_sub(policy.last as usize)..count {
            promised.backups.insert(index);
            promised.all_from(world, index);
        }
        for (count, unit) in policy.calendar.asked() {
            promised.last_of_each(world, count as usize, |time| stretch(time + zone * HOUR, unit));
        }
        if let Some(window) = policy.window {
            let cut = world.now - window.as_micros() as i64;
            promised.moments.extend(world.since(cut));
            for branch in 0..world.branches.len() {
                if world.is_of_late(branch, cut) || world.is_in_use(branch) {
                    promised.window(world, branch, cut);
                    promised.unled(world, branch);
                }
            }
        }
        for branch in (0..world.branches.len()).filter(|branch| world.is_in_use(*branch)) {
            promised.moments.extend(world.of(branch).last().map(|(number, _)| (branch, number)));
            promised.unled(world, branch);
            if let Some(newest) = world.passed_on(branch).last() {
                promised.backups.insert(*newest);
                promised.onward.insert((*newest, branch));
            }
        }
        if let Some(wal) = policy.wal {
            promised.segments.extend(world.since(world.now - wal.as_micros() as i64));
        }
        if !policy.is_of_backups() {
            promised.backups.extend(0..count);
        }
        if promised.backups.is_empty() {
            promised.backups.extend(count.checked_sub(1));
        }
        // Nobody can say what is needed.
        if count == 0 {
            promised.segments.extend(world.segments.keys());
        }
        promised.verified = policy.min_verified as usize;
        promised
    }

    fn last_of_each(&mut self, world: &World, count: usize, stretch: impl Fn(i64) -> i64) {
        let mut seen = BTreeSet::new();
        for index in (0..world.backups.len()).rev() {
            let stretch = stretch(world.backups[index].at);
            if seen.len() < count && seen.insert(stretch) {
                self.backups.insert(index);
            }
        }
    }

    fn all_from(&mut self, world: &World, index: usize) {
        for branch in 0..world.branches.len() {
            if world.holds(branch, &world.backups[index]) {
                self.onward.insert((index, branch));
                let own = world.of(branch).filter(|(number, _)| *number >= world.backups[index].stop);
                self.moments.extend(own.map(|(number, _)| (branch, number)));
            }
        }
    }

    /// What nothing leads to may be all that there is of a server in use.
    fn unled(&mut self, world: &World, branch: usize) {
        if world.passed_on(branch).is_empty() {
            self.segments.extend(world.of(branch).map(|(number, _)| (branch, number)));
        }
    }

    fn window(&mut self, world: &World, branch: usize, cut: i64) {
        let passed = world.passed_on(branch);
        let before = passed.iter().filter(|index| world.backups[**index].at <= cut).count();
        for index in &passed[before.saturating_sub(1)..] {
            self.backups.insert(*index);
            self.onward.insert((*index, branch));
        }
    }

    /// The backups that stay besides because they were verified. Which they are is not promised, but their number.
    /// Where fewer are good than must stay, any of the others may be the one that is. Else those that stay anyway
    /// count, and then the newest.
    pub fn filled_up(mut self, world: &World) -> Self {
        let good = world.good(&world.all());
        if good.len() < self.verified {
            self.backups.extend(0..world.backups.len());
            return self;
        }
        let staying = good.intersection(&self.backups).count();
        let others: Vec<usize> = good.difference(&self.backups).copied().collect();
        self.backups.extend(others.iter().rev().take(self.verified.saturating_sub(staying)));
        self
    }

    /// Every segment that something asks for.
    pub fn needed(&self, world: &World) -> BTreeSet<(usize, u64)> {
        let mut needed = self.segments.clone();
        let mut span = |branch: usize, first: u64, last: u64| {
            for (it, from, to) in world.spans(branch) {
                let numbers = from.max(first)..=to.min(last);
                needed.extend(numbers.map(|number| (it, number)));
            }
        };
        for index in &self.backups {
            let backup = &world.backups[*index];
            span(backup.branch, backup.redo, backup.stop);
        }
        for (index, branch) in &self.onward {
            span(*branch, world.backups[*index].redo, world.end());
        }
        needed
    }
}

impl World {
    /// What came after that, by all clocks.
    fn since(&self, cut: i64) -> impl Iterator<Item = (usize, u64)> + '_ {
        let late = self.segments.iter().filter(move |(_, it)| it.at.min(it.shown()) > cut);
        late.map(|(segment, _)| *segment)
    }

    fn passed_on(&self, branch: usize) -> Vec<usize> {
        let held = (0..self.backups.len()).filter(|index| self.holds(branch, &self.backups[*index]));
        let mut held: Vec<usize> = held.collect();
        held.sort_by_key(|index| (self.backups[*index].stop, *index));
        held
    }

    fn is_of_late(&self, branch: usize, cut: i64) -> bool {
        self.of(branch).any(|(_, segment)| segment.at.min(segment.shown()) > cut)
            || self.backups.iter().any(|backup| backup.branch == branch && backup.at > cut)
    }

    fn is_in_use(&self, branch: usize) -> bool {
        let stored = self.segments.values().map(|segment| segment.at);
        let last = stored.chain(self.backups.iter().map(|it| it.at)).filter(|it| *it <= self.now).max();
        let cut = last.unwrap_or(self.now) - LONGEST_SILENCE.as_micros() as i64;
        branch + 1 == self.branches.len() || self.is_of_late(branch, cut)
    }
}

/// A number for the stretch of the calendar in which a time lies.
fn stretch(time: i64, unit: Unit) -> i64 {
    let day = time.div_euclid(DAY);
    let (year, month) = month_of(day);
    match unit {
        Unit::Day => day,
        // 2000-01-03 was a Monday.
        Unit::Week => (day - 2).div_euclid(7),
        Unit::Month => year * 12 + month,
        Unit::Year => year,
    }
}

/// The year and the month of a day since 2000-01-01, counted through.
fn month_of(mut day: i64) -> (i64, i64) {
    let mut year = 2000;
    let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = |year: i64| if is_leap(year) { 366 } else { 365 };
    while day >= length(year) {
        day -= length(year);
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 0;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < days {
            break;
        }
        day -= days;
        month += 1;
    }
    (year, month)
}
