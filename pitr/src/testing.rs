//! What tests of planning are made of: catalogs written down by hand, and archives of
//! written WAL in a directory.
#![allow(clippy::unwrap_used)]

pub(crate) mod archive;
pub(crate) mod contract;
pub(crate) mod model;
pub(crate) mod wal;

use std::collections::BTreeMap;

use walpoint_archive::facts::FORMAT;
use walpoint_archive::store::Listed;
use walpoint_archive::summary::{BackupBytes, ManifestObject, Position, ServerFacts, Settings};
use walpoint_archive::{
    BackupId, BackupKind, BackupSummary, Catalog, ChunkName, Cluster, ContentHash, Layout, SegmentState,
    StoredHash, WriterId,
};
use walpoint_wal::{
    Lsn, SegmentName, SegmentSize, SystemIdentifier, TimelineHistory, TimelineId, Timestamp, WalFileName,
};

pub(crate) const SYSTEM: SystemIdentifier = SystemIdentifier(7_000_000_000_000_000_007);
pub(crate) const MIB: u64 = 1 << 20;

pub(crate) fn size() -> SegmentSize {
    SegmentSize::new(MIB).unwrap()
}

pub(crate) fn tli(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

pub(crate) fn at_second(second: i64) -> Timestamp {
    Timestamp(800_000_000_000_000 + second * 1_000_000)
}

pub(crate) fn cluster() -> Cluster {
    Cluster {
        system_identifier: SYSTEM,
        segment_size: size(),
        block_size: 8192,
        wal_block_size: 8192,
        major: 15,
    }
}

pub(crate) fn segment(timeline: u32, number: u64) -> SegmentName {
    SegmentName::from_number(tli(timeline), number, size()).unwrap()
}

pub(crate) fn history(timeline: u32, forks: &[(u32, u64)]) -> TimelineHistory {
    let lines: String =
        forks.iter().map(|(parent, fork)| format!("{parent}\t{}\ttest\n", Lsn(*fork))).collect();
    TimelineHistory::parse(tli(timeline), lines.as_bytes()).unwrap()
}

/// A catalog with these segments, `(timeline, first, last)`, and these histories.
pub(crate) fn catalog(segments: &[(u32, u64, u64)], histories: &[TimelineHistory]) -> Catalog {
    let mut catalog = Catalog::new(cluster());
    for (timeline, first, last) in segments {
        for number in *first..=*last {
            put(&mut catalog, segment(*timeline, number), &[1]);
        }
    }
    catalog.histories =
        histories.iter().map(|history| (history.timeline, history.clone())).collect::<BTreeMap<_, _>>();
    catalog
}

/// Puts a segment with these contents into a catalog.
pub(crate) fn put(catalog: &mut Catalog, name: SegmentName, contents: &[u8]) {
    let state = state(WalFileName::Segment(name), contents);
    catalog.wal.entry(name.timeline).or_default().insert(name.number(size()).unwrap(), state);
}

pub(crate) fn state(name: WalFileName, contents: &[u8]) -> SegmentState {
    let layout = Layout::new(SYSTEM);
    let listed = |content: &u8| {
        let key = layout.wal(&name, ContentHash::of(&[*content]).id(), false);
        Listed { key, size: 1000, modified: None }
    };
    SegmentState::from_listing(&layout, &contents.iter().map(listed).collect::<Vec<_>>())
}

/// Puts the beginning of a segment into a catalog, as pieces `(from, to)` of it.
pub(crate) fn ship(catalog: &mut Catalog, name: SegmentName, pieces: &[(u32, u32)]) {
    let layout = Layout::new(SYSTEM);
    // The bytes are as good as their number.
    let hash = |length: u32| match length {
        0 => ContentHash::of(&[]).id(),
        length => ContentHash::of(format!("{name} {length}").as_bytes()).id(),
    };
    let listed = |(from, to): &(u32, u32)| {
        let content = ContentHash::of(&from.to_le_bytes()).id();
        let chunk = ChunkName { from: *from, to: *to, before: hash(*from), after: hash(*to), content };
        Listed { key: layout.chunk(&name, chunk, false), size: 100, modified: None }
    };
    let state = SegmentState::from_listing(&layout, &pieces.iter().map(listed).collect::<Vec<_>>());
    catalog.wal.entry(name.timeline).or_default().insert(name.number(size()).unwrap(), state);
}

/// A backup on `timeline` from `start` to `stop`, the `number`th second of the model's time.
pub(crate) fn backup(
    number: u32,
    timeline: u32,
    start: Lsn,
    stop: Lsn,
    stop_time: Timestamp,
) -> BackupSummary {
    let id: BackupId = format!("20260101T0000{:02}Z-full-{number:06x}", number % 60).parse().unwrap();
    let content = ContentHash::of(id.to_string().as_bytes());
    let key = Layout::new(SYSTEM).manifest(&id, content.id(), false);
    let (sha256, plain_size) = (StoredHash::of(b"manifest"), 1000);
    BackupSummary {
        format: FORMAT,
        tool: "test".to_owned(),
        kind: BackupKind::Full,
        parent: None,
        label: None,
        writer: WriterId::random(),
        system_identifier: SYSTEM,
        timeline: tli(timeline),
        start: Position { lsn: start, time: Timestamp(stop_time.0 - 1_000_000) },
        stop: Position { lsn: stop, time: stop_time },
        redo: start,
        checkpoint: start,
        next_xid: 1000,
        from_standby: false,
        server: ServerFacts {
            major: 15,
            version_num: 150_020,
            control_version: 1300,
            catalog_version: 202_209_061,
        },
        segment_size: size(),
        block_size: 8192,
        wal_block_size: 8192,
        data_checksums: true,
        wal_log_hints: false,
        settings: Settings {
            max_connections: 100,
            max_worker_processes: 8,
            max_wal_senders: 10,
            max_prepared_xacts: 0,
            max_locks_per_xact: 64,
            wal_level: 1,
        },
        tablespaces: 0,
        files: 1,
        bytes: BackupBytes { data: 1000, stored: 500 },
        damaged_pages: 0,
        subscriptions: None,
        archive_mode: None,
        server_started: None,
        manifest: ManifestObject { key, size: 300, sha256, content, plain_size },
        packs: Vec::new(),
        id,
    }
}
