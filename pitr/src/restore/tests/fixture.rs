//! A small backup, made with the archive's own writers, and the plan to restore it.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use walpoint_archive::compress::CompressionLevel;
use walpoint_archive::config::EncryptionConfig;
use walpoint_archive::manifest::{EntryKind, ManifestEntry, ManifestHeader, ManifestWriter, Piece, Windows};
use walpoint_archive::pack::{PackWriter, PartOfFrame};
use walpoint_archive::store::{Metadata, ObjectStore, PutMode};
use walpoint_archive::summary::{
    BackupBytes, BackupSummary, ManifestObject, Position, ServerFacts, Settings, StoredObject,
};
use walpoint_archive::{
    Archive, BackupId, BackupKind, ContentHash, KeyRing, Layout, RelativePath, Sealer, StoredHash,
};
use walpoint_wal::{Lsn, PathStep, SegmentName, SegmentSize, SystemIdentifier, TimelineId, Timestamp};

use crate::plan::{RecoveryPlan, Segments};
use crate::restore::{RestoreRequest, TargetAction};
use crate::target::Target;

pub(in crate::restore) const CLUSTER: SystemIdentifier = SystemIdentifier(7);

const RECIPIENT: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";
const IDENTITY: &str = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";

/// With a directory for the key file it encrypts and can open; else neither.
pub(in crate::restore) fn sealer(keys: Option<&Path>) -> Sealer {
    let identity_file = keys.map(|directory| directory.join("identity"));
    if let Some(file) = &identity_file {
        std::fs::write(file, IDENTITY).unwrap();
    }
    let recipients = identity_file.iter().map(|_| RECIPIENT.to_owned()).collect();
    let keys = KeyRing::from_config(&EncryptionConfig { recipients, identity_file }).unwrap();
    Sealer::new(CompressionLevel::new(1).unwrap(), Arc::new(keys))
}

/// A summary that fits nothing yet but its own layout.
pub(in crate::restore) fn summary(layout: &Layout) -> BackupSummary {
    let id: BackupId = "20261120T214500Z-full-3fa9c1".parse().unwrap();
    let (pack, manifest) = (ContentHash::of(b"pack"), ContentHash::of(b"manifest"));
    let at = |lsn| Position { lsn: Lsn(lsn), time: Timestamp(0) };
    BackupSummary {
        format: 1,
        tool: "test".to_owned(),
        kind: BackupKind::Full,
        parent: None,
        label: None,
        writer: "00112233aabbccdd".parse().unwrap(),
        system_identifier: layout.system_identifier(),
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
        files: 0,
        bytes: BackupBytes { data: 0, stored: 0 },
        damaged_pages: 0,
        subscriptions: None,
        archive_mode: None,
        server_started: None,
        manifest: ManifestObject {
            key: layout.manifest(&id, manifest.id(), false),
            size: 0,
            sha256: StoredHash::of(b""),
            content: manifest,
            plain_size: 0,
        },
        packs: vec![StoredObject {
            key: layout.pack(&id, 0, pack.id(), false),
            size: 1_000_000,
            sha256: StoredHash::of(b"pack"),
        }],
        id,
    }
}

/// What is to be in a backup.
#[derive(Debug, Clone)]
pub(in crate::restore) struct Contents {
    entries: BTreeMap<RelativePath, (EntryKind, u32, Vec<u8>)>,
    chains: BTreeMap<RelativePath, Chain>,
    /// Files in pieces of so many bytes.
    small_pieces: BTreeMap<RelativePath, usize>,
}

/// A file as a chain of incremental backups leaves it: the first version in windows, of each later one the pages that
/// it changed in one frame.
#[derive(Debug, Clone)]
struct Chain {
    versions: Vec<Vec<u8>>,
    windows: Windows,
}

const PAGE: usize = 8192;

impl Contents {
    /// The least that a cluster has.
    pub(in crate::restore) fn cluster() -> Contents {
        let mut contents =
            Contents { entries: BTreeMap::new(), chains: BTreeMap::new(), small_pieces: BTreeMap::new() };
        for directory in ["base", "base/5", "global", "pg_notify", "pg_tblspc", "pg_wal"] {
            contents.directory(directory);
        }
        let label = "START WAL LOCATION: 0/200028 (file 000000010000000000000002)\n\
                     CHECKPOINT LOCATION: 0/200060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
                     START TIME: 2026-11-20 21:45:00 UTC\nLABEL: x\nSTART TIMELINE: 1\n";
        contents.file("PG_VERSION", b"15\n");
        contents.file("backup_label", label.as_bytes());
        contents.file("postgresql.conf", b"port = 5432\n");
        contents.file("postgresql.auto.conf", b"# Do not edit this file manually!\n");
        contents.file("global/pg_control", &control_file(CLUSTER));
        contents.file("base/5/16384", &noise(2_500_000));
        contents.file("base/5/16385", b"");
        contents
    }

    pub(in crate::restore) fn file(&mut self, path: &str, content: &[u8]) -> &mut Contents {
        self.add(path, EntryKind::File, 0o600, content)
    }

    pub(in crate::restore) fn directory(&mut self, path: &str) -> &mut Contents {
        self.add(path, EntryKind::Dir, 0o700, b"")
    }

    pub(in crate::restore) fn tablespace(&mut self, oid: u32, target: &Path) -> &mut Contents {
        let target = target.to_owned();
        self.add(&format!("pg_tblspc/{oid}"), EntryKind::Tablespace { oid, target }, 0, b"")
    }

    pub(in crate::restore) fn config(&mut self, path: &str, original: &str, content: &[u8]) -> &mut Contents {
        self.add(path, EntryKind::Config { original: PathBuf::from(original) }, 0o644, content)
    }

    pub(in crate::restore) fn without(&mut self, path: &str) -> &mut Contents {
        self.entries.remove(&RelativePath::new(path).unwrap());
        self
    }

    /// Versions of one size, whole pages.
    pub(in crate::restore) fn chain(
        &mut self,
        path: &str,
        versions: &[Vec<u8>],
        windows: Windows,
    ) -> &mut Contents {
        let chain = Chain { versions: versions.to_vec(), windows };
        self.chains.insert(RelativePath::new(path).unwrap(), chain);
        self.file(path, versions.last().unwrap())
    }

    /// A file in pieces of this length.
    pub(in crate::restore) fn small_pieces(
        &mut self,
        path: &str,
        content: &[u8],
        length: usize,
    ) -> &mut Contents {
        self.small_pieces.insert(RelativePath::new(path).unwrap(), length);
        self.file(path, content)
    }

    fn add(&mut self, path: &str, kind: EntryKind, mode: u32, content: &[u8]) -> &mut Contents {
        self.entries.insert(RelativePath::new(path).unwrap(), (kind, mode, content.to_vec()));
        self
    }

    /// Puts packs and manifest into a store, and says what the summary would.
    pub(in crate::restore) async fn store(&self, archive: &Archive) -> BackupSummary {
        let mut summary = summary(archive.layout());
        let mut packs = Packs { archive, summary: &mut summary, open: new_pack(), pieces: 0, count: 0 };
        let header = ManifestHeader { backup: packs.summary.id.clone(), system_identifier: CLUSTER };
        let mut manifest = ManifestWriter::new(Vec::new(), &header).unwrap();
        packs.summary.packs.clear();
        for (path, (kind, mode, content)) in &self.entries {
            let chain = self.chains.get(path);
            let pieces = match (chain, self.small_pieces.get(path)) {
                (Some(chain), _) => packs.add_chain(&chain.versions).await,
                (None, Some(length)) => packs.add_small(content, *length).await,
                (None, None) => packs.add_all(content).await,
            };
            let size = content.len() as u64;
            let windows = chain.map(|chain| chain.windows.clone()).unwrap_or_default();
            let (path, kind) = (path.clone(), kind.clone());
            let entry = ManifestEntry { path, kind, mode: *mode, size, pieces, windows };
            manifest.entry(&entry).unwrap();
        }
        packs.close().await;
        let (text, totals) = manifest.finish().unwrap();
        summary.files = totals.files;
        summary.bytes.data = totals.bytes;
        summary.manifest = store_manifest(archive, &summary.id, &text).await;
        summary
    }
}

/// Puts a manifest, whatever it says.
pub(in crate::restore) async fn store_manifest(
    archive: &Archive,
    id: &BackupId,
    text: &[u8],
) -> ManifestObject {
    let sealed = archive.sealer().seal_bytes(text).unwrap();
    let key = archive.layout().manifest(id, sealed.content.id(), sealed.encrypted);
    let object = ManifestObject {
        key,
        size: sealed.bytes.len() as u64,
        sha256: sealed.stored,
        content: sealed.content,
        plain_size: sealed.plain_size,
    };
    put(archive, &object.key, sealed.bytes).await;
    object
}

async fn put(archive: &Archive, key: &walpoint_archive::ObjectKey, bytes: Bytes) {
    let _ = archive.store().put(key, bytes, &Metadata::new(), PutMode::Overwrite).await.unwrap();
}

/// Packs of at most three pieces, so that there are several.
struct Packs<'a> {
    archive: &'a Archive,
    summary: &'a mut BackupSummary,
    open: PackWriter,
    pieces: usize,
    count: u32,
}

fn new_pack() -> PackWriter {
    PackWriter::new(CompressionLevel::new(1).unwrap())
}

impl Packs<'_> {
    async fn add(&mut self, offset: u64, plain: &[u8]) -> Piece {
        if self.pieces == 3 {
            self.close().await;
        }
        self.pieces += 1;
        Piece::new(offset, self.count, self.open.append(plain).unwrap())
    }

    async fn add_all(&mut self, content: &[u8]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for (index, piece) in content.chunks(1 << 20).enumerate() {
            pieces.push(self.add((index as u64) << 20, piece).await);
        }
        pieces
    }

    /// All in one pack.
    async fn add_small(&mut self, content: &[u8], length: usize) -> Vec<Piece> {
        self.close().await;
        let mut pieces = Vec::new();
        for (index, plain) in content.chunks(length).enumerate() {
            let place = self.open.append(plain).unwrap();
            pieces.push(Piece::new((index * length) as u64, self.count, place));
        }
        self.close().await;
        pieces
    }

    async fn add_chain(&mut self, versions: &[Vec<u8>]) -> Vec<Piece> {
        let first = self.add_all(&versions[0]).await;
        // Of each page the frame that it is in, and where in it.
        let place = |at: usize| (first[at * PAGE / (1 << 20)].clone(), (at * PAGE % (1 << 20)) as u32);
        let mut pages: Vec<(Piece, u32)> = (0..versions[0].len() / PAGE).map(place).collect();
        for pair in versions.windows(2) {
            let page = |version: usize, at: usize| &pair[version][at * PAGE..(at + 1) * PAGE];
            let changed: Vec<usize> = (0..pages.len()).filter(|&at| page(0, at) != page(1, at)).collect();
            let plain: Vec<u8> = changed.iter().flat_map(|&at| page(1, at)).copied().collect();
            let frame = self.add(0, &plain).await;
            for (order, at) in changed.into_iter().enumerate() {
                pages[at] = (frame.clone(), (order * PAGE) as u32);
            }
        }
        let follows = |one: &(Piece, u32), next: &(Piece, u32)| {
            one.0.place() == next.0.place() && one.0.pack == next.0.pack && one.1 + PAGE as u32 == next.1
        };
        let (mut pieces, mut offset) = (Vec::new(), 0);
        for run in pages.chunk_by(follows) {
            let (frame, skip) = run[0].clone();
            let (frame_length, length) = (frame.length, (run.len() * PAGE) as u32);
            let part = (length < frame_length).then_some(PartOfFrame { skip, frame_length });
            pieces.push(Piece { file_offset: offset, length, part, ..frame });
            offset += u64::from(length);
        }
        pieces
    }

    async fn close(&mut self) {
        let full = std::mem::replace(&mut self.open, new_pack());
        let sealed = full.finish(self.archive.sealer()).unwrap();
        let layout = self.archive.layout();
        let key = layout.pack(&self.summary.id, self.count, sealed.content.id(), sealed.encrypted);
        put(self.archive, &key, sealed.bytes.clone()).await;
        let size = sealed.bytes.len() as u64;
        self.summary.packs.push(StoredObject { key, size, sha256: sealed.stored });
        self.count += 1;
        self.pieces = 0;
    }
}

/// A `pg_control` of a version that nobody knows: only its identifier is read.
pub(in crate::restore) fn control_file(cluster: SystemIdentifier) -> Vec<u8> {
    let mut bytes = vec![0; 8192];
    bytes[..8].copy_from_slice(&cluster.0.to_le_bytes());
    bytes[8..12].copy_from_slice(&9999u32.to_le_bytes());
    bytes
}

/// The hashes of all windows of this content.
pub(in crate::restore) fn windows_of(content: &[u8]) -> Windows {
    Windows::new(content.chunks(1 << 20).map(|window| Some(ContentHash::of(window))).collect())
}

/// Bytes that do not compress, the same each time.
pub(in crate::restore) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

pub(in crate::restore) fn archive(store: Arc<dyn ObjectStore>) -> Archive {
    Archive::new(store, CLUSTER, sealer(None))
}

/// Recovery to a record two segments after the backup.
pub(in crate::restore) fn plan(backup: BackupSummary) -> RecoveryPlan {
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

pub(in crate::restore) fn request(data_directory: PathBuf) -> RestoreRequest {
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
        workers: NonZeroUsize::new(3).unwrap(),
    }
}
