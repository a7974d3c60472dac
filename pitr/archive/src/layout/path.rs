//! Entries as paths within a cluster's folder, both ways.

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
        Entry::LiveTail { segment, chunk, encrypted } => {
            format!("{}{chunk}{}", tail_dir(segment), sealed(*encrypted))
        }
        Entry::Pack { backup, number, content, encrypted } => {
            format!("backup/{backup}/pack-{number:06}-{content}{}", sealed(*encrypted))
        }
        Entry::Manifest { backup, content, encrypted } => {
            format!("backup/{backup}/manifest-{content}{}", sealed(*encrypted))
        }
        Entry::Summary { backup } => format!("backup/{backup}/backup.json"),
        Entry::Idle(timeline) => format!("idle/{}.json", timeline.hex8()),
        Entry::Verification(id) => format!("verify/{id}.json"),
        Entry::Drill(name) => format!("drill/{name}.json"),
        Entry::ExpiryMark(name) => format!("expire/{name}.json"),
    }
}

/// The folder and the name of a WAL file, to which content id and ending come.
pub(super) fn file_path(name: &WalFileName) -> String {
    match name {
        WalFileName::History(_) => format!("timeline/{name}"),
        WalFileName::Segment(segment)
        | WalFileName::Partial(segment)
        | WalFileName::BackupHistory { segment, .. } => format!("{}/{name}", segment_dir(segment)),
    }
}

pub(super) fn segment_dir(segment: &SegmentName) -> String {
    format!("wal/{}{:08X}", segment.timeline.hex8(), segment.log)
}

/// The folder of a segment's pieces.
pub(super) fn tail_dir(segment: &SegmentName) -> String {
    format!("{}.live/", file_path(&WalFileName::Segment(*segment)))
}

pub(super) fn variant_path(name: &WalFileName, content: ContentId, encrypted: bool) -> String {
    format!("{}-{content}{}", file_path(name), ending(name, encrypted))
}

pub(super) fn refused_path(name: &WalFileName, content: ContentId) -> String {
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
