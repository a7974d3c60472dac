//! Writes WAL as PostgreSQL lays it out, with any content.
#![allow(dead_code, reason = "each test file uses a part of it")]

use walpoint_wal::{
    Carry, CarryOver, Lsn, Major, SegmentName, SegmentSize, Survey, SurveyError, SurveyOf, Surveyor,
    SystemIdentifier, TimelineId,
};

pub const PAGE: u64 = 8192;
pub const SYSTEM: u64 = 7_573_926_172_837_465_123;
pub const FIRST_SEGMENT: u64 = 5;

pub fn size() -> SegmentSize {
    SegmentSize::new(1 << 20).unwrap()
}

pub struct Writer {
    pub major: Major,
    pub timeline: u32,
    bytes: Vec<u8>,
    prev: u64,
    /// Start and end of each record's bytes, page headers between them included.
    pub records: Vec<(Lsn, Lsn)>,
    overwrite_next_page: bool,
}

impl Writer {
    pub fn new(major: Major) -> Writer {
        Writer {
            major,
            timeline: 1,
            bytes: Vec::new(),
            prev: 4_194_344,
            records: Vec::new(),
            overwrite_next_page: false,
        }
    }

    fn base() -> u64 {
        FIRST_SEGMENT * size().bytes()
    }

    pub fn at(&self) -> u64 {
        Writer::base() + self.bytes.len() as u64
    }

    fn page_header(&mut self, remaining: u32) {
        let first = self.at().is_multiple_of(size().bytes());
        let mut info = u16::from(remaining > 0) | if first { 2 } else { 0 };
        if std::mem::take(&mut self.overwrite_next_page) {
            info |= 8;
        }
        let at = self.at();
        self.bytes.extend(self.major.page_magic().to_le_bytes());
        self.bytes.extend(info.to_le_bytes());
        self.bytes.extend(self.timeline.to_le_bytes());
        self.bytes.extend(at.to_le_bytes());
        self.bytes.extend(remaining.to_le_bytes());
        self.bytes.extend([0; 4]);
        if first {
            self.bytes.extend(SYSTEM.to_le_bytes());
            self.bytes.extend((size().bytes() as u32).to_le_bytes());
            self.bytes.extend((PAGE as u32).to_le_bytes());
        }
    }

    fn place(&mut self, record: &[u8]) -> Lsn {
        if self.at().is_multiple_of(PAGE) {
            self.page_header(0);
        }
        let start = self.at();
        let mut rest = record;
        while !rest.is_empty() {
            if self.at().is_multiple_of(PAGE) {
                self.page_header(rest.len() as u32);
            }
            let room = (PAGE - self.at() % PAGE) as usize;
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.bytes.extend(now);
            rest = later;
        }
        self.records.push((Lsn(start), Lsn(self.at())));
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        self.prev = start;
        Lsn(start)
    }

    /// A record with this body (block headers, main data).
    pub fn raw(&mut self, xid: u32, rmid: u8, info: u8, body: &[u8]) -> Lsn {
        let record = record_bytes(xid, self.prev, rmid, info, body);
        self.place(&record)
    }

    /// A record with this main data.
    pub fn record(&mut self, xid: u32, rmid: u8, info: u8, main: &[u8]) -> Lsn {
        self.raw(xid, rmid, info, &main_part(main))
    }

    pub fn commit(&mut self, xid: u32, time: i64) -> Lsn {
        self.record(xid, 1, 0x00, &time.to_le_bytes())
    }

    pub fn restore_point(&mut self, name: &str, time: i64) -> Lsn {
        let mut main = time.to_le_bytes().to_vec();
        main.extend(name.as_bytes());
        main.resize(72, 0);
        self.record(0, 0, 0x70, &main)
    }

    /// `xl_xact_prepare` without a name and without subtransactions: zeros for all majors.
    pub fn prepare(&mut self, xid: u32, time: i64) -> Lsn {
        let mut main = [0; 72];
        main[8..12].copy_from_slice(&xid.to_le_bytes());
        main[16..24].copy_from_slice(&time.to_le_bytes());
        self.record(xid, 1, 0x10, &main)
    }

    pub fn parameter_change(&mut self) -> Lsn {
        self.record(0, 0, 0x60, &[0; 28])
    }

    /// A record of a kind that is not looked into, with this many bytes of main data.
    pub fn filler(&mut self, length: usize, seed: u8) -> Lsn {
        let main: Vec<u8> = (0..length).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed) | 1).collect();
        self.record(9, 10, 0x00, &main)
    }

    pub fn switch(&mut self) -> Lsn {
        let start = self.raw(0, 0, 0x40, &[]);
        let segment = size().bytes() as usize;
        self.bytes.resize(self.bytes.len().next_multiple_of(segment), 0);
        start
    }

    /// Begins a record of `total` body bytes and leaves it unfinished at the end of the
    /// page; the next page begins anew.
    pub fn abandon(&mut self, total: usize) -> Lsn {
        if self.at().is_multiple_of(PAGE) {
            self.page_header(0);
        }
        let start = self.at();
        let record = record_bytes(3, self.prev, 10, 0, &main_part(&vec![7; total]));
        let room = (PAGE - self.at() % PAGE) as usize;
        self.bytes.extend(&record[..room]);
        self.overwrite_next_page = true;
        Lsn(start)
    }

    pub fn overwrite_contrecord(&mut self, overwritten: Lsn, time: i64) -> Lsn {
        let mut main = overwritten.0.to_le_bytes().to_vec();
        main.extend(time.to_le_bytes());
        self.record(0, 0, 0xD0, &main)
    }

    /// All segments begun, the last one filled with zeros.
    pub fn segments(&self) -> Vec<(SegmentName, Vec<u8>)> {
        let segment = size().bytes() as usize;
        let named = |(index, bytes): (usize, &[u8])| {
            let name =
                SegmentName::from_number(timeline(self.timeline), FIRST_SEGMENT + index as u64, size())
                    .unwrap();
            let mut bytes = bytes.to_vec();
            bytes.resize(segment, 0);
            (name, bytes)
        };
        self.bytes.chunks(segment).enumerate().map(named).collect()
    }
}

pub fn timeline(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

pub fn main_part(main: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    match u8::try_from(main.len()) {
        Ok(0) => {}
        Ok(short) => body.extend([255, short]),
        Err(_) => {
            body.push(254);
            body.extend((main.len() as u32).to_le_bytes());
        }
    }
    body.extend(main);
    body
}

pub fn record_bytes(xid: u32, prev: u64, rmid: u8, info: u8, body: &[u8]) -> Vec<u8> {
    let mut head = Vec::new();
    head.extend((24 + body.len() as u32).to_le_bytes());
    head.extend(xid.to_le_bytes());
    head.extend(prev.to_le_bytes());
    head.extend([info, rmid, 0, 0]);
    let crc = crc32c::crc32c_append(crc32c::crc32c(body), &head);
    head.extend(crc.to_le_bytes());
    head.extend(body);
    head
}

pub fn survey(name: SegmentName, bytes: &[u8], carry: Option<CarryOver>) -> Result<Survey, SurveyError> {
    survey_chunked(name, bytes, carry, &[bytes.len().max(1)], false)
}

/// A surveyor that has not been fed yet.
pub fn surveyor_of(name: SegmentName, bytes: &[u8], carry: Option<CarryOver>) -> Surveyor {
    surveyor(name, bytes, carry, false)
}

fn surveyor(name: SegmentName, bytes: &[u8], carry: Option<CarryOver>, partial: bool) -> Surveyor {
    let carry = carry.map_or(Carry::Unknown, Carry::Known);
    let expected = Some(SystemIdentifier(SYSTEM));
    Surveyor::new(SurveyOf { name, partial, file_size: bytes.len() as u64, expected, carry })
}

pub fn survey_chunked(
    name: SegmentName,
    bytes: &[u8],
    carry: Option<CarryOver>,
    chunks: &[usize],
    partial: bool,
) -> Result<Survey, SurveyError> {
    let mut surveyor = surveyor(name, bytes, carry, partial);
    let mut rest = bytes;
    for length in chunks.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (now, later) = rest.split_at((*length).clamp(1, rest.len()));
        surveyor.feed(now);
        rest = later;
    }
    surveyor.finish()
}
