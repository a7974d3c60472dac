#![allow(clippy::unwrap_used)]

use super::*;
use std::io::Read;

/// A data directory with a `pg_control` and nothing to archive.
fn data_directory() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for folder in ["global", "pg_wal/archive_status"] {
        std::fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pg_control.zst");
    let mut control = Vec::new();
    zstd::Decoder::new(std::fs::File::open(path).unwrap()).unwrap().read_to_end(&mut control).unwrap();
    std::fs::write(root.path().join("global/pg_control"), control).unwrap();
    root
}

fn note_of(root: &Path, text: &str) -> PathBuf {
    directory(root).join(text)
}

#[test]
fn only_what_is_to_be_archived_is_found() {
    let root = data_directory();
    for text in [
        "000000010000000000000001.ready",
        "000000010000000000000002.done",
        "00000002.history.ready",
        "000000010000000000000003.00000028.backup.ready",
        "RECOVERYXLOG.ready",
        "000000010000000000000004",
    ] {
        std::fs::write(note_of(root.path(), text), "").unwrap();
    }
    let sweep = Sweep::read(root.path()).unwrap();
    let mut found: Vec<String> = sweep.ready.iter().map(ToString::to_string).collect();
    found.sort();
    assert_eq!(
        found,
        ["000000010000000000000001", "000000010000000000000003.00000028.backup", "00000002.history"]
    );
    assert_eq!(
        sweep.written_timeline,
        TimelineId::new(2),
        "the note of a promotion is there before all else"
    );
}

#[tokio::test]
async fn what_comes_and_goes_is_seen_at_once() {
    let root = data_directory();
    let mut watch = Watch::new(root.path());
    watch.renew();
    let note = note_of(root.path(), "000000010000000000000001.ready");
    let name = "000000010000000000000001".parse().unwrap();
    std::fs::write(&note, "").unwrap();
    let next = tokio::time::timeout(Duration::from_secs(5), watch.next()).await.unwrap();
    assert_eq!(next, Seen::Ready(name));
    std::fs::hard_link(&note, note.with_extension("done")).unwrap();
    std::fs::remove_file(&note).unwrap();
    let gone = async { while watch.next().await != Seen::Gone(name) {} };
    tokio::time::timeout(Duration::from_secs(5), gone).await.unwrap();
}

#[tokio::test]
async fn a_directory_that_took_its_place_is_watched_instead() {
    let root = data_directory();
    let mut watch = Watch::new(root.path());
    watch.renew();
    let path = directory(root.path());
    std::fs::create_dir(path.with_extension("new")).unwrap();
    std::fs::remove_dir(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    watch.renew();
    std::fs::write(path.join("00000002.history.ready"), "").unwrap();
    let name = "00000002.history".parse().unwrap();
    let seen = async { while watch.next().await != Seen::Ready(name) {} };
    tokio::time::timeout(Duration::from_secs(5), seen).await.unwrap();
}
