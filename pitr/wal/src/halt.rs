//! Where reading WAL stops, and whether that is damage.

use crate::lsn::Lsn;
use crate::page::PAGE_SIZE;
use crate::record::{ALIGNMENT, RECORD_HEADER, RecordHeader};
use crate::unfinished::compare_crc;

/// No further record can be read in this segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Halt {
    /// The record or page that cannot be read.
    pub(crate) at: Lsn,
    /// What is wrong with it.
    pub(crate) reason: String,
    /// When every byte from here to the end of the segment is zero, this is where WAL
    /// ends that was not written further, and no damage.
    pub(crate) zero_from: Option<Lsn>,
}

impl Halt {
    /// Damage, whatever follows.
    pub(crate) fn damage(at: Lsn, reason: impl Into<String>) -> Halt {
        Halt { at, reason: reason.into(), zero_from: None }
    }

    /// Damage, unless nothing but zeros follows.
    pub(crate) fn unless_zero_from(zero_from: Lsn, at: Lsn, reason: impl Into<String>) -> Halt {
        Halt { at, reason: reason.into(), zero_from: Some(zero_from) }
    }

    /// What of the page at `page_start` speaks for the end of WAL: all zero from where it must be?
    pub(crate) fn allows(&self, page_start: Lsn, page: &[u8]) -> bool {
        let Some(zero_from) = self.zero_from else { return false };
        let skip = usize::try_from(zero_from.0.saturating_sub(page_start.0)).unwrap_or(PAGE_SIZE);
        is_zero(page.get(skip..).unwrap_or_default())
    }
}

/// All bytes are zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<32>();
    words.iter().all(|word| *word == [0; 32]) && rest.iter().all(|&byte| byte == 0)
}

/// The last thing on the page before zeros is a sound switch record.
///
/// A damaged length can make the record before a switch swallow it. What follows is zero
/// all the same, and must not be taken for a segment that was not written further.
pub(crate) fn ends_with_switch(page: &[u8]) -> bool {
    let switch = || {
        let last = page.iter().rposition(|&byte| byte != 0)?;
        // Its last 8 bytes hold the kind, which is not zero.
        let start = (last - last % ALIGNMENT).checked_sub(RECORD_HEADER - ALIGNMENT)?;
        page.get(start..start + RECORD_HEADER)
    };
    let Some(bytes) = switch() else { return false };
    let header = RecordHeader::parse(bytes);
    let is_switch = header.is_some_and(|it| it.is_switch() && it.total_len as usize == RECORD_HEADER);
    is_switch && compare_crc(0, bytes).is_ok()
}
