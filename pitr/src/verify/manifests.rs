//! Reads manifests, one part after the other: whether each is sound, and which frames of which packs it names.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use walpoint_archive::manifest::{ManifestEntry, ManifestError, ManifestPart, ManifestReader};
use walpoint_archive::pack::Frame;
use walpoint_archive::{Archive, ArchiveError, BackupHead, BackupId, Piece};

use super::inventory::Inventory;
use crate::manifest_pipe::read_piped;
use crate::restore::inventory::{REQUIRED, Rules};

/// Most frames that are held in memory at once: some 80 MiB, what manifests name of 256 GiB and more.
const MOST_FRAMES: usize = if cfg!(test) { 64 } else { 1 << 20 };

/// Most frames that one pack can hold: the smallest frame has more bytes than this leaves it.
const MOST_IN_PACK: usize = 2 << 20;

/// Which frames manifests name, of packs of one backup from one number up to another.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// By pack; each frame with the manifests that name it.
    pub packs: BTreeMap<u32, BTreeMap<Frame, Namers>>,
    /// Which manifests these are.
    pub namers: NamerSets,
    /// Manifests that could not be read, of which nothing is in here.
    pub unread: BTreeSet<usize>,
    count: usize,
    /// The first number that is left out for want of memory.
    pub until: Option<u32>,
}

impl Wanted {
    fn add(&mut self, pack: u32, frame: Frame, manifest: usize) -> Result<(), String> {
        if self.until.is_some_and(|until| pack >= until) {
            return Ok(());
        }
        let frames = self.packs.entry(pack).or_default();
        if frames.len() >= MOST_IN_PACK {
            return Err(format!("it names more than {MOST_IN_PACK} pieces in pack {pack}"));
        }
        let known = frames.get(&frame).copied();
        frames.insert(frame, self.namers.with(known, manifest));
        self.count += usize::from(known.is_none());
        // The last packs wait for another time through the manifests; one is always kept.
        while self.count > MOST_FRAMES && self.packs.len() > 1 {
            if let Some((last, frames)) = self.packs.pop_last() {
                self.count -= frames.len();
                self.until = Some(last);
            }
        }
        Ok(())
    }

    /// What an unsound manifest names is not asked of the packs in its name.
    fn forget(&mut self, manifest: usize) {
        self.namers.unsound.insert(manifest);
    }
}

/// Some manifests, by their number in [`NamerSets`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Namers(u32);

/// Sets of manifests. Incrementals name what their parents name, so that millions of frames have a few sets: each is
/// an older one and one manifest more.
#[derive(Debug, Default)]
pub(super) struct NamerSets {
    sets: Vec<(usize, Option<Namers>)>,
    known: BTreeMap<(usize, Option<Namers>), Namers>,
    unsound: BTreeSet<usize>,
}

impl NamerSets {
    fn with(&mut self, before: Option<Namers>, manifest: usize) -> Namers {
        if let Some(before) = before.filter(|before| self.last_of(*before) == Some(manifest)) {
            return before;
        }
        let next = Namers(u32::try_from(self.sets.len()).unwrap_or(u32::MAX));
        let set = (manifest, before);
        *self.known.entry(set).or_insert_with(|| {
            self.sets.push(set);
            next
        })
    }

    fn last_of(&self, namers: Namers) -> Option<usize> {
        self.sets.get(namers.0 as usize).map(|(manifest, _)| *manifest)
    }

    /// The sound ones of a set.
    pub fn of(&self, namers: Namers) -> impl Iterator<Item = usize> {
        let mut next = Some(namers);
        let all = std::iter::from_fn(move || {
            let (manifest, before) = *self.sets.get(next?.0 as usize)?;
            next = before;
            Some(manifest)
        });
        all.filter(move |manifest| !self.unsound.contains(manifest))
    }
}

/// Why a manifest is not sound, in words.
type Unsound = String;

/// Reads a manifest from end to end and checks all that can be known without its packs.
pub(super) async fn check(
    archive: &Archive,
    summary: &BackupHead,
    inventory: &Arc<Inventory>,
) -> Result<Result<(), Unsound>, ArchiveError> {
    let (own, inventory) = (summary.clone(), Arc::clone(inventory));
    let read = move |manifest| {
        let mut checking = Checking::new(&own, &inventory);
        each_part(manifest, &own, |part| match part {
            ManifestPart::Entry(entry) => checking.take(entry),
            ManifestPart::Content(content) => checking.take_pieces(&content.pieces),
        })?;
        checking.finish()
    };
    read_piped(archive, summary, read, stopped).await
}

/// Adds the frames that a manifest names in packs of `owner` from number `from` on. Of a manifest that turns out
/// unsound nothing is asked of the packs.
pub(super) async fn collect(
    archive: &Archive,
    (number, summary): (usize, &BackupHead),
    owner: &BackupId,
    from: u32,
    wanted: &Arc<Mutex<Wanted>>,
) -> Result<Result<(), Unsound>, ArchiveError> {
    let (own, owner, shared) = (summary.clone(), owner.clone(), Arc::clone(wanted));
    let read = move |manifest| {
        each_part(manifest, &own, |part| {
            let ManifestPart::Content(content) = part else { return Ok(()) };
            let is_owners = |piece: &&Piece| piece.backup.as_ref().unwrap_or(&own.id) == &owner;
            let pieces = content.pieces.iter().filter(is_owners).filter(|piece| piece.pack >= from);
            let mut wanted = lock(&shared);
            pieces.into_iter().try_for_each(|piece| wanted.add(piece.pack, piece.place().frame(), number))
        })
    };
    let collected = read_piped(archive, summary, read, stopped).await;
    if !matches!(collected, Ok(Ok(()))) {
        lock(wanted).forget(number);
    }
    collected
}

/// Nothing is left half done under this lock.
pub(super) fn lock(wanted: &Mutex<Wanted>) -> MutexGuard<'_, Wanted> {
    wanted.lock().unwrap_or_else(PoisonError::into_inner)
}

fn stopped() -> Unsound {
    "the reading of it ended by itself".to_owned()
}

fn each_part(
    manifest: impl BufRead,
    summary: &BackupHead,
    mut take: impl FnMut(&ManifestPart) -> Result<(), Unsound>,
) -> Result<(), Unsound> {
    let words = |error: ManifestError| error.to_string();
    let mut manifest = ManifestReader::new(manifest).map_err(words)?;
    let header = manifest.header();
    if header.backup != summary.id || header.system_identifier != summary.system_identifier {
        return Err(format!("it is of backup {} of cluster {}", header.backup, header.system_identifier));
    }
    let mut of = String::new();
    while let Some(part) = manifest.next_part().map_err(words)? {
        if let ManifestPart::Entry(entry) = &part {
            of = entry.path.to_string();
        }
        take(&part).map_err(|what| format!("\"{of}\": {what}"))?;
    }
    Ok(())
}

/// The rules that a manifest has to keep beside its own form: those of a restore.
struct Checking<'a> {
    rules: Rules,
    summary: &'a BackupHead,
    inventory: &'a Inventory,
    missing: BTreeSet<&'static str>,
}

impl<'a> Checking<'a> {
    fn new(summary: &'a BackupHead, inventory: &'a Inventory) -> Checking<'a> {
        Checking {
            rules: Rules::default(),
            summary,
            inventory,
            missing: REQUIRED.iter().map(|required| required.name).collect(),
        }
    }

    fn take(&mut self, entry: &ManifestEntry) -> Result<(), Unsound> {
        self.rules.check(entry)?;
        let required = REQUIRED.iter().find(|it| entry.path.as_str() == Some(it.name));
        if required.is_some_and(|it| entry.kind.is_file() && it.sizes.contains(&entry.size)) {
            self.missing.retain(|name| entry.path.as_str() != Some(name));
        }
        Ok(())
    }

    fn take_pieces(&self, pieces: &[Piece]) -> Result<(), Unsound> {
        for piece in pieces {
            let number = piece.pack_of(&self.summary.id);
            let size = self.size_of(&number).ok_or_else(|| {
                format!("it names pack {} of {}, which the summary does not", number.1, number.0)
            })?;
            let end = piece.pack_offset.checked_add(piece.stored_length.into());
            if end.is_none_or(|end| end > size) {
                return Err(format!("a piece lies outside of pack {} of {}", number.1, number.0));
            }
        }
        Ok(())
    }

    /// The size of a pack, when the summary names it.
    fn size_of(&self, (owner, number): &(BackupId, u32)) -> Option<u64> {
        let pack = || self.inventory.packs.get(owner)?.get(number);
        self.summary.packs.contains(owner, *number).then(pack)?.map(|pack| pack.object.size)
    }

    fn finish(self) -> Result<(), Unsound> {
        self.missing.first().map_or(Ok(()), |name| Err(format!("it has no \"{name}\" as a backup must")))
    }
}
