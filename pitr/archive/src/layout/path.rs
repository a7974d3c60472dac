//! Entries as paths within a cluster's folder, both ways.

use std::fmt::{self, Write};
use std::str::FromStr;

use walpoint_wal::{SegmentName, TimelineId, WalFileName};

use super::Entry;
use crate::backup_id::BackupId;
use crate::content::ContentId;

pub(super) const CLUSTER: &str = "cluster.json";
const COMPRESSED: &str = ".zst";
const ENCRYPTED: &str = ".zst.age";
const REFUSED: &str = ".refused";

/// The path of an entry within its cluster's folder.
pub(super) fn path_of(entry: &Entry) -> String {
    EntryPath(entry).to_string()
}

/// Whether this is that path: of a million no text is made to compare with.
pub(super) fn is_path_of(path: &str, entry: &Entry) -> bool {
    let mut rest = Rest(path);
    write!(rest, "{}", EntryPath(entry)).is_ok() && rest.0.is_empty()
}

/// What is left of a text when what is written to it has been taken from its beginning.
struct Rest<'a>(&'a str);

impl fmt::Write for Rest<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = self.0.strip_prefix(text).ok_or(fmt::Error)?;
        Ok(())
    }
}

struct EntryPath<'a>(&'a Entry);

impl fmt::Display for EntryPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Entry::Cluster => f.write_str(CLUSTER),
            Entry::Wal { name, content, encrypted } => {
                write!(f, "{}-{content}{}", FilePath(name), ending(name, *encrypted))
            }
            Entry::WalRefused { name, content } => write!(f, "{}-{content}{REFUSED}", FilePath(name)),
            Entry::History { timeline, content } => {
                write!(f, "{}-{content}", FilePath(&WalFileName::History(*timeline)))
            }
            Entry::HistoryRefused { timeline, content } => {
                write!(f, "{}-{content}{REFUSED}", FilePath(&WalFileName::History(*timeline)))
            }
            Entry::Conflict { name, content, encrypted } => {
                write!(f, "conflict/{name}-{content}{}", ending(name, *encrypted))
            }
            Entry::LiveTail { segment, chunk, encrypted } => {
                write!(f, "{}{chunk}{}", tail_dir(segment), sealed(*encrypted))
            }
            Entry::Pack { backup, number, content, encrypted } => {
                write!(f, "backup/{backup}/pack-{number:06}-{content}{}", sealed(*encrypted))
            }
            Entry::Manifest { backup, content, encrypted } => {
                write!(f, "backup/{backup}/manifest-{content}{}", sealed(*encrypted))
            }
            Entry::Summary { backup } => write!(f, "backup/{backup}/backup.json"),
            Entry::Idle(timeline) => write!(f, "idle/{}.json", timeline.hex8()),
            Entry::Verification(id) => write!(f, "verify/{id}.json"),
            Entry::Drill(name) => write!(f, "drill/{name}.json"),
            Entry::ExpiryMark(name) => write!(f, "expire/{name}.json"),
        }
    }
}

struct FilePath<'a>(&'a WalFileName);

impl fmt::Display for FilePath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0;
        match name {
            WalFileName::History(_) => write!(f, "timeline/{name}"),
            WalFileName::Segment(segment)
            | WalFileName::Partial(segment)
            | WalFileName::BackupHistory { segment, .. } => write!(f, "{}/{name}", SegmentDir(segment)),
        }
    }
}

struct SegmentDir<'a>(&'a SegmentName);

impl fmt::Display for SegmentDir<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wal/{:08X}{:08X}", self.0.timeline.get(), self.0.log)
    }
}

/// The folder and the name of a WAL file, to which content id and ending come.
pub(super) fn file_path(name: &WalFileName) -> String {
    FilePath(name).to_string()
}

pub(super) fn segment_dir(segment: &SegmentName) -> String {
    SegmentDir(segment).to_string()
}

/// The folder of a segment's pieces.
pub(super) fn tail_dir(segment: &SegmentName) -> String {
    format!("{}.live/", file_path(&WalFileName::Segment(*segment)))
}

pub(super) fn variant_path(name: &WalFileName, content: ContentId, encrypted: bool) -> String {
    format!("{}-{content}{}", FilePath(name), ending(name, encrypted))
}

pub(super) fn refused_path(name: &WalFileName, content: ContentId) -> String {
    format!("{}-{content}{REFUSED}", FilePath(name))
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
pub(super) fn parse_path(path: &str) -> Option<Entry> {
    if path == CLUSTER {
        return Some(Entry::Cluster);
    }
    let (folder, rest) = path.split_once('/')?;
    match folder {
        "timeline" => parse_history(rest),
        "wal" => parse_wal(rest.split_once('/')?.1),
        "conflict" => parse_conflict(rest),
        "backup" => parse_backup(rest),
        "idle" => parse_idle(rest),
        "verify" => Some(Entry::Verification(rest.strip_suffix(".json")?.parse().ok()?)),
        "drill" => Some(Entry::Drill(rest.strip_suffix(".json")?.to_owned())),
        "expire" => Some(Entry::ExpiryMark(rest.strip_suffix(".json")?.to_owned())),
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
    if let Some((segment, chunk)) = file.split_once(".live/") {
        return parse_chunk(segment, chunk);
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

fn parse_chunk(segment: &str, chunk: &str) -> Option<Entry> {
    let (chunk, encrypted) = unsealed(chunk)?;
    Some(Entry::LiveTail { segment: segment.parse().ok()?, chunk: chunk.parse().ok()?, encrypted })
}

fn parse_idle(file: &str) -> Option<Entry> {
    let number = u32::from_str_radix(file.strip_suffix(".json")?, 16).ok()?;
    TimelineId::new(number).map(Entry::Idle)
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
    let (content, encrypted) = unsealed(variant)?;
    Some((content.parse().ok()?, encrypted))
}

/// A name without the ending of a sealed object, and whether it is encrypted.
fn unsealed(file: &str) -> Option<(&str, bool)> {
    match file.strip_suffix(ENCRYPTED) {
        Some(name) => Some((name, true)),
        None => Some((file.strip_suffix(COMPRESSED)?, false)),
    }
}
