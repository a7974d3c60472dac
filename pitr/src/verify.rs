//! Reads back what a recovery needs, and says what is proven.
//!
//! What is read is every object that a summary or a name of WAL points to; what is said is which of them are not what
//! was stored, and which moments that costs. When the store does not answer nothing is concluded about any object: the
//! run fails, and what it has read by then stays known ([`ledger`]). Memory is bounded by the number of objects in
//! the listing, and by one pack or one piece of a segment for each worker.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;
use walpoint_archive::verification::Depth;
use walpoint_archive::{
    Archive, ArchiveError, BackupId, Catalog, CatalogScope, Entry, Proof, StoredRecord, Variant, Verification,
};
use walpoint_wal::{Timestamp, WalFileName};

use crate::progress::{Phase, Progress};

mod costs;
mod finding;
mod inventory;
mod judge;
mod ledger;
mod looked;
mod manifests;
mod packs;
mod run;
#[cfg(test)]
mod tests;
mod units;
mod wal;

pub use finding::{Cost, Finding, Trouble};
pub use inventory::Unreferenced;
pub use judge::SoundRange;

use finding::{Fault, Touches};
use inventory::Inventory;
use ledger::{Ledger, Scope};
use run::Run;
use units::Unit;

/// What is to be verified.
#[derive(Debug, Clone, Copy)]
pub struct VerifyRequest {
    /// Whether data are read, or listings compared only.
    pub extent: Extent,
    /// How many objects are read at once.
    pub workers: NonZeroUsize,
    /// The time here, for a store that does not tell its own.
    pub now: Timestamp,
}

/// How much is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// No data: what the listings show.
    Listings,
    /// Everything; a pass that was broken off is gone on with.
    Everything,
    /// Everything, from the beginning.
    EverythingAnew,
    /// So many stored bytes, of what was verified longest ago.
    Oldest(u64),
}

impl Extent {
    fn budget(self) -> Option<u64> {
        match self {
            Extent::Oldest(bytes) => Some(bytes),
            Extent::Listings | Extent::Everything | Extent::EverythingAnew => None,
        }
    }
}

impl From<Extent> for Scope {
    fn from(extent: Extent) -> Scope {
        match extent {
            Extent::Everything => Scope::Pass,
            Extent::EverythingAnew => Scope::Anew,
            Extent::Oldest(_) | Extent::Listings => Scope::Part,
        }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// The moments that can be reached as far as is known now.
    pub ranges: Vec<SoundRange>,
    /// Of each backup when all that it needs was last found sound.
    pub backups: Vec<(BackupId, Option<Proof>)>,
    /// What was read.
    pub read: Read,
    /// What was not, as it was read before, or the budget did not last.
    pub left: Left,
    /// Packs and manifests that no backup names.
    pub unreferenced: Vec<Unreferenced>,
    /// Backups without a summary: being made, or given up.
    pub unfinished: Vec<BackupId>,
    /// Contents that were refused; no recovery reads them.
    pub refused: Vec<Variant>,
    /// Keys that are not ours.
    pub unknown: Vec<String>,
}

/// What a run has read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Read {
    /// Objects.
    pub objects: u64,
    /// Stored bytes.
    pub bytes: u64,
    /// Objects of which only the stored bytes were looked at, for want of a key.
    pub sealed: u64,
    /// Segments that were read and whose records no one here can decode.
    pub undecoded: u64,
    /// Records over the edge of a segment that were never checked before.
    pub edges_closed: u64,
    /// Objects that went away while the run was at work.
    pub gone: u64,
}

/// What a run has not read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Left {
    /// Stored bytes.
    pub bytes: u64,
    /// Of these, what nobody has ever verified.
    pub never_bytes: u64,
    /// When the oldest of the rest was verified.
    pub oldest: Option<Timestamp>,
}

/// Verifies.
///
/// # Errors
/// The store did not answer. What was read until then is kept.
pub async fn verify(
    archive: &Archive,
    request: &VerifyRequest,
    progress: &Arc<Progress>,
) -> Result<Verified, ArchiveError> {
    progress.enter(Phase::Preparing);
    let mut seen = Seen::look(archive).await?;
    let (mut read, mut left) = (Read::default(), Left::default());
    if request.extent != Extent::Listings {
        (read, left) = seen.read(archive, request, progress).await?;
    }
    let Seen { catalog, inventory, faults, known, .. } = seen;
    let backups = catalog.backups.iter();
    let proofs = backups.map(|backup| (backup.id.clone(), known.of_backup(archive.layout(), backup)));
    let judged = judge::judge(&catalog, &faults);
    Ok(Verified {
        findings: judged.findings,
        ranges: judged.ranges,
        backups: proofs.collect(),
        read,
        left,
        unreferenced: inventory.unreferenced.clone(),
        unfinished: catalog.unfinished.clone(),
        refused: catalog.conflicts.clone(),
        unknown: catalog.unknown.iter().chain(&inventory.unknown).cloned().collect(),
    })
}

/// What is there, and what is known of it.
struct Seen {
    catalog: Arc<Catalog>,
    inventory: Arc<Inventory>,
    /// What is wrong.
    faults: Vec<Fault>,
    records: Vec<StoredRecord>,
    known: Verification,
}

impl Seen {
    /// What the listings and the small objects show.
    async fn look(archive: &Archive) -> Result<Seen, ArchiveError> {
        let catalog = Arc::new(archive.catalog(CatalogScope::All).await?);
        let mut inventory = inventory::take(archive, &catalog).await?;
        let mut faults = std::mem::take(&mut inventory.faults);
        faults.extend(unreadable(archive, &catalog));
        let records = archive.verification_records().await?;
        let mut known = Verification::new();
        records.iter().for_each(|stored| known.merge(&stored.record));
        Ok(Seen { catalog, inventory: Arc::new(inventory), faults, records, known })
    }

    /// Reads what is asked for, and adds what that shows.
    async fn read(
        &mut self,
        archive: &Archive,
        request: &VerifyRequest,
        progress: &Arc<Progress>,
    ) -> Result<(Read, Left), ArchiveError> {
        let ledger = Ledger::begin(archive, &self.records, request.extent.into(), request.now).await?;
        let since = ledger.pass.filter(|pass| *pass < ledger.began);
        let layout = archive.layout();
        let keys = (archive.keys().as_ref(), ledger.pass.is_some());
        let all = units::all(&self.catalog, &self.inventory, layout, &self.known, keys);
        let chosen = units::chosen(all.clone(), since, request.extent.budget());
        let left = what_is_left(&all, &chosen);
        progress.expect(chosen.iter().map(|unit| unit.bytes).sum(), 0);
        self.faults.iter().for_each(|fault| ledger.note_fault(fault));
        let run = Run {
            archive: archive.clone(),
            catalog: Arc::clone(&self.catalog),
            inventory: Arc::clone(&self.inventory),
            ledger,
            not_cleared: units::not_cleared(&self.catalog, layout, &self.known, &chosen),
            progress: Arc::clone(progress),
            workers: request.workers.get(),
            outcome: Mutex::default(),
        };
        progress.enter(Phase::Reading);
        let began = Instant::now();
        if let Err(error) = run.read(chosen).await {
            // What was read is worth keeping, also when the store is away by now.
            if let Err(lost) = run.ledger.store(archive).await {
                tracing::warn!("what was read since the last time it was noted will be read again: {lost}");
            }
            return Err(error);
        }
        progress.enter(Phase::Finishing);
        run.note_speed(began.elapsed());
        self.known = run.ledger.finish(archive, &self.catalog).await?;
        let outcome = run.outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.faults.extend(outcome.faults);
        let doubtful = self.catalog.backups.iter().filter(|backup| run.not_cleared.contains(&backup.id));
        for backup in doubtful {
            let key = &backup.manifest.key;
            if !self.faults.iter().any(|fault| fault.object == key.as_str()) {
                let what = "it was found damaged before, and only a whole pass shows whether it is mended";
                let touches = Touches::Backups(vec![backup.id.clone()]);
                self.faults.push(Fault::new(key, Trouble::Damaged, what, touches));
            }
        }
        Ok((outcome.read, left))
    }
}

/// Small objects that were read with the catalog, and should have said something.
fn unreadable(archive: &Archive, catalog: &Catalog) -> Vec<Fault> {
    let damaged = catalog.damaged.iter().map(|object| {
        let touches = match archive.layout().parse(&object.key) {
            Some(Entry::Summary { backup }) => Touches::Backups(vec![backup]),
            Some(Entry::History { timeline, .. }) => Touches::Timeline(timeline),
            _ => Touches::Nothing,
        };
        Fault::of(&object.key, Depth::Content, Trouble::Damaged, object.reason.clone(), touches)
    });
    let undecided = catalog.history_conflicts.iter().map(|timeline| {
        let name = WalFileName::History(*timeline);
        let what = format!("several contents stand under this name; decide with: walpoint resolve {name}");
        Fault::new(name, Trouble::Undecided, what, Touches::Timeline(*timeline))
    });
    damaged.chain(undecided).collect()
}

fn what_is_left(all: &[Unit], chosen: &[Unit]) -> Left {
    let sum = |units: &[Unit]| units.iter().map(|unit| unit.bytes).sum::<u64>();
    let never = |units: &[Unit]| {
        units.iter().filter(|unit| unit.sound_at.is_none()).map(|unit| unit.bytes).sum::<u64>()
    };
    let mut oldest: BTreeMap<Timestamp, i64> = BTreeMap::new();
    for time in all.iter().filter_map(|unit| unit.sound_at) {
        *oldest.entry(time).or_default() += 1;
    }
    for time in chosen.iter().filter_map(|unit| unit.sound_at) {
        *oldest.entry(time).or_default() -= 1;
    }
    Left {
        bytes: sum(all).saturating_sub(sum(chosen)),
        never_bytes: never(all).saturating_sub(never(chosen)),
        oldest: oldest.into_iter().find(|(_, units)| *units > 0).map(|(time, _)| time),
    }
}
