//! What there is to read, in pieces that are read and remembered as one, and which of them come first. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use walpoint_archive::verification::{Depth, keys_id};
use walpoint_archive::{
    BackupHead, BackupId, Catalog, ContentId, KeyRing, Layout, ObjectKey, Proof, SegmentState, Usable,
    Variant, Verification,
};
use walpoint_wal::{SegmentName, SegmentSize, TimelineId, Timestamp};

use super::inventory::Inventory;

/// Most segments of one unit: the segment before it is read along, to see that the first continues it.
const SEGMENTS: u64 = 32;
/// Most packs of one unit.
const PACKS: usize = 32;

/// Something to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    pub work: Work,
    /// Stored bytes.
    pub bytes: u64,
    /// Stored bytes of manifests that are read along with it: a manifest once more, for what it says, and with the
    /// first packs of a backup all that name its packs.
    pub along: u64,
    /// When all of it was last found sound, as deep as can be looked now; `None` when something never was, or was
    /// found damaged.
    pub sound_at: Option<Timestamp>,
    /// Whether it is read again and again until somebody mends it, and since when it waits for that.
    pub again: Option<Again>,
}

/// Why something is read in every round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Again {
    /// It was found damaged, last at this time.
    Damaged(Timestamp),
    /// Nobody has decided which content is right, and nothing is remembered of it before.
    Undecided,
}

/// What is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Work {
    /// Segments that follow each other, and whether it can be remembered that they were read.
    Wal { timeline: TimelineId, first: u64, last: u64, is_memorable: bool },
    /// A backup's manifest, by the backup's place in the catalog.
    Manifest(usize),
    /// Packs of one backup, by number.
    Packs { owner: BackupId, numbers: Vec<u32> },
    /// A content that no recovery reads.
    Aside(Box<Variant>),
}

/// Everything there is to read, in an order that reads what belongs together together.
pub(super) fn all(
    catalog: &Catalog,
    inventory: &Inventory,
    layout: &Layout,
    known: &Verification,
    (keys, is_pass): (&KeyRing, bool),
) -> Vec<Unit> {
    let look = Look { layout, known, can_open: keys.can_open() };
    let is_doubtful: Vec<bool> = catalog.backups.iter().map(|backup| is_doubtful(known, backup)).collect();
    let mut units = Vec::new();
    for (place, backup) in catalog.backups.iter().enumerate() {
        let manifest = &backup.manifest;
        if !inventory.wrong.contains(&manifest.key) {
            let proof = known.manifest(&backup.id);
            let (sound_at, again) = (look.sound_at(&manifest.key, proof), look.again(&manifest.key, proof));
            let work = Work::Manifest(place);
            units.push(Unit { work, bytes: manifest.size, along: manifest.size, sound_at, again });
        }
    }
    for (owner, packs) in &inventory.packs {
        let namers: BTreeSet<usize> = packs.values().flat_map(|pack| pack.namers.iter().copied()).collect();
        let manifests = namers.iter().filter_map(|namer| catalog.backups.get(*namer));
        let along = manifests.map(|backup| backup.manifest.size).sum();
        let packs = packs.iter().filter(|(_, pack)| !inventory.wrong.contains(&pack.object.key));
        let packs = packs.map(|(number, pack)| {
            // What a manifest says that is not true shows only beside its packs.
            let doubted = pack.namers.iter().any(|namer| is_doubtful.get(*namer).is_some_and(|it| *it));
            let proof = known.pack(owner, *number).filter(|_| !(doubted && is_pass));
            let sound_at = look.sound_at(&pack.object.key, proof);
            (*number, pack.object.size, (sound_at, look.again(&pack.object.key, proof)))
        });
        units.extend(of_packs(owner, along, packs));
    }
    for (timeline, segments) in &catalog.wal {
        units.extend(look.of_timeline(*timeline, segments, catalog.cluster.segment_size));
    }
    let partials = catalog.partials.values().flat_map(|state| &state.variants);
    for variant in partials.chain(&catalog.backup_histories).chain(&catalog.conflicts) {
        let proof = known.object(&variant.key());
        units.push(Unit {
            work: Work::Aside(Box::new(variant.clone())),
            bytes: variant.stored_size,
            along: 0,
            sound_at: look.sound_at(&variant.key(), proof),
            again: look.again(&variant.key(), proof),
        });
    }
    units
}

/// Whether a backup's manifest was found damaged.
fn is_doubtful(known: &Verification, backup: &BackupHead) -> bool {
    known.is_damaged(&backup.manifest.key, known.manifest(&backup.id))
}

/// The backups whose manifest was found damaged, and not all of whose packs are read along: that a manifest is sound
/// in itself does not clear it then.
pub(super) fn not_cleared(catalog: &Catalog, known: &Verification, chosen: &[Unit]) -> BTreeSet<BackupId> {
    let mut read: BTreeSet<(&BackupId, u32)> = BTreeSet::new();
    for unit in chosen {
        if let Work::Packs { owner, numbers } = &unit.work {
            read.extend(numbers.iter().map(|number| (owner, *number)));
        }
    }
    let is_read = |backup: &BackupHead| backup.packs.iter().all(|pack| read.contains(&pack));
    let doubtful = catalog.backups.iter().filter(|backup| is_doubtful(known, backup));
    doubtful.filter(|backup| !is_read(backup)).map(|backup| backup.id.clone()).collect()
}

/// Which units a run reads: those that were not found sound since `since`; with a budget what was found damaged or is
/// undecided first, on half of it, then the oldest, as long as it lasts. One of each at least: so neither waits for
/// the other for ever.
pub(super) fn chosen(mut units: Vec<Unit>, since: Option<Timestamp>, budget: Option<u64>) -> Vec<Unit> {
    if let Some(since) = since {
        units.retain(|unit| unit.sound_at.is_none_or(|sound_at| sound_at < since));
    }
    let Some(budget) = budget else { return units };
    let (mut again, mut others): (Vec<Unit>, Vec<Unit>) =
        units.into_iter().partition(|unit| unit.again.is_some());
    again.sort_by_key(|unit| unit.again);
    others.sort_by_key(|unit| unit.sound_at);
    let mut chosen = as_many_as(again, budget / 2);
    let spent = bytes_of(&chosen);
    chosen.extend(as_many_as(others, budget.saturating_sub(spent)));
    chosen
}

/// Stored bytes that a run of these units reads.
pub(super) fn bytes_of(units: &[Unit]) -> u64 {
    let mut owners = BTreeSet::new();
    let mut bytes = 0u64;
    for unit in units {
        bytes = bytes.saturating_add(unit.cost(&owners));
        owners.extend(unit.owner());
    }
    bytes
}

impl Unit {
    /// Stored bytes that it takes to read it, where packs of these backups are read already.
    fn cost(&self, owners: &BTreeSet<&BackupId>) -> u64 {
        let is_along = self.owner().is_none_or(|owner| !owners.contains(owner));
        self.bytes.saturating_add(if is_along { self.along } else { 0 })
    }

    fn owner(&self) -> Option<&BackupId> {
        match &self.work {
            Work::Packs { owner, .. } => Some(owner),
            _ => None,
        }
    }
}

/// The first ones as long as `most` lasts, one at least.
fn as_many_as(mut units: Vec<Unit>, most: u64) -> Vec<Unit> {
    let (mut owners, mut spent, mut many) = (BTreeSet::new(), 0u64, 0);
    for unit in &units {
        spent = spent.saturating_add(unit.cost(&owners));
        if spent > most && many > 0 {
            break;
        }
        owners.extend(unit.owner());
        many += 1;
    }
    drop(owners);
    units.truncate(many);
    units
}

/// When something was last sound, and why it is read again.
type Known = (Option<Timestamp>, Option<Again>);

fn of_packs(
    owner: &BackupId,
    along: u64,
    packs: impl Iterator<Item = (u32, u64, Known)>,
) -> impl Iterator<Item = Unit> {
    let mut units: Vec<(Vec<u32>, u64, Known)> = Vec::new();
    for (number, size, known) in packs {
        match units.last_mut() {
            Some((numbers, bytes, all)) if *all == known && numbers.len() < PACKS => {
                numbers.push(number);
                *bytes = bytes.saturating_add(size);
            }
            _ => units.push((vec![number], size, known)),
        }
    }
    let owner = owner.clone();
    units.into_iter().map(move |(numbers, bytes, (sound_at, again))| Unit {
        work: Work::Packs { owner: owner.clone(), numbers },
        bytes,
        along,
        sound_at,
        again,
    })
}

/// With what is known already.
struct Look<'a> {
    layout: &'a Layout,
    known: &'a Verification,
    can_open: bool,
}

/// A run of segments that are read as one.
struct Run {
    first: u64,
    last: u64,
    bytes: u64,
    known: Known,
    is_memorable: bool,
}

impl Look<'_> {
    /// When an object was last found sound, as deep as it can be looked into.
    fn sound_at(&self, key: &ObjectKey, proof: Option<Proof>) -> Option<Timestamp> {
        let proof = proof.filter(|_| !self.known.is_damaged(key, proof))?;
        let is_encrypted = key.as_str().ends_with(".age");
        let depth = if is_encrypted && !self.can_open { Depth::Stored } else { Depth::Content };
        proof.of_depth(depth)
    }

    /// When an object was last read that cannot be looked into, and that there was nothing to compare with: it waits
    /// for its turn as others do.
    fn length_at(&self, key: &ObjectKey, proof: Option<Proof>, length: Option<Proof>) -> Option<Timestamp> {
        let is_sealed = key.as_str().ends_with(".age") && !self.can_open;
        length.filter(|_| is_sealed && !self.known.is_damaged(key, proof)).map(|length| length.stored_at)
    }

    fn again(&self, key: &ObjectKey, proof: Option<Proof>) -> Option<Again> {
        self.known.damaged_at(key, proof).map(Again::Damaged)
    }

    fn of_timeline(
        &self,
        timeline: TimelineId,
        segments: &BTreeMap<u64, SegmentState>,
        size: SegmentSize,
    ) -> Vec<Unit> {
        let proofs = self.proofs(timeline, segments, size, false);
        let lengths = self.proofs(timeline, segments, size, true);
        let mut runs: Vec<Run> = Vec::new();
        for (number, state) in segments.iter().filter(|(_, state)| has_content(state)) {
            let is_memorable = matches!(state.usable(), Usable::One(_));
            let proof = proofs.get(number).copied();
            let known = match is_memorable {
                true => {
                    let length = lengths.get(number).copied();
                    let times = state.variants.iter().map(|variant| {
                        let sound_at = self.sound_at(&variant.key(), proof);
                        sound_at.max(self.length_at(&variant.key(), proof, length))
                    });
                    let again = state.variants.iter().filter_map(|variant| self.again(&variant.key(), proof));
                    (times.min().flatten(), again.min())
                }
                // Also what has a tail only, which grows.
                false if state.variants.is_empty() => (None, None),
                false => (None, Some(Again::Undecided)),
            };
            let bytes = state.variants.iter().chain(state.tail.as_deref()).map(|it| it.stored_size).sum();
            let per_log = size.segments_per_log();
            match runs.last_mut() {
                Some(run)
                    if run.last + 1 == *number
                        && run.last / per_log == number / per_log
                        && number - run.first < SEGMENTS
                        && run.known == known
                        && run.is_memorable
                        && is_memorable =>
                {
                    run.last = *number;
                    run.bytes += bytes;
                }
                _ => {
                    runs.push(Run { first: *number, last: *number, bytes, known, is_memorable });
                }
            }
        }
        let unit = |run: Run| {
            let (is_memorable, (sound_at, again)) = (run.is_memorable, run.known);
            let work = Work::Wal { timeline, first: run.first, last: run.last, is_memorable };
            Unit { work, bytes: run.bytes, along: 0, sound_at, again }
        };
        runs.into_iter().map(unit).collect()
    }

    /// What is known of each segment, as far as the objects are still those of which it was said; or when their length
    /// was looked at.
    fn proofs(
        &self,
        timeline: TimelineId,
        segments: &BTreeMap<u64, SegmentState>,
        size: SegmentSize,
        length_only: bool,
    ) -> BTreeMap<u64, Proof> {
        let mut proofs: BTreeMap<u64, Proof> = BTreeMap::new();
        let mut folder = None;
        for number in segments.keys() {
            let Some(name) = SegmentName::from_number(timeline, *number, size) else { continue };
            if folder == Some(name.log) {
                continue;
            }
            folder = Some(name.log);
            let base = u64::from(name.log) * size.segments_per_log();
            let stretches: Vec<_> = match length_only {
                true => self.known.lengths(timeline, name.log).collect(),
                false => self.known.stretches(timeline, name.log).collect(),
            };
            for (first, last, keys, proof) in stretches {
                let range = base + u64::from(first)..=base + u64::from(last);
                if keys_of(self.layout, segments, range.clone()) != keys {
                    continue;
                }
                for (number, _) in segments.range(range) {
                    proofs.entry(*number).and_modify(|it| *it = it.newest(proof)).or_insert(proof);
                }
            }
        }
        proofs
    }
}

/// Names the objects of these segments, marks included; also those of the one before them where it has or had several
/// contents: whether the first continues it has to be seen again when that is decided.
pub(super) fn keys_of(
    layout: &Layout,
    segments: &BTreeMap<u64, SegmentState>,
    numbers: RangeInclusive<u64>,
) -> ContentId {
    let before = numbers.start().checked_sub(1).and_then(|number| segments.get(&number));
    let before = before.filter(|state| state.is_contested());
    let mut keys: Vec<ObjectKey> = Vec::new();
    for state in before.into_iter().chain(segments.range(numbers).map(|(_, state)| state)) {
        keys.extend(state.variants.iter().map(|variant| variant.key()));
        let name = state.variants.first().map(|variant| variant.name);
        let marks = |name| state.refused.iter().map(move |content| layout.refused(name, *content));
        keys.extend(name.iter().flat_map(marks));
    }
    keys.sort();
    keys_id(&keys)
}

/// Whether there is anything to read: a mark alone is nothing.
fn has_content(state: &SegmentState) -> bool {
    !state.variants.is_empty() || state.tail.is_some()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{MIB, SYSTEM, at_second, catalog, put, segment, tli};
    use proptest::prelude::*;

    fn units(catalog: &Catalog, known: &Verification) -> Vec<Unit> {
        let layout = Layout::new(SYSTEM);
        all(catalog, &Inventory::default(), &layout, known, (&KeyRing::default(), true))
    }

    fn remember(known: &mut Verification, catalog: &Catalog, units: &[Unit], second: i64) {
        for unit in units {
            let Work::Wal { timeline, first, last, is_memorable: true } = &unit.work else { continue };
            let name = |number: &u64| segment(timeline.get(), *number);
            let keys = keys_of(&Layout::new(SYSTEM), &catalog.wal[timeline], *first..=*last);
            known.add_wal(name(first), name(last), keys, Proof::at(at_second(second), Depth::Content));
        }
    }

    fn numbers(units: &[Unit]) -> Vec<(u64, u64)> {
        let wal = units.iter().filter_map(|unit| match unit.work {
            Work::Wal { first, last, .. } => Some((first, last)),
            _ => None,
        });
        wal.collect()
    }

    #[test]
    fn segments_are_read_together_that_follow_each_other_and_lie_together() {
        let catalog = catalog(&[(1, 3, 40), (1, 42, 44), (2, 44, 44)], &[]);
        assert_eq!(MIB, 1 << 20);
        assert_eq!(numbers(&units(&catalog, &Verification::new())), [(3, 34), (35, 40), (42, 44), (44, 44)]);
    }

    #[test]
    fn what_came_or_went_since_is_read_again_and_nothing_else() {
        let mut catalog = catalog(&[(1, 0, 63)], &[]);
        let mut known = Verification::new();
        let first = units(&catalog, &known);
        remember(&mut known, &catalog, &first, 10);
        let sound = |catalog: &Catalog, known: &Verification| -> Vec<_> {
            units(catalog, known).iter().map(|unit| unit.sound_at).collect()
        };
        assert_eq!(sound(&catalog, &known), [Some(at_second(10)); 2]);
        catalog.wal.get_mut(&tli(1)).unwrap().remove(&5);
        assert_eq!(sound(&catalog, &known), [None, None, Some(at_second(10))]);
        put(&mut catalog, segment(1, 5), &[2]);
        assert_eq!(sound(&catalog, &known), [None, Some(at_second(10))]);
    }

    /// Whether a segment continues the one before it is to be seen again when that becomes another.
    #[test]
    fn a_neighbour_that_is_contested_and_decided_unsettles_what_follows_it() {
        let mut catalog = catalog(&[(1, 0, 63)], &[]);
        let mut known = Verification::new();
        let sound = |catalog: &Catalog, known: &Verification| units(catalog, known).last().unwrap().sound_at;
        let all = units(&catalog, &known);
        remember(&mut known, &catalog, &all, 10);
        assert_eq!(sound(&catalog, &known), Some(at_second(10)));
        put(&mut catalog, segment(1, 31), &[1, 2]);
        assert_eq!(sound(&catalog, &known), None);
        let all = units(&catalog, &known);
        remember(&mut known, &catalog, &all, 20);
        assert_eq!(sound(&catalog, &known), Some(at_second(20)));
        let state = catalog.wal.get_mut(&tli(1)).unwrap().get_mut(&31).unwrap();
        state.refused.push(state.variants[0].content);
        state.variants[0].refused = true;
        assert_eq!(sound(&catalog, &known), None);
    }

    #[test]
    fn a_pass_reads_what_it_has_not_read_and_a_budget_the_oldest_first() {
        let unit = |bytes, sound_at: Option<i64>| Unit {
            work: Work::Manifest(0),
            bytes,
            along: 0,
            sound_at: sound_at.map(at_second),
            again: None,
        };
        let all = vec![unit(10, Some(5)), unit(20, None), unit(30, Some(3)), unit(40, Some(9))];
        let bytes = |units: Vec<Unit>| units.iter().map(|unit| unit.bytes).collect::<Vec<_>>();
        assert_eq!(bytes(chosen(all.clone(), None, None)), [10, 20, 30, 40]);
        assert_eq!(bytes(chosen(all.clone(), Some(at_second(5)), None)), [20, 30]);
        assert_eq!(bytes(chosen(all.clone(), None, Some(55))), [20, 30]);
        assert_eq!(bytes(chosen(all.clone(), None, Some(1))), [20]);
        assert_eq!(bytes(chosen(all, None, Some(100))), [20, 30, 10, 40]);
    }

    /// A budget is of all that goes over the wire.
    #[test]
    fn manifests_that_are_read_along_count_once_for_each_backup() {
        let packs = |owner: u32, number| Unit {
            work: Work::Packs {
                owner: format!("20260101T000000Z-full-{owner:06x}").parse().unwrap(),
                numbers: vec![number],
            },
            bytes: 10,
            along: 100,
            sound_at: None,
            again: None,
        };
        let all = vec![packs(1, 0), packs(1, 1), packs(2, 0), packs(2, 1)];
        assert_eq!(bytes_of(&all), 240);
        let numbers = |budget| chosen(all.clone(), None, Some(budget)).len();
        assert_eq!([1, 119, 120, 229, 230, 239, 240].map(numbers), [1, 1, 2, 2, 3, 3, 4]);
    }

    #[test]
    fn what_has_to_be_read_again_takes_half_of_a_budget_and_no_more() {
        let unit = |bytes, again| Unit { work: Work::Manifest(0), bytes, along: 0, sound_at: None, again };
        let damaged = |second| Some(Again::Damaged(at_second(second)));
        let all = vec![
            unit(10, None),
            unit(20, None),
            unit(30, Some(Again::Undecided)),
            unit(31, damaged(8)),
            unit(32, damaged(7)),
        ];
        let bytes =
            |budget| chosen(all.clone(), None, Some(budget)).iter().map(|it| it.bytes).collect::<Vec<_>>();
        assert_eq!(bytes(1000), [32, 31, 30, 10, 20]);
        assert_eq!(bytes(80), [32, 10, 20]);
        assert_eq!(bytes(1), [32, 10], "neither waits for the other for ever");
    }

    proptest! {
        /// Rounds with whatever budget read everything in the end, each thing again only when all
        /// others are as new.
        #[test]
        fn rounds_with_a_budget_get_to_everything(
            gaps in prop::collection::vec(prop::bool::weighted(0.1), 1..120),
            budget in 1..200_000u64,
        ) {
            let mut catalog = Catalog::new(crate::testing::cluster());
            for (number, is_missing) in gaps.iter().enumerate() {
                if !is_missing {
                    put(&mut catalog, segment(1, number as u64), &[1]);
                }
            }
            let mut known = Verification::new();
            let most = units(&catalog, &known).len() as i64 + 1;
            let mut second = 0;
            while units(&catalog, &known).iter().any(|unit| unit.sound_at.is_none()) {
                second += 1;
                prop_assert!(second <= most, "rounds that do not come to an end");
                let round = chosen(units(&catalog, &known), None, Some(budget));
                prop_assert!(!round.is_empty());
                let never = units(&catalog, &known).iter().filter(|unit| unit.sound_at.is_none()).count();
                let old = round.iter().filter(|unit| unit.sound_at.is_none()).count();
                prop_assert!(old == never || old == round.len());
                remember(&mut known, &catalog, &round, second);
            }
        }
    }
}
