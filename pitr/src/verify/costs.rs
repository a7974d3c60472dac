//! Which moments are lost with what was found. Pure.
//!
//! On the way to a timeline every backup reaches from its stop to the end of the WAL, or to the first
//! obstacle that a recovery with it meets. What is lost with one obstacle are the moments that no
//! backup reaches any more.

use std::collections::BTreeSet;

use walpoint_archive::BackupId;
use walpoint_wal::Lsn;

/// The way to one timeline, as far as costs are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Way {
    /// Where the timeline's own part begins.
    pub begin: Lsn,
    /// Where its WAL ends.
    pub end: Lsn,
    /// Backups that a recovery along it can begin with.
    pub backups: Vec<WayBackup>,
}

/// A backup on a way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WayBackup {
    pub id: BackupId,
    /// Where a recovery begins to read WAL.
    pub redo: Lsn,
    /// The first moment that it reaches.
    pub stop: Lsn,
}

/// Something that no recovery gets past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Obstacle {
    /// The last moment before it.
    pub stop: Lsn,
    /// A recovery that begins to read WAL here or later does not meet it.
    pub beyond: Lsn,
}

/// From and to; the first is left out of what is lost, as it is still reached.
pub(super) type Lost = (Lsn, Lsn);

impl Way {
    /// What can be reached when nothing is wrong.
    fn whole(&self) -> Option<Lost> {
        let from = self.backups.iter().map(|backup| backup.stop).min()?.max(self.begin);
        (from <= self.end).then_some((from, self.end))
    }

    /// What is lost with this obstacle.
    pub fn lost_by(&self, obstacle: Obstacle) -> Option<Lost> {
        let (first, end) = self.whole()?;
        let (meeting, beyond): (Vec<_>, Vec<_>) =
            self.backups.iter().partition(|backup| backup.redo < obstacle.beyond);
        let next = beyond.iter().map(|backup| backup.stop).min().filter(|stop| *stop <= end);
        let from = obstacle.stop.max(first);
        if meeting.iter().any(|backup| backup.stop <= obstacle.stop.min(from)) {
            return (from < next.unwrap_or(end)).then(|| (from, next.unwrap_or(end)));
        }
        // No backup that meets it has its end before it: all is lost up to the next one.
        next.is_none_or(|next| first < next).then(|| (first, next.unwrap_or(end)))
    }

    /// What is lost without these backups.
    pub fn lost_without(&self, gone: &BTreeSet<BackupId>) -> Option<Lost> {
        let (first, end) = self.whole()?;
        let others = self.backups.iter().filter(|backup| !gone.contains(&backup.id));
        let next = others.map(|backup| backup.stop).min().filter(|stop| *stop <= end);
        next.is_none_or(|next| first < next).then(|| (first, next.unwrap_or(end)))
    }

    /// What is left with all that was found: stretches of moments, each with the backup that reaches
    /// furthest back in it.
    pub fn left(&self, obstacles: &[Obstacle], gone: &BTreeSet<BackupId>) -> Vec<(Lost, BackupId)> {
        // By where they are not met any more, each with the first end that it or one behind it makes: there may be as
        // many as segments, and thousands of backups.
        let mut ends: Vec<(Lsn, Lsn)> = obstacles.iter().map(|it| (it.beyond, it.stop)).collect();
        ends.sort();
        let mut first = self.end;
        for (_, stop) in ends.iter_mut().rev() {
            first = first.min(*stop);
            *stop = first;
        }
        let mut reaches: Vec<(Lost, &BackupId)> = Vec::new();
        for backup in self.backups.iter().filter(|backup| !gone.contains(&backup.id)) {
            let met = ends.partition_point(|(beyond, _)| *beyond <= backup.redo);
            let to = ends.get(met).map_or(self.end, |(_, stop)| *stop);
            let from = backup.stop.max(self.begin);
            // The end of a backup at the very end of the WAL is a moment, too.
            if from < to || (backup.stop == to && to > self.begin) {
                reaches.push(((from, to), &backup.id));
            }
        }
        reaches.sort();
        let mut left: Vec<(Lost, BackupId)> = Vec::new();
        for ((from, to), id) in reaches {
            match left.last_mut() {
                Some(((_, before), _)) if from <= *before => *before = to.max(*before),
                _ => left.push(((from, to), id.clone())),
            }
        }
        left
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn id(number: usize) -> BackupId {
        format!("20261120T2145{number:02}Z-full-3fa9c1").parse().unwrap()
    }

    fn any_way() -> impl Strategy<Value = Way> {
        let backups = prop::collection::vec((0..30u64, 1..6u64), 0..4);
        (0..20u64, 0..40u64, backups).prop_map(|(begin, end, backups)| Way {
            begin: Lsn(begin),
            end: Lsn(end),
            backups: backups
                .into_iter()
                .enumerate()
                .map(|(number, (redo, length))| WayBackup {
                    id: id(number),
                    redo: Lsn(redo),
                    stop: Lsn(redo + length),
                })
                .collect(),
        })
    }

    /// A segment, more or less: a recovery that reads from before its end cannot get past its beginning.
    fn any_obstacle() -> impl Strategy<Value = Obstacle> {
        (0..35u64, 0..5u64)
            .prop_map(|(stop, length)| Obstacle { stop: Lsn(stop), beyond: Lsn(stop + length) })
    }

    /// Moment by moment: one is reached when some backup reads from before it to it and meets nothing.
    fn is_reached(way: &Way, moment: u64, obstacles: &[Obstacle], gone: &BTreeSet<BackupId>) -> bool {
        way.backups.iter().filter(|backup| !gone.contains(&backup.id)).any(|backup| {
            let meets = |it: &&Obstacle| backup.redo < it.beyond && moment > it.stop.0;
            backup.stop.0 <= moment && moment <= way.end.0 && !obstacles.iter().any(|it| meets(&it))
        })
    }

    fn moments(way: &Way, lost: Option<Lost>, reached_with_it: impl Fn(u64) -> bool) -> Vec<u64> {
        let within = |moment: &u64| *moment > way.begin.0;
        let Some((from, to)) = lost else { return Vec::new() };
        (from.0..=to.0).filter(within).filter(|moment| !reached_with_it(*moment)).collect()
    }

    fn lost_by_brute_force(way: &Way, obstacles: &[Obstacle], gone: &BTreeSet<BackupId>) -> Vec<u64> {
        let none = BTreeSet::new();
        let within = way.begin.0 + 1..=way.end.0.max(way.begin.0);
        within
            .filter(|moment| {
                is_reached(way, *moment, &[], &none) && !is_reached(way, *moment, obstacles, gone)
            })
            .collect()
    }

    proptest! {
        #[test]
        fn what_an_obstacle_costs_is_what_nothing_reaches_any_more(way in any_way(), obstacle in any_obstacle()) {
            let none = BTreeSet::new();
            let lost = way.lost_by(obstacle);
            let named = moments(&way, lost, |moment| is_reached(&way, moment, &[obstacle], &none));
            prop_assert_eq!(named, lost_by_brute_force(&way, &[obstacle], &none));
            // Nothing is named that is still there, but for the edges.
            if let Some((from, to)) = lost {
                for moment in from.0 + 1..to.0 {
                    prop_assert!(!is_reached(&way, moment, &[obstacle], &none), "{} of {:?}", moment, lost);
                }
            }
        }

        #[test]
        fn what_backups_cost_is_what_nothing_reaches_any_more(way in any_way(), which in 0..16usize) {
            let gone: BTreeSet<BackupId> = (0..4).filter(|it| which >> it & 1 == 1).map(id).collect();
            let lost = way.lost_without(&gone);
            let named = moments(&way, lost, |moment| is_reached(&way, moment, &[], &gone));
            prop_assert_eq!(named, lost_by_brute_force(&way, &[], &gone));
        }

        #[test]
        fn what_is_left_is_what_is_reached(
            way in any_way(),
            obstacles in prop::collection::vec(any_obstacle(), 0..3),
            which in 0..16usize,
        ) {
            let gone: BTreeSet<BackupId> = (0..4).filter(|it| which >> it & 1 == 1).map(id).collect();
            let left = way.left(&obstacles, &gone);
            for moment in way.begin.0 + 1..=way.end.0 {
                let within = left.iter().any(|((from, to), _)| (from.0..=to.0).contains(&moment));
                prop_assert_eq!(within, is_reached(&way, moment, &obstacles, &gone), "{}", moment);
            }
        }
    }
}
