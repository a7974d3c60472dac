//! Where everything lies: every object key is built and parsed here and
//! nowhere else. FORMAT.md is the same in words.
//!
//! `parse` and the builders are inverse to each other: a key is parsed only
//! when building its entry gives that key again, so no object has two names.

use walpoint_wal::{SegmentName, SystemIdentifier, TimelineId, WalFileName};

use crate::backup_id::BackupId;
use crate::content::ContentId;
use crate::object_key::{ObjectKey, Prefix};
use crate::tail::ChunkName;
use crate::verification::RecordId;

mod path;

use path::{
    CLUSTER, file_path, is_path_of, parse_path, path_of, refused_path, segment_dir, tail_dir, variant_path,
};

/// The keys of one cluster's folder in an archive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    system_identifier: SystemIdentifier,
}

/// What a key stands for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Entry {
    /// `cluster.json`.
    Cluster,
    /// A segment, a partial segment or a backup history file.
    Wal { name: WalFileName, content: ContentId, encrypted: bool },
    /// The mark that a variant of a WAL file was refused.
    WalRefused { name: WalFileName, content: ContentId },
    /// A timeline history file.
    History { timeline: TimelineId, content: ContentId },
    /// The mark that a variant of a history file was refused.
    HistoryRefused { timeline: TimelineId, content: ContentId },
    /// A refused variant of any WAL file (history files included), kept aside.
    Conflict { name: WalFileName, content: ContentId, encrypted: bool },
    /// A piece of a segment that is still being written.
    LiveTail { segment: SegmentName, chunk: ChunkName, encrypted: bool },
    /// A pack of file pieces.
    Pack { backup: BackupId, number: u32, content: ContentId, encrypted: bool },
    /// A backup's manifest.
    Manifest { backup: BackupId, content: ContentId, encrypted: bool },
    /// A backup's summary, `backup.json`.
    Summary { backup: BackupId },
    /// The proof that nothing was written on a timeline for a while.
    Idle(TimelineId),
    /// What one run of `verify` found.
    Verification(RecordId),
    /// A proof of restore: its name without `.json`.
    Drill(String),
    /// What an expiry has marked to go: its name without `.json`.
    ExpiryMark(String),
}

impl Layout {
    /// The folder of the cluster with this system identifier.
    pub fn new(system_identifier: SystemIdentifier) -> Self {
        Self { system_identifier }
    }

    /// Whose folder it is.
    pub fn system_identifier(&self) -> SystemIdentifier {
        self.system_identifier
    }

    /// `cluster.json`: what the cluster is.
    pub fn cluster(&self) -> ObjectKey {
        self.key(CLUSTER)
    }

    /// One variant of a file that PostgreSQL archives. History files are stored
    /// as they are, all others compressed and, when asked, encrypted.
    pub fn wal(&self, name: &WalFileName, content: ContentId, encrypted: bool) -> ObjectKey {
        self.key(&variant_path(name, content, encrypted))
    }

    /// The mark beside a variant that was refused.
    pub fn refused(&self, name: &WalFileName, content: ContentId) -> ObjectKey {
        self.key(&refused_path(name, content))
    }

    /// Where a refused variant's bytes are kept; no recovery reads there.
    pub fn conflict(&self, name: &WalFileName, content: ContentId, encrypted: bool) -> ObjectKey {
        let name = *name;
        self.key(&path_of(&Entry::Conflict { name, content, encrypted }))
    }

    /// One variant of a timeline history file.
    pub fn history(&self, timeline: TimelineId, content: ContentId) -> ObjectKey {
        self.wal(&WalFileName::History(timeline), content, false)
    }

    /// A piece of a segment that is still being written.
    pub fn chunk(&self, segment: &SegmentName, chunk: ChunkName, encrypted: bool) -> ObjectKey {
        self.key(&path_of(&Entry::LiveTail { segment: *segment, chunk, encrypted }))
    }

    /// The pieces of one segment.
    pub fn tail_prefix(&self, segment: &SegmentName) -> Prefix {
        self.prefix(&tail_dir(segment))
    }

    /// The proof that nothing was written on a timeline for a while.
    pub fn idle(&self, timeline: TimelineId) -> ObjectKey {
        self.key(&path_of(&Entry::Idle(timeline)))
    }

    /// All of these.
    pub fn idle_prefix(&self) -> Prefix {
        self.prefix("idle/")
    }

    /// What one run of `verify` found.
    pub fn verification(&self, id: RecordId) -> ObjectKey {
        self.key(&path_of(&Entry::Verification(id)))
    }

    /// All of these.
    pub fn verification_prefix(&self) -> Prefix {
        self.prefix("verify/")
    }

    /// A pack of a backup; packs are numbered from 0.
    pub fn pack(&self, backup: &BackupId, number: u32, content: ContentId, encrypted: bool) -> ObjectKey {
        self.key(&path_of(&Entry::Pack { backup: backup.clone(), number, content, encrypted }))
    }

    /// A backup's manifest.
    pub fn manifest(&self, backup: &BackupId, content: ContentId, encrypted: bool) -> ObjectKey {
        self.key(&path_of(&Entry::Manifest { backup: backup.clone(), content, encrypted }))
    }

    /// A backup's summary: the backup exists when this object does.
    pub fn summary(&self, backup: &BackupId) -> ObjectKey {
        self.key(&format!("backup/{backup}/backup.json"))
    }

    /// Every variant and mark of one file, and nothing of any other: in
    /// particular not the `.partial`, `.backup` and `.live` of the same segment.
    pub fn variants_prefix(&self, name: &WalFileName) -> Prefix {
        self.prefix(&format!("{}-", file_path(name)))
    }

    /// The kept aside variants of one file.
    pub fn conflicts_prefix(&self, name: &WalFileName) -> Prefix {
        self.prefix(&format!("conflict/{name}-"))
    }

    /// All folders of WAL.
    pub fn wal_prefix(&self) -> Prefix {
        self.prefix("wal/")
    }

    /// All folders of WAL of one timeline.
    pub fn wal_timeline_prefix(&self, timeline: TimelineId) -> Prefix {
        self.prefix(&format!("wal/{}", timeline.hex8()))
    }

    /// The folder that holds this segment: its timeline and its log number.
    pub fn wal_dir(&self, segment: &SegmentName) -> Prefix {
        self.prefix(&format!("{}/", segment_dir(segment)))
    }

    /// A key that sorts after everything that belongs to this segment (its
    /// variants, `.partial`, `.backup`, `.live/`) and before every later one of
    /// its timeline: `-` and `.` sort before `/`, and `/` before digits.
    pub fn after_segment(&self, segment: &SegmentName) -> ObjectKey {
        self.key(&format!("{}/0", file_path(&WalFileName::Segment(*segment))))
    }

    /// A key that sorts before everything that belongs to this segment and after every earlier one of its
    /// timeline.
    pub fn before_segment(&self, segment: &SegmentName) -> ObjectKey {
        self.key(&file_path(&WalFileName::Segment(*segment)))
    }

    /// What the keys of these two segments' objects begin with, as far as they are alike.
    pub fn segments_prefix(&self, one: &SegmentName, other: &SegmentName) -> Prefix {
        let path = |segment: &SegmentName| file_path(&WalFileName::Segment(*segment));
        let (one, other) = (path(one), path(other));
        let alike: String =
            one.chars().zip(other.chars()).map_while(|(a, b)| (a == b).then_some(a)).collect();
        self.prefix(&alike)
    }

    /// All history files.
    pub fn timeline_prefix(&self) -> Prefix {
        self.prefix("timeline/")
    }

    /// All backups.
    pub fn backup_prefix(&self) -> Prefix {
        self.prefix("backup/")
    }

    /// All objects of one backup.
    pub fn backup_dir(&self, backup: &BackupId) -> Prefix {
        self.prefix(&format!("backup/{backup}/"))
    }

    /// Everything of this cluster.
    pub fn everything(&self) -> Prefix {
        self.prefix("")
    }

    /// A key that sorts before everything that belongs to this backup and after all that belongs to earlier ones.
    pub fn before_backup(&self, backup: &BackupId) -> ObjectKey {
        self.key(&format!("backup/{backup}"))
    }

    /// What an expiry has marked to go.
    pub fn expiry_mark(&self, name: &str) -> ObjectKey {
        self.key(&path_of(&Entry::ExpiryMark(name.to_owned())))
    }

    /// All of these.
    pub fn expiry_prefix(&self) -> Prefix {
        self.prefix("expire/")
    }

    /// All variants kept aside.
    pub fn conflict_prefix(&self) -> Prefix {
        self.prefix("conflict/")
    }

    /// What this key of this cluster's folder stands for; `None` for a key that
    /// is not ours.
    pub fn parse(&self, key: &ObjectKey) -> Option<Entry> {
        let (folder, path) = key.as_str().split_once('/')?;
        // Its one spelling: no sign, and no zero before it.
        if folder.starts_with(['+', '0']) && folder != "0" || folder.parse() != Ok(self.system_identifier.0) {
            return None;
        }
        let entry = parse_path(path)?;
        is_path_of(path, &entry).then_some(entry)
    }

    #[expect(
        clippy::expect_used,
        reason = "names, numbers and hashes print in the alphabet of keys, and short"
    )]
    fn key(&self, path: &str) -> ObjectKey {
        ObjectKey::new(&format!("{}/{path}", self.system_identifier)).expect("a path of the layout is a key")
    }

    #[expect(
        clippy::expect_used,
        reason = "names, numbers and hashes print in the alphabet of keys, and short"
    )]
    fn prefix(&self, path: &str) -> Prefix {
        Prefix::new(&format!("{}/{path}", self.system_identifier)).expect("a path of the layout is a prefix")
    }
}

#[cfg(test)]
#[path = "layout/tests.rs"]
mod tests;
