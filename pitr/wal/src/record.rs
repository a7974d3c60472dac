//! WAL records: the header of each and where its main data lies
//! (access/xlogrecord.h, `DecodeXLogRecord` in access/transam/xlogreader.c).

use crate::fields::{Cursor, u8_at, u32_at, u64_at};
use crate::lsn::Lsn;
use crate::version::Major;

/// Bytes in a record's header.
pub const RECORD_HEADER: usize = 24;
/// `XLogRecordMaxSize` of 16 and later; earlier versions cannot replay more than 1 GiB either.
pub const MAX_RECORD: u32 = 1020 * 1024 * 1024;
/// Records start at multiples of this (`MAXALIGN`).
pub(crate) const ALIGNMENT: usize = 8;

/// Resource managers whose records are looked into (access/rmgrlist.h; same in 13–18).
pub(crate) const RM_XLOG: u8 = 0;
pub(crate) const RM_XACT: u8 = 1;
pub(crate) const RM_DATABASE: u8 = 4;
pub(crate) const RM_TABLESPACE: u8 = 5;
/// `RM_LOGICALMSG_ID`, the last built-in one in 13–18.
const LAST_BUILT_IN: u8 = 21;
/// Extensions have 128 to 255 from 15 on (`RM_MIN_CUSTOM_ID`).
const FIRST_CUSTOM: u8 = 128;

/// `XLOG_SWITCH`: the rest of the segment is unused.
pub(crate) const XLOG_SWITCH: u8 = 0x40;

/// The fixed part of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// Bytes in the whole record, this header included.
    pub total_len: u32,
    /// Transaction that wrote it, 0 for none.
    pub xid: u32,
    /// Start of the record before it.
    pub prev: Lsn,
    /// High half: what the resource manager does; low half: flags.
    pub info: u8,
    /// Resource manager.
    pub rmid: u8,
    /// CRC-32C of what follows the header, then of the header before this field.
    pub crc: u32,
}

/// A record that cannot be what PostgreSQL wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Length outside what a record can have.
    #[error("the record's length {0} is impossible")]
    Length(u32),
    /// No such resource manager in this version.
    #[error("the record's resource manager {0} does not exist")]
    ResourceManager(u8),
    /// It does not follow the record before it.
    #[error("the record's previous-record pointer is {found}, not {expected}")]
    Prev {
        /// Start of the record before.
        expected: Lsn,
        /// What the record says.
        found: Lsn,
    },
    /// It points at itself or behind itself.
    #[error("the record's previous-record pointer {0} does not lie before it")]
    PrevNotBefore(Lsn),
    /// Content and checksum differ.
    #[error("the record's checksum is {expected:08X}, its content has {found:08X}")]
    Crc {
        /// In the record.
        expected: u32,
        /// Of its bytes.
        found: u32,
    },
    /// The parts do not add up to the record.
    #[error("the record's parts do not add up to its length")]
    Parts,
    /// The main data does not have the form its kind demands.
    #[error("the record's {0} data is malformed")]
    MainData(&'static str),
}

impl RecordHeader {
    /// Reads the first 24 bytes of a record.
    pub fn parse(bytes: &[u8]) -> Option<RecordHeader> {
        Some(RecordHeader {
            total_len: u32_at(bytes, 0)?,
            xid: u32_at(bytes, 4)?,
            prev: Lsn(u64_at(bytes, 8)?),
            info: u8_at(bytes, 16)?,
            rmid: u8_at(bytes, 17)?,
            crc: u32_at(bytes, 20)?,
        })
    }

    /// What the record does, without the flags (`XLR_RMGR_INFO_MASK`).
    pub fn operation(&self) -> u8 {
        self.info & 0xF0
    }

    /// The record ends the segment.
    pub fn is_switch(&self) -> bool {
        self.rmid == RM_XLOG && self.operation() == XLOG_SWITCH
    }

    /// Checks what the header alone shows (`ValidXLogRecordHeader`): `prev` is the start
    /// of the record before, where it is known.
    pub(crate) fn check(&self, at: Lsn, prev: Option<Lsn>, major: Major) -> Result<(), RecordError> {
        check_length(self.total_len)?;
        // A switch has no data (`ReserveXLogSwitch` reserves the bare header).
        if self.is_switch() && self.total_len as usize != RECORD_HEADER {
            return Err(RecordError::Length(self.total_len));
        }
        let custom = self.rmid >= FIRST_CUSTOM && major >= Major::V15;
        if self.rmid > LAST_BUILT_IN && !custom {
            return Err(RecordError::ResourceManager(self.rmid));
        }
        match prev {
            Some(expected) if expected != self.prev => Err(RecordError::Prev { expected, found: self.prev }),
            None if self.prev >= at => Err(RecordError::PrevNotBefore(self.prev)),
            _ => Ok(()),
        }
    }
}

/// A record is at least its header and at most what PostgreSQL can hold in memory.
pub(crate) fn check_length(total_len: u32) -> Result<(), RecordError> {
    let fits = total_len as usize >= RECORD_HEADER && total_len <= MAX_RECORD;
    if fits { Ok(()) } else { Err(RecordError::Length(total_len)) }
}

/// A whole record, its header and CRC checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Address of its first byte.
    pub lsn: Lsn,
    /// Address after it, rounded up to where the next record may start; for a switch the
    /// start of the next segment. PostgreSQL's `EndRecPtr`.
    pub end: Lsn,
    /// Start of the record before it.
    pub prev: Lsn,
    /// Transaction that wrote it, 0 for none.
    pub xid: u32,
    /// Resource manager.
    pub rmid: u8,
    /// High half: what it does; low half: flags.
    pub info: u8,
    /// Bytes in it, the header included.
    pub total_len: u32,
    /// Version that wrote it.
    pub major: Major,
    /// All of its bytes, page headers taken out. Of a record that spans pages and carries
    /// no [`crate::Event`] only the header, unless the reader was told to keep all bodies.
    pub bytes: Vec<u8>,
}

impl Record {
    /// The part that its resource manager reads; blocks and their images left out.
    pub fn main_data(&self) -> Result<&[u8], RecordError> {
        main_data(self.body(), self.major)
    }

    pub(crate) fn body(&self) -> &[u8] {
        self.bytes.get(RECORD_HEADER..).unwrap_or_default()
    }

    /// The fixed part.
    pub fn header(&self) -> RecordHeader {
        let crc = u32_at(&self.bytes, 20).unwrap_or_default();
        let Record { total_len, xid, prev, info, rmid, .. } = *self;
        RecordHeader { total_len, xid, prev, info, rmid, crc }
    }
}

const BLOCK_ID_MAX: u8 = 32;
const ID_TOPLEVEL_XID: u8 = 252;
const ID_ORIGIN: u8 = 253;
const ID_MAIN_LONG: u8 = 254;
const ID_MAIN_SHORT: u8 = 255;
const BLOCK_HAS_IMAGE: u8 = 0x10;
const BLOCK_SAME_REL: u8 = 0x80;
const IMAGE_HAS_HOLE: u8 = 0x01;
/// 13 and 14: `BKPIMAGE_IS_COMPRESSED` 0x02 (4 is `BKPIMAGE_APPLY`);
/// 15 and later: PGLZ 4, LZ4 8, ZSTD 0x10 (2 is `BKPIMAGE_APPLY`).
const IMAGE_COMPRESSED_13: u8 = 0x02;
const IMAGE_COMPRESSED_15: u8 = 0x04 | 0x08 | 0x10;

/// Main data of a record, given what follows its header. The sizes in the part headers
/// must add up to the record exactly; the main data is last.
pub(crate) fn main_data(payload: &[u8], major: Major) -> Result<&[u8], RecordError> {
    let mut headers = Cursor::new(payload);
    let mut data = 0usize;
    let mut main = 0usize;
    // As long as there is more than the data announced so far, there is a header before it.
    while headers.rest().len() > data {
        let announced = part_header(&mut headers, major).ok_or(RecordError::Parts)?;
        data = data.saturating_add(announced.bytes);
        if announced.is_main {
            main = announced.bytes;
            break;
        }
    }
    let rest = headers.rest();
    if rest.len() != data {
        return Err(RecordError::Parts);
    }
    rest.get(data - main..).ok_or(RecordError::Parts)
}

/// How much data one part header announces.
struct Announced {
    bytes: usize,
    is_main: bool,
}

/// Reads one part header (`XLogRecordBlockHeader` and the like); `None` when it is cut
/// off or of no kind that this version writes.
fn part_header(headers: &mut Cursor<'_>, major: Major) -> Option<Announced> {
    let announced = |bytes| Some(Announced { bytes, is_main: false });
    match headers.u8()? {
        0..=BLOCK_ID_MAX => announced(block_header(headers, major)?),
        ID_ORIGIN => headers.take(2).and_then(|_| announced(0)),
        ID_TOPLEVEL_XID if major >= Major::V14 => headers.take(4).and_then(|_| announced(0)),
        ID_MAIN_SHORT => Some(Announced { bytes: headers.u8()? as usize, is_main: true }),
        ID_MAIN_LONG => Some(Announced { bytes: headers.u32()? as usize, is_main: true }),
        _ => None,
    }
}

/// Reads a block reference after its id; returns the bytes of image and data it announces.
fn block_header(headers: &mut Cursor<'_>, major: Major) -> Option<usize> {
    let flags = headers.u8()?;
    let mut bytes = headers.u16()? as usize;
    if flags & BLOCK_HAS_IMAGE != 0 {
        bytes += headers.u16()? as usize;
        headers.take(2)?;
        let image = headers.u8()?;
        let compressed = if major >= Major::V15 { IMAGE_COMPRESSED_15 } else { IMAGE_COMPRESSED_13 };
        if image & compressed != 0 && image & IMAGE_HAS_HOLE != 0 {
            headers.take(2)?;
        }
    }
    if flags & BLOCK_SAME_REL == 0 {
        headers.take(12)?;
    }
    headers.take(4)?;
    Some(bytes)
}
