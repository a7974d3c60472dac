//! Every stored object, counted under the name that it belongs to. Far smaller than the catalog: a
//! million segments must fit, and only what is stored when and how large it is matters here.

use std::collections::{BTreeMap, BTreeSet};

use futures::{Stream, StreamExt, TryStreamExt, stream};
use walpoint_wal::{SegmentName, SegmentSize, TimelineId, Timestamp, WalFileName};

use super::{Archive, PARALLEL};
use crate::backup_id::BackupId;
use crate::content::ContentId;
use crate::error::ArchiveError;
use crate::layout::{Entry, Layout};
use crate::object_key::{ObjectKey, Prefix};
use crate::store::Listed;

/// Objects listed at a time where there may be millions.
const PAGE: usize = 10_000;

/// What is stored under the name of one segment: its contents, `.partial`, pieces, backup history
/// file, marks, and what is kept of it under `conflict/`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentObjects {
    /// The segment's number, counted from the beginning of WAL.
    pub number: u64,
    /// When the last of them was stored, by the store's clock; the end of time where it does not tell.
    pub newest: Timestamp,
    /// Number of stored bytes.
    pub bytes: u64,
    /// Number of objects.
    pub objects: u32,
    /// Whether something is there that recovery may read: more than marks and what was put aside.
    pub has_wal: bool,
    /// Whether recovery would know what to read: one content that is not refused, or pieces alone.
    pub is_decided: bool,
}

/// All WAL that is stored.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct WalInventory {
    /// By timeline, in the order of numbers.
    pub segments: BTreeMap<TimelineId, Vec<SegmentObjects>>,
    /// Keys that are not ours.
    pub unknown: Vec<String>,
}

/// The objects of one pack: one, unless a backup that was taken up again stored another one.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PackObjects {
    /// Stored bytes.
    pub bytes: u64,
    /// Number of objects.
    pub objects: u64,
}

/// A pack or a manifest in a backup's folder, as its key and its size tell.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct StoredPart {
    /// Of a pack.
    number: Option<u32>,
    content: ContentId,
    encrypted: bool,
    size: u64,
}

impl StoredPart {
    /// The backup whose folder it lies in, and what it is there; none for any other object.
    pub fn of(layout: &Layout, key: &ObjectKey, size: u64) -> Option<(BackupId, Self)> {
        let (backup, number, content, encrypted) = match layout.parse(key)? {
            Entry::Pack { backup, number, content, encrypted } => (backup, Some(number), content, encrypted),
            Entry::Manifest { backup, content, encrypted } => (backup, None, content, encrypted),
            _ => return None,
        };
        Some((backup, Self { number, content, encrypted, size }))
    }
}

/// What lies in one backup's folder.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct FolderObjects {
    /// When the summary was stored: the backup exists since then.
    pub summary: Option<Timestamp>,
    /// The contents of its manifests: one, unless it was taken up again.
    pub manifests: Vec<ContentId>,
    /// Its packs, by number.
    pub packs: BTreeMap<u32, PackObjects>,
    /// Its packs and manifests, each with its size: what a summary names must be among them.
    pub parts: BTreeSet<StoredPart>,
    /// Stored bytes of everything else.
    pub other_bytes: u64,
    /// Number of objects.
    pub objects: u64,
    /// When the last of them was stored; the end of time where the store does not tell.
    pub newest: Option<Timestamp>,
}

/// All objects of backups.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct BackupInventory {
    /// By the backup whose folder it is.
    pub folders: BTreeMap<BackupId, FolderObjects>,
    /// Keys that are not ours.
    pub unknown: Vec<String>,
}

/// An object without a time is taken for a new one: then it stays.
fn time_of(object: &Listed) -> Timestamp {
    object.modified.unwrap_or(Timestamp(i64::MAX))
}

impl FolderObjects {
    /// Stored bytes of all that is in it.
    pub fn bytes(&self) -> u64 {
        self.other_bytes + self.packs.values().map(|pack| pack.bytes).sum::<u64>()
    }
}

impl SegmentObjects {
    fn add(&mut self, more: &SegmentObjects) {
        self.newest = self.newest.max(more.newest);
        self.bytes += more.bytes;
        self.objects += more.objects;
        self.has_wal |= more.has_wal;
        self.is_decided |= more.is_decided;
    }
}

impl BackupInventory {
    fn take(&mut self, layout: &Layout, object: &Listed) {
        let entry = layout.parse(&object.key);
        let folder = match &entry {
            Some(Entry::Pack { backup, .. } | Entry::Manifest { backup, .. } | Entry::Summary { backup }) => {
                self.folders.entry(backup.clone()).or_default()
            }
            _ => return self.unknown.push(object.key.to_string()),
        };
        folder.objects += 1;
        folder.newest = folder.newest.max(Some(time_of(object)));
        folder.parts.extend(StoredPart::of(layout, &object.key, object.size).map(|(_, part)| part));
        match entry {
            Some(Entry::Pack { number, .. }) => {
                let pack = folder.packs.entry(number).or_default();
                pack.bytes += object.size;
                pack.objects += 1;
            }
            Some(Entry::Summary { .. }) => {
                folder.summary = Some(time_of(object));
                folder.other_bytes += object.size;
            }
            Some(Entry::Manifest { content, .. }) => {
                folder.manifests.push(content);
                folder.other_bytes += object.size;
            }
            _ => folder.other_bytes += object.size,
        }
    }
}

impl WalInventory {
    fn take(&mut self, counted: Counted) {
        self.unknown.extend(counted.unknown);
        for (timeline, segments) in counted.segments {
            let known = self.segments.entry(timeline).or_default();
            for objects in segments {
                match known.binary_search_by_key(&objects.number, |segment| segment.number) {
                    Ok(at) => known.iter_mut().skip(at).take(1).for_each(|segment| segment.add(&objects)),
                    // Folders come in order, so nearly always this is the end.
                    Err(at) => known.insert(at, objects),
                }
            }
        }
    }
}

/// What one listing of WAL holds.
struct Counted {
    /// In the order of numbers.
    segments: BTreeMap<TimelineId, Vec<SegmentObjects>>,
    unknown: Vec<String>,
}

/// What is known of one segment while its objects are counted.
struct Counting {
    objects: SegmentObjects,
    /// Contents that are there.
    stored: Vec<ContentId>,
    /// Contents that were refused.
    refused: Vec<ContentId>,
    has_pieces: bool,
}

impl Counting {
    fn new(number: u64) -> Self {
        let newest = Timestamp(i64::MIN);
        let objects =
            SegmentObjects { number, newest, bytes: 0, objects: 0, has_wal: false, is_decided: false };
        Self { objects, stored: Vec::new(), refused: Vec::new(), has_pieces: false }
    }

    fn take(&mut self, entry: &Entry, has_wal: bool, object: &Listed) {
        self.objects.newest = self.objects.newest.max(time_of(object));
        self.objects.bytes += object.size;
        self.objects.objects += 1;
        self.objects.has_wal |= has_wal;
        match entry {
            Entry::Wal { name: WalFileName::Segment(_), content, .. } if !self.stored.contains(content) => {
                self.stored.push(*content);
            }
            Entry::WalRefused { name: WalFileName::Segment(_), content } => self.refused.push(*content),
            Entry::LiveTail { .. } => self.has_pieces = true,
            _ => {}
        }
    }

    fn counted(self) -> SegmentObjects {
        let standing = self.stored.iter().filter(|content| !self.refused.contains(content)).count();
        let is_decided = if standing == 0 { self.has_pieces } else { standing == 1 };
        SegmentObjects { is_decided, ..self.objects }
    }
}

impl Counted {
    fn of(layout: &Layout, size: SegmentSize, listed: &[Listed]) -> Self {
        let mut unknown = Vec::new();
        // Contents and refusals of a segment lie in one folder.
        let mut counting: BTreeMap<TimelineId, BTreeMap<u64, Counting>> = BTreeMap::new();
        for object in listed {
            let entry = layout.parse(&object.key);
            let owner = entry.as_ref().and_then(owner_of);
            let (Some(entry), Some((owner, has_wal))) = (entry, owner) else {
                unknown.push(object.key.to_string());
                continue;
            };
            let Owner::Segment(segment) = owner else { continue };
            // With another segment size there is no such segment.
            let Ok(number) = segment.number(size) else {
                unknown.push(object.key.to_string());
                continue;
            };
            let own = counting.entry(segment.timeline).or_default();
            own.entry(number).or_insert_with(|| Counting::new(number)).take(&entry, has_wal, object);
        }
        let counted = |own: BTreeMap<u64, Counting>| own.into_values().map(Counting::counted).collect();
        let segments = counting.into_iter().map(|(timeline, own)| (timeline, counted(own))).collect();
        Self { segments, unknown }
    }
}

/// Whose object it is.
enum Owner {
    Segment(SegmentName),
    /// A history that was refused: histories never go.
    History,
}

/// Whose object it is, and whether it is WAL that a recovery may read; none for what does not belong there.
fn owner_of(entry: &Entry) -> Option<(Owner, bool)> {
    let (name, has_wal) = match entry {
        Entry::Wal { name, .. } => (*name, matches!(name, WalFileName::Segment(_))),
        Entry::LiveTail { segment, .. } => (WalFileName::Segment(*segment), true),
        Entry::WalRefused { name, .. } | Entry::Conflict { name, .. } => (*name, false),
        _ => return None,
    };
    let owner = match name {
        WalFileName::Segment(segment)
        | WalFileName::Partial(segment)
        | WalFileName::BackupHistory { segment, .. } => Owner::Segment(segment),
        WalFileName::History(_) => Owner::History,
    };
    Some((owner, has_wal))
}

impl Archive {
    /// Every object under `backup/`.
    pub async fn backup_inventory(&self) -> Result<BackupInventory, ArchiveError> {
        self.backup_inventory_by(PAGE).await
    }

    /// What does not come with the first page is listed in parts at the same time. These meet at folders of
    /// backups, and leave out nothing, whatever folders there are.
    pub(super) async fn backup_inventory_by(&self, page: usize) -> Result<BackupInventory, ArchiveError> {
        let mut inventory = BackupInventory::default();
        let listed = self.store.list(&self.layout.backup_prefix(), None, Some(page)).await?;
        listed.iter().for_each(|object| inventory.take(&self.layout, object));
        let Some(last) = listed.last().filter(|_| listed.len() == page) else { return Ok(inventory) };
        let mut borders = vec![last.key.clone()];
        borders.extend(self.borders_behind(&last.key).await?);
        let ends = borders.iter().skip(1).cloned().map(Some).chain([None]);
        let parts: Vec<_> = borders.iter().cloned().zip(ends).collect();
        let pages = parts.into_iter().map(|(after, until)| self.backup_pages(page, after, until).boxed());
        let mut pages = stream::iter(pages).flatten_unordered(PARALLEL);
        while let Some(listed) = pages.try_next().await? {
            listed.iter().for_each(|object| inventory.take(&self.layout, object));
        }
        Ok(inventory)
    }

    /// Up to so many places behind a key, one fewer than are listed at a time, at which a folder of a backup begins.
    async fn borders_behind(&self, key: &ObjectKey) -> Result<Vec<ObjectKey>, ArchiveError> {
        let mut ids = self.backup_folders().await?.ids;
        ids.sort();
        let begins = ids.iter().map(|id| self.layout.before_backup(id)).filter(|begin| begin > key);
        let begins: Vec<ObjectKey> = begins.collect();
        let every = begins.len().div_ceil(PARALLEL).max(1);
        Ok(begins.into_iter().skip(1).step_by(every).take(PARALLEL - 1).collect())
    }

    /// The objects under `backup/` behind one key, up to and with another.
    fn backup_pages(
        &self,
        page: usize,
        after: ObjectKey,
        until: Option<ObjectKey>,
    ) -> impl Stream<Item = Result<Vec<Listed>, ArchiveError>> {
        stream::try_unfold(Some(after), move |after| {
            let until = until.clone();
            async move {
                let Some(after) = after else { return Ok(None) };
                let mut listed =
                    self.store.list(&self.layout.backup_prefix(), Some(&after), Some(page)).await?;
                let next = listed.last().filter(|_| listed.len() == page).map(|last| last.key.clone());
                listed.retain(|object| until.as_ref().is_none_or(|until| object.key <= *until));
                let goes_on = |next: &ObjectKey| until.as_ref().is_none_or(|until| next < until);
                Ok(Some((listed, next.filter(goes_on))))
            }
        })
    }

    /// Every object under `wal/` and `conflict/`.
    pub async fn wal_inventory(&self, size: SegmentSize) -> Result<WalInventory, ArchiveError> {
        let wal = self.layout.wal_prefix();
        let folders = self.store.list_folders(&wal).await?;
        let folders = folders.iter().filter_map(|folder| Prefix::new(&format!("{wal}{folder}/")).ok());
        let prefixes: Vec<Prefix> = folders.chain([self.layout.conflict_prefix()]).collect();
        let counted = prefixes.iter().map(|prefix| async move {
            let listed = self.store.list(prefix, None, None).await?;
            Ok::<_, ArchiveError>(Counted::of(&self.layout, size, &listed))
        });
        let mut counted = stream::iter(counted).buffered(PARALLEL);
        let mut inventory = WalInventory::default();
        while let Some(folder) = counted.try_next().await? {
            inventory.take(folder);
        }
        Ok(inventory)
    }

    /// All that is stored under the names of these segments, which lie in one folder of WAL; last things first,
    /// so that what is left of pieces at any moment is a chain.
    pub async fn objects_of_segments(
        &self,
        first: &SegmentName,
        last: &SegmentName,
    ) -> Result<Vec<(SegmentName, Listed)>, ArchiveError> {
        let before = self.layout.before_segment(first);
        let folder = self.layout.segments_prefix(first, last);
        let listed = self.store.list(&folder, Some(&before), None).await?;
        let own = listed.into_iter().rev().filter_map(|object| Some((self.owning_segment(&object)?, object)));
        Ok(own.filter(|(segment, _)| (*first..=*last).contains(segment)).collect())
    }

    /// All that was put aside under the names of segments.
    pub async fn segments_aside(&self) -> Result<Vec<(SegmentName, Listed)>, ArchiveError> {
        let listed = self.store.list(&self.layout.conflict_prefix(), None, None).await?;
        let aside = listed.into_iter().filter_map(|object| Some((self.owning_segment(&object)?, object)));
        Ok(aside.collect())
    }

    fn owning_segment(&self, object: &Listed) -> Option<SegmentName> {
        match owner_of(&self.layout.parse(&object.key)?)? {
            (Owner::Segment(segment), _) => Some(segment),
            (Owner::History, _) => None,
        }
    }

    /// All that lies in a backup's folder and is ours.
    pub async fn objects_of_backup(&self, backup: &BackupId) -> Result<Vec<(Entry, Listed)>, ArchiveError> {
        let listed = self.store.list(&self.layout.backup_dir(backup), None, None).await?;
        let ours = listed.into_iter().filter_map(|object| Some((self.layout.parse(&object.key)?, object)));
        Ok(ours.collect())
    }
}
