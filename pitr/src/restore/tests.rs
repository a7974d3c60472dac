#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use walpoint_archive::store::dir::{DirStore, create_dir_archive};
use walpoint_archive::store::faulty::{Fault, Faulty, Verb};
use walpoint_archive::store::{ObjectStore, StoreErrorKind};
use walpoint_archive::{Archive, ArchiveError};

use super::*;
use crate::contract::{CONTRACT_FILE, Contract};
use crate::data_dir::{CONTROL_FILE, UNFINISHED_MARKER};
use crate::postgresql_conf::value_of;
use fixture::{Contents, noise};

mod delta;
pub(super) mod fixture;
mod ground;

/// A directory with an archive in it, and room for restores.
struct Stage {
    scratch: TempDir,
    store: Arc<dyn ObjectStore>,
    archive: Archive,
}

impl Stage {
    async fn new() -> Stage {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("archive");
        create_dir_archive(&root).await.unwrap();
        let store: Arc<dyn ObjectStore> = Arc::new(DirStore::open(&root).await.unwrap());
        let archive = fixture::archive(Arc::clone(&store));
        Stage { scratch, store, archive }
    }

    fn target(&self) -> PathBuf {
        self.scratch.path().join("restored")
    }

    async fn restore(&self, contents: &Contents) -> Result<Restored, RestoreError> {
        self.restore_as(contents, |_| {}).await
    }

    async fn restore_as(
        &self,
        contents: &Contents,
        change: impl FnOnce(&mut RestoreRequest),
    ) -> Result<Restored, RestoreError> {
        let plan = fixture::plan(contents.store(&self.archive).await);
        let mut request = fixture::request(self.target());
        change(&mut request);
        restore(&self.archive, &plan, &request, &Progress::new()).await
    }

    fn read(&self, path: &str) -> Vec<u8> {
        std::fs::read(self.target().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }
}

/// Every file below a directory with its content, links by where they point.
fn tree(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_owned();
            if path.is_symlink() {
                found.insert(name, std::fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes());
            } else if path.is_dir() {
                found.insert(name, b"<directory>".to_vec());
                pending.push(path);
            } else {
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[tokio::test]
async fn what_was_backed_up_comes_back_and_can_start() {
    let stage = Stage::new().await;
    let progress = Progress::new();
    let plan = fixture::plan(Contents::cluster().store(&stage.archive).await);
    let restored =
        restore(&stage.archive, &plan, &fixture::request(stage.target()), &progress).await.unwrap();
    assert_eq!(stage.read("base/5/16384"), noise(2_500_000));
    assert_eq!(stage.read("base/5/16385"), b"");
    assert_eq!(stage.read(CONTROL_FILE), fixture::control_file(fixture::CLUSTER));
    assert_eq!(stage.read("recovery.signal"), b"");
    for directory in ["pg_notify", "pg_wal/archive_status", "pg_tblspc"] {
        assert!(stage.target().join(directory).is_dir(), "{directory}");
    }
    assert!(!stage.target().join(UNFINISHED_MARKER).exists());
    assert_eq!(progress.now().done_bytes, progress.now().total_bytes);
    assert_eq!(restored.bytes, progress.now().total_bytes);
    assert_eq!(restored.warnings, Vec::<String>::new());
    assert!(restored.start_command.contains(&format!("-D {}", stage.target().display())));
}

/// Whatever kept them from coming.
#[tokio::test]
async fn a_restore_that_wrote_less_than_the_manifest_names_is_no_success() {
    for missing in [0, 1] {
        let stage = Stage::new().await;
        let plan = fixture::plan(Contents::cluster().store(&stage.archive).await);
        let (request, progress) = (fixture::request(stage.target()), Progress::new());
        let prepared = prepare(&stage.archive, &plan, &request.destination()).await.unwrap();
        let inventory = (prepared.inventory, prepared.tablespaces.as_slice());
        let beginning = begin(&stage.archive, &plan, &request, inventory, &progress).await.unwrap();
        let mut to_fetch = beginning.to_fetch;
        to_fetch.of_file[0] += missing;
        let (made, workers) = (&beginning.made, request.workers);
        let written =
            packs::write_all(&stage.archive, &plan.backup, to_fetch, made, workers, &progress).await;
        assert_eq!(written.is_err(), missing > 0, "{written:?}");
    }
}

#[tokio::test]
async fn modes_are_those_of_a_cluster() {
    let stage = Stage::new().await;
    stage.restore(&Contents::cluster()).await.unwrap();
    for path in tree(&stage.target()).into_keys().chain([PathBuf::new()]) {
        let path = stage.target().join(path);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
    }
}

#[tokio::test]
async fn recovery_is_told_the_record_and_the_contract_what_it_needs() {
    let stage = Stage::new().await;
    stage.restore(&Contents::cluster()).await.unwrap();
    let settings = stage.read("postgresql.auto.conf");
    assert_eq!(value_of(&settings, "recovery_target_lsn").unwrap(), "0/400028");
    assert_eq!(value_of(&settings, "recovery_target_timeline").unwrap(), "1");
    assert_eq!(value_of(&settings, "archive_mode").unwrap(), "off");
    assert!(settings.starts_with(b"# Do not edit"));
    let contract = Contract::from_json(&stage.read(CONTRACT_FILE)).unwrap();
    assert_eq!(contract.last_segment.to_string(), "000000010000000000000004");
    assert_eq!(stage.read("walpoint.writer"), format!("{}\n", contract.writer).into_bytes());
}

#[tokio::test]
async fn the_former_life_does_not_go_on() {
    let stage = Stage::new().await;
    let mut contents = Contents::cluster();
    contents
        .file(
            "postgresql.auto.conf",
            b"archive_cleanup_command = 'rm -rf /'\nprimary_conninfo = 'password=x'\n",
        )
        .file("postgresql.conf", b"archive_mode = always\nrecovery_target_time = '2001-01-01'\n")
        .file("standby.signal", b"")
        .file("postmaster.pid", b"1")
        .file("walpoint.writer", b"0123456789abcdef\n");
    let restored = stage.restore(&contents).await.unwrap();
    assert!(!stage.target().join("standby.signal").exists());
    assert!(!stage.target().join("postmaster.pid").exists());
    assert_ne!(stage.read("walpoint.writer"), b"0123456789abcdef\n");
    let settings = stage.read("postgresql.auto.conf");
    for name in ["archive_cleanup_command", "primary_conninfo", "recovery_target_time"] {
        assert_eq!(value_of(&settings, name).unwrap(), "", "{name}");
    }
    assert_eq!(
        restored.neutralised,
        [
            "standby.signal",
            "recovery_target_time in postgresql.conf",
            "archive_cleanup_command in postgresql.auto.conf",
            "primary_conninfo in postgresql.auto.conf",
            "archive_mode in postgresql.conf",
        ]
    );
}

#[tokio::test]
async fn taking_over_archives_but_never_always() {
    for (before, after) in [("on", None), ("always", Some("on")), ("off", None)] {
        let stage = Stage::new().await;
        let mut contents = Contents::cluster();
        contents.file("postgresql.conf", format!("archive_mode = {before}\n").as_bytes());
        stage.restore_as(&contents, |request| request.take_over = true).await.unwrap();
        assert_eq!(
            value_of(&stage.read("postgresql.auto.conf"), "archive_mode").as_deref(),
            after,
            "{before}"
        );
    }
}

#[tokio::test]
async fn taking_over_never_archives_always_whatever_says_so() {
    let always = b"archive_mode = always\n";
    let (of_main, of_included): (&[u8], &[u8]) = (b"include 'conf.d/one.conf'\n", b"include '../two.conf'\n");
    let files: [&[(&str, &[u8])]; 4] = [
        &[],
        &[("postgresql.conf", b"include_dir 'conf.d'\n"), ("conf.d/some.conf", always)],
        &[("postgresql.conf", b"include_if_exists = 'some.conf'\n"), ("some.conf", always)],
        &[("postgresql.conf", of_main), ("conf.d/one.conf", of_included), ("two.conf", always)],
    ];
    for (number, files) in files.into_iter().enumerate() {
        let stage = Stage::new().await;
        let mut contents = Contents::cluster();
        contents.directory("conf.d");
        for (path, content) in files {
            contents.file(path, content);
        }
        let mut backup = contents.store(&stage.archive).await;
        // It may have been the command line.
        backup.archive_mode = Some(if files.is_empty() { "always" } else { "on" }.to_owned());
        let request = RestoreRequest { take_over: true, ..fixture::request(stage.target()) };
        restore(&stage.archive, &fixture::plan(backup), &request, &Progress::new()).await.unwrap();
        let settings = stage.read("postgresql.auto.conf");
        assert_eq!(value_of(&settings, "archive_mode").as_deref(), Some("on"), "case {number}");
    }
}

#[tokio::test]
async fn a_standby_gets_its_signal_and_neither_target_nor_contract() {
    let stage = Stage::new().await;
    let conninfo = "host=primary".to_owned();
    let standby = |request: &mut RestoreRequest| {
        request.standby = Some(Standby { primary_conninfo: Some(conninfo) });
    };
    stage.restore_as(&Contents::cluster(), standby).await.unwrap();
    assert!(stage.target().join("standby.signal").exists());
    assert!(!stage.target().join("recovery.signal").exists());
    assert!(!stage.target().join(CONTRACT_FILE).exists());
    let settings = stage.read("postgresql.auto.conf");
    assert_eq!(value_of(&settings, "primary_conninfo").unwrap(), "host=primary");
    assert_eq!(value_of(&settings, "recovery_target_lsn").unwrap(), "");
}

#[tokio::test]
async fn configuration_from_outside_comes_back_beside_and_is_used() {
    let stage = Stage::new().await;
    let mut contents = Contents::cluster();
    let main = b"data_directory = '/var/lib/old'\nhba_file = '/etc/pg/pg_hba.conf'\n\
                 external_pid_file = '/run/old.pid'\ninclude_dir = 'conf.d'\n";
    contents
        .without("postgresql.conf")
        .config("walpoint-config/etc/pg/postgresql.conf", "/etc/pg/postgresql.conf", main)
        .config("walpoint-config/etc/pg/pg_hba.conf", "/etc/pg/pg_hba.conf", b"local all all peer\n")
        .config("walpoint-config/etc/pg/pg_ident.conf", "/etc/pg/pg_ident.conf", b"");
    let restored = stage.restore(&contents).await.unwrap();
    let own = stage.read("postgresql.conf");
    let path = |name: &str| stage.target().join(name).display().to_string();
    assert_eq!(value_of(&own, "include").unwrap(), "walpoint-config/postgresql.conf");
    assert_eq!(value_of(&own, "data_directory").unwrap(), path("").trim_end_matches('/'));
    assert_eq!(value_of(&own, "hba_file").unwrap(), path("walpoint-config/pg_hba.conf"));
    assert_eq!(value_of(&own, "ident_file").unwrap(), path("walpoint-config/pg_ident.conf"));
    assert_eq!(value_of(&own, "external_pid_file").unwrap(), "walpoint-config/server.pid");
    assert_eq!(stage.read("walpoint-config/postgresql.conf"), main);
    assert!(stage.target().join("walpoint-config/conf.d").is_dir());
    assert_eq!(restored.configuration, Some(stage.target().join("walpoint-config")));
    assert_eq!(restored.warnings, Vec::<String>::new());
}

#[tokio::test]
async fn a_configuration_that_names_the_old_data_directory_does_not_start_it() {
    let stage = Stage::new().await;
    let mut contents = Contents::cluster();
    contents.file("postgresql.conf", b"data_directory = '/var/lib/old'\ninclude '/nowhere/more.conf'\n");
    let restored = stage.restore(&contents).await.unwrap();
    let own = stage.read("postgresql.conf");
    assert_eq!(value_of(&own, "data_directory").unwrap(), stage.target().display().to_string());
    assert!(restored.warnings[0].contains("/nowhere/more.conf"), "{:?}", restored.warnings);
}

#[tokio::test]
async fn tablespaces_go_where_they_are_mapped_and_the_map_says_so() {
    let stage = Stage::new().await;
    let (kept, moved) = (stage.scratch.path().join("kept"), stage.scratch.path().join("moved"));
    let mut contents = Contents::cluster();
    contents
        .tablespace(16384, &kept)
        .directory("pg_tblspc/16384/PG_15_202209061")
        .file("pg_tblspc/16384/PG_15_202209061/a", b"in kept")
        .tablespace(16385, Path::new("/srv/old"))
        .directory("pg_tblspc/16385/PG_15_202209061")
        .file("pg_tblspc/16385/PG_15_202209061/b", b"in moved")
        .file("tablespace_map", format!("16384 {}\n16385 /srv/old\n", kept.display()).as_bytes());
    let mapping = TablespaceMapping { from: "/srv/old".to_owned(), to: moved.clone() };
    let restored = stage.restore_as(&contents, |request| request.tablespaces.push(mapping)).await.unwrap();
    assert_eq!(std::fs::read(kept.join("PG_15_202209061/a")).unwrap(), b"in kept");
    assert_eq!(std::fs::read(moved.join("PG_15_202209061/b")).unwrap(), b"in moved");
    assert_eq!(std::fs::read_link(stage.target().join("pg_tblspc/16385")).unwrap(), moved);
    let map = format!("16384 {}\n16385 {}\n", kept.display(), moved.display());
    assert_eq!(stage.read("tablespace_map"), map.into_bytes());
    assert_eq!(restored.tablespaces, [(16384, kept), (16385, moved)]);
}

#[tokio::test]
async fn nothing_is_written_when_a_directory_is_in_use() {
    let stage = Stage::new().await;
    let used = stage.scratch.path().join("used");
    std::fs::create_dir(&used).unwrap();
    std::fs::write(used.join("mine"), "").unwrap();
    let mut contents = Contents::cluster();
    contents.tablespace(16384, &used);
    let error = stage.restore(&contents).await.unwrap_err();
    assert!(matches!(&error, RestoreError::Refused(refusal) if refusal.why.contains("not empty")), "{error}");
    assert!(!stage.target().exists());
    std::fs::create_dir(stage.target()).unwrap();
    std::fs::write(stage.target().join("mine"), "").unwrap();
    assert!(matches!(stage.restore(&Contents::cluster()).await, Err(RestoreError::Refused(_))));
    assert_eq!(tree(&stage.target()).len(), 1);
}

#[tokio::test]
async fn a_damaged_object_is_named_and_nothing_can_start() {
    let objects = {
        let stage = Stage::new().await;
        let summary = Contents::cluster().store(&stage.archive).await;
        let packs = summary.packs.iter().map(|pack| pack.key.clone());
        packs.chain([summary.manifest.key.clone()]).collect::<Vec<_>>()
    };
    assert!(objects.len() > 3, "{objects:?}");
    for object in objects {
        let stage = Stage::new().await;
        let plan = fixture::plan(Contents::cluster().store(&stage.archive).await);
        let file = stage.scratch.path().join("archive").join(object.as_str());
        let mut bytes = std::fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        let request = fixture::request(stage.target());
        let error = restore(&stage.archive, &plan, &request, &Progress::new()).await.unwrap_err();
        let named = matches!(
            &error,
            RestoreError::Damaged { .. } | RestoreError::Archive(ArchiveError::Damaged { .. })
        );
        assert!(named && error.to_string().contains(object.as_str()), "{object}: {error}");
        assert!(!stage.target().join(CONTROL_FILE).exists());
    }
}

#[tokio::test]
async fn whichever_request_fails_nothing_can_start_and_the_next_restore_says_why() {
    let mut index = 0;
    loop {
        let stage = Stage::new().await;
        let plan = fixture::plan(Contents::cluster().store(&stage.archive).await);
        let faulty = Faulty::new(Arc::clone(&stage.store));
        faulty.fail(Verb::Get, index, Fault::Before(StoreErrorKind::Transient));
        let archive = fixture::archive(Arc::new(faulty.clone()));
        let request = fixture::request(stage.target());
        let result = restore(&archive, &plan, &request, &Progress::new()).await;
        if faulty.calls(Verb::Get) <= index {
            result.unwrap();
            assert!(index > 3, "only {index} requests");
            return;
        }
        assert!(matches!(result, Err(RestoreError::Archive(ArchiveError::Store(_)))), "{index}: {result:?}");
        assert!(!stage.target().join(CONTROL_FILE).exists(), "{index}");
        if stage.target().exists() {
            let again = restore(&stage.archive, &plan, &request, &Progress::new()).await;
            assert!(
                matches!(&again, Err(RestoreError::Refused(refusal)) if refusal.why.contains("did not end")),
                "{index}: {again:?}"
            );
        }
        index += 1;
    }
}

#[tokio::test]
async fn another_clusters_or_another_backups_files_are_refused() {
    let stage = Stage::new().await;
    let mut contents = Contents::cluster();
    contents.file("global/pg_control", &fixture::control_file(walpoint_wal::SystemIdentifier(8)));
    let error = stage.restore(&contents).await.unwrap_err().to_string();
    assert!(error.contains("another cluster"), "{error}");
    assert!(!stage.target().join(CONTROL_FILE).exists());

    let stage = Stage::new().await;
    let mut contents = Contents::cluster();
    let label =
        "START WAL LOCATION: 0/300028 (file 000000010000000000000003)\nCHECKPOINT LOCATION: 0/300060\n";
    contents.file("backup_label", label.as_bytes());
    let error = stage.restore(&contents).await.unwrap_err().to_string();
    assert!(error.contains("begins at 0/300028"), "{error}");
    assert!(!stage.target().join(CONTROL_FILE).exists());
}

#[tokio::test]
async fn a_pack_larger_than_it_says_is_not_read_on() {
    let stage = Stage::new().await;
    let mut backup = Contents::cluster().store(&stage.archive).await;
    backup.packs[0].size -= 1;
    let plan = fixture::plan(backup);
    let request = fixture::request(stage.target());
    let error = restore(&stage.archive, &plan, &request, &Progress::new()).await.unwrap_err();
    assert!(matches!(error, RestoreError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn an_encrypted_backup_comes_back_with_the_key_and_not_without() {
    let stage = Stage::new().await;
    let sealer = fixture::sealer(Some(stage.scratch.path()));
    let archive = Archive::new(Arc::clone(&stage.store), fixture::CLUSTER, sealer);
    let plan = fixture::plan(Contents::cluster().store(&archive).await);
    let request = fixture::request(stage.target());
    let error = restore(&stage.archive, &plan, &request, &Progress::new()).await.unwrap_err();
    assert!(matches!(error, RestoreError::Archive(ArchiveError::NoKey { .. })), "{error}");
    assert!(!stage.target().exists());
    restore(&archive, &plan, &request, &Progress::new()).await.unwrap();
    assert_eq!(stage.read("base/5/16384"), noise(2_500_000));
}

/// By what is noticed of damage beside the configuration, in the pack that holds it.
#[tokio::test]
async fn configuration_is_read_by_range_and_what_is_restored_as_a_whole() {
    let stage = Stage::new().await;
    let mut contents = Contents::cluster();
    contents.file("postgresql.conf.old", &noise(1000));
    let plan = fixture::plan(contents.store(&stage.archive).await);
    let pack = plan.backup.packs.last().unwrap().key.clone();
    let file = stage.scratch.path().join("archive").join(pack.as_str());
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let request = fixture::request(stage.target());
    let prepared = prepare(&stage.archive, &plan, &request.destination()).await.unwrap();
    assert!(prepared.ground.refusals.is_empty());
    let error = restore(&stage.archive, &plan, &request, &Progress::new()).await.unwrap_err();
    assert!(matches!(&error, RestoreError::Damaged { object, .. } if object == pack.as_str()), "{error}");
    assert!(!stage.target().join(CONTROL_FILE).exists());
}

#[tokio::test]
async fn of_what_is_there_only_what_differs_is_fetched_and_what_is_not_in_the_backup_goes() {
    let stage = Stage::new().await;
    let contents = Contents::cluster();
    let whole = stage.restore(&contents).await.unwrap();
    assert_eq!(whole.fetched_bytes, whole.bytes);
    let at = |path: &str| stage.target().join(path);
    // In the second of its three pieces.
    let mut table = stage.read("base/5/16384");
    table[1_500_000] ^= 1;
    std::fs::write(at("base/5/16384"), &table).unwrap();
    // Another cluster's, too: it must not be written into.
    let other = stage.scratch.path().join("other");
    std::fs::write(&other, b"port = 1\n").unwrap();
    std::fs::remove_file(at("postgresql.conf")).unwrap();
    std::fs::hard_link(&other, at("postgresql.conf")).unwrap();
    // A link that leads out, a directory in the place of a file, and what nobody knows.
    std::os::unix::fs::symlink(stage.scratch.path(), at("pg_notify/out")).unwrap();
    std::fs::remove_file(at("base/5/16385")).unwrap();
    std::fs::create_dir(at("base/5/16385")).unwrap();
    std::fs::create_dir_all(at("pg_wal/deep/er")).unwrap();
    std::fs::write(at("pg_wal/deep/er/000000010000000000000009"), b"stale").unwrap();
    let again = stage.restore_as(&contents, |request| request.delta = true).await.unwrap();
    // That piece, and the settings that the first restore had added to.
    assert!((1 << 20..(1 << 20) + 200_000).contains(&again.fetched_bytes), "{}", again.fetched_bytes);
    assert_eq!(stage.read("base/5/16384"), noise(2_500_000));
    assert_eq!(
        (stage.read("base/5/16385"), stage.read("postgresql.conf")),
        (b"".to_vec(), b"port = 5432\n".to_vec())
    );
    assert_eq!(std::fs::read(&other).unwrap(), b"port = 1\n");
    assert!(!at("pg_notify/out").exists() && !at("pg_wal/deep").exists() && other.exists());
    assert_eq!(stage.read(CONTROL_FILE), fixture::control_file(fixture::CLUSTER));
}

#[tokio::test]
async fn whichever_request_of_a_delta_restore_fails_nothing_can_start_and_the_next_goes_on() {
    let stage = Stage::new().await;
    let contents = Contents::cluster();
    stage.restore(&contents).await.unwrap();
    let plan = fixture::plan(contents.store(&stage.archive).await);
    for index in 0..40 {
        std::fs::write(stage.target().join("base/5/16384"), b"torn").unwrap();
        let faulty = Faulty::new(Arc::clone(&stage.store));
        faulty.fail(Verb::Get, index, Fault::Before(StoreErrorKind::Transient));
        let archive = fixture::archive(Arc::new(faulty.clone()));
        let mut request = fixture::request(stage.target());
        request.delta = true;
        let result = restore(&archive, &plan, &request, &Progress::new()).await;
        if faulty.calls(Verb::Get) <= index {
            result.unwrap();
            assert!(index > 2, "only {index} requests");
            assert_eq!(stage.read("base/5/16384"), noise(2_500_000));
            return;
        }
        let untouched = stage.target().join(CONTROL_FILE).exists();
        assert!(!untouched || stage.read("base/5/16384") == b"torn", "{index}");
        assert!(matches!(result, Err(RestoreError::Archive(ArchiveError::Store(_)))), "{index}: {result:?}");
    }
    panic!("it did not come to its end");
}
