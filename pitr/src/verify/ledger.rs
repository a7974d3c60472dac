//! What a run has found so far, kept in the archive: every few seconds, at its end, and when it fails.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use walpoint_archive::verification::RecordId;
use walpoint_archive::{
    Archive, ArchiveError, Catalog, Entry, Layout, ObjectKey, StoredRecord, Variant, Verification,
};
use walpoint_wal::{SegmentName, TimelineId, Timestamp, WalFileName};

use super::finding::{Fault, Trouble};
use super::inventory::NamedPacks;

/// How often it is stored. What is read twice after a run was killed is what was read in this time.
const STORED_EVERY: Duration = Duration::from_secs(5);

/// Since when a record that is not finished must have been left alone to be taken for one of a run that was killed.
const LEFT_ALONE: Duration = Duration::from_secs(3600);

/// Some stores tell times in whole seconds.
const ROUNDED_TO: Duration = Duration::from_secs(1);

/// How old a pass may be that is gone on with. Later the whole is read again.
const GOES_ON_FOR_MICROS: i64 = 7 * 24 * 3600 * 1_000_000;

/// A run's memory.
#[derive(Debug)]
pub(super) struct Ledger {
    id: RecordId,
    /// When the run began, by the store's clock.
    pub began: Timestamp,
    /// Since when, by the store's clock, what there is was looked at: of what came later the run knows nothing.
    seen: Timestamp,
    /// When the pass began that it is part of; `None` when it reads a part only.
    pub pass: Option<Timestamp>,
    layout: Layout,
    /// What was known when the run began.
    known: Verification,
    own: Mutex<Own>,
}

#[derive(Debug)]
struct Own {
    found: Verification,
    stored: Instant,
}

/// What a run is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Everything, going on with a pass that did not come to its end.
    Pass,
    /// Everything, from the beginning.
    Anew,
    /// A part.
    Part,
}

impl Ledger {
    /// Begins the memory of a run that began to look at what there is at `looked`. Storing it tells what time it is
    /// at the store.
    pub async fn begin(
        archive: &Archive,
        records: &[StoredRecord],
        scope: Scope,
        looked: Instant,
        now: Timestamp,
    ) -> Result<Ledger, ArchiveError> {
        let id = RecordId::random();
        archive.put_verification(id, &Verification::new().to_record(None, false)).await?;
        let began = archive.verification_stored_at(id).await?.unwrap_or(now);
        let pass = match scope {
            Scope::Pass => Some(unfinished_pass(records, began).unwrap_or(began)),
            Scope::Anew => Some(began),
            Scope::Part => None,
        };
        let own = Own { found: Verification::new(), stored: Instant::now() };
        let mut known = Verification::new();
        records.iter().for_each(|stored| known.merge(&stored.record));
        let seen = before(began, looked.elapsed());
        Ok(Ledger { id, began, seen, pass, layout: *archive.layout(), known, own: Mutex::new(own) })
    }

    /// Remembers something.
    pub fn note(&self, note: impl FnOnce(&mut Verification)) {
        note(&mut self.own().found);
    }

    /// Remembers the object that a fault is of, when it is one. That an object is encrypted to others says nothing
    /// of it.
    pub fn note_fault(&self, fault: &Fault) {
        if let Some((key, depth)) = fault.read.as_ref().filter(|_| fault.trouble != Trouble::Sealed) {
            // Also when this run comes to no end, and somebody's clock was ahead when it was found sound.
            let at = self.known.not_before_proofs(&self.layout, key, self.began);
            self.note(|found| found.add_damaged(key.clone(), at, *depth));
        }
    }

    /// Stores what was found so far, when it is time to.
    pub async fn store_now_and_then(&self, archive: &Archive) -> Result<(), ArchiveError> {
        if self.own().stored.elapsed() < STORED_EVERY {
            return Ok(());
        }
        self.store(archive).await
    }

    /// Stores what was found so far.
    pub async fn store(&self, archive: &Archive) -> Result<(), ArchiveError> {
        let record = {
            let mut own = self.own();
            own.stored = Instant::now();
            own.found.tidy(self.seen, |_| true, |_, _| true, |_| true);
            own.found.to_record(self.pass, false)
        };
        archive.put_verification(self.id, &record).await
    }

    /// Puts all that is known together in one record, and takes the records away that are in it. Returns what is
    /// known now.
    pub async fn finish(
        &self,
        archive: &Archive,
        catalog: &Catalog,
        packs: &NamedPacks,
    ) -> Result<Verification, ArchiveError> {
        let records = archive.verification_records().await?;
        let mut known = self.own().found.clone();
        let mut taken = Vec::new();
        for stored in records.iter().filter(|stored| stored.id != self.id) {
            known.merge(&stored.record);
            if stored.record.finished || is_left_alone(archive, stored.id).await? {
                taken.push(stored.id);
            }
        }
        known.insist_on_damage(archive.layout(), &self.found());
        tidy(&mut known, self.seen, archive.layout(), (catalog, packs));
        archive.put_verification(self.id, &known.to_record(self.pass, true)).await?;
        // Two that finish at once take each other's in, and neither the other's away: a run's own record is
        // not finished before this.
        for id in taken {
            // What it says is said by the one that was just put: it does no harm where it is.
            if let Err(error) = archive.remove_verification(id).await {
                tracing::warn!("an older note of what was verified stays: {error}");
                break;
            }
        }
        Ok(known)
    }

    /// What this run found, as long as it is not put together with what is known already.
    pub fn found(&self) -> Verification {
        self.own().found.clone()
    }

    fn own(&self) -> std::sync::MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A run that is at work stores its record again and again.
async fn is_left_alone(archive: &Archive, id: RecordId) -> Result<bool, ArchiveError> {
    match archive.store().age(&archive.layout().verification(id)).await {
        Ok(age) => Ok(age.is_some_and(|age| age > LEFT_ALONE)),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The pass that began last and was not read to its end by anybody.
fn unfinished_pass(records: &[StoredRecord], now: Timestamp) -> Option<Timestamp> {
    let passes = |finished: bool| {
        let records = records.iter().filter(move |stored| stored.record.finished == finished);
        records.filter_map(|stored| stored.record.pass)
    };
    let done = passes(true).max();
    let open = passes(false).filter(|pass| done.is_none_or(|done| *pass > done)).max()?;
    (now.0.saturating_sub(open.0) < GOES_ON_FOR_MICROS).then_some(open)
}

/// So much earlier, and by as much again as a store rounds its times.
fn before(time: Timestamp, by: Duration) -> Timestamp {
    let micros = i64::try_from((by + ROUNDED_TO).as_micros()).unwrap_or(i64::MAX);
    Timestamp(time.0.saturating_sub(micros))
}

/// Of what is gone from the archive nothing need be known. The catalog says nothing of what came after it was `seen`.
fn tidy(
    known: &mut Verification,
    seen: Timestamp,
    layout: &Layout,
    (catalog, packs): (&Catalog, &NamedPacks),
) {
    let backups: BTreeSet<_> = catalog.backups.iter().map(|backup| &backup.id).collect();
    let size = catalog.cluster.segment_size;
    let folders: BTreeSet<(TimelineId, u32)> = {
        let segments = catalog.wal.iter().flat_map(|(timeline, segments)| {
            segments.keys().map(move |number| (*timeline, number / size.segments_per_log()))
        });
        segments.filter_map(|(timeline, log)| Some((timeline, u32::try_from(log).ok()?))).collect()
    };
    let partials = catalog.partials.values().flat_map(|state| &state.variants);
    let aside = partials.chain(&catalog.backup_histories).chain(&catalog.conflicts);
    let aside: BTreeSet<ObjectKey> = aside.map(Variant::key).collect();
    known.tidy(
        seen,
        |id| backups.contains(id) || packs.contains_key(id),
        |timeline, log| folders.contains(&(timeline, log)),
        |key| aside.contains(key),
    );
    let of_backups: BTreeSet<&ObjectKey> = {
        let packs = packs.values().flat_map(BTreeMap::values).map(|pack| &pack.object.key);
        packs.chain(catalog.backups.iter().map(|backup| &backup.manifest.key)).collect()
    };
    let state = |name: SegmentName| catalog.wal.get(&name.timeline)?.get(&name.number(size).ok()?);
    let is_segment = |key: &ObjectKey| match layout.parse(key) {
        Some(Entry::Wal { name: WalFileName::Segment(name), .. }) => {
            state(name).is_some_and(|state| state.variants.iter().any(|it| it.key() == *key))
        }
        _ => false,
    };
    known.forget_damage(layout, seen, |key| {
        of_backups.contains(key) || aside.contains(key) || is_segment(key)
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::at_second;

    fn record(pass: Option<i64>, finished: bool) -> StoredRecord {
        let record = Verification::new().to_record(pass.map(at_second), finished);
        StoredRecord { id: RecordId::random(), stored_at: None, record }
    }

    #[test]
    fn a_pass_that_was_broken_off_is_gone_on_with_until_one_is_finished() {
        let pass = |records: &[StoredRecord]| unfinished_pass(records, at_second(1000));
        assert_eq!(pass(&[]), None);
        assert_eq!(pass(&[record(Some(10), false)]), Some(at_second(10)));
        assert_eq!(pass(&[record(Some(10), false), record(Some(10), true)]), None);
        assert_eq!(pass(&[record(Some(10), false), record(Some(20), true)]), None);
        assert_eq!(pass(&[record(Some(30), false), record(Some(20), true)]), Some(at_second(30)));
        assert_eq!(pass(&[record(Some(30), false), record(None, true)]), Some(at_second(30)));
        let long_ago = 1000 - GOES_ON_FOR_MICROS / 1_000_000 - 1;
        assert_eq!(pass(&[record(Some(long_ago), false)]), None);
    }
}
