//! A model as listings and summaries show it, and what a decision leaves of it.

use super::*;
use crate::keep::elapsed::SignsOfLife;
use crate::keep::model::{MIB, Made, There, World, size, tli};
use crate::keep::snapshot::{Backup, Snapshot};
use walpoint_archive::{ContentHash, ContentId, FolderObjects, PackObjects, SegmentObjects};
use walpoint_wal::{Lsn, Timestamp};

pub const TEN: PackObjects = PackObjects { bytes: 10, objects: 1 };

fn manifest() -> ContentId {
    ContentHash::of(b"manifest").id()
}

impl World {
    pub fn snapshot(&self) -> Snapshot {
        let ids = self.ids();
        let backup = |(index, made): (usize, &Made)| Backup {
            id: ids[index].clone(),
            timeline: tli(made.branch as u32 + 1),
            redo: Lsn(made.redo * MIB + 40),
            stop: Lsn(made.stop * MIB + 50),
            ended: Timestamp(made.at + made.server_off),
            stored_at: Timestamp(made.at + made.store_off),
            verified_at: made.verified.then_some(Timestamp(made.at + made.store_off)),
            is_damaged: false,
            is_altered: false,
            damaged_pages: u64::from(made.damaged),
            manifest: Some(manifest()),
            named: made
                .named
                .iter()
                .map(|(of, it)| (ids[*of].clone(), it.iter().copied().collect()))
                .collect(),
        };
        let backups: Vec<Backup> = self.backups.iter().enumerate().map(backup).collect();
        let folder = |(index, made): (usize, &Made)| {
            let stored_at = Some(backups[index].stored_at);
            let packs = made.named[&index].iter().map(|number| (*number, TEN)).collect();
            let manifests = vec![manifest()];
            let objects = 2 + made.named[&index].len() as u64;
            let folder = FolderObjects {
                summary: stored_at,
                manifests,
                packs,
                parts: BTreeSet::new(),
                other_bytes: 3,
                objects,
                newest: stored_at,
            };
            (ids[index].clone(), folder)
        };
        let mut wal: BTreeMap<TimelineId, Vec<SegmentObjects>> = BTreeMap::new();
        for ((branch, number), segment) in &self.segments {
            let (number, newest) = (*number, Timestamp(segment.shown()));
            let one =
                SegmentObjects { number, newest, bytes: 1, objects: 1, has_wal: true, is_decided: true };
            wal.entry(tli(*branch as u32 + 1)).or_default().push(one);
        }
        let now = Timestamp(self.now);
        let stored = wal.values().flatten().map(|segment| segment.newest);
        let signs = SignsOfLife::new(stored.chain(backups.iter().map(|backup| backup.stored_at)), now);
        Snapshot {
            now: Some(now),
            signs,
            segment_size: size(),
            paths: (0..self.branches.len())
                .map(|branch| (tli(branch as u32 + 1), self.path(branch)))
                .collect(),
            folders: self.backups.iter().enumerate().map(folder).collect(),
            backups,
            wal,
            idle: BTreeMap::new(),
            obstacles: Vec::new(),
            unknown: Vec::new(),
        }
    }

    pub fn ids(&self) -> Vec<BackupId> {
        let id = |index: usize| format!("20261120T{:02}{:02}00Z-full-{index:06x}", index / 60, index % 60);
        (0..self.backups.len()).map(|index| id(index).parse().unwrap()).collect()
    }

    /// What a decision leaves.
    pub fn after(&self, decision: &Decision) -> There {
        let ids = self.ids();
        let mut there = self.all();
        there.backups.retain(|index| !decision.backups[*index].stays.is_empty());
        let doomed = decision.doomed_backups();
        there.packs.retain(|(of, number)| {
            let needed = decision.needed_packs.get(&ids[*of]).is_some_and(|it| it.contains(number));
            needed || !doomed.contains(&ids[*of])
        });
        let goes: Vec<&WalFate> = decision.doomed_wal().collect();
        there.segments.retain(|(branch, number)| {
            let timeline = tli(*branch as u32 + 1);
            !goes.iter().any(|it| it.timeline == timeline && (it.first..=it.last).contains(number))
        });
        there
    }
}
