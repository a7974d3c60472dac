//! The archive that the first version made is read by every later one, to the
//! last byte.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use futures::StreamExt;
use sha2::Digest;
use walpoint_archive::compress::CompressionLevel;
use walpoint_archive::config::EncryptionConfig;
use walpoint_archive::pack::{open_pack, read_piece};
use walpoint_archive::store::ObjectStore;
use walpoint_archive::store::dir::DirStore;
use walpoint_archive::{
    Archive, BackupKind, BackupSummary, CatalogScope, EntryKind, KeyRing, ManifestReader, Sealer, StoredHash,
    Usable,
};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/v1").join(name)
}

/// What an incremental backup added to that.
fn golden_incremental(name: &str) -> PathBuf {
    golden("../v1-incremental").join(name)
}

/// Both in one archive.
fn with_the_incremental() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for part in [golden("archive"), golden_incremental("archive")] {
        assert!(Command::new("cp").arg("-r").arg(part).arg(dir.path()).status().unwrap().success());
    }
    dir
}

async fn archive() -> Archive {
    archive_in(&golden("archive")).await
}

async fn archive_in(directory: &Path) -> Archive {
    let store: Arc<dyn ObjectStore> = Arc::new(DirStore::open(directory).await.unwrap());
    let clusters = Archive::clusters(store.as_ref()).await.unwrap();
    let [cluster] = clusters.sound.as_slice() else { panic!("{clusters:?}") };
    let config = EncryptionConfig { recipients: Vec::new(), identity_file: Some(golden("identity")) };
    let keys = KeyRing::from_config(&config).unwrap();
    let sealer = Sealer::new(CompressionLevel::default(), Arc::new(keys));
    Archive::new(store, cluster.system_identifier, sealer)
}

/// `sha256sum`'s lines: file to digest.
fn digests(name: &str) -> BTreeMap<String, String> {
    digests_in(&golden(name))
}

fn digests_in(list: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(list).unwrap();
    let line = |line: &str| line.split_once("  ").map(|(digest, file)| (file.to_owned(), digest.to_owned()));
    text.lines().map(|text| line(text).unwrap()).collect()
}

fn digest(bytes: &[u8]) -> String {
    sha2::Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

async fn stored(archive: &Archive, key: &walpoint_archive::ObjectKey) -> Vec<u8> {
    let mut body = archive.store().get(key, None).await.unwrap().body;
    let mut bytes = Vec::new();
    while let Some(piece) = body.next().await {
        bytes.extend_from_slice(&piece.unwrap());
    }
    bytes
}

/// Every file of the backup, put together from its pieces.
async fn files(archive: &Archive, summary: &BackupSummary) -> BTreeMap<String, Vec<u8>> {
    let mut packs = BTreeMap::new();
    for (name, pack) in summary.packs_by_number(archive.layout()) {
        let bytes = stored(archive, &pack.key).await;
        assert_eq!((StoredHash::of(&bytes), bytes.len() as u64), (pack.sha256, pack.size));
        packs.insert(name, open_pack(archive.keys(), bytes, pack.key.as_str().ends_with(".age")).unwrap());
    }
    let mut manifest = Vec::new();
    archive.fetch_manifest(summary, &mut manifest).await.unwrap();
    let mut reader = ManifestReader::new(manifest.as_slice()).unwrap();
    let mut files = BTreeMap::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        if entry.kind != EntryKind::File {
            continue;
        }
        let piece = |piece: &walpoint_archive::Piece| {
            read_piece(&packs[&piece.pack_of(&summary.id)], &piece.place()).unwrap()
        };
        files.insert(entry.path.to_string(), entry.pieces.iter().flat_map(piece).collect());
    }
    files
}

#[tokio::test]
async fn every_file_of_the_backup_comes_back() {
    let archive = archive().await;
    let catalog = archive.catalog(CatalogScope::All).await.unwrap();
    assert_eq!(
        (&catalog.damaged[..], &catalog.unknown[..], &catalog.unfinished[..]),
        (&[][..], &[][..], &[][..])
    );
    let [summary] = catalog.backups.as_slice() else { panic!("{:?}", catalog.backups) };
    let id = std::fs::read_to_string(golden("backup_id")).unwrap();
    assert_eq!(summary.id.as_str(), id.trim());

    let mut files = files(&archive, &archive.whole(summary).await.unwrap()).await;
    assert_eq!(files.len() as u64, summary.files);
    files.remove("tablespace_map").unwrap();
    let tablespace = "pg_tblspc/16384/";
    for (file, expected) in digests("data.sha256") {
        assert_eq!(digest(&files.remove(&file).unwrap()), expected, "{file}");
    }
    for (file, expected) in digests("tablespace.sha256") {
        assert_eq!(digest(&files.remove(&format!("{tablespace}{file}")).unwrap()), expected, "{file}");
    }
    assert!(files.is_empty(), "{:?}", files.keys());
}

/// What has changed is its own or of the backup before it, which has expired; all the rest is the full backup's.
#[tokio::test]
async fn every_file_of_the_incremental_backup_comes_back() {
    let both = with_the_incremental();
    let archive = archive_in(&both.path().join("archive")).await;
    let catalog = archive.catalog(CatalogScope::All).await.unwrap();
    assert_eq!((&catalog.damaged[..], &catalog.unknown[..]), (&[][..], &[][..]));
    assert_eq!(catalog.unfinished, [], "packs that a backup names are not those of one that was given up");
    let [full, summary] = catalog.backups.as_slice() else { panic!("{:?}", catalog.backups) };
    let id = std::fs::read_to_string(golden_incremental("backup_id")).unwrap();
    assert_eq!((summary.id.as_str(), summary.kind), (id.trim(), BackupKind::Incremental));
    let summary = archive.whole(summary).await.unwrap();
    let named: BTreeSet<_> =
        summary.packs_by_number(archive.layout()).into_keys().map(|(backup, _)| backup).collect();
    let parent = summary.parent.clone().unwrap();
    assert_eq!(named, [full.id.clone(), parent, summary.id.clone()].into());

    let mut files = files(&archive, &summary).await;
    assert_eq!(files.len() as u64, summary.files);
    let mut expected = digests("data.sha256");
    expected.extend(digests_in(&golden_incremental("data.sha256")));
    let tablespace = digests("tablespace.sha256").into_iter();
    expected.extend(tablespace.map(|(file, digest)| (format!("pg_tblspc/16384/{file}"), digest)));
    files.remove("tablespace_map").unwrap();
    for (file, content) in files {
        assert_eq!(Some(digest(&content)), expected.remove(&file), "{file}");
    }
}

#[tokio::test]
async fn every_segment_and_what_is_known_of_it_comes_back() {
    let archive = archive().await;
    let catalog = archive.catalog(CatalogScope::All).await.unwrap();
    let segments: Vec<_> = catalog.wal.values().flatten().collect();
    assert_eq!(segments.iter().map(|(number, _)| **number).collect::<Vec<_>>(), [8, 9, 10, 11, 12]);
    let mut expected = digests("wal.sha256");
    let (mut encrypted, mut commits, mut prepares) = (0, Vec::new(), Vec::new());
    for (_, state) in &segments {
        let Usable::One(variant) = state.usable() else { panic!("{state:?}") };
        let mut content = Vec::new();
        archive.fetch_wal(variant, &mut content, 1 << 20).await.unwrap();
        // The segment before the backup is not among those that were rescued.
        if let Some(expected) = expected.remove(&variant.name.to_string()) {
            assert_eq!(digest(&content), expected, "{}", variant.name);
        }
        encrypted += u32::from(variant.encrypted);
        let run = archive.wal_facts(variant).await.unwrap().run.unwrap();
        assert_eq!(run.run_start.to_string(), "0/800000");
        commits.push(run.run_commits);
        prepares.push(run.run_prepares.unwrap());
    }
    assert!(expected.is_empty(), "{expected:?}");
    assert_eq!(encrypted, 1);
    assert!(commits.is_sorted() && commits.last() == Some(&16), "{commits:?}");
    assert_eq!(prepares, [0, 0, 0, 1, 1]);
    let Usable::One(variant) = segments[2].1.usable() else { panic!() };
    let points = archive.wal_facts(variant).await.unwrap().restore_points.unwrap();
    assert_eq!(points[0].name, "two hundred");
}

fn stock_tools() -> bool {
    let tools = ["python3", "zstd", "age"];
    let missing = tools.iter().any(|tool| Command::new(tool).arg("--version").output().is_err());
    if missing {
        assert!(std::env::var_os("WALPOINT_TEST_STRICT").is_none(), "not all installed: {tools:?}");
        eprintln!("skipped: not all installed: {tools:?}");
    }
    !missing
}

fn rescue(archive: &Path, dir: &Path) -> Output {
    rescue_one(archive, &golden("backup_id"), dir)
}

fn rescue_one(archive: &Path, id: &Path, dir: &Path) -> Output {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/rescue"))
        .arg(archive)
        .arg(std::fs::read_to_string(id).unwrap().trim())
        .arg(dir.join("data"))
        .arg("--identity")
        .arg(golden("identity"))
        .arg("--tablespace")
        .arg(format!("16384={}", dir.join("tablespace").display()))
        .output()
        .unwrap()
}

#[test]
fn the_stock_tools_rebuild_the_same() {
    if !stock_tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let output = rescue(&golden("archive"), dir.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (folder, list) in
        [("data", "data.sha256"), ("tablespace", "tablespace.sha256"), ("wal", "wal.sha256")]
    {
        for (file, expected) in digests(list) {
            let path = dir.path().join(folder).join(&file);
            assert_eq!(digest(&std::fs::read(path).unwrap()), expected, "{file}");
        }
    }
}

#[test]
fn the_stock_tools_rebuild_the_incremental_backup() {
    if !stock_tools() {
        return;
    }
    let both = with_the_incremental();
    let id = golden_incremental("backup_id");
    let output = rescue_one(&both.path().join("archive"), &id, both.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut expected = digests("data.sha256");
    expected.extend(digests_in(&golden_incremental("data.sha256")));
    for (file, expected) in expected {
        let content = std::fs::read(both.path().join("data").join(&file)).unwrap();
        assert_eq!(digest(&content), expected, "{file}");
    }
}

#[test]
fn the_stock_tools_see_metadata_that_were_changed_and_do_without_them() {
    if !stock_tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let copied = Command::new("cp").arg("-r").arg(golden("archive")).arg(dir.path()).status().unwrap();
    assert!(copied.success());
    let archive = dir.path().join("archive");
    let all = Command::new("find").arg(&archive).args(["-name", "*.meta"]).output().unwrap();
    let all = String::from_utf8(all.stdout).unwrap();
    for (object, from, to) in [
        ("00000001000000000000000A-", "\"run-commits\":\"1", "\"run-commits\":\"2"),
        ("manifest-", "\"check\":\"", "\"invented-later\":\""),
        ("backup.json", "{\"size\":2", "{\"size\":1"),
    ] {
        let beside = all.lines().find(|path| path.contains(object)).unwrap();
        let sound = std::fs::read_to_string(beside).unwrap();
        assert!(sound.contains(from), "{sound}");
        std::fs::write(beside, sound.replacen(from, to, 1)).unwrap();
        let attempt = tempfile::tempdir().unwrap();
        let output = rescue(&archive, attempt.path());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(object) && said.contains("stored"), "{said}");
        std::fs::remove_file(beside).unwrap();
    }
    let output = rescue(&archive, dir.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
