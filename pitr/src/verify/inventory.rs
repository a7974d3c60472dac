//! What the listings show of backups, beside what the summaries say: what is missing, what has another size, what
//! nobody names.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use walpoint_archive::store::Listed;
use walpoint_archive::summary::StoredObject;
use walpoint_archive::verification::Depth;
use walpoint_archive::{
    Archive, ArchiveError, BackupHead, BackupId, BackupSummary, Catalog, DamagedObject, Entry, Layout,
    ObjectKey,
};

use super::finding::{Fault, Touches, Trouble};

/// Listings that are under way at once.
const PARALLEL: usize = 16;

/// A pack and the backups that name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamedPack {
    pub object: StoredObject,
    /// By their place in the catalog.
    pub namers: Vec<usize>,
}

/// All packs that any backup names, by the backup that they belong to.
pub(super) type NamedPacks = BTreeMap<BackupId, BTreeMap<u32, NamedPack>>;

/// An object that no backup names.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Unreferenced {
    /// Its key.
    #[serde(serialize_with = "as_text")]
    pub key: ObjectKey,
    /// Its size in bytes.
    pub size: u64,
}

fn as_text<S: serde::Serializer>(key: &ObjectKey, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(key)
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    pub packs: NamedPacks,
    pub faults: Vec<Fault>,
    /// Manifests and packs that need not be read to be known as wrong.
    pub wrong: BTreeSet<ObjectKey>,
    pub unreferenced: Vec<Unreferenced>,
    pub unknown: Vec<String>,
}

/// The packs that summaries name, read one summary after the other: all of them together would not fit. A backup
/// whose summary is gone by now is none any more.
async fn named_packs(
    archive: &Archive,
    catalog: &mut Catalog,
) -> Result<(NamedPacks, Vec<Fault>), ArchiveError> {
    let (mut named, mut faults) = (NamedPacks::new(), Vec::new());
    let mut there = Vec::new();
    for head in std::mem::take(&mut catalog.backups) {
        match archive.whole(&head).await {
            Ok(summary) => {
                faults.extend(name_packs(&mut named, archive.layout(), there.len(), summary));
                there.push(head);
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => catalog.damaged.push(DamagedObject::by(archive.layout().summary(&head.id), error)?),
        }
    }
    catalog.backups = there;
    Ok((named, faults))
}

/// Adds the packs of the backup at a place. Two that say different things of one pack cannot both be right.
fn name_packs(named: &mut NamedPacks, layout: &Layout, place: usize, backup: BackupSummary) -> Vec<Fault> {
    let mut faults = Vec::new();
    for object in backup.packs {
        let Some(Entry::Pack { backup: owner, number, .. }) = layout.parse(&object.key) else { continue };
        let known = named.entry(owner).or_default().entry(number);
        let known = known.or_insert_with(|| NamedPack { object: object.clone(), namers: Vec::new() });
        known.namers.push(place);
        if known.object != object {
            let what = format!("it says other things of pack \"{}\" than another backup does", object.key);
            let touches = Touches::Backups(vec![backup.id.clone()]);
            faults.push(Fault::new(layout.summary(&backup.id), Trouble::Damaged, what, touches));
        }
    }
    faults
}

/// Lists the backups' folders and compares.
pub(super) async fn take(archive: &Archive, catalog: &mut Catalog) -> Result<Inventory, ArchiveError> {
    let (packs, faults) = named_packs(archive, catalog).await?;
    let catalog = &*catalog;
    let mut inventory = Inventory { packs, faults, ..Inventory::default() };
    let mut folders: BTreeSet<BackupId> = catalog.backups.iter().map(|backup| backup.id.clone()).collect();
    folders.extend(inventory.packs.keys().cloned());
    let list = |id: BackupId| async move {
        let listed = archive.store().list(&archive.layout().backup_dir(&id), None, None).await?;
        Ok::<_, ArchiveError>((id, listed))
    };
    let complete: BTreeMap<&BackupId, &BackupHead> =
        catalog.backups.iter().map(|backup| (&backup.id, backup)).collect();
    let mut listings = stream::iter(folders.into_iter().map(list)).buffered(PARALLEL);
    while let Some((id, listed)) = listings.try_next().await? {
        inventory.compare(archive.layout(), &id, &listed, &catalog.backups, complete.get(&id).copied());
    }
    Ok(inventory)
}

impl Inventory {
    /// Of one backup's folder; `own` is its summary.
    fn compare(
        &mut self,
        layout: &Layout,
        id: &BackupId,
        listed: &[Listed],
        backups: &[BackupHead],
        own: Option<&BackupHead>,
    ) {
        let sizes: BTreeMap<&ObjectKey, u64> = listed.iter().map(|it| (&it.key, it.size)).collect();
        let mut needed: Vec<(ObjectKey, u64, Vec<BackupId>)> = Vec::new();
        if let Some(backup) = own {
            needed.push((backup.manifest.key.clone(), backup.manifest.size, vec![id.clone()]));
        }
        for pack in self.packs.get(id).into_iter().flat_map(BTreeMap::values) {
            needed.push((pack.object.key.clone(), pack.object.size, ids(backups, &pack.namers)));
        }
        for (key, size, namers) in &needed {
            let touches = Touches::Backups(namers.clone());
            let fault = match sizes.get(key) {
                Some(found) if found == size => continue,
                Some(found) => {
                    let what = format!("it has {found} bytes and should have {size}");
                    Fault::of(key, Depth::Stored, Trouble::Damaged, what, touches)
                }
                None => Fault::of(key, Depth::Stored, Trouble::Missing, "it is not there", touches),
            };
            self.faults.push(fault);
            self.wrong.insert(key.clone());
        }
        let named: BTreeSet<&ObjectKey> = needed.iter().map(|(key, _, _)| key).collect();
        // A backup that has no summary may be being made.
        let is_complete = own.is_some();
        for object in listed {
            match layout.parse(&object.key) {
                Some(Entry::Summary { .. }) => {}
                Some(_) if named.contains(&object.key) || !is_complete => {}
                Some(_) => {
                    self.unreferenced.push(Unreferenced { key: object.key.clone(), size: object.size })
                }
                None => self.unknown.push(object.key.to_string()),
            }
        }
    }
}

/// The ids of backups by their places.
pub(super) fn ids(backups: &[BackupHead], places: &[usize]) -> Vec<BackupId> {
    places.iter().filter_map(|place| backups.get(*place)).map(|backup| backup.id.clone()).collect()
}
