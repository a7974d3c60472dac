//! Day after day: backups are taken, policies change, deletes fail, runs are killed. After every run each backup that
//! is visible has all its packs and its own WAL, and nothing went sooner than the grace after it was last wanted.

use super::held::Held;
use super::marks::{Ripe, Standing, fresh, is_true};
use crate::keep::decide::{Decision, decide};
use crate::keep::elapsed::SignsOfLife;
use crate::keep::policy::{Calendar, Policy};
use crate::keep::snapshot::{Backup, Snapshot};
use jiff::tz::TimeZone;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use walpoint_archive::{
    BackupId, ContentHash, ContentId, ExpiryMark, FolderObjects, ObjectKey, PackObjects, SegmentObjects,
    StandingMark,
};
use walpoint_wal::{Lsn, SegmentSize, TimelineHistory, TimelineId, Timestamp};

const MIB: u64 = 1 << 20;
const HOUR: i64 = 3600 * 1_000_000;
const DAY: i64 = 24 * HOUR;
/// 2026-11-20.
const BEGIN: i64 = 848_448_000_000_000;
const SEGMENTS_A_DAY: u64 = 4;
const GRACE_DAYS: i64 = 2;

/// What happens on a day.
#[derive(Clone, Debug)]
struct Today {
    is_full: bool,
    /// Which of the packs that its parent names an incremental backup goes on naming.
    keeps: u16,
    policy: Policy,
    /// Deletes that the store refuses, by their order in the run.
    denied: BTreeSet<usize>,
    /// The run is killed before this delete.
    killed_at: usize,
}

/// What can be deleted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    Summary(BackupId),
    Pack(BackupId, u32),
    Segment(u64),
}

/// The archive.
#[derive(Debug, Default)]
struct World {
    now: i64,
    /// When each thing was stored.
    there: BTreeMap<Thing, i64>,
    backups: Vec<Backup>,
    marks: Vec<ExpiryMarkAt>,
    /// When an expiry ran.
    runs: Vec<i64>,
    /// When something that stays last needed it.
    wanted: BTreeMap<Thing, i64>,
    deletes: usize,
}

type ExpiryMarkAt = (ObjectKey, i64, ExpiryMark);

fn manifest() -> ContentId {
    ContentHash::of(b"manifest").id()
}

fn size() -> SegmentSize {
    SegmentSize::new(MIB).unwrap()
}

fn id(day: i64, is_full: bool) -> BackupId {
    let kind = if is_full { "full" } else { "incr" };
    format!("202611{:02}T000000Z-{kind}-{day:06x}", day + 1).parse().unwrap()
}

fn policy(last: u32, window: Option<u64>) -> Policy {
    let calendar = Calendar { daily: 0, weekly: 0, monthly: 0, yearly: 0, zone: TimeZone::UTC };
    let days = |days: u64| Duration::from_secs(days * 24 * 3600);
    let (window, grace) = (window.map(days), days(GRACE_DAYS as u64));
    Policy { last, window, calendar, wal: None, min_verified: 0, grace }
}

impl World {
    /// A day's WAL, and a backup in the midst of it.
    fn live(&mut self, day: i64, today: &Today) {
        let begin = BEGIN + day * DAY;
        let first = 1 + day as u64 * SEGMENTS_A_DAY;
        for number in first..first + SEGMENTS_A_DAY {
            self.there.insert(Thing::Segment(number), begin + (number - first) as i64 * HOUR);
        }
        let ended = begin + 8 * HOUR;
        let parent = self.backups.last().filter(|_| !today.is_full).cloned();
        let new = id(day, parent.is_none());
        let mut named: BTreeMap<BackupId, Vec<u32>> = BTreeMap::new();
        let of_parent = parent.iter().flat_map(|parent| &parent.named);
        let of_parent = of_parent.flat_map(|(of, numbers)| numbers.iter().map(move |number| (of, *number)));
        for (index, (of, number)) in of_parent.enumerate() {
            if today.keeps >> (index % 16) & 1 == 1 {
                named.entry(of.clone()).or_default().push(number);
            }
        }
        named.insert(new.clone(), vec![0, 1, 2]);
        for number in 0..3 {
            self.there.insert(Thing::Pack(new.clone(), number), ended);
        }
        self.there.insert(Thing::Summary(new.clone()), ended);
        self.backups.push(Backup {
            id: new,
            timeline: TimelineId::FIRST,
            redo: Lsn(first * MIB + 40),
            stop: Lsn((first + 1) * MIB + 50),
            ended: Timestamp(ended),
            stored_at: Timestamp(ended),
            verified_at: None,
            is_damaged: false,
            is_altered: false,
            damaged_pages: 0,
            manifest: Some(manifest()),
            named,
        });
        self.now = begin + 10 * HOUR;
    }

    fn snapshot(&self) -> Snapshot {
        let mut folders: BTreeMap<BackupId, FolderObjects> = BTreeMap::new();
        let mut segments = Vec::new();
        for (thing, at) in &self.there {
            let folder = match thing {
                Thing::Segment(number) => {
                    let newest = Timestamp(*at);
                    let number = *number;
                    segments.push(SegmentObjects {
                        number,
                        newest,
                        bytes: 1,
                        objects: 1,
                        has_wal: true,
                        is_decided: true,
                    });
                    continue;
                }
                Thing::Summary(id) | Thing::Pack(id, _) => folders.entry(id.clone()).or_default(),
            };
            folder.objects += 1;
            folder.newest = folder.newest.max(Some(Timestamp(*at)));
            match thing {
                Thing::Pack(_, number) => {
                    folder.packs.insert(*number, PackObjects { bytes: 1, objects: 1 });
                }
                _ => {
                    folder.summary = Some(Timestamp(*at));
                    folder.manifests = vec![manifest()];
                }
            }
        }
        let signs = self.there.values().chain(&self.runs).map(|at| Timestamp(*at));
        Snapshot {
            now: Some(Timestamp(self.now)),
            signs: SignsOfLife::new(signs, Timestamp(self.now)),
            segment_size: size(),
            paths: BTreeMap::from([(TimelineId::FIRST, TimelineHistory::first().path())]),
            backups: self.backups.clone(),
            folders,
            wal: BTreeMap::from([(TimelineId::FIRST, segments)]),
            idle: BTreeMap::new(),
            obstacles: Vec::new(),
            unknown: Vec::new(),
        }
    }

    fn standing(&self, snapshot: &Snapshot, policy: &Policy) -> Vec<Standing> {
        let standing = |(key, at, mark): &ExpiryMarkAt| {
            let (key, stored_at) = (key.clone(), Some(Timestamp(*at)));
            let mark = StandingMark { key, stored_at, age: None, mark: Ok(mark.clone()) };
            Standing::of(mark, snapshot, policy.grace)
        };
        self.marks.iter().map(standing).collect()
    }

    fn needs(backup: &Backup) -> Vec<Thing> {
        let packs = backup
            .named
            .iter()
            .flat_map(|(of, numbers)| numbers.iter().map(move |number| Thing::Pack(of.clone(), *number)));
        let (first, last) = backup.own_wal(size());
        packs.chain((first..=last).map(Thing::Segment)).collect()
    }

    fn note_wanted(&mut self, decision: &Decision) {
        for (backup, fate) in self.backups.iter().zip(&decision.backups) {
            if !fate.stays.is_empty() {
                let needed = Self::needs(backup).into_iter().chain([Thing::Summary(backup.id.clone())]);
                self.wanted.extend(needed.map(|thing| (thing, self.now)));
            }
        }
        for run in decision.wal.iter().filter(|run| !run.stays.is_empty()) {
            self.wanted.extend((run.first..=run.last).map(|number| (Thing::Segment(number), self.now)));
        }
    }

    /// Whether it went; nothing when the run was killed before.
    fn delete(&mut self, thing: Thing, today: &Today) -> Option<bool> {
        self.deletes += 1;
        if self.deletes > today.killed_at {
            return None;
        }
        if today.denied.contains(&self.deletes) {
            return Some(false);
        }
        let stored_at = self.there.remove(&thing);
        let since = self.wanted.get(&thing).copied().or(stored_at);
        assert!(
            since.is_none_or(|since| self.now - since >= GRACE_DAYS * DAY),
            "{thing:?} went within the grace: wanted at {since:?}, now {}",
            self.now
        );
        Some(true)
    }

    /// `expire --apply`, in the order of the deletion.
    fn expire(&mut self, today: &Today) {
        self.deletes = 0;
        let snapshot = self.snapshot();
        let decision = decide(&snapshot, &today.policy);
        self.note_wanted(&decision);
        let marks = self.standing(&snapshot, &today.policy);
        let standing: Vec<&Standing> =
            marks.iter().filter(|mark| is_true(mark, &snapshot, &decision)).collect();
        self.marks.retain(|(key, ..)| standing.iter().any(|mark| mark.key == *key));
        let mark = fresh(&snapshot, &decision, &standing);
        if !mark.is_empty() {
            let key = ObjectKey::new(&format!("expire/{}.json", self.now)).unwrap();
            self.marks.push((key, self.now, mark));
        }
        let ripe = Ripe::of(&standing, size(), &decision, &decision);
        self.runs.push(self.now);
        let _ = self.delete_ripe(&snapshot, &decision, &ripe, today);
    }

    fn delete_ripe(
        &mut self,
        snapshot: &Snapshot,
        decision: &Decision,
        ripe: &Ripe,
        today: &Today,
    ) -> Option<()> {
        let mut held = Held::of(snapshot, decision, ripe);
        let mut gone = Vec::new();
        for id in ripe.backups.keys() {
            let Some(backup) = snapshot.backups.iter().find(|backup| backup.id == *id) else {
                gone.push(id);
                continue;
            };
            if self.delete(Thing::Summary(id.clone()), today)? {
                self.backups.retain(|it| it.id != *id);
                gone.push(id);
            } else {
                held.hold(backup);
            }
        }
        for id in gone {
            for number in (0..3).filter(|number| !held.has_pack(id, *number)) {
                if self.there.contains_key(&Thing::Pack(id.clone(), number)) {
                    self.delete(Thing::Pack(id.clone(), number), today)?;
                }
            }
        }
        for (timeline, first, last, since) in &ripe.wal {
            for number in (*first..=*last).filter(|number| !held.has_segment(*timeline, *number)) {
                if self.there.get(&Thing::Segment(number)).is_some_and(|at| *at <= since.0) {
                    self.delete(Thing::Segment(number), today)?;
                }
            }
        }
        Some(())
    }

    fn every_backup_is_whole(&self) -> Result<(), TestCaseError> {
        for backup in &self.backups {
            for thing in Self::needs(backup) {
                prop_assert!(self.there.contains_key(&thing), "{} lacks {:?}", backup.id, thing);
            }
        }
        Ok(())
    }
}

fn days() -> impl Strategy<Value = Vec<Today>> {
    let usual = (0u32..4, prop::option::of(1u64..5));
    let odd = prop::option::weighted(0.15, (1u32..4, prop::option::of(1u64..7)));
    let denied = prop::collection::btree_set(1usize..12, 0..3);
    let killed_at = prop_oneof![3 => Just(usize::MAX), 1 => 0usize..12];
    let day = (prop::bool::weighted(0.2), any::<u16>(), odd, denied, killed_at);
    (usual, prop::collection::vec(day, 4..16)).prop_map(|((last, window), days)| {
        let usual = policy(last.max(u32::from(window.is_none())), window);
        let today = |(is_full, keeps, odd, denied, killed_at): (_, _, Option<(u32, Option<u64>)>, _, _)| {
            let policy = odd.map_or_else(|| usual.clone(), |(last, window)| policy(last, window));
            Today { is_full, keeps, policy, denied, killed_at }
        };
        days.into_iter().map(today).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn day_after_day_every_visible_backup_is_whole_and_nothing_goes_before_its_grace(days in days()) {
        let mut world = World::default();
        for (day, today) in days.iter().enumerate() {
            world.live(day as i64, today);
            world.expire(today);
            world.every_backup_is_whole()?;
        }
        // With nothing new, and nothing in the way, all that no policy asks for is gone some days later.
        let quiet = Today { killed_at: usize::MAX, denied: BTreeSet::new(), policy: policy(1, None), ..days[0].clone() };
        for _ in 0..6 {
            world.now += DAY;
            world.expire(&quiet);
            world.every_backup_is_whole()?;
        }
        let left = decide(&world.snapshot(), &quiet.policy);
        prop_assert!(!left.lets_anything_go(), "{:?} {:?}", left.folders, left.wal);
        prop_assert_eq!(world.backups.len(), 1);
    }
}

/// A full backup and one that names its packs go a day apart; the packs that only the second names wait for it.
#[test]
fn packs_of_a_full_backup_wait_for_the_last_backup_that_names_them() {
    let today = |is_full, keeps, last| Today {
        is_full,
        keeps,
        policy: policy(last, None),
        denied: BTreeSet::new(),
        killed_at: usize::MAX,
    };
    let mut world = World::default();
    // The first incremental names all packs of the full one, those after it none.
    for (day, keeps) in [(0, 0), (1, u16::MAX), (2, 0), (3, 0)] {
        world.live(day, &today(day == 0, keeps, 2));
        world.expire(&today(false, 0, 2));
    }
    // The full one was marked on the third day, the incremental on the fourth: now the first of them is ripe.
    world.live(4, &today(false, 0, 2));
    world.expire(&today(false, 0, 2));
    let full = id(0, true);
    assert!(!world.there.contains_key(&Thing::Summary(full.clone())));
    assert!(world.there.contains_key(&Thing::Summary(id(1, false))));
    assert!((0..3).all(|number| world.there.contains_key(&Thing::Pack(full.clone(), number))));
    world.live(5, &today(false, 0, 2));
    world.expire(&today(false, 0, 2));
    assert!(!(0..3).any(|number| world.there.contains_key(&Thing::Pack(full.clone(), number))));
}

/// The time in which a mistake can be undone.
#[test]
fn a_policy_that_was_a_mistake_costs_nothing_in_the_run_that_makes_it() {
    let today = |last, killed_at| Today {
        is_full: false,
        keeps: u16::MAX,
        policy: policy(last, None),
        denied: BTreeSet::new(),
        killed_at,
    };
    let mut world = World::default();
    // The full backup is marked on the third day; nothing of it could be deleted yet.
    for day in 0..5 {
        world.live(day, &today(2, 0));
        world.expire(&today(2, 0));
    }
    world.live(5, &Today { keeps: 0, ..today(2, 0) });
    let wanted: Vec<Thing> = world.backups.iter().rev().take(2).flat_map(World::needs).collect();
    world.expire(&today(1, usize::MAX));
    assert!(world.deletes > 0 && wanted.iter().all(|thing| world.there.contains_key(thing)));
}
