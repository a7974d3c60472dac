//! What walpoint stores, scripts/rescue rebuilds without it: with python3, zstd
//! and age, from objects alone. Skipped where these are not installed, unless
//! `WALPOINT_TEST_STRICT` is set.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use bytes::Bytes;
use walpoint_archive::archive::{FileFacts, PutSource, PutWal};
use walpoint_archive::compress::CompressionLevel;
use walpoint_archive::config::EncryptionConfig;
use walpoint_archive::facts::FORMAT;
use walpoint_archive::pack::{MAX_PIECE_BYTES, PartOfFrame};
use walpoint_archive::store::dir::DirStore;
use walpoint_archive::summary::{BackupBytes, Position, ServerFacts, Settings, StoredObject};
use walpoint_archive::{
    Archive, BackupId, BackupKind, BackupSummary, Cluster, Common, ContentHash, EntryKind, KeyRing,
    ManifestEntry, ManifestHeader, ManifestWriter, PackWriter, Piece, RelativePath, Sealer, Windows,
    WriterId,
};
use walpoint_wal::{Lsn, SegmentSize, SystemIdentifier, TimelineId, Timestamp, WalFileName};

const CLUSTER: SystemIdentifier = SystemIdentifier(7_567_890_123_456_789_012);
const PACKAGE: &str = env!("CARGO_MANIFEST_DIR");

fn rescue_script() -> PathBuf {
    Path::new(PACKAGE).join("../../scripts/rescue")
}

/// Whether the tools are there; where they must be, their absence is a failure.
fn tools_are_there() -> bool {
    let missing: Vec<_> = ["python3", "zstd", "age", "age-keygen"]
        .into_iter()
        .filter(|tool| Command::new(tool).arg("--version").output().is_err())
        .collect();
    assert!(
        missing.is_empty() || std::env::var_os("WALPOINT_TEST_STRICT").is_none(),
        "not installed: {missing:?}"
    );
    if !missing.is_empty() {
        eprintln!("skipped: not installed: {missing:?}");
    }
    missing.is_empty()
}

struct Site {
    dir: tempfile::TempDir,
    archive: Archive,
    identity: Option<PathBuf>,
}

impl Site {
    async fn new(encrypted: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("archive");
        std::fs::create_dir(&root).unwrap();
        let (keys, identity) = if encrypted { new_keys(dir.path()) } else { (KeyRing::default(), None) };
        let sealer = Sealer::new(CompressionLevel::default(), Arc::new(keys));
        let archive = Archive::new(Arc::new(DirStore::open(&root).await.unwrap()), CLUSTER, sealer);
        archive.ensure_cluster(&cluster()).await.unwrap();
        Self { dir, archive, identity }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn rescue(&self, backup: &BackupId, arguments: &[&str]) -> Output {
        let mut command = Command::new(rescue_script());
        command.arg(self.path("archive")).arg(backup.as_str()).arg(self.path("data")).args(arguments);
        if let Some(identity) = &self.identity {
            command.arg("--identity").arg(identity);
        }
        command.output().unwrap()
    }
}

/// Keys made by stock age, read by us.
fn new_keys(dir: &Path) -> (KeyRing, Option<PathBuf>) {
    let path = dir.join("identity");
    assert!(Command::new("age-keygen").arg("-o").arg(&path).output().unwrap().status.success());
    let public = Command::new("age-keygen").arg("-y").arg(&path).output().unwrap().stdout;
    let recipients = vec![String::from_utf8(public).unwrap().trim().to_owned()];
    let config = EncryptionConfig { recipients, identity_file: None };
    (KeyRing::from_config(&config).unwrap(), Some(path))
}

fn cluster() -> Cluster {
    Cluster {
        system_identifier: CLUSTER,
        segment_size: SegmentSize::new(1 << 20).unwrap(),
        block_size: 8192,
        wal_block_size: 8192,
        major: 15,
    }
}

fn noise(seed: &str, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A file of which all pages lie in a frame of `base/1/1259`, as an incremental may find them.
const OF_OLDER_FRAME: &[u8] = b"base/1/2621";

/// The files of a small data directory, one of them large, one in a tablespace,
/// one that is not UTF-8, one empty.
fn files() -> BTreeMap<Vec<u8>, Vec<u8>> {
    let file = |path: &[u8], content: Vec<u8>| (path.to_vec(), content);
    BTreeMap::from([
        file(b"PG_VERSION", b"15\n".to_vec()),
        file(b"base/1/1259", noise("1259", 5 * MAX_PIECE_BYTES + 8192)),
        file(b"base/1/2619", vec![0; 3 * MAX_PIECE_BYTES]),
        file(b"base/1/2620", Vec::new()),
        file(OF_OLDER_FRAME, noise("1259", 3 * 8192).split_off(8192)),
        file(b"base/1/caf\xe9", b"latin 1".to_vec()),
        file(b"base/1/many", noise("many", 20 * MAX_PIECE_BYTES)),
        file(b"global/pg_control", noise("control", 8192)),
        file(b"pg_tblspc/16385/PG_15_202209061/5/16400", noise("16400", 100_000)),
        file(b"tablespace_map", b"16385 /somewhere/else\n".to_vec()),
        file(b"walpoint-config/etc/postgresql/15/main/pg_hba.conf", b"local all all peer\n".to_vec()),
    ])
}

fn entries(tablespace: &Path) -> Vec<ManifestEntry> {
    let path = |bytes: &[u8]| RelativePath::new(bytes).unwrap();
    let entry = |bytes: &[u8], kind, mode| ManifestEntry {
        path: path(bytes),
        kind,
        mode,
        size: 0,
        pieces: Vec::new(),
        windows: Windows::default(),
    };
    let mut entries: Vec<_> = [
        "base",
        "base/1",
        "global",
        "pg_notify",
        "pg_tblspc",
        "pg_tblspc/16385/PG_15_202209061",
        "pg_tblspc/16385/PG_15_202209061/5",
    ]
    .into_iter()
    .map(|dir| entry(dir.as_bytes(), EntryKind::Dir, 0o700))
    .collect();
    let target = tablespace.to_owned();
    entries.push(entry(b"pg_tblspc/16385", EntryKind::Tablespace { oid: 16385, target }, 0));
    for (name, content) in files() {
        let original = PathBuf::from("/etc/postgresql/15/main/pg_hba.conf");
        let config = name.starts_with(b"walpoint-config");
        let kind = if config { EntryKind::Config { original } } else { EntryKind::File };
        entries.push(ManifestEntry { size: content.len() as u64, ..entry(&name, kind, 0o640) });
    }
    entries.sort_by(|one, other| one.path.cmp(&other.path));
    entries
}

struct Stored {
    entries: Vec<ManifestEntry>,
    packs: Vec<StoredObject>,
}

/// Puts the files' pieces into packs, beginning a new one when one is full.
async fn store_pieces(archive: &Archive, id: &BackupId, mut entries: Vec<ManifestEntry>) -> Stored {
    let (mut packs, mut pack) = (Vec::new(), PackWriter::new(CompressionLevel::default()));
    let files = files();
    for entry in entries.iter_mut().filter(|entry| entry.kind.is_file()) {
        let mut offset = 0;
        for piece in files[entry.path.as_bytes()].chunks(MAX_PIECE_BYTES) {
            if !pack.has_room_for(piece.len()) {
                let full = std::mem::replace(&mut pack, PackWriter::new(CompressionLevel::default()));
                let sealed = full.finish(archive.sealer()).unwrap();
                packs.push(archive.put_pack(id, packs.len() as u32, &sealed).await.unwrap());
            }
            let place = pack.append(piece).unwrap();
            entry.pieces.push(Piece::new(offset, packs.len() as u32, place));
            offset += piece.len() as u64;
        }
    }
    let sealed = pack.finish(archive.sealer()).unwrap();
    packs.push(archive.put_pack(id, packs.len() as u32, &sealed).await.unwrap());
    take_from_older_frame(&mut entries);
    Stored { entries, packs }
}

fn take_from_older_frame(entries: &mut [ManifestEntry]) {
    let older = entries.iter().find(|entry| entry.path.as_bytes() == b"base/1/1259").unwrap();
    let part = Some(PartOfFrame { skip: 8192, frame_length: MAX_PIECE_BYTES as u32 });
    let piece = Piece { length: 2 * 8192, part, ..older.pieces[0].clone() };
    let file = entries.iter_mut().find(|entry| entry.path.as_bytes() == OF_OLDER_FRAME).unwrap();
    file.pieces = vec![piece];
    // By which a copy could be told; who restores by hand has no use for it.
    file.windows.set(0, ContentHash::of(b"as it was read"));
}

/// A whole backup of these files, from the third segment on.
async fn back_up(site: &Site, tablespace: &Path) -> BackupId {
    let id = BackupId::new(Timestamp(848_526_300_000_000), BackupKind::Full);
    let Stored { entries, packs } = store_pieces(&site.archive, &id, entries(tablespace)).await;
    let header = ManifestHeader { backup: id.clone(), system_identifier: CLUSTER };
    let mut writer = ManifestWriter::new(Vec::new(), &header).unwrap();
    entries.iter().for_each(|entry| writer.entry(entry).unwrap());
    let (manifest, totals) = writer.finish().unwrap();
    let manifest = site.archive.put_manifest(&id, manifest).await.unwrap();
    let at = |lsn| Position { lsn: Lsn(lsn), time: Timestamp(848_526_300_000_000) };
    let summary = BackupSummary {
        format: FORMAT,
        tool: "walpoint 0.1.0".to_owned(),
        kind: id.kind(),
        parent: None,
        label: None,
        writer: WriterId::random(),
        system_identifier: CLUSTER,
        timeline: TimelineId::FIRST,
        start: at(3 << 20),
        stop: at((3 << 20) + 0x100),
        redo: Lsn(3 << 20),
        checkpoint: Lsn((3 << 20) + 0x60),
        next_xid: 731,
        from_standby: false,
        server: ServerFacts {
            major: 15,
            version_num: 150_020,
            control_version: 1300,
            catalog_version: 202_209_061,
        },
        segment_size: cluster().segment_size,
        block_size: 8192,
        wal_block_size: 8192,
        data_checksums: false,
        wal_log_hints: false,
        settings: Settings {
            max_connections: 100,
            max_worker_processes: 8,
            max_wal_senders: 10,
            max_prepared_xacts: 0,
            max_locks_per_xact: 64,
            wal_level: 1,
        },
        tablespaces: 1,
        files: totals.files,
        bytes: BackupBytes { data: totals.bytes, stored: packs.iter().map(|pack| pack.size).sum() },
        damaged_pages: 0,
        subscriptions: None,
        archive_mode: None,
        server_started: None,
        manifest,
        packs,
        id: id.clone(),
    };
    site.archive.put_summary(&summary).await.unwrap();
    id
}

async fn put(archive: &Archive, name: &str, content: &[u8]) -> Result<(), walpoint_archive::ArchiveError> {
    let common = Common::new(ContentHash::of(content), content.len() as u64, WriterId::random(), CLUSTER);
    let name: WalFileName = name.parse().unwrap();
    let source = PutSource::Bytes(Bytes::copy_from_slice(content));
    archive.put_wal(&PutWal { name, facts: FileFacts::Other(common), source }).await.map(|_| ())
}

async fn archive_wal(archive: &Archive) {
    for number in 2..5 {
        let name = format!("00000001000000000000000{number}");
        put(archive, &name, &noise(&name, 1 << 20)).await.unwrap();
    }
    // A late variant: refused, and not to be seen.
    put(archive, "000000010000000000000004", &noise("rogue", 1 << 20)).await.unwrap_err();
    put(archive, "000000010000000000000005.partial", &noise("partial", 1 << 20)).await.unwrap();
    put(archive, "000000010000000000000003.00000028.backup", b"START WAL LOCATION").await.unwrap();
    put(archive, "00000002.history", b"1\t0/500000\tno reason\n").await.unwrap();
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn check_data(site: &Site, tablespace: &Path) {
    let data = site.path("data");
    for (name, content) in files() {
        if name == b"tablespace_map" {
            continue;
        }
        let path = data.join(RelativePath::new(&name).unwrap().as_path());
        assert!(std::fs::read(&path).unwrap() == content, "{}", path.display());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    }
    assert_eq!(std::fs::read_link(data.join("pg_tblspc/16385")).unwrap(), tablespace);
    let map = std::fs::read_to_string(data.join("tablespace_map")).unwrap();
    assert_eq!(map, format!("16385 {}\n", tablespace.display()));
    assert!(data.join("pg_notify").is_dir());
    assert!(!data.join("global/pg_control.rescue").exists());
}

fn check_wal(site: &Site) {
    let mut names: Vec<_> = std::fs::read_dir(site.path("wal"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let expected = [
        "000000010000000000000003",
        "000000010000000000000004",
        "000000010000000000000005.partial",
        "00000002.history",
    ];
    assert_eq!(names, expected);
    for name in &expected[..2] {
        assert!(std::fs::read(site.path("wal").join(name)).unwrap() == noise(name, 1 << 20), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_and_its_wal_are_rebuilt_without_walpoint() {
    if !tools_are_there() {
        return;
    }
    for encrypted in [false, true] {
        let site = Site::new(encrypted).await;
        let (old, new) = (site.path("old tablespace"), site.path("new tablespace"));
        let id = back_up(&site, &old).await;
        archive_wal(&site.archive).await;
        remove_metadata(&site.path("archive"));
        let mapping = format!("{}={}", old.display(), new.display());
        succeeded(&site.rescue(&id, &["--tablespace", &mapping]));
        check_data(&site, &new);
        check_wal(&site);
        assert!(!site.rescue(&id, &[]).status.success(), "the target is no longer empty");
    }
}

/// A bucket's content copied by any tool comes without metadata.
fn remove_metadata(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            remove_metadata(&path);
        } else if path.extension().is_some_and(|ending| ending == "meta") {
            std::fs::remove_file(path).unwrap();
        }
    }
}

fn objects(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { objects(&path, found) } else { found.push(path) }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_to_any_object_of_a_backup_is_noticed() {
    if !tools_are_there() {
        return;
    }
    let site = Site::new(false).await;
    let tablespace = site.path("tablespace");
    let id = back_up(&site, &tablespace).await;
    let mut found = Vec::new();
    objects(&site.path("archive"), &mut found);
    found.retain(|path| path.extension().is_some_and(|ending| ending == "zst"));
    assert!(found.len() >= 3, "{found:?}");
    for path in found {
        let sound = std::fs::read(&path).unwrap();
        let mut damaged = sound.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        let output = site.rescue(&id, &[]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains("is damaged"), "{}: {error}", path.display());
        assert!(!site.path("data/global/pg_control").exists());
        std::fs::write(&path, sound).unwrap();
        let _ = std::fs::remove_dir_all(site.path("data"));
        let _ = std::fs::remove_dir_all(&tablespace);
    }
    succeeded(&site.rescue(&id, &[]));
}
