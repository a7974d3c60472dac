//! Writes WAL of PostgreSQL 15 into a `pg_wal`: pages and records, as far as a survey reads them.

use std::collections::BTreeMap;
use std::path::Path;
use walpoint_wal::{Lsn, PAGE_SIZE, SegmentName, SegmentSize, TimelineId};

pub const SYSTEM: u64 = 7;
pub const SEGMENT: u64 = 1 << 20;
const PAGE: u64 = PAGE_SIZE as u64;

pub fn size() -> SegmentSize {
    SegmentSize::new(SEGMENT).unwrap()
}

pub fn name(timeline: u32, number: u64) -> SegmentName {
    SegmentName::from_number(TimelineId::new(timeline).unwrap(), number, size()).unwrap()
}

/// One server's WAL on one timeline.
#[derive(Debug, Clone)]
pub struct Wal {
    timeline: u32,
    position: u64,
    previous: u64,
    segments: BTreeMap<u64, Vec<u8>>,
}

impl Wal {
    /// Begins with segment `first`.
    pub fn new(first: u64) -> Wal {
        Wal {
            timeline: 1,
            position: first * SEGMENT,
            previous: first * SEGMENT - 64,
            segments: BTreeMap::new(),
        }
    }

    /// Where it ends: all of it is flushed.
    pub fn end(&self) -> Lsn {
        Lsn(self.position)
    }

    pub fn bytes(&self, number: u64) -> &[u8] {
        &self.segments[&number]
    }

    /// A record with `length` bytes of main data, which begin with `mark`.
    pub fn record(&mut self, length: usize, mark: u8) {
        if self.position.is_multiple_of(PAGE) {
            self.page_header(0);
        }
        let mut body = vec![254];
        body.extend((length as u32).to_le_bytes());
        body.extend((0..length).map(|at| mark.wrapping_add((at * 31) as u8) | 1));
        let mut record = (24 + body.len() as u32).to_le_bytes().to_vec();
        record.extend(9u32.to_le_bytes());
        record.extend(self.previous.to_le_bytes());
        // `RM_HEAP_ID`, an operation that nobody looks into.
        record.extend([0, 10, 0, 0]);
        let crc = crc32c(&[&body, &record]);
        record.extend(crc.to_le_bytes());
        record.extend(body);
        self.previous = self.position;
        self.put(&record);
        self.position = self.position.next_multiple_of(8);
    }

    /// Records of a kilobyte up to some place behind `lsn`.
    pub fn fill_to(&mut self, lsn: u64) {
        while self.position < lsn {
            self.record(1000, 1);
        }
    }

    fn put(&mut self, record: &[u8]) {
        let mut rest = record;
        while !rest.is_empty() {
            if self.position.is_multiple_of(PAGE) {
                self.page_header(rest.len() as u32);
            }
            let (now, later) = rest.split_at(rest.len().min((PAGE - self.position % PAGE) as usize));
            self.write(now);
            rest = later;
        }
    }

    fn page_header(&mut self, remaining: u32) {
        let is_long = self.position.is_multiple_of(SEGMENT);
        let mut header = 0xD110u16.to_le_bytes().to_vec();
        header.extend((u16::from(remaining > 0) | if is_long { 2 } else { 0 }).to_le_bytes());
        header.extend(self.timeline.to_le_bytes());
        header.extend(self.position.to_le_bytes());
        header.extend(remaining.to_le_bytes());
        header.extend([0; 4]);
        if is_long {
            header.extend(SYSTEM.to_le_bytes());
            header.extend((SEGMENT as u32).to_le_bytes());
            header.extend((PAGE as u32).to_le_bytes());
        }
        self.write(&header);
    }

    fn write(&mut self, bytes: &[u8]) {
        let segment =
            self.segments.entry(self.position / SEGMENT).or_insert_with(|| vec![0; SEGMENT as usize]);
        let at = (self.position % SEGMENT) as usize;
        segment[at..at + bytes.len()].copy_from_slice(bytes);
        self.position += bytes.len() as u64;
    }

    /// Makes the files what they are on a server now.
    pub fn save(&self, pg_wal: &Path) {
        for (number, bytes) in &self.segments {
            std::fs::write(pg_wal.join(name(self.timeline, *number).to_string()), bytes).unwrap();
        }
    }
}

/// CRC-32C, bit by bit.
fn crc32c(parts: &[&[u8]]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ (0x82F6_3B78 & (crc & 1).wrapping_neg()))
    };
    !parts.iter().flat_map(|part| part.iter()).fold(u32::MAX, step)
}
