#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "what is moved by hand here need not be durable"
)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;

use super::*;
use crate::fault_point::scripted;
use crate::store::contract::run_contract;

struct Place {
    dir: tempfile::TempDir,
    store: DirStore,
}

impl Place {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = DirStore::open(dir.path()).await.unwrap();
        Self { dir, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn put(&self, name: &str, body: &'static [u8]) -> Result<PutOutcome, StoreError> {
        self.store.put(&key(name), Bytes::from_static(body), &Metadata::new(), PutMode::CreateOnly).await
    }

    async fn read(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        let object = self.store.get(&key(name), None).await?;
        let chunks: Vec<Bytes> = object.body.try_collect().await?;
        Ok(chunks.concat())
    }

    async fn names(&self) -> Result<Vec<String>, StoreError> {
        let listed = self.store.list(&Prefix::all(), None, None).await?;
        Ok(listed.iter().map(|line| line.key.to_string()).collect())
    }
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(name).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn make_old(path: &Path, age: Duration) {
    let file = fs::File::options().write(true).open(path).unwrap();
    let now = file.metadata().unwrap().modified().unwrap();
    file.set_modified(now - age).unwrap();
}

#[tokio::test]
async fn a_directory_keeps_the_store_contract() {
    let place = Place::new().await;
    run_contract(Arc::new(place.store.clone())).await.unwrap();
    assert_eq!(fs::read_dir(place.dir.path()).unwrap().count(), 0, "the contract left something");
}

#[tokio::test]
async fn a_missing_directory_is_no_archive_and_never_an_absent_object() {
    let place = Place::new().await;
    fs::remove_dir(place.dir.path()).unwrap();
    let kinds = [
        DirStore::open(place.dir.path()).await.map(drop),
        place.put("a/b", b"x").await.map(drop),
        place.read("a/b").await.map(drop),
        place.names().await.map(drop),
        place.store.list_folders(&Prefix::all()).await.map(drop),
        place.store.head(&key("a/b")).await.map(drop),
        place.store.delete(&key("a/b")).await,
    ];
    for result in kinds {
        let error = result.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::NoArchive, "{error}");
        assert!(error.hint.unwrap().contains("mounted"));
    }
    assert!(!place.dir.path().exists());
    create_dir_archive(&place.path("deep/er")).await.unwrap();
    DirStore::open(&place.path("deep/er")).await.unwrap();
    assert_eq!(mode(&place.path("deep")), 0o700);
}

#[tokio::test]
async fn create_only_keeps_the_first() {
    let place = Place::new().await;
    assert_eq!(place.put("a", b"first").await.unwrap(), PutOutcome::Created);
    assert_eq!(place.put("a", b"second").await.unwrap(), PutOutcome::Exists);
    assert_eq!(place.read("a").await.unwrap(), b"first");
    let mut upload =
        place.store.begin_upload(&key("a"), &Metadata::new(), PutMode::CreateOnly).await.unwrap();
    upload.part(Bytes::from_static(b"third")).await.unwrap();
    assert_eq!(upload.finish().await.unwrap(), PutOutcome::Exists);
    assert_eq!(upload.finish().await.unwrap(), PutOutcome::Exists);
    drop(upload);
    assert_eq!(place.read("a").await.unwrap(), b"first");
    assert_eq!(fs::read_dir(place.dir.path()).unwrap().count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_creators_one_wins_with_its_own_metadata() {
    let place = Place::new().await;
    for round in 0..20 {
        let name = key(&format!("race/{round}"));
        let creators: Vec<_> = (1..=8usize)
            .map(|creator| {
                let (store, name) = (place.store.clone(), name.clone());
                tokio::spawn(async move {
                    let mut metadata = Metadata::new();
                    metadata.insert("creator", &creator.to_string()).unwrap();
                    let body = Bytes::from(vec![b'x'; creator]);
                    store.put(&name, body, &metadata, PutMode::CreateOnly).await.unwrap()
                })
            })
            .collect();
        let mut created = 0;
        for creator in creators {
            created += usize::from(creator.await.unwrap() == PutOutcome::Created);
        }
        assert_eq!(created, 1);
        let head = place.store.head(&name).await.unwrap();
        assert_eq!(head.metadata.get("creator").unwrap(), head.size.to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_folder_emptied_by_a_deletion_takes_no_put_with_it() {
    let place = Place::new().await;
    for round in 0..200 {
        assert_eq!(place.put("folder/inner/old", b"x").await.unwrap(), PutOutcome::Created);
        let store = place.store.clone();
        let deletion = tokio::spawn(async move { store.delete(&key("folder/inner/old")).await });
        let name = format!("folder/inner/new-{round}");
        assert_eq!(place.put(&name, b"y").await.unwrap(), PutOutcome::Created);
        deletion.await.unwrap().unwrap();
        assert_eq!(place.read(&name).await.unwrap(), b"y");
        place.store.delete(&key(&name)).await.unwrap();
    }
    assert_eq!(fs::read_dir(place.dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_file_without_metadata_is_no_object_and_keeps_none_away() {
    let place = Place::new().await;
    fs::write(place.path("a"), "somebody's").unwrap();
    assert_eq!(place.read("a").await.unwrap_err().kind, StoreErrorKind::NotFound);
    assert!(place.names().await.unwrap().is_empty());
    assert_eq!(place.put("a", b"ours").await.unwrap(), PutOutcome::Created);
    assert_eq!(place.read("a").await.unwrap(), b"ours");
    assert_eq!(place.names().await.unwrap(), ["a"]);
}

#[tokio::test]
async fn metadata_of_a_put_that_was_killed_is_no_object_and_keeps_none_away() {
    let place = Place::new().await;
    fs::write(place.path("a.meta"), r#"{"size":9,"metadata":{"is":"stale"}}"#).unwrap();
    assert_eq!(place.store.head(&key("a")).await.unwrap_err().kind, StoreErrorKind::NotFound);
    assert!(place.names().await.unwrap().is_empty());
    assert_eq!(place.put("a", b"ours").await.unwrap(), PutOutcome::Created);
    assert_eq!(place.store.head(&key("a")).await.unwrap(), Head { metadata: Metadata::new(), size: 4 });
}

#[tokio::test]
async fn temporary_files_are_never_listed_and_go_after_a_day() {
    let place = Place::new().await;
    let _created = place.put("folder/a", b"x").await.unwrap();
    for (name, hours) in [("young", 23), ("old", 25)] {
        let path = place.path(&format!("folder/.tmp-{name}"));
        fs::write(&path, "half").unwrap();
        make_old(&path, Duration::from_secs(hours * 3600));
    }
    assert_eq!(place.names().await.unwrap(), ["folder/a"]);
    assert!(place.path("folder/.tmp-young").exists());
    assert!(!place.path("folder/.tmp-old").exists());
    assert!(place.store.get(&key("folder/a"), None).await.is_ok());
}

#[tokio::test]
async fn files_and_folders_are_for_their_owner_alone() {
    let place = Place::new().await;
    let _created = place.put("one/two/a", b"x").await.unwrap();
    assert_eq!(mode(&place.path("one")), 0o700);
    assert_eq!(mode(&place.path("one/two")), 0o700);
    assert_eq!(mode(&place.path("one/two/a")), 0o600);
    assert_eq!(mode(&place.path("one/two/a.meta")), 0o600);
}

#[tokio::test]
async fn symbolic_links_are_refused_and_never_followed() {
    let place = Place::new().await;
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("a"), "secret").unwrap();
    fs::write(outside.path().join("a.meta"), r#"{"size":6,"metadata":{}}"#).unwrap();
    symlink(outside.path(), place.path("folder")).unwrap();
    for error in [
        place.read("folder/a").await.unwrap_err(),
        place.store.head(&key("folder/a")).await.unwrap_err(),
        place.put("folder/b", b"x").await.unwrap_err(),
        place.store.delete(&key("folder/a")).await.unwrap_err(),
        place.names().await.unwrap_err(),
        place.store.list_folders(&Prefix::all()).await.unwrap_err(),
        place.store.list(&Prefix::new("folder/").unwrap(), None, None).await.unwrap_err(),
    ] {
        assert_eq!(error.kind, StoreErrorKind::Other, "{error}");
        assert!(error.detail.contains("symbolic link"), "{error}");
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 2);
    fs::remove_file(place.path("folder")).unwrap();
    symlink(outside.path().join("a"), place.path("a")).unwrap();
    symlink(outside.path().join("a.meta"), place.path("a.meta")).unwrap();
    assert_eq!(place.read("a").await.unwrap_err().kind, StoreErrorKind::Other);
    assert_eq!(place.put("a", b"x").await.unwrap_err().kind, StoreErrorKind::Other);
    assert_eq!(fs::read(outside.path().join("a")).unwrap(), b"secret");
}

#[tokio::test]
async fn the_root_itself_may_be_a_symbolic_link() {
    let place = Place::new().await;
    let link = place.path("link");
    fs::create_dir(place.path("real")).unwrap();
    symlink(place.path("real"), &link).unwrap();
    let store = DirStore::open(&link).await.unwrap();
    let outcome = store.put(&key("a"), Bytes::new(), &Metadata::new(), PutMode::CreateOnly).await;
    assert_eq!(outcome.unwrap(), PutOutcome::Created);
    assert!(place.path("real/a").exists());
}

#[tokio::test]
async fn a_file_of_another_size_than_was_stored_is_damage() {
    let place = Place::new().await;
    for (name, bytes) in [("cut", &b"12"[..]), ("grown", b"12345"), ("emptied", b"")] {
        let _created = place.put(name, b"1234").await.unwrap();
        fs::write(place.path(name), bytes).unwrap();
        assert_eq!(place.read(name).await.unwrap_err().kind, StoreErrorKind::Damaged, "{name}");
        assert_eq!(place.store.head(&key(name)).await.unwrap_err().kind, StoreErrorKind::Damaged, "{name}");
    }
}

#[tokio::test]
async fn unreadable_metadata_is_damage_and_not_absence() {
    let place = Place::new().await;
    let _created = place.put("a", b"1234").await.unwrap();
    let endless = format!("{{\"size\":4,\"metadata\":{{\"a\":\"{}", "x".repeat(1 << 20));
    for text in ["", "{", "[]", r#"{"size":-1,"metadata":{}}"#, r#"{"size":4}"#, &endless] {
        fs::write(place.path("a.meta"), text).unwrap();
        assert_eq!(place.read("a").await.unwrap_err().kind, StoreErrorKind::Damaged, "{text:.40}");
    }
}

#[tokio::test]
async fn a_pipe_in_the_place_of_an_object_is_an_error_at_once() {
    let place = Place::new().await;
    rustix::fs::mknodat(
        rustix::fs::CWD,
        place.path("a"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let read = tokio::time::timeout(Duration::from_secs(10), place.read("a")).await.unwrap();
    assert_eq!(read.unwrap_err().kind, StoreErrorKind::Other);
    let put = tokio::time::timeout(Duration::from_secs(10), place.put("a", b"x")).await.unwrap();
    assert_eq!(put.unwrap_err().kind, StoreErrorKind::Other);
}

#[tokio::test]
async fn a_file_in_the_way_of_a_folder_is_named() {
    let place = Place::new().await;
    let _created = place.put("a", b"x").await.unwrap();
    let error = place.put("a/b", b"x").await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Other);
    assert!(error.to_string().starts_with("could not put \"a/b\": "), "{error}");
}

#[tokio::test]
async fn an_upload_that_is_dropped_leaves_nothing() {
    let place = Place::new().await;
    let mut upload =
        place.store.begin_upload(&key("f/a"), &Metadata::new(), PutMode::CreateOnly).await.unwrap();
    upload.part(Bytes::from_static(b"half")).await.unwrap();
    drop(upload);
    assert_eq!(fs::read_dir(place.path("f")).unwrap().count(), 0);
}

#[tokio::test]
async fn names_that_are_no_keys_are_left_out_of_listings() {
    let place = Place::new().await;
    let _created = place.put("a", b"x").await.unwrap();
    for name in ["lost+found", ".hidden", "with space", "ä"] {
        fs::write(place.path(name), "").unwrap();
        fs::write(place.path(&format!("{name}.meta")), "{}").unwrap();
    }
    assert_eq!(place.names().await.unwrap(), ["a"]);
}

/// The one temporary file in a folder.
fn temporary_file(folder: &Path) -> PathBuf {
    let mut paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.find(|path| path.file_name().unwrap().to_string_lossy().starts_with(".tmp-")).unwrap()
}

#[tokio::test]
async fn an_upload_that_could_not_get_its_name_is_not_said_to_be_there() {
    let place = Place::new().await;
    let mut upload =
        place.store.begin_upload(&key("f/a"), &Metadata::new(), PutMode::CreateOnly).await.unwrap();
    upload.part(Bytes::from_static(b"whole")).await.unwrap();
    // The rename fails, as it may for want of space.
    let temporary = temporary_file(&place.path("f"));
    fs::rename(&temporary, place.path("f/elsewhere")).unwrap();
    for _ in 0..2 {
        assert!(upload.finish().await.is_err());
        assert!(place.read("f/a").await.unwrap_err().is_not_found());
    }
    fs::rename(place.path("f/elsewhere"), &temporary).unwrap();
    for _ in 0..2 {
        assert_eq!(upload.finish().await.unwrap(), PutOutcome::Created);
        assert_eq!(place.read("f/a").await.unwrap(), b"whole");
    }
}

/// What the kernel does with bytes that it could not write: the file has its length, and on the disk is
/// nothing of them.
fn lose_what_was_written(temporary: &Path) {
    let length = fs::metadata(temporary).unwrap().len();
    fs::write(temporary, vec![0; usize::try_from(length).unwrap()]).unwrap();
}

/// Tries, and once more when that fails. What the first try left is gone by then.
fn again_without_what_was_written<T>(folder: &Path, mut attempt: impl FnMut() -> Result<T, StoreError>) -> T {
    attempt().unwrap_or_else(|_| {
        lose_what_was_written(&temporary_file(folder));
        attempt().unwrap()
    })
}

#[tokio::test]
async fn what_an_fsync_failed_to_write_is_written_anew_before_it_counts() {
    for parts in [&[&b"all of it"[..]][..], &[b""], &[]] {
        let place = Place::new().await;
        let attempt = Attempt::on("put", "f/a");
        let (root, mode) = (place.dir.path(), PutMode::CreateOnly);
        let begun = write::Pending::begin(root, &key("f/a"), Metadata::new(), mode, &attempt);
        let mut pending = begun.unwrap();
        let folder = place.path("f");
        scripted::fail_next("fsync a file");
        for part in parts {
            again_without_what_was_written(&folder, || pending.write(part, &attempt));
        }
        let outcome = again_without_what_was_written(&folder, || pending.commit(&attempt));
        assert_eq!(outcome, PutOutcome::Created);
        assert_eq!(place.read("f/a").await.unwrap(), parts.concat());
    }
}

#[tokio::test]
async fn a_part_whose_fsync_failed_takes_none_of_those_before_it_along() {
    let place = Place::new().await;
    let attempt = Attempt::on("put", "f/a");
    let begun =
        write::Pending::begin(place.dir.path(), &key("f/a"), Metadata::new(), PutMode::CreateOnly, &attempt);
    let mut pending = begun.unwrap();
    pending.write(b"durable, ", &attempt).unwrap();
    scripted::fail_next("fsync a file");
    pending.write(b"lost ", &attempt).unwrap_err();
    pending.write(b"written anew", &attempt).unwrap();
    assert_eq!(pending.commit(&attempt).unwrap(), PutOutcome::Created);
    assert_eq!(place.read("f/a").await.unwrap(), b"durable, written anew");
}
