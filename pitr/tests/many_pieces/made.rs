//! The backup, and the plan to restore it.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use walpoint_archive::compress::CompressionLevel;
use walpoint_archive::manifest::{EntryKind, ManifestEntry, ManifestHeader, ManifestWriter, Piece};
use walpoint_archive::pack::{PackWriter, PartOfFrame, PiecePlace};
use walpoint_archive::store::dir::{DirStore, create_dir_archive};
use walpoint_archive::summary::{
    BackupBytes, BackupSummary, ManifestObject, Position, ServerFacts, Settings, StoredObject,
};
use walpoint_archive::{Archive, BackupId, BackupKind, ContentHash, KeyRing, RelativePath, Sealer};
use walpoint_pitr::plan::{RecoveryPlan, Segments};
use walpoint_pitr::restore::{RestoreRequest, TargetAction};
use walpoint_pitr::target::Target;
use walpoint_wal::{Lsn, PathStep, SegmentName, SegmentSize, SystemIdentifier, TimelineId, Timestamp};

const CLUSTER: SystemIdentifier = SystemIdentifier(7);

const PIECE: usize = 64;
/// Parts of one frame.
const IN_FRAME: usize = 1024;
const FRAME: usize = PIECE * IN_FRAME;
/// Frames of one file, and of one pack.
const FRAMES: usize = 16;
/// Pieces of one file.
pub const IN_FILE: usize = IN_FRAME * FRAMES;
/// Bytes of one file.
pub const FILE: usize = FRAME * FRAMES;
/// By so many frames the next one of a file lies further. It has no divisor in common with their number.
const STRIDE: usize = 7919;

pub fn id() -> BackupId {
    "20261120T214500Z-full-3fa9c1".parse().unwrap()
}

pub async fn archive(directory: &Path) -> Archive {
    let store = DirStore::open(&directory.join("archive")).await.unwrap();
    Archive::new(Arc::new(store), CLUSTER, Sealer::new(level(), Arc::new(KeyRing::default())))
}

fn level() -> CompressionLevel {
    CompressionLevel::new(1).unwrap()
}

pub fn name_of(file: usize) -> String {
    format!("base/5/{}", 100_000 + file)
}

/// Where the n-th frame of a file lies among all.
fn frame_of(file: usize, number: usize, files: usize) -> usize {
    (file * FRAMES + number) * STRIDE % (files * FRAMES)
}

fn frame(number: usize) -> Vec<u8> {
    let word = |at: usize| ((number * FRAME + at) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes();
    (0..FRAME / 8).flat_map(word).collect()
}

/// The parts of each of its frames from the last to the first.
pub fn content_of(file: usize, files: usize) -> Vec<u8> {
    let mut content = Vec::with_capacity(FILE);
    for number in 0..FRAMES {
        let frame = frame(frame_of(file, number, files));
        frame.rchunks_exact(PIECE).for_each(|part| content.extend_from_slice(part));
    }
    content
}

/// Makes the archive.
#[tokio::main(flavor = "current_thread")]
pub async fn make(directory: &Path, files: usize) {
    assert_ne!(files * FRAMES % STRIDE, 0);
    create_dir_archive(&directory.join("archive")).await.unwrap();
    let archive = archive(directory).await;
    let (mut packs, mut places) = (Vec::new(), Vec::new());
    for number in 0..files {
        let frames = (number * FRAMES..(number + 1) * FRAMES).map(frame);
        places.extend(put_pack(&archive, frames, &mut packs).await);
    }
    let small = small_files();
    let of_small = put_pack(&archive, small.iter().map(|(_, content)| content.clone()), &mut packs).await;
    let mut entries: Vec<ManifestEntry> =
        ["base", "base/5", "global", "pg_notify", "pg_tblspc", "pg_wal"].map(directory_entry).into();
    for ((path, content), place) in small.iter().zip(of_small) {
        let (size, pieces) = (content.len() as u64, vec![Piece::new(0, files as u32, place)]);
        entries.push(ManifestEntry { size, pieces, ..entry(path, EntryKind::File, 0o600) });
    }
    // What these consist of is made as they are written.
    entries.extend((0..files).map(|file| entry(&name_of(file), EntryKind::File, 0o600)));
    entries.sort_by(|one, next| one.path.cmp(&next.path));
    let header = ManifestHeader { backup: id(), system_identifier: CLUSTER };
    let mut manifest = ManifestWriter::new(Vec::new(), &header).unwrap();
    let mut file = 0;
    for mut entry in entries {
        if entry.path.as_str() == Some(name_of(file).as_str()) {
            entry.size = FILE as u64;
            entry.pieces = pieces_of(file, files, &places);
            entry.windows.set(0, ContentHash::of(&content_of(file, files)));
            file += 1;
        }
        manifest.entry(&entry).unwrap();
    }
    assert_eq!(file, files);
    let (text, totals) = manifest.finish().unwrap();
    let manifest = archive.put_manifest(&id(), text).await.unwrap();
    archive.put_summary(&summary(manifest, packs, totals.files, totals.bytes)).await.unwrap();
}

async fn put_pack(
    archive: &Archive,
    frames: impl Iterator<Item = Vec<u8>>,
    packs: &mut Vec<StoredObject>,
) -> Vec<PiecePlace> {
    let mut pack = PackWriter::new(level());
    let places = frames.map(|frame| pack.append(&frame).unwrap()).collect();
    let sealed = pack.finish(archive.sealer()).unwrap();
    packs.push(archive.put_pack(&id(), packs.len() as u32, &sealed).await.unwrap());
    places
}

fn pieces_of(file: usize, files: usize, places: &[PiecePlace]) -> Vec<Piece> {
    let piece = |number: usize| {
        let source = frame_of(file, number / IN_FRAME, files);
        let skip = (IN_FRAME - 1 - number % IN_FRAME) * PIECE;
        let part = Some(PartOfFrame { skip: skip as u32, frame_length: FRAME as u32 });
        let whole = Piece::new((number * PIECE) as u64, (source / FRAMES) as u32, places[source]);
        Piece { length: PIECE as u32, part, ..whole }
    };
    (0..IN_FILE).map(piece).collect()
}

fn entry(path: &str, kind: EntryKind, mode: u32) -> ManifestEntry {
    let (pieces, windows) = Default::default();
    ManifestEntry { path: RelativePath::new(path).unwrap(), kind, mode, size: 0, pieces, windows }
}

fn directory_entry(path: &str) -> ManifestEntry {
    entry(path, EntryKind::Dir, 0o700)
}

/// What every backup has.
fn small_files() -> [(&'static str, Vec<u8>); 5] {
    let label = "START WAL LOCATION: 0/200028 (file 000000010000000000000002)\n\
                 CHECKPOINT LOCATION: 0/200060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
                 START TIME: 2026-11-20 21:45:00 UTC\nLABEL: x\nSTART TIMELINE: 1\n";
    // Of a version that nobody knows: only the identifier is read.
    let mut control_file = vec![0; 8192];
    control_file[..8].copy_from_slice(&CLUSTER.0.to_le_bytes());
    control_file[8..12].copy_from_slice(&9999u32.to_le_bytes());
    [
        ("PG_VERSION", b"15\n".to_vec()),
        ("backup_label", label.into()),
        ("global/pg_control", control_file),
        ("postgresql.auto.conf", b"# nothing\n".to_vec()),
        ("postgresql.conf", b"port = 5432\n".to_vec()),
    ]
}

fn summary(manifest: ManifestObject, packs: Vec<StoredObject>, files: u64, bytes: u64) -> BackupSummary {
    let at = |lsn| Position { lsn: Lsn(lsn), time: Timestamp(0) };
    BackupSummary {
        format: 1,
        tool: "test".to_owned(),
        id: id(),
        kind: BackupKind::Full,
        parent: None,
        label: None,
        writer: "00112233aabbccdd".parse().unwrap(),
        system_identifier: CLUSTER,
        timeline: TimelineId::FIRST,
        start: at(0x20_0028),
        stop: at(0x20_0100),
        redo: Lsn(0x20_0028),
        checkpoint: Lsn(0x20_0060),
        next_xid: 731,
        from_standby: false,
        server: ServerFacts {
            major: 15,
            version_num: 150_020,
            control_version: 1300,
            catalog_version: 202_209_061,
        },
        segment_size: SegmentSize::new(1 << 20).unwrap(),
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
        files,
        bytes: BackupBytes { data: bytes, stored: 0 },
        damaged_pages: 0,
        subscriptions: None,
        archive_mode: None,
        server_started: None,
        manifest,
        packs,
    }
}

pub fn plan(backup: BackupSummary) -> RecoveryPlan {
    let segment = |number| SegmentName::from_number(TimelineId::FIRST, number, backup.segment_size).unwrap();
    RecoveryPlan {
        system_identifier: CLUSTER,
        segment_size: backup.segment_size,
        why_backup: String::new(),
        path: vec![PathStep { timeline: TimelineId::FIRST, begin: Lsn::ZERO, end: None }],
        timeline: TimelineId::FIRST,
        record_timeline: TimelineId::FIRST,
        last_record: Lsn(0x40_0028),
        last_record_end: Lsn(0x40_0060),
        segments: Segments { first: segment(2), last: segment(4), count: 3, bytes: 0 },
        last_included: None,
        first_excluded: None,
        prepared_open: Vec::new(),
        measured: None,
        bytes_to_fetch: 0,
        target: Target::Latest,
        exclusive: false,
        warnings: Vec::new(),
        notes: Vec::new(),
        backup,
    }
}

pub fn request(data_directory: PathBuf) -> RestoreRequest {
    RestoreRequest {
        data_directory,
        delta: false,
        is_configured: false,
        discard_wal: false,
        tablespaces: Vec::new(),
        databases: Vec::new(),
        action: TargetAction::Promote,
        take_over: false,
        standby: None,
        restore_command: "/usr/bin/walpoint archive-get --contract walpoint.recovery.json %f %p".to_owned(),
        owner: None,
        workers: NonZeroUsize::new(4).unwrap(),
    }
}
