//! What a deletion does not touch, whatever is marked. Pure.
//!
//! Marks are of folders and of runs of segments; what is needed is single packs and single segments. So a pack goes
//! only with the last summary that names it, or after it, and a backup's WAL goes only after its summary: each of
//! these summaries has waited out a grace of its own.

use super::marks::Ripe;
use crate::keep::decide::Decision;
use crate::keep::snapshot::{Backup, Snapshot, stretches};
use crate::keep::spans::Spans;
use std::collections::{BTreeMap, BTreeSet};
use walpoint_archive::BackupId;
use walpoint_wal::TimelineId;

/// Packs and segments that stay.
#[derive(Clone, Debug)]
pub struct Held<'a> {
    snapshot: &'a Snapshot,
    packs: BTreeMap<BackupId, BTreeSet<u32>>,
    wal: BTreeMap<TimelineId, Spans>,
}

impl<'a> Held<'a> {
    /// What policies ask for, and what every backup needs whose summary does not go now, doomed or not.
    pub fn of(snapshot: &'a Snapshot, decision: &Decision, ripe: &Ripe) -> Self {
        let (packs, wal) = (decision.needed_packs.clone(), decision.asked_wal.clone());
        let mut held = Self { snapshot, packs, wal };
        for backup in snapshot.backups.iter().filter(|backup| !ripe.backups.contains_key(&backup.id)) {
            held.hold(backup);
        }
        held
    }

    /// All that a backup needs stays.
    pub fn hold(&mut self, backup: &Backup) {
        for (id, numbers) in &backup.named {
            self.packs.entry(id.clone()).or_default().extend(numbers);
        }
        let size = self.snapshot.segment_size;
        let (first, last) = backup.own_wal(size);
        let path = self.snapshot.paths.get(&backup.timeline).map(Vec::as_slice).unwrap_or_default();
        for (timeline, from, to) in stretches(path, first, last, size) {
            self.wal.entry(timeline).or_default().add(from, to);
        }
    }

    /// Whether this pack stays.
    pub fn has_pack(&self, id: &BackupId, number: u32) -> bool {
        self.packs.get(id).is_some_and(|numbers| numbers.contains(&number))
    }

    /// Whether all that is stored under the name of this segment stays.
    pub fn has_segment(&self, timeline: TimelineId, number: u64) -> bool {
        self.wal.get(&timeline).is_some_and(|spans| spans.hold(number))
    }
}
