//! Where everything lies: every object key is built and parsed here and
//! nowhere else. FORMAT.md is the same in words.
//!
//! `parse` and the builders are inverse to each other: a key is parsed only
//! when building its entry gives that key again, so no object has two names.

use std::str::FromStr;

use walpoint_wal::{SegmentName, SystemIdentifier, TimelineId, WalFileName};

use crate::backup_id::BackupId;
use crate::content::ContentId;
use crate::object_key::{ObjectKey, Prefix};

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
    /// A piece of a segment that is still being written: what follows `.live/`.
    LiveTail { segment: SegmentName, rest: String },
    /// A pack of file pieces.
    Pack { backup: BackupId, number: u32, content: ContentId, encrypted: bool },
    /// A backup's manifest.
    Manifest { backup: BackupId, content: ContentId, encrypted: bool },
    /// A backup's summary, `backup.json`.
    Summary { backup: BackupId },
    /// A proof of restore: its name without `.json`.
    Drill(String),
}

const CLUSTER: &str = "cluster.json";
const COMPRESSED: &str = ".zst";
const ENCRYPTED: &str = ".zst.age";
const REFUSED: &str = ".refused";

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

    /// All variants kept aside.
    pub fn conflict_prefix(&self) -> Prefix {
        self.prefix("conflict/")
    }

    /// What this key of this cluster's folder stands for; `None` for a key that
    /// is not ours.
    pub fn parse(&self, key: &ObjectKey) -> Option<Entry> {
        let (folder, path) = key.as_str().split_once('/')?;
        if folder != self.system_identifier.to_string() {
            return None;
        }
        let entry = parse_path(path)?;
        (path_of(&entry) == path).then_some(entry)
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

/// The path of an entry within its cluster's folder.
fn path_of(entry: &Entry) -> String {
    match entry {
        Entry::Cluster => CLUSTER.to_owned(),
        Entry::Wal { name, content, encrypted } => variant_path(name, *content, *encrypted),
        Entry::WalRefused { name, content } => refused_path(name, *content),
        Entry::History { timeline, content } => {
            variant_path(&WalFileName::History(*timeline), *content, false)
        }
        Entry::HistoryRefused { timeline, content } => {
            refused_path(&WalFileName::History(*timeline), *content)
        }
        Entry::Conflict { name, content, encrypted } => {
            format!("conflict/{name}-{content}{}", ending(name, *encrypted))
        }
        Entry::LiveTail { segment, rest } => {
            format!("{}.live/{rest}", file_path(&WalFileName::Segment(*segment)))
        }
        Entry::Pack { backup, number, content, encrypted } => {
            format!("backup/{backup}/pack-{number:06}-{content}{}", sealed(*encrypted))
        }
        Entry::Manifest { backup, content, encrypted } => {
            format!("backup/{backup}/manifest-{content}{}", sealed(*encrypted))
        }
        Entry::Summary { backup } => format!("backup/{backup}/backup.json"),
        Entry::Drill(name) => format!("drill/{name}.json"),
    }
}

/// The folder and the name of a WAL file, to which content id and ending come.
fn file_path(name: &WalFileName) -> String {
    match name {
        WalFileName::History(_) => format!("timeline/{name}"),
        WalFileName::Segment(segment)
        | WalFileName::Partial(segment)
        | WalFileName::BackupHistory { segment, .. } => format!("{}/{name}", segment_dir(segment)),
    }
}

fn segment_dir(segment: &SegmentName) -> String {
    format!("wal/{}{:08X}", segment.timeline.hex8(), segment.log)
}

fn variant_path(name: &WalFileName, content: ContentId, encrypted: bool) -> String {
    format!("{}-{content}{}", file_path(name), ending(name, encrypted))
}

fn refused_path(name: &WalFileName, content: ContentId) -> String {
    format!("{}-{content}{REFUSED}", file_path(name))
}

/// How the key of a data object ends: history files lie there as they are.
fn ending(name: &WalFileName, encrypted: bool) -> &'static str {
    match name {
        WalFileName::History(_) => "",
        _ => sealed(encrypted),
    }
}

fn sealed(encrypted: bool) -> &'static str {
    if encrypted { ENCRYPTED } else { COMPRESSED }
}

/// Reads generously: [`Layout::parse`] compares with what the entry prints as.
fn parse_path(path: &str) -> Option<Entry> {
    if path == CLUSTER {
        return Some(Entry::Cluster);
    }
    let (folder, rest) = path.split_once('/')?;
    match folder {
        "timeline" => parse_history(rest),
        "wal" => parse_wal(rest.split_once('/')?.1),
        "conflict" => parse_conflict(rest),
        "backup" => parse_backup(rest),
        "drill" => Some(Entry::Drill(rest.strip_suffix(".json")?.to_owned())),
        _ => None,
    }
}

fn parse_history(file: &str) -> Option<Entry> {
    let (name, variant) = file.split_once('-')?;
    let WalFileName::History(timeline) = name.parse().ok()? else { return None };
    Some(match variant.strip_suffix(REFUSED) {
        Some(content) => Entry::HistoryRefused { timeline, content: content.parse().ok()? },
        None => Entry::History { timeline, content: variant.parse().ok()? },
    })
}

fn parse_wal(file: &str) -> Option<Entry> {
    if let Some((segment, rest)) = file.split_once(".live/") {
        return Some(Entry::LiveTail { segment: segment.parse().ok()?, rest: rest.to_owned() });
    }
    let (name, variant) = file.split_once('-')?;
    let name = name.parse().ok()?;
    if matches!(name, WalFileName::History(_)) {
        return None;
    }
    if let Some(content) = variant.strip_suffix(REFUSED) {
        return Some(Entry::WalRefused { name, content: content.parse().ok()? });
    }
    let (content, encrypted) = parse_sealed(variant)?;
    Some(Entry::Wal { name, content, encrypted })
}

fn parse_conflict(file: &str) -> Option<Entry> {
    let (name, variant) = file.split_once('-')?;
    let name = name.parse().ok()?;
    let (content, encrypted) = match name {
        WalFileName::History(_) => (variant.parse().ok()?, false),
        _ => parse_sealed(variant)?,
    };
    Some(Entry::Conflict { name, content, encrypted })
}

fn parse_backup(path: &str) -> Option<Entry> {
    let (backup, file) = path.split_once('/')?;
    let backup = BackupId::from_str(backup).ok()?;
    if file == "backup.json" {
        return Some(Entry::Summary { backup });
    }
    if let Some(variant) = file.strip_prefix("manifest-") {
        let (content, encrypted) = parse_sealed(variant)?;
        return Some(Entry::Manifest { backup, content, encrypted });
    }
    let (number, variant) = file.strip_prefix("pack-")?.split_once('-')?;
    let (content, encrypted) = parse_sealed(variant)?;
    Some(Entry::Pack { backup, number: number.parse().ok()?, content, encrypted })
}

fn parse_sealed(variant: &str) -> Option<(ContentId, bool)> {
    let (content, encrypted) = match variant.strip_suffix(ENCRYPTED) {
        Some(content) => (content, true),
        None => (variant.strip_suffix(COMPRESSED)?, false),
    };
    Some((content.parse().ok()?, encrypted))
}

#[cfg(test)]
#[path = "layout/tests.rs"]
mod tests;
