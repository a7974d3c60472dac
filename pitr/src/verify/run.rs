//! A run that reads what was chosen, several objects at once, and remembers what it found.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use walpoint_archive::pack::Frame;
use walpoint_archive::verification::{Depth, ReadSpeed};
use walpoint_archive::{
    Archive, ArchiveError, BackupHead, BackupId, Catalog, Compared, ObjectKey, Prefix, Proof, SegmentState,
    Variant,
};
use walpoint_wal::{SegmentName, TimelineId};

use super::Read;
use super::finding::{Fault, Touches, Trouble};
use super::inventory::{self, Inventory, NamedPack};
use super::ledger::Ledger;
use super::looked::{Looked, looked};
use super::manifests::{self, NamerSets, Namers, Wanted};
use super::packs::{self, PackRead};
use super::units::{self, Unit, Work};
use super::unread::SetAside;
use super::wal::{WalRead, WalReader};
use crate::progress::Progress;

/// A run that reads.
pub(super) struct Run {
    pub archive: Archive,
    pub catalog: Arc<Catalog>,
    pub inventory: Arc<Inventory>,
    pub ledger: Ledger,
    /// Backups whose manifest stays what it was found to be, whatever is read of it now.
    pub not_cleared: BTreeSet<BackupId>,
    pub progress: Arc<Progress>,
    pub workers: usize,
    /// What cannot be read, though the store answers.
    pub set_aside: Arc<SetAside>,
    pub outcome: Mutex<Outcome>,
}

/// What it came to.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub read: Read,
    pub faults: Vec<Fault>,
    /// What is there now of segments of which something went away meanwhile.
    pub changed: BTreeMap<(TimelineId, u64), SegmentState>,
}

impl Run {
    /// Reads what was chosen: manifests, then the packs that they name, then WAL.
    pub async fn read(&self, chosen: Vec<Unit>) -> Result<(), ArchiveError> {
        let mut packs: BTreeMap<BackupId, BTreeSet<u32>> = BTreeMap::new();
        let (mut manifests, mut others) = (Vec::new(), Vec::new());
        for unit in chosen {
            match unit.work {
                Work::Manifest(place) => manifests.push(place),
                Work::Packs { owner, numbers } => packs.entry(owner).or_default().extend(numbers),
                work @ (Work::Wal { .. } | Work::Aside(_)) => others.push(work),
            }
        }
        self.each(manifests, |place| self.manifest(place)).await?;
        for (owner, numbers) in packs {
            self.packs_of(&owner, numbers).await?;
        }
        self.each(others, |work| self.other(work)).await
    }

    /// Several at once; what was found is noted now and then.
    async fn each<T, F>(&self, all: Vec<T>, read: impl Fn(T) -> F) -> Result<(), ArchiveError>
    where
        F: Future<Output = Result<(), ArchiveError>>,
    {
        let mut reads = stream::iter(all.into_iter().map(read)).buffer_unordered(self.workers);
        while let Some(done) = reads.next().await {
            match done {
                Ok(()) => self.set_aside.answered(),
                Err(error) => self.set_aside.take(&self.archive, error).await?,
            }
            self.ledger.store_now_and_then(&self.archive).await?;
        }
        Ok(())
    }

    /// What `plan` estimates by.
    pub fn note_speed(&self, took: Duration) {
        let mut bytes = 0;
        self.count(|outcome| bytes = outcome.read.bytes + outcome.read.bytes_along);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if bytes >= ReadSpeed::LEAST_BYTES {
            let at = self.ledger.began;
            self.ledger.note(|found| found.add_speed(ReadSpeed { at, bytes, micros }));
        }
    }

    fn found(&self, fault: Fault) {
        self.ledger.note_fault(&fault);
        self.count(|outcome| outcome.faults.push(fault));
    }

    fn count(&self, count: impl FnOnce(&mut Outcome)) {
        count(&mut self.outcome.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn backup(&self, place: usize) -> Option<&BackupHead> {
        self.catalog.backups.get(place)
    }

    async fn manifest(&self, place: usize) -> Result<(), ArchiveError> {
        let Some(backup) = self.backup(place) else { return Ok(()) };
        let manifest = &backup.manifest;
        let touches = || Touches::Backups(vec![backup.id.clone()]);
        let fault = |depth, trouble, what| Fault::of(&manifest.key, depth, trouble, what, touches());
        let stored = looked(&manifest.key, self.archive.read_through(&manifest.key).await)?;
        let size = manifest.size;
        let size_read = match stored {
            Looked::Sound((_, size, hash)) if hash == manifest.sha256 => size,
            Looked::Sound((_, _, hash)) => {
                let what = format!("its bytes are not those that were stored: their SHA-256 is {hash}");
                self.found(fault(Depth::Stored, Trouble::Damaged, what));
                0
            }
            Looked::Unsound(trouble, what) => {
                self.found(fault(Depth::Stored, trouble, what));
                0
            }
            Looked::NoKey => 0,
            Looked::Gone => {
                return self.gone(&[place], &manifest.key, "it is not there").await;
            }
        };
        self.progress.add_bytes(size);
        self.count(|outcome| {
            (outcome.read.objects, outcome.read.bytes) = (outcome.read.objects + 1, outcome.read.bytes + size)
        });
        if size_read == 0 {
            return Ok(());
        }
        let checked = looked(&manifest.key, manifests::check(&self.archive, backup, &self.inventory).await)?;
        self.read_along(size);
        match checked {
            Looked::Sound(Ok(())) => self.note_manifest(backup, Depth::Content),
            Looked::Sound(Err(what)) => self.found(fault(Depth::Content, Trouble::Damaged, what)),
            Looked::Unsound(trouble, what) => self.found(fault(Depth::Content, trouble, what)),
            Looked::NoKey => {
                self.count(|outcome| outcome.read.sealed += 1);
                self.note_manifest(backup, Depth::Stored);
            }
            Looked::Gone => return self.gone(&[place], &manifest.key, "it is not there").await,
        }
        Ok(())
    }

    /// A manifest that was read for what it says, and not for itself.
    fn read_along(&self, bytes: u64) {
        self.progress.add_bytes(bytes);
        self.count(|outcome| outcome.read.bytes_along += bytes);
    }

    fn note_manifest(&self, backup: &BackupHead, depth: Depth) {
        if !self.not_cleared.contains(&backup.id) {
            let proof = Proof::at(self.ledger.began, depth);
            self.ledger.note(|found| found.add_manifest(&backup.id, proof));
        }
    }

    /// An object that was listed and is gone: with the last backup that needs it, or on its own.
    async fn gone(&self, namers: &[usize], key: &ObjectKey, what: &str) -> Result<(), ArchiveError> {
        let mut left = Vec::new();
        for backup in namers.iter().filter_map(|place| self.backup(*place)) {
            match looked(key, self.archive.head(&backup.id).await)? {
                Looked::Gone => {}
                _ => left.push(backup.id.clone()),
            }
        }
        match left.is_empty() {
            true => self.count(|outcome| outcome.read.gone += 1),
            false => {
                self.found(Fault::of(key, Depth::Stored, Trouble::Missing, what, Touches::Backups(left)))
            }
        }
        Ok(())
    }

    /// Packs of one backup. What manifests say of them is read first, of as many as memory allows at a time.
    async fn packs_of(&self, owner: &BackupId, mut numbers: BTreeSet<u32>) -> Result<(), ArchiveError> {
        let Some(named) = self.inventory.packs.get(owner) else { return Ok(()) };
        while let Some(from) = numbers.first().copied() {
            let wanted = self.wanted(owner, named, from, &numbers).await?;
            let later = wanted.until.map_or_else(BTreeSet::new, |until| numbers.split_off(&until));
            let (mut frames, asked) = (wanted.packs, (&wanted.namers, &wanted.unread));
            let packs: Vec<(u32, &NamedPack, _)> = numbers
                .iter()
                .filter_map(|number| {
                    Some((*number, named.get(number)?, frames.remove(number).unwrap_or_default()))
                })
                .collect();
            self.each(packs, |(number, pack, frames)| self.pack((owner, number), pack, frames, asked))
                .await?;
            numbers = later;
        }
        Ok(())
    }

    /// The frames that manifests name of packs from `from` on.
    async fn wanted(
        &self,
        owner: &BackupId,
        named: &BTreeMap<u32, NamedPack>,
        from: u32,
        numbers: &BTreeSet<u32>,
    ) -> Result<Wanted, ArchiveError> {
        let wanted = Arc::new(Mutex::new(Wanted::default()));
        let packs = numbers.iter().filter_map(|number| named.get(number));
        let namers: BTreeSet<usize> = packs.flat_map(|pack| pack.namers.iter().copied()).collect();
        let sound = namers.into_iter().filter_map(|place| Some((place, self.backup(place)?)));
        for (place, backup) in
            sound.filter(|(_, backup)| !self.inventory.wrong.contains(&backup.manifest.key))
        {
            let collected = manifests::collect(&self.archive, (place, backup), owner, from, &wanted).await;
            self.read_along(backup.manifest.size);
            let read = match looked(&backup.manifest.key, collected) {
                Ok(read) => read,
                Err(error) => {
                    self.set_aside.take(&self.archive, error).await?;
                    manifests::lock(&wanted).unread.insert(place);
                    continue;
                }
            };
            // What is wrong with a manifest is said where it is read for itself, and here if it is not.
            let fault = |depth, trouble, what| {
                let touches = Touches::Backups(vec![backup.id.clone()]);
                Fault::of(&backup.manifest.key, depth, trouble, what, touches)
            };
            match read {
                Looked::Sound(Ok(())) | Looked::NoKey | Looked::Gone => {}
                Looked::Sound(Err(what)) => {
                    self.found_once(fault(Depth::Content, Trouble::Damaged, what));
                }
                Looked::Unsound(trouble, what) => self.found_once(fault(Depth::Content, trouble, what)),
            }
        }
        let mut wanted = manifests::lock(&wanted);
        Ok(std::mem::take(&mut *wanted))
    }

    fn found_once(&self, fault: Fault) {
        let outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = outcome.faults.iter().any(|known| known.object == fault.object);
        drop(outcome);
        if !is_known {
            self.found(fault);
        }
    }

    async fn pack(
        &self,
        (owner, number): (&BackupId, u32),
        pack: &NamedPack,
        frames: BTreeMap<Frame, Namers>,
        (namers, unread): (&NamerSets, &BTreeSet<usize>),
    ) -> Result<(), ArchiveError> {
        let key = &pack.object.key;
        let read = packs::read(&self.archive, &pack.object, frames).await?;
        self.progress.add_bytes(pack.object.size);
        match read {
            PackRead::Gone => return self.gone(&pack.namers, key, "it is not there").await,
            PackRead::Sound(depth, lies) => {
                // What a manifest that could not be read says of it was not looked for.
                if !pack.namers.iter().any(|namer| unread.contains(namer)) {
                    self.ledger.note(|found| {
                        found.add_packs(owner, number, number, Proof::at(self.ledger.began, depth))
                    });
                }
                self.count(|outcome| outcome.read.sealed += u64::from(depth == Depth::Stored));
                let lies =
                    lies.into_iter().flat_map(|(named, offset)| namers.of(named).map(move |it| (it, offset)));
                for (manifest, offset) in lies {
                    let Some(backup) = self.backup(manifest) else { continue };
                    let what = format!(
                        "it names a piece at byte {offset} of pack \"{key}\", which has none such there"
                    );
                    let touches = Touches::Backups(vec![backup.id.clone()]);
                    self.found_once(Fault::of(
                        &backup.manifest.key,
                        Depth::Content,
                        Trouble::Damaged,
                        what,
                        touches,
                    ));
                }
            }
            PackRead::Unsound(depth, trouble, what) => {
                let touches = Touches::Backups(inventory::ids(&self.catalog.backups, &pack.namers));
                self.found(Fault::of(key, depth, trouble, what, touches));
            }
        }
        self.count(|outcome| {
            outcome.read.objects += 1;
            outcome.read.bytes += pack.object.size;
        });
        Ok(())
    }

    async fn other(&self, work: Work) -> Result<(), ArchiveError> {
        match work {
            Work::Wal { timeline, first, last, is_memorable } => {
                let reader = WalReader {
                    archive: self.archive.clone(),
                    catalog: Arc::clone(&self.catalog),
                    progress: Arc::clone(&self.progress),
                    set_aside: Arc::clone(&self.set_aside),
                };
                // A task of its own: decoding takes the processor.
                let reading = tokio::spawn(async move { reader.read(timeline, first, last).await });
                let read = reading.await.map_err(|_| stopped())??;
                if is_memorable {
                    self.note_wal(timeline, first..=last, &read);
                }
                read.faults.into_iter().for_each(|fault| self.found(fault));
                self.count(|outcome| {
                    let all = &mut outcome.read;
                    all.objects += read.objects;
                    all.bytes += read.bytes;
                    all.sealed += read.sealed;
                    all.length_only += read.length_only.len() as u64;
                    all.undecoded += read.undecoded;
                    all.edges_closed += read.edges_closed;
                    all.gone += read.gone;
                    let changed = read.changed.into_iter();
                    outcome.changed.extend(changed.map(|(number, state)| ((timeline, number), state)));
                });
                Ok(())
            }
            Work::Aside(variant) => self.aside(&variant).await,
            Work::Manifest(_) | Work::Packs { .. } => Ok(()),
        }
    }

    /// Remembers the segments that are sound: those between the ones that are not. Of what could be compared with
    /// nothing only that it was read.
    fn note_wal(&self, timeline: TimelineId, numbers: RangeInclusive<u64>, read: &WalRead) {
        let depth = if read.is_deep { Depth::Content } else { Depth::Stored };
        let (proof, size) = (Proof::at(self.ledger.began, depth), self.catalog.cluster.segment_size);
        let Some(segments) = self.catalog.wal.get(&timeline) else { return };
        let sound: Vec<u64> = numbers.filter(|number| !read.wrong.contains(number)).collect();
        let is_compared = |number: &u64| !read.length_only.contains(number);
        for run in sound.chunk_by(|one, next| one + 1 == *next && is_compared(one) == is_compared(next)) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            let keys = units::keys_of(self.archive.layout(), segments, *first..=*last);
            let name = |number: &u64| SegmentName::from_number(timeline, *number, size);
            let (Some(from), Some(to)) = (name(first), name(last)) else { continue };
            self.ledger.note(|found| match is_compared(first) {
                true => found.add_wal(from, to, keys, proof),
                false => found.add_wal_lengths(from, to, keys, self.ledger.began),
            });
        }
    }

    /// A content that no recovery reads: it must be what was stored all the same.
    async fn aside(&self, variant: &Variant) -> Result<(), ArchiveError> {
        let limit = self.catalog.cluster.segment_size.bytes();
        let fetched =
            self.archive.fetch_wal(variant, &mut std::io::sink(), limit).await.map(|_| Some(Depth::Content));
        let read = match looked(&variant.key(), fetched)? {
            Looked::NoKey => {
                let compared = self.archive.read_sealed(variant).await;
                let depth = |compared| (compared == Compared::Checksum).then_some(Depth::Stored);
                looked(&variant.key(), compared.map(depth))?
            }
            read => read,
        };
        match read {
            Looked::Sound(depth) => {
                if let Some(depth) = depth {
                    let proof = Proof::at(self.ledger.began, depth);
                    self.ledger.note(|found| found.add_object(variant.key(), proof));
                }
                self.count(|outcome| {
                    outcome.read.sealed += u64::from(depth != Some(Depth::Content));
                    outcome.read.length_only += u64::from(depth.is_none());
                });
            }
            Looked::Unsound(trouble, what) => {
                self.found(Fault::of(&variant.key(), Depth::Stored, trouble, what, Touches::Nothing));
            }
            Looked::Gone if self.is_listed(&variant.key()).await? => {
                let what = "it is listed, and the store says that there is no such object";
                self.found(Fault::of(
                    &variant.key(),
                    Depth::Stored,
                    Trouble::Missing,
                    what,
                    Touches::Nothing,
                ));
            }
            Looked::Gone | Looked::NoKey => self.count(|outcome| outcome.read.gone += 1),
        }
        self.progress.add_bytes(variant.stored_size);
        self.count(|outcome| {
            outcome.read.objects += 1;
            outcome.read.bytes += variant.stored_size;
        });
        Ok(())
    }

    async fn is_listed(&self, key: &ObjectKey) -> Result<bool, ArchiveError> {
        let Ok(prefix) = Prefix::new(key.as_str()) else { return Ok(false) };
        let listed = self.archive.store().list(&prefix, None, None).await?;
        Ok(listed.iter().any(|object| object.key == *key))
    }
}

fn stopped() -> ArchiveError {
    ArchiveError::Io {
        verb: "read",
        what: "a segment".to_owned(),
        source: std::io::Error::other("the work ended by itself"),
    }
}
