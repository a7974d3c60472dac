//! Random histories and policies, and what is promised of them.

use super::*;
use crate::keep::model::{BEGIN, Branch, DAY, HOUR, MIB, Made, Promised, World};
use crate::keep::policy::Calendar;
use jiff::tz::TimeZone;
use proptest::prelude::*;
use std::time::Duration;

/// A policy, and by how many hours its time zone is ahead of UTC.
type ZonedPolicy = (Policy, i64);

/// Of every kind, in every combination.
fn policies() -> impl Strategy<Value = ZonedPolicy> {
    let days = |days: u64| Duration::from_secs(days * 24 * 3600);
    let some_days = move || prop_oneof![3 => 0u64..12, 1 => 0u64..150].prop_map(days);
    let units = || prop_oneof![2 => Just(0u32), 3 => 0u32..4];
    let calendar = (units(), units(), units(), units());
    let zone =
        prop_oneof![Just(("UTC", 0i64)), Just(("Pacific/Kiritimati", 14)), Just(("America/Bogota", -5))];
    let time = prop::option::of(some_days());
    let wal = prop::option::weighted(0.3, some_days());
    let min_verified = prop_oneof![1 => Just(0u32), 1 => 1u32..4];
    (0u32..4, time, calendar, wal, min_verified, zone).prop_map(
        |(last, window, (daily, weekly, monthly, yearly), wal, min_verified, (zone, ahead))| {
            let zone = TimeZone::get(zone).unwrap();
            let calendar = Calendar { daily, weekly, monthly, yearly, zone };
            let grace = Duration::from_secs(3600);
            (Policy { last, window, calendar, wal, min_verified, grace }, ahead)
        },
    )
}

#[derive(Debug, Clone)]
struct Fork {
    parent: prop::sample::Index,
    at: prop::sample::Index,
    /// Inside a segment, not between two.
    inside: bool,
    length: u64,
    delay: i64,
}

#[derive(Debug, Clone)]
struct Taken {
    branch: prop::sample::Index,
    at: prop::sample::Index,
    more: u64,
    named: Vec<(prop::sample::Index, u32)>,
    /// Days by which a clock is wrong.
    off: i64,
    damaged: bool,
    verified: bool,
}

fn forks() -> impl Strategy<Value = Fork> {
    let places = (any::<prop::sample::Index>(), any::<prop::sample::Index>());
    (places, any::<bool>(), 1u64..25, 0i64..120).prop_map(|((parent, at), inside, length, hours)| Fork {
        parent,
        at,
        inside,
        length,
        delay: hours * HOUR,
    })
}

fn taken() -> impl Strategy<Value = Taken> {
    let places = (any::<prop::sample::Index>(), any::<prop::sample::Index>());
    let named = prop::collection::vec((any::<prop::sample::Index>(), 0u32..3), 0..4);
    let off = prop_oneof![4 => Just(0i64), 1 => -400i64..400];
    let state = (off, prop::bool::weighted(0.1), any::<bool>());
    (places, 0u64..2, named, state).prop_map(|((branch, at), more, named, (off, damaged, verified))| Taken {
        branch,
        at,
        more,
        named,
        off,
        damaged,
        verified,
    })
}

/// A history: how long each timeline is, where it forks, and where backups are taken. Of a month, or of most of a year.
/// In a messy one clocks were wrong, pages are damaged and segments missing.
fn worlds(messy: bool) -> impl Strategy<Value = World> {
    let missing = prop::collection::vec((any::<prop::sample::Index>(), 0u64..60), 0..4);
    let every = prop_oneof![Just(6 * HOUR), Just(5 * DAY)];
    let timelines = (10u64..50, prop::collection::vec(forks(), 0..3), every);
    let backups = prop::collection::vec(taken(), 0..9);
    (timelines, backups, missing, 0i64..30, any::<bool>()).prop_map(
        move |((length, forks, every), taken, missing, later, of_server)| {
            let mut world = World::default();
            world.branches.push(Branch { parent: None, first: 1 });
            world.write(0, length, BEGIN, every);
            for fork in forks {
                world.fork(&fork, every);
            }
            let last = world.segments.values().map(|segment| segment.at).max();
            // With wrong clocks about, the last sign of life is that of the WAL.
            world.now = last.unwrap() + if messy { 0 } else { later * HOUR };
            for one in taken {
                world.take(one, messy, of_server);
            }
            world.backups.retain(|backup| backup.at <= world.now);
            world.backups.sort_by_key(|backup| backup.at);
            world.share_packs();
            for (branch, number) in missing.into_iter().filter(|_| messy) {
                world.segments.remove(&(branch.index(world.branches.len()), number));
            }
            world
        },
    )
}

impl World {
    fn fork(&mut self, fork: &Fork, every: i64) {
        let parent = fork.parent.index(self.branches.len());
        let numbers: Vec<u64> = self.of(parent).map(|(number, _)| number).collect();
        let number = numbers[fork.at.index(numbers.len())];
        let address = (number + 1) * MIB + if fork.inside { 100 } else { 0 };
        let (first, begins) = (number + 1, self.segments[&(parent, number)].at + fork.delay);
        self.branches.push(Branch { parent: Some((parent, address)), first });
        self.write(self.branches.len() - 1, first + fork.length, begins, every);
    }

    fn take(&mut self, taken: Taken, messy: bool, of_server: bool) {
        let branch = taken.branch.index(self.branches.len());
        let numbers: Vec<u64> = self.of(branch).map(|(number, _)| number).collect();
        let last = *numbers.last().unwrap();
        let redo = numbers[1 + taken.at.index(numbers.len() - 1)];
        let stop = (redo + taken.more).min(last);
        let at = self.segments[&(branch, stop)].at + HOUR;
        let off = if messy { taken.off * DAY } else { 0 };
        let (server_off, store_off) = if of_server { (off, 0) } else { (0, off) };
        let mut named = BTreeMap::new();
        for (of, number) in taken.named {
            named.entry(of.index(64)).or_insert_with(BTreeSet::new).insert(number);
        }
        let (damaged, verified) = (messy && taken.damaged, taken.verified);
        self.backups.push(Made { branch, redo, stop, at, server_off, store_off, damaged, verified, named });
    }

    /// Names of packs become those of older backups that hold them, and three of its own.
    fn share_packs(&mut self) {
        for index in 0..self.backups.len() {
            let wanted = std::mem::take(&mut self.backups[index].named);
            let mut named = BTreeMap::from([(index, BTreeSet::from([0, 1, 2]))]);
            for (of, numbers) in wanted.into_iter().filter(|_| index > 0) {
                named.entry(of % (index + 1)).or_insert_with(BTreeSet::new).extend(numbers);
            }
            self.backups[index].named = named;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    /// Gaps, damaged pages and clocks that were wrong included.
    #[test]
    fn after_an_expiry_every_moment_that_the_policy_promises_can_be_reached(
        world in worlds(true), (policy, zone) in policies(),
    ) {
        prop_assume!(!policy.is_empty());
        let decision = decide(&world.snapshot(), &policy);
        let (before, after) = (world.all(), world.after(&decision));
        let promised = Promised::by(&world, &policy, zone);
        for (branch, number) in &promised.moments {
            if world.can_reach_well(&before, *branch, *number) {
                prop_assert!(
                    world.can_reach(&after, *branch, *number),
                    "segment {} of timeline {}: {:#?}", number, branch + 1, decision
                );
            }
        }
        // Whatever stays can be restored if it could be before.
        for index in promised.backups.union(&after.backups) {
            if world.is_whole(&before, *index) {
                prop_assert!(world.is_whole(&after, *index), "backup {}", index);
            }
        }
        let (good, kept) = (world.good(&before), world.good(&after));
        prop_assert!(kept.len() >= good.len().min(promised.verified), "{:?} of {:?}", kept, good);
        prop_assert!(good.len() >= promised.verified || after.backups == before.backups);
        prop_assert!(promised.segments.is_subset(&after.segments));
        prop_assert!(before.backups.is_empty() || !after.backups.is_empty());
    }

    #[test]
    fn nothing_stays_that_no_policy_asks_for(world in worlds(false), (policy, zone) in policies()) {
        prop_assume!(!policy.is_empty() && !world.backups.is_empty());
        let after = world.after(&decide(&world.snapshot(), &policy));
        let promised = Promised::by(&world, &policy, zone).filled_up(&world);
        prop_assert_eq!(&after.backups, &promised.backups);
        let needed = promised.needed(&world);
        let left_over: Vec<_> = after.segments.difference(&needed).collect();
        prop_assert!(left_over.is_empty(), "{:?} of {:?}", left_over, promised);
        let named = |index: &usize| {
            world.backups[*index].named.iter().flat_map(|(of, numbers)| numbers.iter().map(|it| (*of, *it)))
        };
        let packs: BTreeSet<(usize, u32)> = after.backups.iter().flat_map(named).collect();
        let own = |(of, _): &&(usize, u32)| !after.backups.contains(of);
        let left_over: Vec<_> = after.packs.difference(&packs).filter(own).collect();
        prop_assert!(left_over.is_empty(), "{:?}", left_over);
    }
}
