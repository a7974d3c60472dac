//! What stays, compared with looking at every backup, every segment and every moment of random histories.

use super::*;
use crate::keep::elapsed::{LONGEST_SILENCE, SignsOfLife};
use crate::keep::policy::Calendar;
use crate::keep::snapshot::{Backup, Snapshot};
use jiff::tz::TimeZone;
use proptest::prelude::*;
use std::time::Duration;
use walpoint_archive::{ContentHash, ContentId, FolderObjects, PackObjects, SegmentObjects};
use walpoint_wal::{Lsn, PathStep, SegmentSize, Timestamp};

const MIB: u64 = 1 << 20;
const TEN: PackObjects = PackObjects { bytes: 10, objects: 1 };
const HOUR: i64 = 3600 * 1_000_000;
/// A segment comes so often.
const EVERY: i64 = 6 * HOUR;
/// 2026-11-20.
const BEGIN: i64 = 848_448_000_000_000;

fn manifest() -> ContentId {
    ContentHash::of(b"manifest").id()
}

fn size() -> SegmentSize {
    SegmentSize::new(MIB).unwrap()
}

fn tli(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

/// A timeline's fork: from which one, at which address, and its own segments.
#[derive(Debug, Clone)]
struct Branch {
    parent: Option<(usize, u64)>,
    first: u64,
    last: u64,
    /// When its first segment came, in segments' time.
    begins: i64,
}

#[derive(Debug, Clone)]
struct Made {
    branch: usize,
    redo: u64,
    stop: u64,
    /// When it ended, truly.
    at: i64,
    /// How wrong the server's clock and the store's were; one of them is right in the whole history.
    server_off: i64,
    store_off: i64,
    damaged: bool,
    /// Packs: whose and which.
    named: BTreeMap<usize, BTreeSet<u32>>,
}

#[derive(Debug, Clone)]
struct World {
    branches: Vec<Branch>,
    /// Oldest first.
    backups: Vec<Made>,
    /// Segments that are missing.
    missing: BTreeSet<(usize, u64)>,
    now: i64,
}

/// What is there: after an expiry, less than in the world.
#[derive(Debug, Clone, Default)]
struct There {
    backups: BTreeSet<usize>,
    packs: BTreeSet<(usize, u32)>,
    segments: BTreeSet<(usize, u64)>,
}

impl World {
    fn time(&self, branch: usize, number: u64) -> i64 {
        let it = &self.branches[branch];
        it.begins + (number - it.first) as i64 * EVERY
    }

    /// The way: branches, each with the first and last number that recovery along it takes from there.
    fn way(&self, branch: usize) -> Vec<(usize, u64, u64)> {
        let own = &self.branches[branch];
        let Some((parent, _)) = own.parent else { return vec![(branch, own.first, u64::MAX)] };
        let mut way: Vec<_> = self.way(parent);
        // The segment in which the fork lies is the child's.
        way.retain(|(_, first, _)| *first < own.first);
        let last = way.last_mut().unwrap();
        last.2 = own.first - 1;
        way.push((branch, own.first, u64::MAX));
        way
    }

    fn holds(&self, branch: usize, backup: &Made) -> bool {
        if backup.branch == branch {
            return true;
        }
        match self.branches[branch].parent {
            Some((parent, fork)) => {
                let stop = backup.stop * MIB + 50;
                stop <= fork && self.holds(parent, backup)
            }
            None => false,
        }
    }

    fn all(&self) -> There {
        let mut there = There { backups: (0..self.backups.len()).collect(), ..There::default() };
        for (index, branch) in self.branches.iter().enumerate() {
            let numbers = branch.first..=branch.last;
            there
                .segments
                .extend(numbers.map(|number| (index, number)).filter(|it| !self.missing.contains(it)));
        }
        for (index, backup) in self.backups.iter().enumerate() {
            there.packs.extend(backup.named[&index].iter().map(|number| (index, *number)));
        }
        there
    }

    /// Whether the moment at this segment can be reached from this backup.
    fn reaches(&self, there: &There, index: usize, branch: usize, number: u64) -> bool {
        let backup = &self.backups[index];
        let mut packs = backup.named.iter().flat_map(|(of, numbers)| numbers.iter().map(|it| (*of, *it)));
        let from = |number: u64| {
            let way = self.way(branch);
            way.into_iter()
                .find(|(_, first, last)| (*first..=*last).contains(&number))
                .map(|(branch, ..)| branch)
        };
        there.backups.contains(&index)
            && packs.all(|pack| there.packs.contains(&pack))
            && self.holds(branch, backup)
            && backup.stop <= number
            && (backup.redo..=number)
                .all(|it| from(it).is_some_and(|from| there.segments.contains(&(from, it))))
    }

    fn can_reach(&self, there: &There, branch: usize, number: u64) -> bool {
        (0..self.backups.len()).any(|index| self.reaches(there, index, branch, number))
    }

    /// The same with a backup that has no damaged pages.
    fn can_reach_well(&self, there: &There, branch: usize, number: u64) -> bool {
        let mut well = (0..self.backups.len()).filter(|index| !self.backups[*index].damaged);
        well.any(|index| self.reaches(there, index, branch, number))
    }

    fn snapshot(&self) -> Snapshot {
        let ids = self.ids();
        let paths = (0..self.branches.len()).map(|branch| (tli(branch as u32 + 1), self.path(branch)));
        let backup = |(index, made): (usize, &Made)| Backup {
            id: ids[index].clone(),
            timeline: tli(made.branch as u32 + 1),
            redo: Lsn(made.redo * MIB + 40),
            stop: Lsn(made.stop * MIB + 50),
            ended: Timestamp(made.at + made.server_off),
            stored_at: Timestamp(made.at + made.store_off),
            verified_at: None,
            is_damaged: false,
            is_altered: false,
            damaged_pages: u64::from(made.damaged),
            manifest: Some(manifest()),
            named: made
                .named
                .iter()
                .map(|(of, it)| (ids[*of].clone(), it.iter().copied().collect()))
                .collect(),
        };
        let backups: Vec<Backup> = self.backups.iter().enumerate().map(backup).collect();
        let folder = |(index, made): (usize, &Made)| {
            let stored_at = Some(backups[index].stored_at);
            let packs = made.named[&index].iter().map(|number| (*number, TEN)).collect();
            let manifests = vec![manifest()];
            let objects = 2 + made.named[&index].len() as u64;
            let folder = FolderObjects {
                summary: stored_at,
                manifests,
                packs,
                parts: BTreeSet::new(),
                other_bytes: 3,
                objects,
                newest: stored_at,
            };
            (ids[index].clone(), folder)
        };
        let mut wal: BTreeMap<TimelineId, Vec<SegmentObjects>> = BTreeMap::new();
        for (branch, number) in self.all().segments {
            let newest = Timestamp(self.time(branch, number));
            let one =
                SegmentObjects { number, newest, bytes: 1, objects: 1, has_wal: true, is_decided: true };
            wal.entry(tli(branch as u32 + 1)).or_default().push(one);
        }
        let now = Timestamp(self.now);
        let stored = wal.values().flatten().map(|segment| segment.newest);
        let signs = SignsOfLife::new(stored.chain(backups.iter().map(|backup| backup.stored_at)), now);
        Snapshot {
            now: Some(now),
            signs,
            segment_size: size(),
            paths: paths.collect(),
            folders: self.backups.iter().enumerate().map(folder).collect(),
            backups,
            wal,
            idle: BTreeMap::new(),
            obstacles: Vec::new(),
            unknown: Vec::new(),
        }
    }

    fn path(&self, branch: usize) -> Vec<PathStep> {
        let Some((parent, fork)) = self.branches[branch].parent else {
            return vec![PathStep { timeline: tli(branch as u32 + 1), begin: Lsn::ZERO, end: None }];
        };
        let mut steps = self.path(parent);
        steps.retain(|step| step.begin.0 < fork);
        steps.last_mut().unwrap().end = Some(Lsn(fork));
        steps.push(PathStep { timeline: tli(branch as u32 + 1), begin: Lsn(fork), end: None });
        steps
    }

    fn ids(&self) -> Vec<BackupId> {
        let id = |index: usize| format!("20261120T{:02}{:02}00Z-full-{index:06x}", index / 60, index % 60);
        (0..self.backups.len()).map(|index| id(index).parse().unwrap()).collect()
    }

    /// What a decision leaves.
    fn after(&self, decision: &Decision) -> There {
        let ids = self.ids();
        let mut there = self.all();
        there.backups.retain(|index| !decision.backups[*index].stays.is_empty());
        let doomed = decision.doomed_backups();
        there.packs.retain(|(of, number)| {
            let needed = decision.needed_packs.get(&ids[*of]).is_some_and(|it| it.contains(number));
            needed || !doomed.contains(&ids[*of])
        });
        let goes: Vec<&WalFate> = decision.doomed_wal().collect();
        there.segments.retain(|(branch, number)| {
            let timeline = tli(*branch as u32 + 1);
            !goes.iter().any(|it| it.timeline == timeline && (it.first..=it.last).contains(number))
        });
        there
    }
}

/// What is promised, by looking at everything.
#[derive(Debug, Default)]
struct Promised {
    /// Backups, for their own sake.
    backups: BTreeSet<usize>,
    /// Moments.
    moments: BTreeSet<(usize, u64)>,
    /// From which backups on all WAL, on which branch.
    onward: BTreeSet<(usize, usize)>,
    /// Segments, for their own sake.
    segments: BTreeSet<(usize, u64)>,
}

fn day_of(time: i64) -> i64 {
    time.div_euclid(24 * HOUR)
}

impl Promised {
    fn by(world: &World, policy: &Policy) -> Promised {
        let mut promised = Promised::default();
        let count = world.backups.len();
        let moments = || {
            let all = world.all().segments;
            all.into_iter()
        };
        for index in count.saturating_sub(policy.last as usize)..count {
            promised.backups.insert(index);
            promised.all_from(world, index);
        }
        let mut days = BTreeSet::new();
        for index in (0..count).rev() {
            if days.len() < policy.calendar.daily as usize && days.insert(day_of(world.backups[index].at)) {
                promised.backups.insert(index);
            }
        }
        if let Some(window) = policy.window {
            let cut = world.now - window.as_micros() as i64;
            promised.moments.extend(moments().filter(|(branch, number)| world.time(*branch, *number) > cut));
            for branch in 0..world.branches.len() {
                if world.is_of_late(branch, cut) || world.is_in_use(branch) {
                    promised.window(world, branch, cut);
                    promised.unled(world, branch);
                }
            }
        }
        for branch in (0..world.branches.len()).filter(|branch| world.is_in_use(*branch)) {
            let last = world.branches[branch].last;
            promised.moments.insert((branch, last));
            promised.unled(world, branch);
            if let Some(newest) = world.passed_on(branch).last() {
                promised.backups.insert(*newest);
                promised.onward.insert((*newest, branch));
            }
        }
        if let Some(wal) = policy.wal {
            let cut = world.now - wal.as_micros() as i64;
            promised.segments.extend(moments().filter(|(branch, number)| world.time(*branch, *number) > cut));
        }
        if !policy.is_of_backups() {
            promised.backups.extend(0..count);
        }
        promised
    }

    fn all_from(&mut self, world: &World, index: usize) {
        for branch in 0..world.branches.len() {
            if world.holds(branch, &world.backups[index]) {
                self.onward.insert((index, branch));
                let own = world.all().segments.into_iter().filter(|(it, _)| *it == branch);
                self.moments.extend(own.filter(|(_, number)| *number >= world.backups[index].stop));
            }
        }
    }

    /// What nothing leads to may be all that there is of a server in use.
    fn unled(&mut self, world: &World, branch: usize) {
        if world.passed_on(branch).is_empty() {
            self.segments.extend(world.all().segments.into_iter().filter(|(it, _)| *it == branch));
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

    /// Every segment that something asks for.
    fn needed(&self, world: &World) -> BTreeSet<(usize, u64)> {
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
            span(*branch, world.backups[*index].redo, 200);
        }
        needed
    }
}

impl World {
    /// As `way`, with the segment of a fork on both sides.
    fn spans(&self, branch: usize) -> Vec<(usize, u64, u64)> {
        let steps = self.path(branch);
        let of = |step: &PathStep| {
            let last = step.end.map_or(200, |end| (end.0 - 1) / MIB);
            (step.timeline.get() as usize - 1, step.begin.0 / MIB, last)
        };
        steps.iter().map(of).collect()
    }

    fn passed_on(&self, branch: usize) -> Vec<usize> {
        let held = (0..self.backups.len()).filter(|index| self.holds(branch, &self.backups[*index]));
        let mut held: Vec<usize> = held.collect();
        held.sort_by_key(|index| (self.backups[*index].stop, *index));
        held
    }

    fn is_of_late(&self, branch: usize, cut: i64) -> bool {
        let own =
            self.all().segments.into_iter().any(|(it, number)| it == branch && self.time(it, number) > cut);
        own || self.backups.iter().any(|backup| backup.branch == branch && backup.at > cut)
    }

    fn is_in_use(&self, branch: usize) -> bool {
        let stored = self.all().segments.into_iter().map(|(it, number)| self.time(it, number));
        let last = stored.chain(self.backups.iter().map(|it| it.at)).filter(|it| *it <= self.now).max();
        let cut = last.unwrap_or(self.now) - LONGEST_SILENCE.as_micros() as i64;
        branch + 1 == self.branches.len() || self.is_of_late(branch, cut)
    }
}

fn policies() -> impl Strategy<Value = Policy> {
    let days = |days: u64| Duration::from_secs(days * 24 * 3600);
    let time = move || prop::option::of((0u64..12).prop_map(days));
    (0u32..4, time(), 0u32..4, prop::option::weighted(0.3, (0u64..12).prop_map(days))).prop_map(
        |(last, window, daily, wal)| {
            let calendar = Calendar { daily, weekly: 0, monthly: 0, yearly: 0, zone: TimeZone::UTC };
            let grace = Duration::from_secs(3600);
            Policy { last, window, calendar, wal, min_verified: 0, grace }
        },
    )
}

/// A history: how long each timeline is, where it forks, and where backups are taken.
fn worlds(messy: bool) -> impl Strategy<Value = World> {
    let branch =
        (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<bool>(), 1u64..25, 0i64..20);
    let backup = (
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
        0u64..2,
        prop::collection::vec((any::<prop::sample::Index>(), 0u32..3), 0..4),
        (-400i64..400, prop::bool::weighted(0.2)),
        prop::bool::weighted(0.1),
    );
    let missing = prop::collection::vec((any::<prop::sample::Index>(), 0u64..60), 0..4);
    (
        10u64..50,
        prop::collection::vec(branch, 0..3),
        prop::collection::vec(backup, 0..9),
        missing,
        0i64..30,
        any::<bool>(),
    )
        .prop_map(move |(length, forks, taken, missing, later, of_server)| {
            let mut branches = vec![Branch { parent: None, first: 1, last: length, begins: BEGIN }];
            for (parent, at, inside, length, delay) in forks {
                let parent = parent.index(branches.len());
                let it = &branches[parent];
                let number = it.first + at.index((it.last - it.first + 1) as usize) as u64;
                let fork = (number + 1) * MIB + if inside { 100 } else { 0 };
                let first = number + 1;
                let begins = it.begins + (number - it.first) as i64 * EVERY + delay * EVERY;
                branches.push(Branch { parent: Some((parent, fork)), first, last: first + length, begins });
            }
            let ends = branches.iter().map(|it| it.begins + (it.last - it.first) as i64 * EVERY).max();
            // With wrong clocks about, the last sign of life is that of the WAL.
            let now = ends.unwrap() + if messy { 0 } else { later * HOUR };
            let mut world = World { branches, backups: Vec::new(), missing: BTreeSet::new(), now };
            for (branch, at, more, named, (off, is_off), damaged) in taken {
                let branch = branch.index(world.branches.len());
                let it = &world.branches[branch];
                let redo = it.first + 1 + at.index((it.last - it.first) as usize) as u64;
                let (redo, stop) = (redo.min(it.last), (redo + more).min(it.last));
                let at = world.time(branch, stop) + HOUR;
                let off = if messy && is_off { off * 24 * HOUR } else { 0 };
                let (server_off, store_off) = if of_server { (off, 0) } else { (0, off) };
                let damaged = messy && damaged;
                let named = named.into_iter().map(|(of, number)| (of.index(64), number)).collect::<Vec<_>>();
                let mut own = BTreeMap::new();
                for (of, number) in named {
                    own.entry(of).or_insert_with(BTreeSet::new).insert(number);
                }
                let named = own;
                world.backups.push(Made { branch, redo, stop, at, server_off, store_off, damaged, named });
            }
            world.backups.retain(|backup| backup.at <= now);
            world.backups.sort_by_key(|backup| backup.at);
            // Names of packs become those of older backups that hold them, and three of its own.
            for index in 0..world.backups.len() {
                let wanted = std::mem::take(&mut world.backups[index].named);
                let mut named = BTreeMap::from([(index, BTreeSet::from([0, 1, 2]))]);
                for (of, numbers) in wanted.into_iter().filter(|_| index > 0) {
                    named.entry(of % (index + 1)).or_insert_with(BTreeSet::new).extend(numbers);
                }
                world.backups[index].named = named;
            }
            if messy {
                let missing =
                    missing.into_iter().map(|(it, number)| (it.index(world.branches.len()), number));
                world.missing = missing.collect();
            }
            world
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    /// Gaps, damaged pages and clocks that were wrong included.
    #[test]
    fn after_an_expiry_every_moment_that_the_policy_promises_can_be_reached(
        world in worlds(true), policy in policies(),
    ) {
        prop_assume!(!policy.is_empty());
        let decision = decide(&world.snapshot(), &policy);
        let (before, after) = (world.all(), world.after(&decision));
        let promised = Promised::by(&world, &policy);
        for (branch, number) in &promised.moments {
            if world.can_reach_well(&before, *branch, *number) {
                prop_assert!(
                    world.can_reach(&after, *branch, *number),
                    "segment {} of timeline {}: {:#?}", number, branch + 1, decision
                );
            }
        }
        for index in &promised.backups {
            let backup = &world.backups[*index];
            if world.reaches(&before, *index, backup.branch, backup.stop) {
                prop_assert!(world.reaches(&after, *index, backup.branch, backup.stop), "backup {}", index);
            }
        }
        // Whatever stays can be restored if it could be before.
        for index in &after.backups {
            let backup = &world.backups[*index];
            if world.reaches(&before, *index, backup.branch, backup.stop) {
                prop_assert!(world.reaches(&after, *index, backup.branch, backup.stop), "backup {}", index);
            }
        }
        prop_assert!(promised.segments.is_subset(&after.segments));
        prop_assert!(before.backups.is_empty() || !after.backups.is_empty());
    }

    #[test]
    fn nothing_stays_that_no_policy_asks_for(world in worlds(false), policy in policies()) {
        prop_assume!(!policy.is_empty() && !world.backups.is_empty());
        let after = world.after(&decide(&world.snapshot(), &policy));
        let promised = Promised::by(&world, &policy);
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

    #[test]
    fn too_few_verified_backups_keep_all_and_enough_keep_that_many(
        world in worlds(true), verified in prop::collection::vec(any::<bool>(), 9), min_verified in 1u32..4,
    ) {
        let mut snapshot = world.snapshot();
        for (backup, verified) in snapshot.backups.iter_mut().zip(verified) {
            backup.verified_at = verified.then_some(backup.stored_at);
        }
        let calendar = Calendar { daily: 0, weekly: 0, monthly: 0, yearly: 0, zone: TimeZone::UTC };
        let grace = Duration::from_secs(3600);
        let policy = Policy { last: 1, window: None, calendar, wal: None, min_verified, grace };
        let decision = decide(&snapshot, &policy);
        let good = |backup: &&Backup| {
            backup.verified_at.is_some() && backup.damaged_pages == 0 && snapshot.is_whole(backup)
        };
        let there: Vec<&BackupId> = snapshot.backups.iter().filter(good).map(|backup| &backup.id).collect();
        let stays: Vec<&BackupId> =
            decision.backups.iter().filter(|it| !it.stays.is_empty()).map(|it| &it.id).collect();
        let kept = there.iter().filter(|id| stays.contains(id)).count();
        prop_assert!(kept >= there.len().min(min_verified as usize));
        prop_assert!(there.len() >= min_verified as usize || stays.len() == snapshot.backups.len());
    }
}

fn tidy(backups: &[u64]) -> World {
    let branches = vec![Branch { parent: None, first: 1, last: 60, begins: BEGIN }];
    let made = |(index, stop): (usize, &u64)| Made {
        branch: 0,
        redo: *stop,
        stop: *stop,
        at: BEGIN + (*stop as i64 - 1) * EVERY + HOUR,
        server_off: 0,
        store_off: 0,
        damaged: false,
        named: BTreeMap::from([(index, BTreeSet::from([0]))]),
    };
    let backups = backups.iter().enumerate().map(made).collect();
    World { branches, backups, missing: BTreeSet::new(), now: BEGIN + 60 * EVERY }
}

fn last(last: u32) -> Policy {
    let calendar = Calendar { daily: 0, weekly: 0, monthly: 0, yearly: 0, zone: TimeZone::UTC };
    let grace = Duration::from_secs(3600);
    Policy { last, window: None, calendar, wal: None, min_verified: 0, grace }
}

fn stays(decision: &Decision) -> Vec<bool> {
    decision.backups.iter().map(|backup| !backup.stays.is_empty()).collect()
}

#[test]
fn an_empty_policy_lets_nothing_go_and_says_so() {
    let policy = Policy { min_verified: 2, ..last(0) };
    let decision = decide(&tidy(&[5, 20, 40]).snapshot(), &policy);
    assert!(!decision.lets_anything_go());
    assert!(decision.notes.iter().any(|note| note.contains("nothing expires")));
}

#[test]
fn a_clock_that_ran_ahead_for_a_while_costs_no_other_backup_its_place() {
    let mut world = tidy(&[5, 10, 20, 30, 40]);
    // Both clocks, as on one host; the clock is right again since.
    (world.backups[1].server_off, world.backups[1].store_off) = (365 * 24 * HOUR, 365 * 24 * HOUR);
    let decision = decide(&world.snapshot(), &last(2));
    assert_eq!(stays(&decision), [false, true, false, true, true]);
    assert!(decision.backups[1].stays.contains(&Why::Future));
}

#[test]
fn a_clock_that_was_set_back_for_a_while_costs_no_moment_of_the_window() {
    let mut world = tidy(&[5, 30, 50]);
    let year = 365 * 24 * HOUR;
    (world.backups[2].server_off, world.backups[2].store_off) = (-year, -year);
    // Segments 41 to 60 are of the last five days.
    let policy = Policy { window: Some(Duration::from_secs(5 * 24 * 3600)), ..last(0) };
    let decision = decide(&world.snapshot(), &policy);
    assert_eq!(stays(&decision), [false, true, true]);
    let after = world.after(&decision);
    assert!((42..=60).all(|number| world.can_reach(&after, 0, number)));
}

#[test]
fn a_grace_that_is_short_is_spoken_of() {
    let notes = |seconds| {
        let policy = Policy { grace: Duration::from_secs(seconds), ..last(1) };
        decide(&tidy(&[5, 20]).snapshot(), &policy).notes
    };
    assert!(notes(3599)[0].contains("is short") && notes(3600).is_empty());
}

#[test]
fn while_the_clock_is_a_year_ahead_or_behind_nothing_goes_that_would_stay_otherwise() {
    let world = tidy(&[5, 10, 20, 30, 40, 50]);
    let policy = Policy { window: Some(Duration::from_secs(5 * 24 * 3600)), ..last(0) };
    let rightly = decide(&world.snapshot(), &policy);
    assert_eq!(stays(&rightly), [false, false, false, false, true, true]);
    let year = 365 * 24 * HOUR;
    let ahead = decide(&World { now: world.now + year, ..world.clone() }.snapshot(), &policy);
    // The window counts back from the last sign of life, a little before now.
    assert_eq!(stays(&ahead), [false, false, false, true, true, true]);
    assert!(ahead.notes.iter().any(|note| note.contains("not counted")), "{:?}", ahead.notes);
    let behind = decide(&World { now: world.now - year, ..world.clone() }.snapshot(), &policy);
    assert_eq!(stays(&behind), [true; 6]);
}

#[test]
fn a_backup_that_lacks_a_segment_or_a_pack_takes_no_other_ones_place() {
    let mut world = tidy(&[5, 10, 20, 30]);
    world.missing.insert((0, 30));
    let decision = decide(&world.snapshot(), &last(1));
    assert_eq!(stays(&decision), [false, false, true, true]);
    let world = tidy(&[5, 10, 20, 30]);
    let mut snapshot = world.snapshot();
    snapshot.folders.get_mut(&world.ids()[3]).unwrap().packs.clear();
    assert_eq!(stays(&decide(&snapshot, &last(1))), [false, false, true, true]);
    // Its manifest is not there, or two contents stand under the name of its segment.
    let mut snapshot = world.snapshot();
    snapshot.folders.get_mut(&world.ids()[3]).unwrap().manifests = vec![ContentHash::of(b"another").id()];
    assert_eq!(stays(&decide(&snapshot, &last(1))), [false, false, true, true]);
    let mut snapshot = world.snapshot();
    let own = snapshot.wal.get_mut(&tli(1)).unwrap();
    own.iter_mut().filter(|segment| segment.number == 30).for_each(|segment| segment.is_decided = false);
    assert_eq!(stays(&decide(&snapshot, &last(1))), [false, false, true, true]);
}

#[test]
fn what_was_found_damaged_takes_no_other_ones_place() {
    let mut snapshot = tidy(&[5, 10, 20, 30]).snapshot();
    snapshot.backups[3].is_damaged = true;
    assert_eq!(stays(&decide(&snapshot, &last(1))), [false, false, true, true]);
}

/// A backup that was interrupted goes on under the id that it was begun with, days later.
#[test]
fn ids_tell_no_age() {
    let world = tidy(&[5, 20, 40]);
    let calendar = Calendar { daily: 2, weekly: 0, monthly: 0, yearly: 0, zone: TimeZone::UTC };
    let policy = Policy { calendar, ..last(0) };
    let expected = stays(&decide(&world.snapshot(), &policy));
    let mut snapshot = world.snapshot();
    let old = "20200101T000000Z-full-00000a".parse::<BackupId>().unwrap();
    let last = &mut snapshot.backups[2];
    let own = snapshot.folders.remove(&last.id).unwrap();
    let named = last.named.remove(&last.id).unwrap();
    last.named.insert(old.clone(), named);
    last.id = old.clone();
    snapshot.folders.insert(old, own);
    assert_eq!(stays(&decide(&snapshot, &policy)), expected);
    // One that goes on just now.
    let running = "20200101T000000Z-full-00000b".parse::<BackupId>().unwrap();
    let newest = Some(Timestamp(world.now - HOUR));
    snapshot
        .folders
        .insert(running.clone(), FolderObjects { newest, objects: 1, ..FolderObjects::default() });
    let decision = decide(&snapshot, &policy);
    assert!(decision.folders.iter().any(|folder| folder.id == running && folder.is_young && !folder.goes()));
}

#[test]
fn wal_of_a_policy_of_its_own_lets_no_backup_go() {
    let policy = Policy { wal: Some(Duration::from_secs(24 * 3600)), ..last(0) };
    let world = tidy(&[5, 20, 40]);
    let decision = decide(&world.snapshot(), &policy);
    assert_eq!(stays(&decision), [true; 3]);
    let after = world.after(&decision);
    // What each backup needs, and from the last one on.
    let expected: BTreeSet<(usize, u64)> =
        [5, 20].into_iter().chain(40..=60).map(|number| (0, number)).collect();
    assert_eq!(after.segments, expected);
}

#[test]
fn before_the_first_backup_no_wal_goes() {
    let decision = decide(&tidy(&[]).snapshot(), &last(3));
    assert!(!decision.lets_anything_go());
}

#[test]
fn a_backup_that_is_being_made_stays_and_one_that_was_given_up_goes_with_what_nobody_needs() {
    let world = tidy(&[5, 20, 40]);
    let mut snapshot = world.snapshot();
    let id = |text: &str| text.parse::<BackupId>().unwrap();
    let (running, dead) = (id("20270101T000000Z-full-00000a"), id("20261101T000000Z-full-00000b"));
    let folder = |newest: i64| FolderObjects {
        packs: BTreeMap::from([(0, TEN), (1, TEN)]),
        newest: Some(Timestamp(newest)),
        objects: 2,
        ..FolderObjects::default()
    };
    // The grace is an hour; but a backup may pause for longer.
    snapshot.folders.insert(running.clone(), folder(world.now - 20 * HOUR));
    snapshot.folders.insert(dead.clone(), folder(world.now - 30 * HOUR));
    // A newer backup uses a pack of the one that was given up.
    snapshot.backups[2].named.insert(dead.clone(), vec![1]);
    let decision = decide(&snapshot, &last(1));
    let fate = |id: &BackupId| decision.folders.iter().find(|folder| folder.id == *id).unwrap();
    assert!(fate(&running).is_young && !fate(&running).goes());
    assert!(fate(&dead).goes());
    assert_eq!((fate(&dead).frees, fate(&dead).needed_packs), (10, 1));
    assert_eq!(decision.needed_packs[&dead], BTreeSet::from([1]));
}

/// Timeline 1, and timeline 2 that was forked from it in the midst, weeks after the last segment of timeline 1.
fn with_a_copy(fork: u64) -> World {
    let mut world = tidy(&[20, 40]);
    let begins = BEGIN + 200 * EVERY;
    world.branches.push(Branch { parent: Some((0, fork * MIB + 100)), first: fork, last: fork + 20, begins });
    world.now = begins + 21 * EVERY;
    for stop in [fork + 2, fork + 10, fork + 18] {
        let index = world.backups.len();
        let at = begins + (stop - fork) as i64 * EVERY + HOUR;
        let named = BTreeMap::from([(index, BTreeSet::from([0]))]);
        let of_copy = Made { branch: 1, redo: stop, stop, at, named, ..world.backups[0].clone() };
        world.backups.push(of_copy);
    }
    world
}

#[test]
fn a_server_at_rest_keeps_its_last_backup_while_it_says_that_it_is_there() {
    let world = with_a_copy(30);
    let mut snapshot = world.snapshot();
    let left_behind = decide(&snapshot, &last(3));
    assert_eq!(stays(&left_behind), [false, false, true, true, true]);
    let notes = |decision: &Decision, what: &str| decision.notes.iter().any(|note| note.contains(what));
    assert!(notes(&left_behind, "timeline 1 counts as left behind"), "{:?}", left_behind.notes);
    snapshot.idle.insert(tli(1), Timestamp(world.now - HOUR));
    for policy in [last(3), Policy { window: Some(Duration::from_secs(3 * 24 * 3600)), ..last(0) }] {
        let decision = decide(&snapshot, &policy);
        assert!(stays(&decision)[1], "{decision:?}");
        let after = world.after(&decision);
        assert!((40..=60).all(|number| after.segments.contains(&(0, number))));
        assert!(!notes(&decision, "left behind"));
    }
}

#[test]
fn wal_of_a_timeline_in_use_that_no_backup_leads_to_stays() {
    // Forked before every backup of its parent, and without one of its own yet.
    let mut world = with_a_copy(10);
    world.backups.truncate(2);
    let decision = decide(&world.snapshot(), &last(1));
    let after = world.after(&decision);
    assert!((10..=30).all(|number| after.segments.contains(&(1, number))), "{:?}", decision.wal);
    assert!(decision.notes.iter().any(|note| note.contains("no backup leads to timeline 2")));
}

#[test]
fn segments_that_are_asked_for_and_not_listed_lie_in_no_run_that_goes() {
    let mut world = tidy(&[20, 40]);
    // The first backup stays for its day, the second is the newest; the first one's segment is not listed.
    world.missing.insert((0, 20));
    let calendar = Calendar { daily: 9, weekly: 0, monthly: 0, yearly: 0, zone: TimeZone::UTC };
    let decision = decide(&world.snapshot(), &Policy { calendar, ..last(0) });
    assert_eq!(stays(&decision), [true, true]);
    assert!(decision.doomed_wal().all(|run| !(run.first..=run.last).contains(&20)), "{:?}", decision.wal);
    assert!(decision.asked_wal[&tli(1)].hold(20) && !decision.asked_wal[&tli(1)].hold(21));
}

#[test]
fn what_cannot_be_read_stands_in_the_way() {
    let mut snapshot = tidy(&[5, 20, 40]).snapshot();
    snapshot.now = None;
    assert_eq!(decide(&snapshot, &last(1)).obstacles.len(), 1);
}

#[test]
fn a_full_backup_is_due_when_most_of_the_newest_lies_in_packs_of_expired_ones() {
    let mut world = tidy(&[5, 20, 40]);
    world.backups[0].named = BTreeMap::from([(0, BTreeSet::from([0, 1, 2, 3]))]);
    world.backups[2].named = BTreeMap::from([(0, BTreeSet::from([0, 1])), (2, BTreeSet::from([0]))]);
    // Its full backup stays: nothing would be freed.
    assert!(!decide(&world.snapshot(), &last(3)).borrowed.full_is_due());
    let decision = decide(&world.snapshot(), &last(1));
    assert_eq!(decision.borrowed, Borrowed { needs: 30, of_the_gone: 20 });
    assert!(decision.borrowed.full_is_due());
    world.backups[2].named.insert(2, BTreeSet::from([0, 1, 2]));
    assert!(!decide(&world.snapshot(), &last(1)).borrowed.full_is_due());
}
