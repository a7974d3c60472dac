//! WAL pages: 8192 bytes, each with a header that says where it belongs
//! (access/xlog_internal.h `XLogPageHeaderData`, `XLogLongPageHeaderData`; 13–18).

use crate::fields::{u16_at, u32_at, u64_at};
use crate::lsn::Lsn;
use crate::timeline::TimelineId;

/// Bytes in a WAL page (`XLOG_BLCKSZ`). Servers built with another size are not read.
pub const PAGE_SIZE: usize = 8192;
/// Bytes in the header of every page but the first of a segment.
pub const SHORT_HEADER: usize = 24;
/// Bytes in the header of the first page of a segment.
pub const LONG_HEADER: usize = 40;

const FIRST_IS_CONTRECORD: u16 = 0x0001;
const HAS_LONG_HEADER: u16 = 0x0002;
const FIRST_IS_OVERWRITE_CONTRECORD: u16 = 0x0008;
/// 0x0004 is `XLP_BKP_REMOVABLE`, a hint that says nothing about the content.
const ALL_FLAGS: u16 = 0x000F;

/// A page's header, with every field that its own bytes can prove wrong checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageHeader {
    /// Names the PostgreSQL version: [`crate::Major::from_page_magic`].
    pub magic: u16,
    /// Flag bits.
    pub info: u16,
    /// Timeline of the first record on the page.
    pub timeline: TimelineId,
    /// Address of the page's first byte.
    pub address: Lsn,
    /// Bytes on this page and later ones that belong to a record that began before.
    pub remaining: u32,
    /// Only in the first page of a segment.
    pub long: Option<LongHeader>,
}

/// What only the first page of a segment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongHeader {
    /// The cluster.
    pub system_identifier: u64,
    /// Bytes in a segment, as written: not checked.
    pub segment_size: u32,
    /// Bytes in a WAL page, as written: not checked.
    pub block_size: u32,
}

/// The bytes are not the header of a WAL page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// Fewer bytes than the header has.
    #[error("the page header is cut off")]
    TooShort,
    /// A flag that no version from 13 to 18 sets.
    #[error("the page header has invalid flags {0:04X}")]
    Flags(u16),
    /// Timelines begin at 1.
    #[error("the page header names timeline 0")]
    Timeline,
    /// A length without a record that it belongs to, or the other way round.
    #[error("the page header says {0} bytes of a record continue here, and its flags differ")]
    Remaining(u32),
}

impl PageHeader {
    /// Reads a page's header. The magic is returned, not judged: its meaning depends on
    /// whether this is the first page.
    pub fn parse(page: &[u8]) -> Result<PageHeader, PageError> {
        let fields = || {
            let address = Lsn(u64_at(page, 8)?);
            Some((u16_at(page, 0)?, u16_at(page, 2)?, u32_at(page, 4)?, address, u32_at(page, 16)?))
        };
        let (magic, info, timeline, address, remaining) = fields().ok_or(PageError::TooShort)?;
        if info & !ALL_FLAGS != 0 {
            return Err(PageError::Flags(info));
        }
        let timeline = TimelineId::new(timeline).ok_or(PageError::Timeline)?;
        let continues = info & FIRST_IS_CONTRECORD != 0;
        if continues != (remaining != 0) {
            return Err(PageError::Remaining(remaining));
        }
        let long = if info & HAS_LONG_HEADER == 0 {
            None
        } else {
            Some(LongHeader::parse(page).ok_or(PageError::TooShort)?)
        };
        Ok(PageHeader { magic, info, timeline, address, remaining, long })
    }

    /// The page begins with the rest of a record.
    pub fn continues_record(&self) -> bool {
        self.info & FIRST_IS_CONTRECORD != 0
    }

    /// The record that should have continued here was never completed: what follows
    /// replaces its rest (`CreateOverwriteContrecordRecord`, 13.5, 14.1 and later).
    pub fn overwrites_record(&self) -> bool {
        self.info & FIRST_IS_OVERWRITE_CONTRECORD != 0
    }

    /// Bytes in this header.
    pub fn size(&self) -> usize {
        if self.long.is_some() { LONG_HEADER } else { SHORT_HEADER }
    }
}

impl LongHeader {
    fn parse(page: &[u8]) -> Option<LongHeader> {
        Some(LongHeader {
            system_identifier: u64_at(page, 24)?,
            segment_size: u32_at(page, 32)?,
            block_size: u32_at(page, 36)?,
        })
    }
}
