//! What the archive holds, as far as it matters for what may go. Plain data.

use super::elapsed::SignsOfLife;
use std::collections::BTreeMap;
use walpoint_archive::summary::StoredObject;
use walpoint_archive::{
    BackupHead, BackupId, ContentId, Entry, FolderObjects, Layout, SegmentObjects, StoredPart, Verification,
};
use walpoint_wal::{Lsn, PathStep, SegmentName, SegmentSize, TimelineId, Timestamp};

/// The archive at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What time it is by the store's clock; none where it does not tell.
    pub now: Option<Timestamp>,
    /// When something was stored.
    pub signs: SignsOfLife,
    /// Segment size of the cluster.
    pub segment_size: SegmentSize,
    /// The way to every timeline that has one.
    pub paths: BTreeMap<TimelineId, Vec<PathStep>>,
    /// The backups that are complete, by their ids.
    pub backups: Vec<Backup>,
    /// What lies under `backup/`.
    pub folders: BTreeMap<BackupId, FolderObjects>,
    /// What is stored of each segment, by timeline.
    pub wal: BTreeMap<TimelineId, Vec<SegmentObjects>>,
    /// When a server last said that it writes nothing on a timeline.
    pub idle: BTreeMap<TimelineId, Timestamp>,
    /// What cannot be read or understood and might ask for anything: while there is any, nothing goes.
    pub obstacles: Vec<String>,
    /// Keys that are not ours: they are reported and stay.
    pub unknown: Vec<String>,
}

/// A backup that is complete.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Backup {
    /// Its name.
    pub id: BackupId,
    /// The timeline it was taken on.
    pub timeline: TimelineId,
    /// Where WAL begins to be read.
    pub redo: Lsn,
    /// Where recovery must at least get to.
    pub stop: Lsn,
    /// When it ended, by the server's clock.
    pub ended: Timestamp,
    /// Since when it is there, by the store's clock.
    pub stored_at: Timestamp,
    /// When it was last verified, and sound.
    pub verified_at: Option<Timestamp>,
    /// Whether something of it was found damaged when it was read back, and not sound since.
    pub is_damaged: bool,
    /// Whether the listing shows another content or size of a pack or its manifest than its summary names.
    pub is_altered: bool,
    /// Pages that were damaged on the server's disk.
    pub damaged_pages: u64,
    /// The content of its manifest; none when its key is not one.
    pub manifest: Option<ContentId>,
    /// Every pack that it needs, by the backup that stored it.
    pub named: BTreeMap<BackupId, Vec<u32>>,
}

impl Backup {
    /// What matters of a summary.
    pub fn of(
        summary: &BackupHead,
        layout: &Layout,
        stored_at: Timestamp,
        verification: &Verification,
    ) -> Self {
        let mut named: BTreeMap<BackupId, Vec<u32>> = BTreeMap::new();
        for (backup, number) in summary.packs.iter() {
            named.entry(backup.clone()).or_default().push(number);
        }
        Self {
            id: summary.id.clone(),
            timeline: summary.timeline,
            redo: summary.redo,
            stop: summary.stop.lsn,
            ended: summary.stop.time,
            stored_at,
            verified_at: verification.of_backup(layout, summary).map(|proof| proof.stored_at),
            is_damaged: verification.has_damage_in(layout, summary),
            is_altered: false,
            damaged_pages: summary.damaged_pages,
            manifest: match layout.parse(&summary.manifest.key) {
                Some(Entry::Manifest { backup, content, .. }) if backup == summary.id => Some(content),
                _ => None,
            },
            named,
        }
    }

    /// Holds what is said of it against what listings show: it is not whole where one shows another object than the
    /// summary names, and not verified where something of its WAL came after that was read.
    #[must_use]
    pub fn compared(
        mut self,
        (summary, packs): (&BackupHead, &[StoredObject]),
        layout: &Layout,
        verification: &Verification,
        folders: &BTreeMap<BackupId, FolderObjects>,
        wal: &BTreeMap<TimelineId, Vec<SegmentObjects>>,
    ) -> Self {
        let packs = packs.iter().map(|pack| (&pack.key, pack.size));
        let mut named = packs.chain([(&summary.manifest.key, summary.manifest.size)]);
        self.is_altered = !named.all(|(key, size)| {
            let part = StoredPart::of(layout, key, size);
            part.is_some_and(|(id, part)| folders.get(&id).is_some_and(|it| it.parts.contains(&part)))
        });
        let (first, last) = self.own_wal(summary.segment_size);
        let is_as_read = |number: u64| {
            let name = SegmentName::from_number(self.timeline, number, summary.segment_size)?;
            let proof = verification.segment(name, |_, _| None)?;
            Some(segment(wal, self.timeline, number)?.newest <= proof.stored_at)
        };
        // Asked only of WAL that was read at some time: there is no more of it than records say.
        let is_read = |_: &Timestamp| (first..=last).all(|number| is_as_read(number) == Some(true));
        self.verified_at = self.verified_at.filter(is_read);
        self
    }

    /// The numbers of the segments without which its files are not consistent: the first and the last.
    pub fn own_wal(&self, size: SegmentSize) -> (u64, u64) {
        let first = self.redo.segment_number(size);
        (first, last_before(self.stop, size).max(first))
    }
}

impl Snapshot {
    /// Whether all that the backup needs is there, as listings show it: its manifest, its packs, and the WAL up to its
    /// end, of which no segment is undecided.
    pub fn is_whole(&self, backup: &Backup) -> bool {
        let packs = |(id, numbers): (&BackupId, &Vec<u32>)| {
            let there = self.folders.get(id);
            there.is_some_and(|there| numbers.iter().all(|number| there.packs.contains_key(number)))
        };
        let own = self.folders.get(&backup.id);
        let has_manifest =
            backup.manifest.zip(own).is_some_and(|(content, own)| own.manifests.contains(&content));
        !backup.is_altered && has_manifest && backup.named.iter().all(packs) && self.has_own_wal(backup)
    }

    fn has_own_wal(&self, backup: &Backup) -> bool {
        let Some(path) = self.paths.get(&backup.timeline) else { return false };
        let (first, last) = backup.own_wal(self.segment_size);
        (first..=last).all(|number| {
            let steps = stretches(path, first, last, self.segment_size);
            steps.into_iter().any(|(timeline, from, to)| {
                (from..=to).contains(&number)
                    && segment(&self.wal, timeline, number).is_some_and(|it| it.is_decided)
            })
        })
    }
}

fn segment(
    wal: &BTreeMap<TimelineId, Vec<SegmentObjects>>,
    timeline: TimelineId,
    number: u64,
) -> Option<&SegmentObjects> {
    let segments = wal.get(&timeline)?;
    let at = segments.binary_search_by_key(&number, |segment| segment.number).ok()?;
    segments.get(at)
}

/// The segments from one number to another on the way to a timeline, by the timelines that may hold them: the
/// segment in which one timeline leaves another may be stored under both.
pub fn stretches(path: &[PathStep], first: u64, last: u64, size: SegmentSize) -> Vec<(TimelineId, u64, u64)> {
    let of_step = |step: &PathStep| {
        let from = step.begin.segment_number(size).max(first);
        let to = step.end.map_or(u64::MAX, |end| last_before(end, size)).min(last);
        (from <= to).then_some((step.timeline, from, to))
    };
    path.iter().filter_map(of_step).collect()
}

/// Whether a recovery along this path can begin with the backup.
pub fn holds(path: &[PathStep], backup: &Backup) -> bool {
    let step = path.iter().find(|step| step.timeline == backup.timeline);
    step.is_some_and(|step| step.end.is_none_or(|end| backup.stop <= end))
}

/// Number of the segment that holds the last byte before `end`.
fn last_before(end: Lsn, size: SegmentSize) -> u64 {
    Lsn(end.0.saturating_sub(1)).segment_number(size)
}
