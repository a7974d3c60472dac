//! What was read back and found sound, and when: the memory of `verify`, kept in the archive itself.
//!
//! Every run stores one record of its own and replaces no other's; what is known is what all
//! records say together. Putting records together only ever takes the newest of what each says of
//! an object, so it does not matter in which order that is done, how often, or by whom.
//!
//! Times are the store's, as of when the run began: an object is never said to have been verified
//! later than it was.

use std::collections::BTreeMap;

use walpoint_wal::{Lsn, SegmentName, TimelineId, Timestamp, WalFileName};

use crate::backup_id::BackupId;
use crate::content::{ContentHasher, ContentId};
use crate::facts::FORMAT;
use crate::layout::{Entry, Layout};
use crate::object_key::ObjectKey;
use crate::summary::BackupHead;

mod proof;
mod record;
mod record_id;
#[cfg(test)]
mod tests;

pub use proof::{Depth, Proof};
pub use record::{
    BackupProofs, FoundDamaged, MAX_RECORD_BYTES, PackRange, ReadSpeed, VerificationRecord, VerifiedObject,
    WalStretch,
};
pub use record_id::RecordId;

/// Program and version, for records.
const TOOL: &str = concat!("walpoint ", env!("CARGO_PKG_VERSION"));

/// What all records say together.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Verification {
    /// Segments that follow each other, by the folder they lie in; each with the objects it was said of.
    wal: BTreeMap<WalFolder, BTreeMap<Stretch, Proof>>,
    backups: BTreeMap<BackupId, BackupObjects>,
    /// Objects that belong to no stretch and no backup, one by one.
    objects: BTreeMap<ObjectKey, Proof>,
    damaged: BTreeMap<ObjectKey, (Timestamp, Depth)>,
    speed: Option<ReadSpeed>,
}

/// Timeline and log number: what a folder of WAL is of.
type WalFolder = (TimelineId, u32);

/// First and last number within the folder, and which objects there were.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Stretch {
    first: u32,
    last: u32,
    keys: ContentId,
    /// Whether only the number of the stored bytes was compared: that proves nothing, and says when it was done.
    length_only: bool,
}

#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct BackupObjects {
    manifest: Option<Proof>,
    packs: BTreeMap<(u32, u32), Proof>,
}

impl BackupObjects {
    fn proofs(&self) -> impl Iterator<Item = &Proof> {
        self.manifest.iter().chain(self.packs.values())
    }
}

/// What names the objects of a stretch of WAL: the content id of their keys, each ended by a line
/// feed, in the order of the keys.
pub fn keys_id<'a>(keys: impl IntoIterator<Item = &'a ObjectKey>) -> ContentId {
    let mut hasher = ContentHasher::new();
    for key in keys {
        hasher.update(key.as_str().as_bytes());
        hasher.update(b"\n");
    }
    hasher.finish().id()
}

impl Verification {
    /// Nothing is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// True when no record says anything.
    pub fn is_empty(&self) -> bool {
        self.wal.is_empty() && self.backups.is_empty() && self.objects.is_empty() && self.damaged.is_empty()
    }

    /// Takes in what one record says.
    pub fn merge(&mut self, record: &VerificationRecord) {
        for stretch in &record.wal {
            match stretch.length_only {
                true => {
                    self.add_wal_lengths(stretch.first, stretch.last, stretch.keys, stretch.proof.stored_at)
                }
                false => self.add_wal(stretch.first, stretch.last, stretch.keys, stretch.proof),
            }
        }
        for backup in &record.backups {
            if let Some(proof) = backup.manifest {
                self.add_manifest(&backup.id, proof);
            }
            for range in &backup.packs {
                self.add_packs(&backup.id, range.first, range.last, range.proof);
            }
        }
        for object in &record.objects {
            self.add_object(object.key.clone(), object.proof);
        }
        self.speed = self.speed.max(record.speed);
        for found in &record.damaged {
            self.add_damaged(found.key.clone(), found.at, found.depth);
        }
    }

    /// Segments from `first` to `last`, of one folder, without a hole, were found sound. `keys` is
    /// the [`keys_id`] of all objects that belong to them.
    pub fn add_wal(&mut self, first: SegmentName, last: SegmentName, keys: ContentId, proof: Proof) {
        self.add_stretch((first, last), keys, proof, false);
    }

    /// Of such segments all stored bytes came, and there was nothing to compare them with.
    pub fn add_wal_lengths(&mut self, first: SegmentName, last: SegmentName, keys: ContentId, at: Timestamp) {
        self.add_stretch((first, last), keys, Proof::at(at, Depth::Stored), true);
    }

    fn add_stretch(
        &mut self,
        (first, last): (SegmentName, SegmentName),
        keys: ContentId,
        proof: Proof,
        length_only: bool,
    ) {
        if (first.timeline, first.log) != (last.timeline, last.log) || first > last {
            return;
        }
        let folder = self.wal.entry((first.timeline, first.log)).or_default();
        let stretch = Stretch { first: first.seg, last: last.seg, keys, length_only };
        folder.entry(stretch).and_modify(|known| *known = known.newest(proof)).or_insert(proof);
    }

    /// A backup's manifest was found sound.
    pub fn add_manifest(&mut self, backup: &BackupId, proof: Proof) {
        let known = &mut self.backups.entry(backup.clone()).or_default().manifest;
        *known = Some(known.map_or(proof, |known| known.newest(proof)));
    }

    /// All packs of a backup that there are from number `first` to `last` were found sound.
    pub fn add_packs(&mut self, backup: &BackupId, first: u32, last: u32, proof: Proof) {
        if first > last {
            return;
        }
        let packs = &mut self.backups.entry(backup.clone()).or_default().packs;
        packs.entry((first, last)).and_modify(|known| *known = known.newest(proof)).or_insert(proof);
    }

    /// An object that is neither a segment nor a backup's was found sound.
    pub fn add_object(&mut self, key: ObjectKey, proof: Proof) {
        self.objects.entry(key).and_modify(|known| *known = known.newest(proof)).or_insert(proof);
    }

    /// An object was found damaged, by a look of that depth.
    pub fn add_damaged(&mut self, key: ObjectKey, at: Timestamp, depth: Depth) {
        let found = self.damaged.entry(key).or_insert((at, depth));
        *found = (*found).max((at, depth));
    }

    /// When a segment was last found sound. `keys` says which objects a stretch of segments has now;
    /// without it a stretch is believed by its names.
    pub fn segment(
        &self,
        segment: SegmentName,
        keys: impl Fn(SegmentName, SegmentName) -> Option<ContentId>,
    ) -> Option<Proof> {
        let folder = self.wal.get(&(segment.timeline, segment.log))?;
        let holds =
            |stretch: &Stretch| !stretch.length_only && (stretch.first..=stretch.last).contains(&segment.seg);
        let named = |seg| SegmentName { seg, ..segment };
        let still = |stretch: &Stretch| {
            keys(named(stretch.first), named(stretch.last)).is_none_or(|now| now == stretch.keys)
        };
        let proofs = folder.iter().filter(|(stretch, _)| holds(stretch) && still(stretch));
        proofs.map(|(_, proof)| *proof).reduce(Proof::newest)
    }

    /// The stretches of one folder that were found sound: first, last, the objects it was said of, and when.
    pub fn stretches(
        &self,
        timeline: TimelineId,
        log: u32,
    ) -> impl Iterator<Item = (u32, u32, ContentId, Proof)> {
        self.of_folder(timeline, log, false)
    }

    /// Those of which only the number of stored bytes was compared, in the same way.
    pub fn lengths(
        &self,
        timeline: TimelineId,
        log: u32,
    ) -> impl Iterator<Item = (u32, u32, ContentId, Proof)> {
        self.of_folder(timeline, log, true)
    }

    fn of_folder(
        &self,
        timeline: TimelineId,
        log: u32,
        length_only: bool,
    ) -> impl Iterator<Item = (u32, u32, ContentId, Proof)> {
        let folder = self.wal.get(&(timeline, log)).into_iter().flatten();
        let folder = folder.filter(move |(stretch, _)| stretch.length_only == length_only);
        folder.map(|(stretch, proof)| (stretch.first, stretch.last, stretch.keys, *proof))
    }

    /// When a backup's manifest was last found sound.
    pub fn manifest(&self, backup: &BackupId) -> Option<Proof> {
        self.backups.get(backup)?.manifest
    }

    /// When a pack was last found sound.
    pub fn pack(&self, backup: &BackupId, number: u32) -> Option<Proof> {
        let packs = &self.backups.get(backup)?.packs;
        let holding = packs.iter().filter(|((first, last), _)| (*first..=*last).contains(&number));
        holding.map(|(_, proof)| *proof).reduce(Proof::newest)
    }

    /// The archive was read so fast.
    pub fn add_speed(&mut self, speed: ReadSpeed) {
        self.speed = self.speed.max(Some(speed));
    }

    /// How fast the archive was read when that was last measured.
    pub fn speed(&self) -> Option<ReadSpeed> {
        self.speed
    }

    /// When an object that is neither a segment nor a backup's was last found sound.
    pub fn object(&self, key: &ObjectKey) -> Option<Proof> {
        self.objects.get(key).copied()
    }

    /// Whether an object was found damaged and has not been found sound since. `sound` is when it was.
    pub fn is_damaged(&self, key: &ObjectKey, sound: Option<Proof>) -> bool {
        self.damaged.get(key).is_some_and(|(at, depth)| sound.is_none_or(|proof| !proof.clears(*at, *depth)))
    }

    /// The objects that were found damaged at some time.
    pub fn found_damaged(&self) -> impl Iterator<Item = &ObjectKey> {
        self.damaged.keys()
    }

    /// What `found` saw damaged is damaged, also where it is said to have been found sound later: somebody's clock was
    /// ahead then.
    pub fn insist_on_damage(&mut self, layout: &Layout, found: &Verification) {
        for (key, (at, depth)) in &found.damaged {
            let at = self.not_before_proofs(layout, key, *at);
            self.add_damaged(key.clone(), at, *depth);
        }
    }

    /// The time of damage that was found at `at` by who knows all this: none of it is a later word.
    pub fn not_before_proofs(&self, layout: &Layout, key: &ObjectKey, at: Timestamp) -> Timestamp {
        self.of_key(layout, key).map_or(at, |proof| proof.latest().max(at))
    }

    /// The objects that were found damaged and not sound since, with when that was.
    pub fn still_damaged(&self, layout: &Layout) -> impl Iterator<Item = (&ObjectKey, Timestamp)> {
        let layout = *layout;
        let damaged = self.damaged.iter().map(|(key, (at, _))| (key, *at));
        damaged.filter(move |(key, _)| self.is_damaged(key, self.of_key(&layout, key)))
    }

    /// When an object was found damaged, and was not found sound since. `sound` is when it was.
    pub fn damaged_at(&self, key: &ObjectKey, sound: Option<Proof>) -> Option<Timestamp> {
        self.damaged.get(key).map(|(at, _)| *at).filter(|_| self.is_damaged(key, sound))
    }

    /// Forgets what was found damaged and is sound now, or is not there any more. Who looked at `seen` knows nothing of
    /// what came after, so damage that was found since then is not forgotten for its sake.
    pub fn forget_damage(&mut self, layout: &Layout, seen: Timestamp, is_there: impl Fn(&ObjectKey) -> bool) {
        let is_gone = |key: &ObjectKey, at: Timestamp| at < seen && !is_there(key);
        let is_over = |(key, (at, _)): &(&ObjectKey, &(Timestamp, Depth))| {
            is_gone(key, *at) || !self.is_damaged(key, self.of_key(layout, key))
        };
        let over: Vec<ObjectKey> = self.damaged.iter().filter(is_over).map(|(key, _)| key.clone()).collect();
        for key in over {
            self.damaged.remove(&key);
        }
    }

    /// When an object was last found sound.
    fn of_key(&self, layout: &Layout, key: &ObjectKey) -> Option<Proof> {
        match layout.parse(key)? {
            Entry::Pack { backup, number, .. } => self.pack(&backup, number),
            Entry::Manifest { backup, .. } => self.manifest(&backup),
            Entry::Wal { name: WalFileName::Segment(segment), .. } => self.segment(segment, |_, _| None),
            _ => self.object(key),
        }
    }

    /// When everything that a recovery with this backup needs at least was last found sound: its
    /// manifest, all its packs, and the WAL from its start to its stop. The oldest of these times;
    /// `None` when something of it was never read, or was found damaged since.
    ///
    /// A fact of the records and the summary alone: it says what was read, not what is there now.
    pub fn of_backup(&self, layout: &Layout, backup: &BackupHead) -> Option<Proof> {
        let manifest = self.manifest(&backup.id).filter(|_| self.damaged_of(layout, backup) == 0)?;
        let packs = backup.packs.iter().map(|(owner, number)| self.pack(owner, number));
        // Ends at the first that is not known: a summary may name more WAL than anybody can count.
        packs.chain(self.wal_of(layout, backup)).try_fold(manifest, |all, one| Some(all.weakest(one?)))
    }

    /// How many objects of a backup were found damaged and not sound since.
    pub fn damaged_of(&self, layout: &Layout, backup: &BackupHead) -> usize {
        let is_needed = |key: &ObjectKey| match layout.parse(key) {
            Some(Entry::Pack { backup: owner, number, .. }) => backup.packs.contains(&owner, number),
            _ => *key == backup.manifest.key,
        };
        let damaged = self.damaged.keys().filter(|key| is_needed(key));
        damaged.filter(|key| self.is_damaged(key, self.of_key(layout, key))).count()
    }

    /// Whether something that [`Self::of_backup`] counts was found damaged and not sound since.
    pub fn has_damage_in(&self, layout: &Layout, backup: &BackupHead) -> bool {
        let size = backup.segment_size;
        let (first, last) = own_wal(backup);
        let is_own = |segment: SegmentName| {
            let number = segment.number(size);
            segment.timeline == backup.timeline && number.is_ok_and(|it| (first..=last).contains(&it))
        };
        let mut wal = self.damaged.keys().filter(|key| match layout.parse(key) {
            Some(Entry::Wal { name: WalFileName::Segment(segment), .. }) => is_own(segment),
            _ => false,
        });
        self.damaged_of(layout, backup) > 0 || wal.any(|key| self.is_damaged(key, self.of_key(layout, key)))
    }

    /// Of each segment from a backup's start to its stop.
    fn wal_of(&self, layout: &Layout, backup: &BackupHead) -> impl Iterator<Item = Option<Proof>> {
        let layout = *layout;
        let size = backup.segment_size;
        let (first, last) = own_wal(backup);
        let timeline = backup.timeline;
        (first..=last).map(move |number| {
            let name = SegmentName::from_number(timeline, number, size)?;
            let proof = self.segment(name, |_, _| None)?;
            let mut damaged = self.damaged_of_segment(&layout, name);
            let is_damaged = damaged.any(|(at, depth)| !proof.clears(at, depth));
            (!is_damaged).then_some(proof)
        })
    }

    /// What was found damaged of a segment's contents: their keys follow each other.
    fn damaged_of_segment(
        &self,
        layout: &Layout,
        segment: SegmentName,
    ) -> impl Iterator<Item = (Timestamp, Depth)> {
        let first = layout.wal(&WalFileName::Segment(segment), ContentId::LEAST, false);
        let own = self.damaged.range(first..).take_while(move |(key, _)| is_of_segment(key, segment));
        own.map(|(_, found)| *found)
    }

    /// As a record that says all of it.
    pub fn to_record(&self, pass: Option<Timestamp>, finished: bool) -> VerificationRecord {
        let wal = self.wal.iter().flat_map(|((timeline, log), stretches)| {
            let named = |seg| SegmentName { timeline: *timeline, log: *log, seg };
            let stretch = move |(stretch, proof): (&Stretch, &Proof)| WalStretch {
                first: named(stretch.first),
                last: named(stretch.last),
                keys: stretch.keys,
                length_only: stretch.length_only,
                proof: *proof,
            };
            stretches.iter().map(stretch).collect::<Vec<_>>()
        });
        let backups = self.backups.iter().map(|(id, objects)| BackupProofs {
            id: id.clone(),
            manifest: objects.manifest,
            packs: objects
                .packs
                .iter()
                .map(|((first, last), proof)| PackRange { first: *first, last: *last, proof: *proof })
                .collect(),
        });
        let objects =
            self.objects.iter().map(|(key, proof)| VerifiedObject { key: key.clone(), proof: *proof });
        let damaged = self.damaged.iter();
        let damaged =
            damaged.map(|(key, (at, depth))| FoundDamaged { key: key.clone(), at: *at, depth: *depth });
        VerificationRecord {
            format: FORMAT,
            tool: TOOL.to_owned(),
            pass,
            finished,
            wal: wal.collect(),
            backups: backups.collect(),
            objects: objects.collect(),
            damaged: damaged.collect(),
            speed: self.speed,
        }
    }

    /// Drops what says nothing more: of a backup that is gone, of a folder of WAL that is gone, what a
    /// newer and wider statement contains; and puts together what was found at one time side by side. Who looked at
    /// `seen` knows nothing of what came after, so what was said since then stays.
    pub fn tidy(
        &mut self,
        seen: Timestamp,
        has_backup: impl Fn(&BackupId) -> bool,
        has_folder: impl Fn(TimelineId, u32) -> bool,
        has_object: impl Fn(&ObjectKey) -> bool,
    ) {
        let is_later = |proof: &Proof| proof.latest() >= seen;
        self.backups.retain(|id, objects| has_backup(id) || objects.proofs().any(is_later));
        self.wal.retain(|(timeline, log), stretches| {
            has_folder(*timeline, *log) || stretches.values().any(is_later)
        });
        self.objects.retain(|key, proof| has_object(key) || is_later(proof));
        for objects in self.backups.values_mut() {
            objects.packs = joined(&objects.packs);
        }
        for stretches in self.wal.values_mut() {
            let all: Vec<(Stretch, Proof)> = stretches.iter().map(|(it, proof)| (*it, *proof)).collect();
            stretches.retain(|stretch, proof| {
                !all.iter().any(|(other, newer)| {
                    let is_wider = other.first <= stretch.first
                        && stretch.last <= other.last
                        && other.length_only <= stretch.length_only;
                    is_wider && other != stretch && newer.newest(*proof) == *newer && newer != proof
                })
            });
        }
    }
}

/// Numbers of the first and the last segment without which a backup's files are not consistent.
fn own_wal(backup: &BackupHead) -> (u64, u64) {
    let size = backup.segment_size;
    let first = backup.redo.segment_number(size);
    (first, Lsn(backup.stop.lsn.0.saturating_sub(1)).segment_number(size).max(first))
}

/// Whether a key is one of this segment's own contents.
fn is_of_segment(key: &ObjectKey, segment: SegmentName) -> bool {
    let (folder, name) = key.as_str().rsplit_once('/').unwrap_or_default();
    // The refused ones lie elsewhere, and nothing needs them.
    folder.contains("/wal/")
        && name.strip_prefix(&segment.to_string()).is_some_and(|rest| rest.starts_with('-'))
}

/// Ranges that were found sound at the same time and touch become one; ranges within another that is
/// as new go.
fn joined(packs: &BTreeMap<(u32, u32), Proof>) -> BTreeMap<(u32, u32), Proof> {
    let mut by_proof: BTreeMap<Proof, Vec<(u32, u32)>> = BTreeMap::new();
    for ((first, last), proof) in packs {
        let ranges = by_proof.entry(*proof).or_default();
        match ranges.last_mut() {
            Some(before) if *first <= before.1.saturating_add(1) => before.1 = before.1.max(*last),
            _ => ranges.push((*first, *last)),
        }
    }
    let mut kept: BTreeMap<(u32, u32), Proof> = BTreeMap::new();
    for (proof, ranges) in by_proof.into_iter().rev() {
        for range in ranges {
            let is_said = kept.iter().any(|((first, last), newer)| {
                *first <= range.0 && range.1 <= *last && newer.newest(proof) == *newer
            });
            if !is_said {
                let known = kept.entry(range).or_insert(proof);
                *known = known.newest(proof);
            }
        }
    }
    kept
}
