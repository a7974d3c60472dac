//! Writes WAL as PostgreSQL 15 does, for tests: real pages, real records, real CRCs, so
//! that what plans are made of is read by the code that reads a server's WAL.

use std::collections::BTreeMap;

use walpoint_wal::{Lsn, PAGE_SIZE, SegmentName, SegmentSize, SystemIdentifier, TimelineId, Timestamp};

const MAGIC_15: u16 = 0xD110;
const CONTINUES: u16 = 1;
const LONG: u16 = 2;
const OVERWRITES: u16 = 8;
const XLOG: u8 = 0;
const XACT: u8 = 1;
const HEADER: usize = 24;

/// One server's WAL on one timeline. A clone that [`WalWriter::promote`]s is a fork.
#[derive(Debug, Clone)]
pub struct WalWriter {
    size: SegmentSize,
    system_identifier: SystemIdentifier,
    timeline: TimelineId,
    /// Where the next record may start.
    position: u64,
    previous: Lsn,
    segments: BTreeMap<u64, Vec<u8>>,
    /// What `fill_until` wrote since it was last asked.
    fillers: Vec<Placed>,
}

/// Where a record was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Its start.
    pub lsn: Lsn,
    /// Its end.
    pub end: Lsn,
}

impl WalWriter {
    /// A cluster whose WAL begins with segment `first` on timeline 1.
    pub fn new(size: SegmentSize, system_identifier: SystemIdentifier, first: u64) -> WalWriter {
        let position = first * size.bytes();
        let timeline = TimelineId::FIRST;
        let (previous, segments) = (Lsn(position.saturating_sub(64)), BTreeMap::new());
        WalWriter { size, system_identifier, timeline, position, previous, segments, fillers: Vec::new() }
    }

    /// Where WAL ends now.
    pub fn end(&self) -> Lsn {
        Lsn(self.position)
    }

    /// The timeline that is written now.
    pub fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// The segments written on this timeline, the last one filled up with zeros.
    pub fn segments(&self) -> impl Iterator<Item = (SegmentName, &[u8])> {
        self.segments.iter().map(|(number, bytes)| {
            (SegmentName::from_number(self.timeline, *number, self.size).unwrap(), bytes.as_slice())
        })
    }

    /// Begins another timeline here: its first segment has a copy of the parent's WAL.
    pub fn promote(&mut self, timeline: TimelineId) {
        let number = self.position / self.size.bytes();
        self.segments.retain(|it, _| *it == number);
        self.timeline = timeline;
    }

    /// Puts a record with this main data.
    pub fn record(&mut self, rmid: u8, info: u8, xid: u32, main: &[u8]) -> Placed {
        let mut bytes = vec![0_u8; HEADER];
        if !main.is_empty() {
            match u8::try_from(main.len()) {
                Ok(length) => bytes.extend([255, length]),
                Err(_) => {
                    bytes.push(254);
                    bytes.extend(u32::try_from(main.len()).unwrap().to_le_bytes());
                }
            }
            bytes.extend(main);
        }
        self.skip_to_record_start();
        let lsn = Lsn(self.position);
        self.fill_header(&mut bytes, rmid, info, xid);
        self.put(&bytes);
        self.previous = lsn;
        self.position = self.position.next_multiple_of(8);
        Placed { lsn, end: Lsn(self.position) }
    }

    fn fill_header(&self, bytes: &mut [u8], rmid: u8, info: u8, xid: u32) {
        let total = u32::try_from(bytes.len()).unwrap();
        bytes[0..4].copy_from_slice(&total.to_le_bytes());
        bytes[4..8].copy_from_slice(&xid.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.previous.0.to_le_bytes());
        bytes[16] = info;
        bytes[17] = rmid;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[HEADER..]), &bytes[..20]);
        bytes[20..24].copy_from_slice(&crc.to_le_bytes());
    }

    fn put(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.position.is_multiple_of(PAGE_SIZE as u64) {
                self.page_header(CONTINUES, u32::try_from(rest.len()).unwrap());
            }
            let room = PAGE_SIZE - (self.position % PAGE_SIZE as u64) as usize;
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.write(now);
            rest = later;
        }
    }

    fn skip_to_record_start(&mut self) {
        if self.position.is_multiple_of(PAGE_SIZE as u64) {
            self.page_header(0, 0);
        }
    }

    fn page_header(&mut self, flags: u16, remaining: u32) {
        let long = self.position.is_multiple_of(self.size.bytes());
        let mut header = Vec::new();
        header.extend(MAGIC_15.to_le_bytes());
        header.extend((flags | if long { LONG } else { 0 }).to_le_bytes());
        header.extend(self.timeline.get().to_le_bytes());
        header.extend(self.position.to_le_bytes());
        header.extend(remaining.to_le_bytes());
        header.extend([0; 4]);
        if long {
            header.extend(self.system_identifier.0.to_le_bytes());
            header.extend(u32::try_from(self.size.bytes()).unwrap().to_le_bytes());
            header.extend((PAGE_SIZE as u32).to_le_bytes());
        }
        self.write(&header);
    }

    fn write(&mut self, bytes: &[u8]) {
        let size = self.size.bytes();
        let segment = self.segments.entry(self.position / size).or_insert_with(|| vec![0; size as usize]);
        let offset = (self.position % size) as usize;
        segment[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.position += bytes.len() as u64;
    }

    /// A server that died while writing a record: `bytes` of it are there, and the next
    /// page begins anew (`XLOG_OVERWRITE_CONTRECORD`). Needs a record that crosses a page.
    pub fn crash_in_record(&mut self, time: Timestamp) -> Placed {
        self.skip_to_record_start();
        let (start, kept) = (self.position, self.previous);
        let mut broken = vec![0; HEADER + 2 * PAGE_SIZE];
        self.fill_header(&mut broken, XLOG, 0x20, 0);
        let room = PAGE_SIZE - (self.position % PAGE_SIZE as u64) as usize;
        self.put(&broken[..room]);
        self.page_header(OVERWRITES, 0);
        self.previous = kept;
        let mut main = start.to_le_bytes().to_vec();
        main.extend(time.0.to_le_bytes());
        self.record(XLOG, 0xD0, 0, &main)
    }
}

/// The records that tests need, by name.
impl WalWriter {
    /// Changes nothing and takes `bytes`.
    pub fn filler(&mut self, bytes: usize) -> Placed {
        self.record(XLOG, 0x20, 0, &vec![0xAB; bytes])
    }

    /// Fillers up to some 1100 to 2200 bytes before `lsn`.
    pub fn fill_until(&mut self, lsn: u64) {
        while self.position + 2200 < lsn {
            let placed = self.filler(1000);
            self.fillers.push(placed);
        }
    }

    /// The records that `fill_until` wrote since this was last asked.
    pub fn take_fillers(&mut self) -> Vec<Placed> {
        std::mem::take(&mut self.fillers)
    }

    /// `COMMIT`.
    pub fn commit(&mut self, xid: u32, time: Timestamp, subxids: &[u32]) -> Placed {
        self.end_transaction(0x00, xid, time, subxids, None)
    }

    /// `ROLLBACK`.
    pub fn abort(&mut self, xid: u32, time: Timestamp, subxids: &[u32]) -> Placed {
        self.end_transaction(0x20, xid, time, subxids, None)
    }

    /// `COMMIT PREPARED`.
    pub fn commit_prepared(&mut self, xid: u32, time: Timestamp) -> Placed {
        self.end_transaction(0x30, 0, time, &[], Some(xid))
    }

    /// `ROLLBACK PREPARED`.
    pub fn abort_prepared(&mut self, xid: u32, time: Timestamp) -> Placed {
        self.end_transaction(0x40, 0, time, &[], Some(xid))
    }

    fn end_transaction(
        &mut self,
        kind: u8,
        xid: u32,
        time: Timestamp,
        subxids: &[u32],
        prepared: Option<u32>,
    ) -> Placed {
        let info = u32::from(!subxids.is_empty()) << 1 | u32::from(prepared.is_some()) << 4;
        let mut main = time.0.to_le_bytes().to_vec();
        if info != 0 {
            main.extend(info.to_le_bytes());
        }
        if !subxids.is_empty() {
            main.extend(u32::try_from(subxids.len()).unwrap().to_le_bytes());
            main.extend(subxids.iter().flat_map(|xid| xid.to_le_bytes()));
        }
        main.extend(prepared.iter().flat_map(|xid| xid.to_le_bytes()));
        self.record(XACT, if info == 0 { kind } else { kind | 0x80 }, xid, &main)
    }

    /// `PREPARE TRANSACTION` (`xl_xact_prepare` of 15).
    pub fn prepare(&mut self, xid: u32, gid: &str, time: Timestamp) -> Placed {
        let gid_length = gid.len() + 1;
        let mut main = Vec::new();
        main.extend(0x57F9_4534_u32.to_le_bytes());
        main.extend(u32::try_from(72 + gid_length.next_multiple_of(8) + 4).unwrap().to_le_bytes());
        main.extend(xid.to_le_bytes());
        main.extend(1_u32.to_le_bytes());
        main.extend(time.0.to_le_bytes());
        main.extend([0; 28]);
        main.extend([0; 2]);
        main.extend(u16::try_from(gid_length).unwrap().to_le_bytes());
        main.extend([0; 16]);
        main.extend(gid.as_bytes());
        main.resize(72 + gid_length.next_multiple_of(8), 0);
        self.record(XACT, 0x10, xid, &main)
    }

    /// `pg_create_restore_point`.
    pub fn restore_point(&mut self, name: &str, time: Timestamp) -> Placed {
        let mut main = time.0.to_le_bytes().to_vec();
        main.extend(name.as_bytes());
        main.resize(8 + 64, 0);
        self.record(XLOG, 0x70, 0, &main)
    }

    /// An online checkpoint that began at `redo`; `seconds` as PostgreSQL counts them.
    pub fn checkpoint(&mut self, redo: Lsn, time: Timestamp, next_xid: u64) -> Placed {
        let mut main = vec![0; 88];
        main[0..8].copy_from_slice(&redo.0.to_le_bytes());
        main[8..12].copy_from_slice(&self.timeline.get().to_le_bytes());
        main[12..16].copy_from_slice(&self.timeline.get().to_le_bytes());
        main[16] = 1;
        main[24..32].copy_from_slice(&next_xid.to_le_bytes());
        let seconds = time.to_unix_micros().unwrap().div_euclid(1_000_000);
        main[64..72].copy_from_slice(&seconds.to_le_bytes());
        self.record(XLOG, 0x10, 0, &main)
    }

    /// The end of a base backup that began at `start`.
    pub fn backup_end(&mut self, start: Lsn) -> Placed {
        self.record(XLOG, 0x50, 0, &start.0.to_le_bytes())
    }

    /// A promoted server's first record.
    pub fn end_of_recovery(&mut self, previous: TimelineId, time: Timestamp) -> Placed {
        let mut main = time.0.to_le_bytes().to_vec();
        main.extend(self.timeline.get().to_le_bytes());
        main.extend(previous.get().to_le_bytes());
        self.record(XLOG, 0x90, 0, &main)
    }

    /// Settings that a standby must match.
    pub fn parameter_change(&mut self, max_connections: i32, max_prepared_xacts: i32) -> Placed {
        self.settings(max_connections, max_prepared_xacts, 1)
    }

    /// A server that was started with `wal_level = minimal`.
    pub fn minimal(&mut self) -> Placed {
        self.settings(100, 0, 0)
    }

    fn settings(&mut self, max_connections: i32, max_prepared_xacts: i32, wal_level: i32) -> Placed {
        let values = [max_connections, 8, 10, max_prepared_xacts, 64, wal_level];
        let mut main: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        main.extend([0; 4]);
        self.record(XLOG, 0x60, 0, &main)
    }

    /// `pg_switch_wal`: the rest of the segment stays empty.
    pub fn switch(&mut self) -> Placed {
        let placed = self.record(XLOG, 0x40, 0, &[]);
        self.position = self.position.next_multiple_of(self.size.bytes());
        Placed { lsn: placed.lsn, end: Lsn(self.position) }
    }
}
