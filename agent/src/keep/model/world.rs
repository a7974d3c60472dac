//! What there is: timelines that fork, backups that share packs, segments, some of them missing.

use super::{MIB, tli};
use std::collections::{BTreeMap, BTreeSet};
use walpoint_wal::{Lsn, PathStep};

/// A timeline: from which one it forked, at which address, and its own first segment.
#[derive(Debug, Clone)]
pub struct Branch {
    pub parent: Option<(usize, u64)>,
    pub first: u64,
}

/// A backup.
#[derive(Debug, Clone)]
pub struct Made {
    pub branch: usize,
    pub redo: u64,
    pub stop: u64,
    /// When it ended, truly.
    pub at: i64,
    /// How wrong the server's clock and the store's were; one of them is right in the whole history.
    pub server_off: i64,
    pub store_off: i64,
    pub damaged: bool,
    pub verified: bool,
    /// Packs: whose and which.
    pub named: BTreeMap<usize, BTreeSet<u32>>,
}

/// When a segment came, truly, and how wrong the store's clock was.
#[derive(Debug, Clone, Copy)]
pub struct Segment {
    pub at: i64,
    pub store_off: i64,
}

impl Segment {
    /// When it came by the store's clock.
    pub fn shown(self) -> i64 {
        self.at + self.store_off
    }
}

#[derive(Debug, Clone, Default)]
pub struct World {
    pub branches: Vec<Branch>,
    /// Oldest first.
    pub backups: Vec<Made>,
    /// By branch and number.
    pub segments: BTreeMap<(usize, u64), Segment>,
    pub now: i64,
}

/// What is there: after an expiry, less than in the world.
#[derive(Debug, Clone, Default)]
pub struct There {
    pub backups: BTreeSet<usize>,
    pub packs: BTreeSet<(usize, u32)>,
    pub segments: BTreeSet<(usize, u64)>,
}

impl World {
    /// A segment comes so often, from this time on.
    pub fn write(&mut self, branch: usize, last: u64, begins: i64, every: i64) {
        let first = self.branches[branch].first;
        for number in first..=last {
            let segment = Segment { at: begins + (number - first) as i64 * every, store_off: 0 };
            self.segments.insert((branch, number), segment);
        }
    }

    /// The segments of one branch.
    pub fn of(&self, branch: usize) -> impl DoubleEndedIterator<Item = (u64, Segment)> + '_ {
        let own = self.segments.range((branch, 0)..=(branch, u64::MAX));
        own.map(|((_, number), segment)| (*number, *segment))
    }

    /// No segment of any branch has so high a number.
    pub fn end(&self) -> u64 {
        self.segments.keys().map(|(_, number)| number + 1).max().unwrap_or(0)
    }

    /// The way: branches, each with the first and last number that recovery along it takes from there.
    fn way(&self, branch: usize) -> Vec<(usize, u64, u64)> {
        let own = &self.branches[branch];
        let Some((parent, _)) = own.parent else { return vec![(branch, own.first, u64::MAX)] };
        let mut way: Vec<_> = self.way(parent);
        // The segment in which the fork lies is the child's.
        way.retain(|(_, first, _)| *first < own.first);
        if let Some(last) = way.last_mut() {
            last.2 = own.first - 1;
        }
        way.push((branch, own.first, u64::MAX));
        way
    }

    /// As `way`, with the segment of a fork on both sides.
    pub fn spans(&self, branch: usize) -> Vec<(usize, u64, u64)> {
        let steps = self.path(branch);
        let of = |step: &PathStep| {
            let last = step.end.map_or(self.end(), |end| (end.0 - 1) / MIB);
            (step.timeline.get() as usize - 1, step.begin.0 / MIB, last)
        };
        steps.iter().map(of).collect()
    }

    /// As histories say it.
    pub fn path(&self, branch: usize) -> Vec<PathStep> {
        let Some((parent, fork)) = self.branches[branch].parent else {
            return vec![PathStep { timeline: tli(branch as u32 + 1), begin: Lsn::ZERO, end: None }];
        };
        let mut steps = self.path(parent);
        steps.retain(|step| step.begin.0 < fork);
        if let Some(last) = steps.last_mut() {
            last.end = Some(Lsn(fork));
        }
        steps.push(PathStep { timeline: tli(branch as u32 + 1), begin: Lsn(fork), end: None });
        steps
    }

    /// Whether a recovery to this branch can begin with this backup.
    pub fn holds(&self, branch: usize, backup: &Made) -> bool {
        if backup.branch == branch {
            return true;
        }
        match self.branches[branch].parent {
            Some((parent, fork)) => backup.stop * MIB + 50 <= fork && self.holds(parent, backup),
            None => false,
        }
    }

    /// All that there is.
    pub fn all(&self) -> There {
        let mut there = There { backups: (0..self.backups.len()).collect(), ..There::default() };
        there.segments = self.segments.keys().copied().collect();
        for (index, backup) in self.backups.iter().enumerate() {
            let own = backup.named.get(&index).into_iter().flatten();
            there.packs.extend(own.map(|number| (index, *number)));
        }
        there
    }

    /// Whether the moment at this segment can be reached from this backup.
    pub fn reaches(&self, there: &There, index: usize, branch: usize, number: u64) -> bool {
        let backup = &self.backups[index];
        let mut packs = backup.named.iter().flat_map(|(of, numbers)| numbers.iter().map(|it| (*of, *it)));
        let way = self.way(branch);
        let from = |number: u64| {
            way.iter().find(|(_, first, last)| (*first..=*last).contains(&number)).map(|(branch, ..)| *branch)
        };
        there.backups.contains(&index)
            && packs.all(|pack| there.packs.contains(&pack))
            && self.holds(branch, backup)
            && backup.stop <= number
            && (backup.redo..=number)
                .all(|it| from(it).is_some_and(|from| there.segments.contains(&(from, it))))
    }

    /// Whether a backup can be restored as it was when it ended.
    pub fn is_whole(&self, there: &There, index: usize) -> bool {
        let backup = &self.backups[index];
        self.reaches(there, index, backup.branch, backup.stop)
    }

    pub fn can_reach(&self, there: &There, branch: usize, number: u64) -> bool {
        (0..self.backups.len()).any(|index| self.reaches(there, index, branch, number))
    }

    /// The same with a backup that has no damaged pages.
    pub fn can_reach_well(&self, there: &There, branch: usize, number: u64) -> bool {
        let mut well = (0..self.backups.len()).filter(|index| !self.backups[*index].damaged);
        well.any(|index| self.reaches(there, index, branch, number))
    }

    /// The backups that were verified, and are sound.
    pub fn good(&self, there: &There) -> BTreeSet<usize> {
        let is_good = |index: &usize| {
            let backup = &self.backups[*index];
            backup.verified && !backup.damaged && self.is_whole(there, *index)
        };
        (0..self.backups.len()).filter(is_good).collect()
    }
}
