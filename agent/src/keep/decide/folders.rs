//! What lies under `backup/` and belongs to no backup that stays: expired backups, backups that never were
//! completed, and the packs of both that newer backups need.

use super::backups::Chosen;
use super::{Borrowed, FolderFate};
use crate::keep::policy::Policy;
use crate::keep::snapshot::Snapshot;
use std::collections::{BTreeMap, BTreeSet};
use walpoint_archive::{BackupId, FolderObjects, PackObjects};
use walpoint_wal::Timestamp;

/// The packs that backups name which stay.
pub fn needed_packs(snapshot: &Snapshot, chosen: &Chosen) -> BTreeMap<BackupId, BTreeSet<u32>> {
    let mut needed: BTreeMap<BackupId, BTreeSet<u32>> = BTreeMap::new();
    for backup in chosen.backups.keys().filter_map(|index| snapshot.backups.get(*index)) {
        for (id, numbers) in &backup.named {
            needed.entry(id.clone()).or_default().extend(numbers);
        }
    }
    needed
}

/// What is to become of each folder without a backup that stays.
pub fn fates(
    snapshot: &Snapshot,
    policy: &Policy,
    now: Timestamp,
    chosen: &Chosen,
    needed: &BTreeMap<BackupId, BTreeSet<u32>>,
) -> Vec<FolderFate> {
    let complete: BTreeMap<&BackupId, bool> = (snapshot.backups.iter().enumerate())
        .map(|(index, backup)| (&backup.id, chosen.backups.contains_key(&index)))
        .collect();
    let nothing = BTreeSet::new();
    let mut fates = Vec::new();
    for (id, folder) in &snapshot.folders {
        let is_backup = match complete.get(id) {
            Some(true) => continue,
            Some(false) => true,
            None => false,
        };
        let given_up_after = policy.given_up_after();
        let is_young = !is_backup
            && folder.newest.is_none_or(|newest| !snapshot.signs.has_passed(newest, now, given_up_after));
        let fate = fate(id, folder, needed.get(id).unwrap_or(&nothing));
        fates.push(FolderFate { is_backup, is_young, ..fate });
    }
    fates
}

/// What the newest backup needs, and how much of that only it and its like keep.
pub fn borrowed(snapshot: &Snapshot, gone: &[FolderFate]) -> Borrowed {
    let gone: BTreeSet<&BackupId> = gone.iter().map(|folder| &folder.id).collect();
    let newest = snapshot.backups.iter().max_by_key(|backup| (backup.stored_at, &backup.id));
    let mut borrowed = Borrowed::default();
    for (id, numbers) in newest.iter().flat_map(|newest| &newest.named) {
        let Some(folder) = snapshot.folders.get(id) else { continue };
        let bytes: u64 =
            numbers.iter().filter_map(|number| folder.packs.get(number)).map(|pack| pack.bytes).sum();
        borrowed.needs += bytes;
        if gone.contains(id) {
            borrowed.of_the_gone += bytes;
        }
    }
    borrowed
}

fn fate(id: &BackupId, folder: &FolderObjects, needed: &BTreeSet<u32>) -> FolderFate {
    let kept = folder.packs.iter().filter(|(number, _)| needed.contains(number));
    let kept: Vec<&PackObjects> = kept.map(|(_, pack)| pack).collect();
    let needed_bytes = kept.iter().map(|pack| pack.bytes).sum();
    FolderFate {
        id: id.clone(),
        is_backup: false,
        is_young: false,
        bytes: folder.bytes(),
        objects: folder.objects - kept.iter().map(|pack| pack.objects).sum::<u64>(),
        frees: folder.bytes() - needed_bytes,
        packs: folder.packs.len() as u64,
        needed_packs: kept.len() as u64,
        needed_bytes,
    }
}
