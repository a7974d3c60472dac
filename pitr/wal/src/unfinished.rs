//! A record that spans pages, put together piece by piece.

use crate::lsn::Lsn;
use crate::record::{RECORD_HEADER, RecordError, RecordHeader};

/// The part of a record that has come so far. The CRC is taken as bytes arrive; the body
/// is kept only where asked, and grows only by bytes that are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unfinished {
    /// Address of the record's first byte.
    pub(crate) start: Lsn,
    /// What comes after it may be zeros because a switch record was swallowed: see
    /// [`crate::stream`].
    pub(crate) hides_switch: bool,
    total_len: u32,
    got: u32,
    head: [u8; RECORD_HEADER],
    /// CRC-32C of the body so far.
    crc: u32,
    /// The body so far, where it is wanted.
    body: Option<Vec<u8>>,
}

impl Unfinished {
    /// A record of a length that was found plausible.
    pub(crate) fn new(start: Lsn, total_len: u32) -> Unfinished {
        let head = [0; RECORD_HEADER];
        Unfinished { start, hides_switch: false, total_len, got: 0, head, crc: 0, body: None }
    }

    /// Bytes that are still to come.
    pub(crate) fn rest(&self) -> u32 {
        self.total_len.saturating_sub(self.got)
    }

    /// The header, once all of it is there.
    pub(crate) fn header(&self) -> Option<RecordHeader> {
        if self.got as usize >= RECORD_HEADER { RecordHeader::parse(&self.head) } else { None }
    }

    /// The header's bytes.
    pub(crate) fn head(&self) -> &[u8] {
        &self.head
    }

    /// The body, where it was kept.
    pub(crate) fn body(&self) -> Option<&[u8]> {
        self.body.as_deref()
    }

    /// Takes header bytes, as many as are missing, and returns the others.
    pub(crate) fn take_head<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let missing = self.head.get_mut(self.got as usize..).unwrap_or_default();
        let count = missing.len().min(bytes.len());
        let (now, later) = bytes.split_at(count);
        for (to, from) in missing.iter_mut().zip(now) {
            *to = *from;
        }
        self.got += count as u32;
        later
    }

    /// From here on the body is kept.
    pub(crate) fn keep_body(&mut self) {
        self.body.get_or_insert_default();
    }

    /// Takes body bytes: never more than [`Unfinished::rest`].
    pub(crate) fn take_body(&mut self, bytes: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.got += bytes.len() as u32;
        if let Some(body) = &mut self.body {
            body.extend_from_slice(bytes);
        }
    }

    /// Compares the CRC, when nothing is missing any more.
    pub(crate) fn check_crc(&self) -> Result<(), RecordError> {
        compare_crc(self.crc, &self.head)
    }
}

/// CRC of a record: its body, then its header up to the CRC field (`ValidXLogRecord`,
/// access/transam/xlogreader.c).
pub(crate) fn compare_crc(crc_of_body: u32, head: &[u8]) -> Result<(), RecordError> {
    let (covered, crc) = head.split_at_checked(RECORD_HEADER - 4).unwrap_or_default();
    let expected = crc.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let found = crc32c::crc32c_append(crc_of_body, covered);
    if found == expected { Ok(()) } else { Err(RecordError::Crc { expected, found }) }
}
