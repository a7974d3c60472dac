//! Reads back what a recovery needs, and says what is proven.
//!
//! What is read is every object that a summary or a name of WAL points to; what is said is which of them are not what
//! was stored, and which moments that costs. When the store does not answer nothing is concluded about any object: the
//! run ends there, says what it found by then, and what it has read stays known ([`ledger`]). One object that cannot
//! be read while the store answers is named ([`unread`]), and the others are read. Memory is bounded by the number of objects in
//! the listing, by that of packs and of the backups that name each, and by one pack or one piece of a segment for each
//! worker.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;
use walpoint_archive::verification::Depth;
use walpoint_archive::{
    Archive, ArchiveError, BackupId, Catalog, CatalogScope, Entry, Layout, ObjectKey, Proof, SegmentState,
    StoredRecord, Usable, Variant, Verification,
};
use walpoint_wal::{Lsn, TimelineId, Timestamp, WalFileName};

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
mod unread;
mod wal;

pub use finding::{Cost, Finding, Trouble};
pub use inventory::Unreferenced;
pub use judge::SoundRange;
pub use unread::Unread;

use finding::{Fault, Touches};
use inventory::Inventory;
use ledger::{Ledger, Scope};
use run::Run;
use units::Unit;
use unread::SetAside;

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
    /// When the pass began that the run went on with: of what was read since, notes alone say that it is sound.
    pub goes_on_since: Option<Timestamp>,
    /// Objects that could not be read, though the store answers: whether they are sound is not known.
    pub unread: Vec<Unread>,
    /// Why the run is not what it was to be: the store went away, or what was read could not be noted.
    pub incomplete: Vec<String>,
    /// Packs and manifests that no backup names.
    pub unreferenced: Vec<Unreferenced>,
    /// Backups without a summary: being made, or given up.
    pub unfinished: Vec<BackupId>,
    /// Contents that were refused; no recovery reads them.
    pub refused: Vec<Variant>,
    /// Keys that are not ours.
    pub unknown: Vec<String>,
}

impl Verified {
    /// Whether nothing is known to be wrong, and all was read that was to be.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty() && self.unread.is_empty() && self.incomplete.is_empty()
    }
}

/// What a run has read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Read {
    /// Objects.
    pub objects: u64,
    /// Stored bytes.
    pub bytes: u64,
    /// Stored bytes of manifests that were read once more, for what they say.
    pub bytes_along: u64,
    /// Objects of which only the stored bytes were looked at, for want of a key.
    pub sealed: u64,
    /// Those of them whose stored bytes could be compared with nothing but their number: they count as not verified.
    pub length_only: u64,
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
/// The store did not answer before anything was read. Later it is said in the answer, beside what was found by then.
pub async fn verify(
    archive: &Archive,
    request: &VerifyRequest,
    progress: &Arc<Progress>,
) -> Result<Verified, ArchiveError> {
    progress.enter(Phase::Preparing);
    let mut seen = Seen::look(archive).await?;
    let mut reading = Reading::default();
    if request.extent != Extent::Listings {
        reading = seen.read(archive, request, progress).await?;
    }
    seen.remember_damage(archive.layout());
    let Seen { catalog, inventory, faults, known, .. } = seen;
    let judged = judge::judge(&catalog, &faults);
    let proofs = catalog.backups.iter().map(|backup| {
        let proof = known.of_backup(archive.layout(), backup);
        (backup.id.clone(), proof.filter(|_| !judged.without_way.contains(&backup.id)))
    });
    Ok(Verified {
        backups: proofs.collect(),
        findings: judged.findings,
        ranges: judged.ranges,
        read: reading.read,
        left: reading.left,
        goes_on_since: reading.goes_on_since,
        unread: reading.unread,
        incomplete: reading.incomplete,
        unreferenced: inventory.unreferenced.clone(),
        unfinished: catalog.unfinished.clone(),
        refused: catalog.conflicts.clone(),
        unknown: catalog.unknown.iter().chain(&inventory.unknown).cloned().collect(),
    })
}

/// What came of reading, beside what is wrong.
#[derive(Debug, Default)]
struct Reading {
    read: Read,
    left: Left,
    goes_on_since: Option<Timestamp>,
    unread: Vec<Unread>,
    incomplete: Vec<String>,
}

/// What is there, and what is known of it.
struct Seen {
    /// When the look began.
    looked: Instant,
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
        let looked = Instant::now();
        let mut catalog = archive.catalog(CatalogScope::All).await?;
        let mut inventory = inventory::take(archive, &mut catalog).await?;
        let mut faults = std::mem::take(&mut inventory.faults);
        faults.extend(unreadable(archive, &catalog));
        let records = archive.verification_records().await?;
        let mut known = Verification::new();
        records.iter().for_each(|stored| known.merge(&stored.record));
        Ok(Seen {
            looked,
            catalog: Arc::new(catalog),
            inventory: Arc::new(inventory),
            faults,
            records,
            known,
        })
    }

    /// Reads what is asked for, and adds what that shows.
    async fn read(
        &mut self,
        archive: &Archive,
        request: &VerifyRequest,
        progress: &Arc<Progress>,
    ) -> Result<Reading, ArchiveError> {
        let (scope, looked) = (request.extent.into(), self.looked);
        let ledger = Ledger::begin(archive, &self.records, scope, looked, request.now).await?;
        let since = ledger.pass.filter(|pass| *pass < ledger.began);
        let layout = archive.layout();
        let keys = (archive.keys().as_ref(), ledger.pass.is_some());
        let all = units::all(&self.catalog, &self.inventory, layout, &self.known, keys);
        let chosen = units::chosen(all.clone(), since, request.extent.budget());
        let left = what_is_left(&all, &chosen);
        progress.expect(units::bytes_of(&chosen), 0);
        self.faults.iter().for_each(|fault| ledger.note_fault(fault));
        let run = Run {
            archive: archive.clone(),
            catalog: Arc::clone(&self.catalog),
            inventory: Arc::clone(&self.inventory),
            ledger,
            not_cleared: units::not_cleared(&self.catalog, &self.known, &chosen),
            progress: Arc::clone(progress),
            workers: request.workers.get(),
            set_aside: Arc::new(SetAside::default()),
            outcome: Mutex::default(),
        };
        progress.enter(Phase::Reading);
        let began = Instant::now();
        let ended = match run.read(chosen).await {
            Ok(()) => {
                progress.enter(Phase::Finishing);
                run.note_speed(began.elapsed());
                let finished = run.ledger.finish(archive, &self.catalog, &self.inventory.packs).await;
                finished.map_err(|error| format!("what was read could not be noted in the archive: {error}"))
            }
            Err(error) => Err(error.to_string()),
        };
        let incomplete = match ended {
            Ok(known) => {
                self.known = known;
                Vec::new()
            }
            Err(why) => {
                // What was read is worth keeping, also when the store is away by now.
                if let Err(lost) = run.ledger.store(archive).await {
                    tracing::warn!(
                        "what was read since the last time it was noted will be read again: {lost}"
                    );
                }
                self.known.merge(&run.ledger.found().to_record(run.ledger.pass, false));
                vec![why]
            }
        };
        let Run { outcome, set_aside, .. } = run;
        let outcome = outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.faults.extend(outcome.faults);
        self.now_there(outcome.changed);
        let unread = set_aside.unread();
        Ok(Reading { read: outcome.read, left, goes_on_since: since, unread, incomplete })
    }

    /// Of segments of which something went away meanwhile.
    fn now_there(&mut self, changed: BTreeMap<(TimelineId, u64), SegmentState>) {
        if changed.is_empty() {
            return;
        }
        let catalog = Arc::make_mut(&mut self.catalog);
        for ((timeline, number), state) in changed {
            let Some(segments) = catalog.wal.get_mut(&timeline) else { continue };
            match state == SegmentState::default() {
                true => segments.remove(&number),
                false => segments.insert(number, state),
            };
        }
    }

    /// What was found damaged before, and that nobody found sound since, is damaged as far as is known.
    fn remember_damage(&mut self, layout: &Layout) {
        let named: BTreeSet<&str> = self.faults.iter().map(|fault| fault.object.as_str()).collect();
        let known = self.known.still_damaged(layout).filter(|(key, _)| !named.contains(key.as_str()));
        let faults = known.filter_map(|(key, at)| {
            let touches = self.touches_of(layout, key)?;
            let what = format!("it was found damaged, last at {at}, and not found sound since");
            Some(Fault::new(key, Trouble::Damaged, what, touches))
        });
        let faults: Vec<Fault> = faults.collect();
        self.faults.extend(faults);
    }

    /// What an object is needed for; none when it is not there any more.
    fn touches_of(&self, layout: &Layout, key: &ObjectKey) -> Option<Touches> {
        let catalog = &self.catalog;
        match layout.parse(key)? {
            Entry::Pack { backup, number, .. } => {
                let pack = self.inventory.packs.get(&backup)?.get(&number)?;
                let is_it = pack.object.key == *key;
                is_it.then(|| Touches::Backups(inventory::ids(&catalog.backups, &pack.namers)))
            }
            Entry::Manifest { backup, .. } => {
                let is_it = catalog.backups.iter().any(|it| it.id == backup && it.manifest.key == *key);
                is_it.then(|| Touches::Backups(vec![backup]))
            }
            Entry::Wal { name: WalFileName::Segment(name), .. } => {
                let size = catalog.cluster.segment_size;
                let state = catalog.wal.get(&name.timeline)?.get(&name.number(size).ok()?)?;
                let variant = state.variants.iter().find(|it| it.key() == *key)?;
                let stop = name.start(size).ok()?;
                let beyond = Lsn(stop.0.saturating_add(size.bytes()));
                let is_used = !variant.refused && !matches!(state.available(), Usable::Nothing);
                Some(if is_used { Touches::Segment { name, stop, beyond } } else { Touches::Nothing })
            }
            _ => {
                let partials = catalog.partials.values().flat_map(|state| &state.variants);
                let mut aside = partials.chain(&catalog.backup_histories).chain(&catalog.conflicts);
                aside.any(|variant| variant.key() == *key).then_some(Touches::Nothing)
            }
        }
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
