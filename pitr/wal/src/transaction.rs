//! Records of the transaction resource manager (access/xact.h; `ParseCommitRecord`,
//! `ParseAbortRecord`, `ParsePrepareRecord` in access/rmgrdesc/xactdesc.c).

use crate::event::Event;
use crate::fields::{Cursor, u16_at, u32_at, u64_at};
use crate::record::{ALIGNMENT, RecordError, RecordHeader};
use crate::timestamp::Timestamp;
use crate::version::Major;

/// `XLOG_XACT_OPMASK` and the operations.
const OPERATION: u8 = 0x70;
const COMMIT: u8 = 0x00;
const PREPARE: u8 = 0x10;
const ABORT: u8 = 0x20;
const COMMIT_PREPARED: u8 = 0x30;
const ABORT_PREPARED: u8 = 0x40;
/// `XLOG_XACT_HAS_INFO`: flags follow the time.
const HAS_INFO: u8 = 0x80;

/// Flags in `xinfo`, each a part that follows, in the order they are read below.
const HAS_DBINFO: u32 = 1 << 0;
const HAS_SUBXACTS: u32 = 1 << 1;
const HAS_RELATIONS: u32 = 1 << 2;
const HAS_DROPPED_STATS: u32 = 1 << 8;
const HAS_INVALIDATIONS: u32 = 1 << 3;
const HAS_TWOPHASE: u32 = 1 << 4;

const DBINFO_BYTES: usize = 8;
const RELATION_BYTES: usize = 12;
const INVALIDATION_BYTES: usize = 16;

pub(crate) fn carries_event(operation: u8) -> bool {
    matches!(operation & OPERATION, COMMIT | PREPARE | ABORT | COMMIT_PREPARED | ABORT_PREPARED)
}

/// Reads commit, abort, their prepared forms, and prepare.
pub(crate) fn decode(header: &RecordHeader, data: &[u8], major: Major) -> Result<Event, RecordError> {
    let operation = header.info & OPERATION;
    if operation == PREPARE {
        return prepare(data, major).ok_or(RecordError::MainData("prepare"));
    }
    let prepared = matches!(operation, COMMIT_PREPARED | ABORT_PREPARED);
    let commits = matches!(operation, COMMIT | COMMIT_PREPARED);
    let what = if commits { "commit" } else { "abort" };
    let ended = Ended::read(header.info, data, major, commits).ok_or(RecordError::MainData(what))?;
    // The header of a prepared form names the transaction that gave the command, often none.
    let xid = if prepared { ended.prepared_xid } else { Some(header.xid) };
    let xid = xid.ok_or(RecordError::MainData(what))?;
    let (time, subxids) = (ended.time, ended.subxids);
    Ok(if commits {
        Event::Commit { xid, time, subxids, prepared }
    } else {
        Event::Abort { xid, time, subxids, prepared }
    })
}

/// What commit and abort records have in common.
struct Ended {
    time: Timestamp,
    subxids: Vec<u32>,
    /// The transaction that was prepared.
    prepared_xid: Option<u32>,
}

impl Ended {
    /// `None` where the data ends too early.
    fn read(info: u8, data: &[u8], major: Major, commits: bool) -> Option<Ended> {
        let mut parts = Cursor::new(data);
        let time = Timestamp(parts.u64()? as i64);
        let flags = if info & HAS_INFO != 0 { parts.u32()? } else { 0 };
        let has = |flag| flags & flag != 0;
        let mut ended = Ended { time, subxids: Vec::new(), prepared_xid: None };
        if has(HAS_DBINFO) {
            parts.take(DBINFO_BYTES)?;
        }
        if has(HAS_SUBXACTS) {
            ended.subxids = numbers(list(&mut parts, 4)?);
        }
        if has(HAS_RELATIONS) {
            list(&mut parts, RELATION_BYTES)?;
        }
        if has(HAS_DROPPED_STATS) {
            list(&mut parts, dropped_stats_bytes(major)?)?;
        }
        if has(HAS_INVALIDATIONS) && commits {
            list(&mut parts, INVALIDATION_BYTES)?;
        }
        if has(HAS_TWOPHASE) {
            ended.prepared_xid = Some(parts.u32()?);
        }
        Some(ended)
    }
}

/// Size of `xl_xact_stats_item`: new in 15; 18 made the object's number 64 bits.
fn dropped_stats_bytes(major: Major) -> Option<usize> {
    match major {
        Major::V13 | Major::V14 => None,
        Major::V15 | Major::V16 | Major::V17 => Some(12),
        Major::V18 => Some(16),
    }
}

/// A count, then so many items.
fn list<'a>(parts: &mut Cursor<'a>, item_bytes: usize) -> Option<&'a [u8]> {
    let count = parts.u32()? as usize;
    parts.take(count.checked_mul(item_bytes)?)
}

fn numbers(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks().0.iter().map(|chunk| u32::from_le_bytes(*chunk)).collect()
}

/// `xl_xact_prepare`, then the transaction's name, then its subtransactions, each
/// beginning at a multiple of 8. 15 added two counts before `ninvalmsgs`.
fn prepare(data: &[u8], major: Major) -> Option<Event> {
    let (gid_len_at, header_bytes) = if major >= Major::V15 { (54, 72) } else { (46, 64) };
    let xid = u32_at(data, 8)?;
    let time = Timestamp(u64_at(data, 16)? as i64);
    let subxid_count = u32_at(data, 28)? as usize;
    let gid_len = u16_at(data, gid_len_at)? as usize;
    let mut parts = Cursor::new(data.get(header_bytes..)?);
    let gid = parts.take(gid_len)?;
    let gid = gid.split(|&byte| byte == 0).next().unwrap_or_default();
    parts.take(gid_len.next_multiple_of(ALIGNMENT) - gid_len)?;
    let subxids = numbers(parts.take(subxid_count.checked_mul(4)?)?);
    Some(Event::Prepare { xid, gid: String::from_utf8(gid.to_vec()).ok(), time, subxids })
}
