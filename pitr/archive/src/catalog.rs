//! What is in an archive, as plain data: the outcome of listings, of the
//! history files and of the backups' summaries. Nothing here does I/O.

use std::collections::BTreeMap;

use walpoint_wal::{Lsn, SegmentName, SystemIdentifier, TimelineHistory, TimelineId, Timestamp, WalFileName};

use crate::backup_id::BackupId;
use crate::cluster::Cluster;
use crate::content::ContentId;
use crate::error::ArchiveError;
use crate::idle::IdleProof;
use crate::layout::{Entry, Layout};
use crate::object_key::ObjectKey;
use crate::rare::Rare;
use crate::store::{Listed, StoreErrorKind};
use crate::summary::BackupHead;
use crate::tail::{Chunk, Tail};

/// What an archive holds of one cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Catalog {
    /// The cluster.
    pub cluster: Cluster,
    /// The history files, parsed; timeline 1 has none.
    pub histories: BTreeMap<TimelineId, TimelineHistory>,
    /// Timelines of whose history several variants stand, undecided.
    pub history_conflicts: Vec<TimelineId>,
    /// Segments by timeline and number.
    pub wal: BTreeMap<TimelineId, BTreeMap<u64, SegmentState>>,
    /// `.partial` segments.
    pub partials: BTreeMap<SegmentName, SegmentState>,
    /// Backup history files, which no recovery reads.
    pub backup_histories: Vec<Variant>,
    /// Until when nothing was written, by timeline.
    pub idle: BTreeMap<TimelineId, IdleProof>,
    /// Backups whose summary is there and sound, oldest first.
    pub backups: Vec<BackupHead>,
    /// Objects that should say something and cannot be read: histories, summaries.
    pub damaged: Vec<DamagedObject>,
    /// Backups without a summary: being made, or given up.
    pub unfinished: Vec<BackupId>,
    /// Variants that were refused and lie under `conflict/`.
    pub conflicts: Vec<Variant>,
    /// Keys that are not ours.
    pub unknown: Vec<String>,
}

/// An object that cannot be read, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DamagedObject {
    /// Its key.
    pub key: ObjectKey,
    /// What is wrong with it.
    pub reason: String,
}

impl DamagedObject {
    /// The object that could not be read, by the error that this gave. When it could not be
    /// had at all nothing can be said of it, and the error is given back.
    pub fn by(key: ObjectKey, error: ArchiveError) -> Result<DamagedObject, ArchiveError> {
        let reason = match error {
            ArchiveError::Damaged { what, .. } => what,
            ArchiveError::UnknownFormat { .. } => error.to_string(),
            // One object that is torn says nothing about the others.
            ArchiveError::Store(error) if error.kind == StoreErrorKind::Damaged => error.detail,
            other => return Err(other),
        };
        Ok(DamagedObject { key, reason })
    }
}

/// How much of the WAL to list. Backups and histories are always complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CatalogScope {
    /// All of it.
    All,
    /// What can lie at or after this position, on every timeline: from the
    /// beginning of its 4 GiB of WAL on.
    From(Lsn),
    /// None.
    NoWal,
}

/// What an archive holds under one WAL file's name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SegmentState {
    /// The objects, in the order of their keys.
    pub variants: Vec<Variant>,
    /// Content ids that are marked refused, whether their object is there or not.
    pub refused: Rare<ContentId>,
    /// Pieces of it from when it was being written, in the order of their keys.
    pub chunks: Rare<Chunk>,
    /// What these give from its beginning on. Most segments have none, and there may be a million.
    pub tail: Option<Box<Variant>>,
}

/// One object that holds a WAL file's content; or, of a segment that was being written, the
/// pieces that hold its beginning. Its key follows from the rest: a million of them would not fit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Variant {
    /// The file.
    pub name: WalFileName,
    /// Which content it is; of a tail, the bytes up to its end.
    pub content: ContentId,
    /// Number of stored bytes.
    pub stored_size: u64,
    /// When it was stored, by the store's clock.
    pub stored_at: Option<Timestamp>,
    /// Whether it is encrypted.
    pub encrypted: bool,
    /// Whether it is marked refused.
    pub refused: bool,
    /// Its pieces, when it is a tail.
    pub tail: Option<Box<Tail>>,
    /// Whether it lies under `conflict/`.
    is_aside: bool,
    /// Whose archive it is in.
    system: SystemIdentifier,
}

/// What recovery may take of a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Usable<'a> {
    /// The one content that is not refused. Of two objects with it, the first:
    /// the one that needs no key.
    One(&'a Variant),
    /// There is none.
    Nothing,
    /// Several, undecided: one object for each content.
    Ambiguous(Vec<&'a Variant>),
}

impl SegmentState {
    /// Reads a listing of one name's variants and marks; other keys are left out.
    pub fn from_listing(layout: &Layout, listed: &[Listed]) -> Self {
        let mut state = Self::default();
        for object in listed {
            if let Some(entry) = layout.parse(&object.key) {
                state.add(layout, entry, object);
            }
        }
        state.complete(layout);
        state
    }

    /// The same from a listing that shows other names as well.
    pub fn of_name(layout: &Layout, name: &WalFileName, listed: &[Listed]) -> Self {
        let is_of_name = |object: &&Listed| match layout.parse(&object.key) {
            Some(Entry::Wal { name: found, .. } | Entry::WalRefused { name: found, .. }) => found == *name,
            _ => false,
        };
        let own: Vec<Listed> = listed.iter().filter(is_of_name).cloned().collect();
        Self::from_listing(layout, &own)
    }

    /// Takes in one object of this name. To be followed by `complete`.
    fn add(&mut self, layout: &Layout, entry: Entry, object: &Listed) {
        match entry {
            Entry::Wal { name, content, encrypted } => {
                self.take(Variant::listed(layout, name, content, encrypted, object));
            }
            Entry::History { timeline, content } => {
                let name = WalFileName::History(timeline);
                self.take(Variant::listed(layout, name, content, false, object));
            }
            Entry::WalRefused { content, .. } | Entry::HistoryRefused { content, .. } => {
                self.refused.push(content)
            }
            Entry::LiveTail { segment, chunk, encrypted } => {
                self.chunks.push(Chunk::listed(segment, chunk, encrypted, object));
            }
            _ => {}
        }
    }

    /// Room for more than one would be the most of what a million of these take.
    fn take(&mut self, variant: Variant) {
        self.variants.reserve_exact(1);
        self.variants.push(variant);
    }

    fn complete(&mut self, layout: &Layout) {
        for variant in &mut self.variants {
            variant.refused = self.refused.contains(&variant.content);
        }
        if !self.chunks.is_empty() {
            self.tail = Variant::of_chunks(layout, &self.chunks).map(Box::new);
        }
    }

    /// The objects that are not refused: one for each content.
    pub fn standing(&self) -> Vec<&Variant> {
        let mut standing: Vec<&Variant> = Vec::new();
        for variant in self.variants.iter().filter(|variant| !variant.refused) {
            if !standing.iter().any(|other| other.content == variant.content) {
                standing.push(variant);
            }
        }
        standing
    }

    /// What recovery may take.
    pub fn usable(&self) -> Usable<'_> {
        // Nearly all are so, and there may be a million.
        if let [one] = self.variants.as_slice()
            && !one.refused
        {
            return Usable::One(one);
        }
        let standing = self.standing();
        match standing.as_slice() {
            [] => Usable::Nothing,
            [one] => Usable::One(one),
            _ => Usable::Ambiguous(standing),
        }
    }

    /// Whether another content was archived under this name, or refused, beside the one that
    /// stands. What later segments' metadata say of the WAL in it may be said of that one.
    pub fn is_contested(&self) -> bool {
        let mut contents = self.variants.iter().map(|variant| variant.content);
        let first = contents.next();
        !self.refused.is_empty() || contents.any(|content| Some(content) != first)
    }

    /// What recovery may take when what was shipped of a segment before it was complete counts,
    /// too. It does where there is no whole content, nor any word of one.
    pub fn available(&self) -> Usable<'_> {
        match &self.tail {
            Some(tail) if self.variants.is_empty() && self.refused.is_empty() => Usable::One(tail),
            _ => self.usable(),
        }
    }

    /// True when there is nothing, not even a mark.
    pub fn is_empty(&self) -> bool {
        self.variants.is_empty() && self.refused.is_empty() && self.chunks.is_empty()
    }
}

impl Variant {
    pub(crate) fn listed(
        layout: &Layout,
        name: WalFileName,
        content: ContentId,
        encrypted: bool,
        object: &Listed,
    ) -> Self {
        Self {
            name,
            content,
            stored_size: object.size,
            stored_at: object.modified,
            encrypted,
            refused: false,
            tail: None,
            is_aside: false,
            system: layout.system_identifier(),
        }
    }

    /// The same, refused and kept under `conflict/`.
    pub(crate) fn aside(
        layout: &Layout,
        name: WalFileName,
        content: ContentId,
        encrypted: bool,
        object: &Listed,
    ) -> Self {
        let listed = Self::listed(layout, name, content, encrypted, object);
        Self { refused: true, is_aside: true, ..listed }
    }

    /// Where it lies; of a tail, its last piece.
    pub fn key(&self) -> ObjectKey {
        let layout = Layout::new(self.system);
        match self.tail.as_ref().and_then(|tail| tail.chunks.last()) {
            Some(last) => last.key.clone(),
            None if self.is_aside => layout.conflict(&self.name, self.content, self.encrypted),
            None => layout.wal(&self.name, self.content, self.encrypted),
        }
    }

    /// The beginning of a segment that these pieces give.
    fn of_chunks(layout: &Layout, chunks: &[Chunk]) -> Option<Self> {
        let tail = Tail::of(chunks)?;
        let last = tail.chunks.last()?;
        Some(Self {
            name: WalFileName::Segment(last.segment),
            content: last.name.after,
            stored_size: tail.chunks.iter().map(|chunk| chunk.stored_size).sum(),
            stored_at: last.stored_at,
            encrypted: tail.chunks.iter().any(|chunk| chunk.encrypted),
            refused: false,
            tail: Some(Box::new(tail)),
            is_aside: false,
            system: layout.system_identifier(),
        })
    }

    /// Whether it gives a segment of so many bytes to its end. A tail may not: what follows it
    /// was never stored.
    pub fn reaches(&self, segment_bytes: u64) -> bool {
        self.tail.as_ref().is_none_or(|tail| u64::from(tail.end()) >= segment_bytes)
    }
}

impl Catalog {
    /// An empty one.
    pub fn new(cluster: Cluster) -> Self {
        Self {
            cluster,
            histories: BTreeMap::new(),
            history_conflicts: Vec::new(),
            wal: BTreeMap::new(),
            partials: BTreeMap::new(),
            backup_histories: Vec::new(),
            idle: BTreeMap::new(),
            backups: Vec::new(),
            damaged: Vec::new(),
            unfinished: Vec::new(),
            conflicts: Vec::new(),
            unknown: Vec::new(),
        }
    }

    /// Takes in a listing of WAL and of `conflict/`.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn add_wal(&mut self, layout: &Layout, listed: &[Listed]) {
        self.add_listed(layout, listed);
        self.complete_wal(layout);
    }

    /// Takes in a part of the WAL. To be followed by `complete_wal`.
    pub(crate) fn add_listed(&mut self, layout: &Layout, listed: &[Listed]) {
        for object in listed {
            match layout.parse(&object.key) {
                Some(entry) => self.add_entry(layout, entry, object),
                None => self.unknown.push(object.key.to_string()),
            }
        }
    }

    pub(crate) fn complete_wal(&mut self, layout: &Layout) {
        let segments = self.wal.values_mut().flat_map(BTreeMap::values_mut);
        segments.chain(self.partials.values_mut()).for_each(|state| state.complete(layout));
    }

    fn add_entry(&mut self, layout: &Layout, entry: Entry, object: &Listed) {
        match entry {
            Entry::Wal { name, .. } | Entry::WalRefused { name, .. } => match self.state_of(name) {
                Some(state) => state.add(layout, entry, object),
                // A segment number that does not exist with this segment size.
                None if matches!(name, WalFileName::Segment(_)) => self.unknown.push(object.key.to_string()),
                None => {
                    if let Entry::Wal { name, content, encrypted } = entry {
                        self.backup_histories.push(Variant::listed(layout, name, content, encrypted, object));
                    }
                }
            },
            Entry::LiveTail { segment, .. } => match self.state_of(WalFileName::Segment(segment)) {
                Some(state) => state.add(layout, entry, object),
                None => self.unknown.push(object.key.to_string()),
            },
            Entry::Conflict { name, content, encrypted } => {
                self.conflicts.push(Variant::aside(layout, name, content, encrypted, object));
            }
            _ => {}
        }
    }

    fn state_of(&mut self, name: WalFileName) -> Option<&mut SegmentState> {
        match name {
            WalFileName::Segment(segment) => {
                let number = segment.number(self.cluster.segment_size).ok()?;
                Some(self.wal.entry(segment.timeline).or_default().entry(number).or_default())
            }
            WalFileName::Partial(segment) => Some(self.partials.entry(segment).or_default()),
            WalFileName::History(_) | WalFileName::BackupHistory { .. } => None,
        }
    }
}

#[cfg(test)]
#[path = "catalog/tests.rs"]
mod tests;
