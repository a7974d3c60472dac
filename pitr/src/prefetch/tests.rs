#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

use bytes::Bytes;
use tempfile::TempDir;
use walpoint_archive::compress::CompressionLevel;
use walpoint_archive::store::dir::DirStore;
use walpoint_archive::store::faulty::{Fault, Faulty, Verb};
use walpoint_archive::store::{ObjectStore, StoreErrorKind};
use walpoint_archive::{Common, FileFacts, KeyRing, PutSource, PutWal, Sealer, WriterId};
use walpoint_wal::{SystemIdentifier, TimelineId};

use super::*;
use crate::spool::{Held, Spool};
use crate::testing::contract::forked;

const MIB: u64 = 1 << 20;
const CLUSTER: SystemIdentifier = SystemIdentifier(7);
const LIMIT: Duration = Duration::from_secs(20);

fn segment(timeline: u32, number: u64) -> SegmentName {
    let size = SegmentSize::new(MIB).unwrap();
    SegmentName::from_number(TimelineId::new(timeline).unwrap(), number, size).unwrap()
}

/// An archive, and a spool that is filled from it.
struct Stage {
    scratch: TempDir,
    faulty: Faulty,
    archive: Archive,
    prefetch: Prefetch,
}

impl Stage {
    /// Room for so many segments.
    async fn new(segments: u64, contract: Option<Contract>) -> Stage {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("archive");
        std::fs::create_dir(&root).unwrap();
        let faulty = Faulty::new(Arc::new(DirStore::open(&root).await.unwrap()));
        let store: Arc<dyn ObjectStore> = Arc::new(faulty.clone());
        let sealer = Sealer::new(CompressionLevel::default(), Arc::new(KeyRing::default()));
        let archive = Archive::new(store, CLUSTER, sealer);
        let tended = Tended::take_over(Spool::at(scratch.path(), "7")).unwrap().unwrap();
        let limits = Limits { spool: segments * MIB, at_once: 3 };
        let size = SegmentSize::new(MIB).unwrap();
        let prefetch = Prefetch::new(archive.clone(), tended, contract, size, limits);
        Stage { scratch, faulty, archive, prefetch }
    }

    async fn put(&self, timeline: u32, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            let name = segment(timeline, number);
            let bytes = content(name);
            let common = Common::new(ContentHash::of(&bytes), MIB, WriterId::random(), CLUSTER);
            let source = PutSource::Bytes(Bytes::from(bytes));
            let (name, facts) = (WalFileName::Segment(name), FileFacts::Other(common));
            let _ = self.archive.put_wal(&PutWal { name, facts, source }).await.unwrap();
        }
    }

    /// Asks for a segment, and does all that comes of it.
    async fn ask(&mut self, timeline: u32, number: u64) {
        self.prefetch.asked(segment(timeline, number), Instant::now());
        self.settle().await;
    }

    async fn settle(&mut self) {
        self.prefetch.begin_what_may(Instant::now());
        while !self.prefetch.work.is_empty() {
            tokio::time::timeout(LIMIT, self.prefetch.land()).await.unwrap();
            assert!(self.prefetch.coming.len() <= 3);
            self.prefetch.begin_what_may(Instant::now());
        }
    }

    fn held(&self) -> Vec<SegmentName> {
        self.prefetch.held.keys().copied().collect()
    }

    /// That the files are those of what is said to be held.
    fn assert_files(&self) {
        let directory = self.prefetch.tended.spool().directory();
        let mut found: Vec<String> = names(directory);
        found.retain(|name| name != "lock");
        let file = |name| format!("{name}-{}", ContentHash::of(&content(name)));
        let mut expected: Vec<String> = self.held().into_iter().map(file).collect();
        expected.sort();
        assert_eq!(found, expected);
    }

    /// Asks for a segment that is not there yet.
    async fn miss(&mut self, timeline: u32, number: u64) {
        let name = segment(timeline, number);
        if let Some((content, _)) = self.prefetch.held.remove(&name) {
            self.prefetch.tended.remove(name, content);
        }
        self.ask(timeline, number).await;
    }

    fn listed_at(&self, timeline: u32, number: u64) -> SystemTime {
        match self.prefetch.tended.spool().find(segment(timeline, number), None) {
            Some(Held::Whole(found)) => found.listed_at,
            other => panic!("{number} is not there: {other:?}"),
        }
    }

    /// As `archive-get` takes it.
    fn take(&self, timeline: u32, number: u64) {
        let Some(Held::Whole(found)) = self.prefetch.tended.spool().find(segment(timeline, number), None)
        else {
            panic!("{number} is not there");
        };
        std::fs::remove_file(found.path).unwrap();
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn content(name: SegmentName) -> Vec<u8> {
    let mut bytes = vec![0; MIB as usize];
    bytes.splice(..24, name.to_string().into_bytes());
    bytes
}

fn of(timeline: u32, numbers: impl IntoIterator<Item = u64>) -> Vec<SegmentName> {
    numbers.into_iter().map(|number| segment(timeline, number)).collect()
}

#[tokio::test]
async fn what_follows_is_there_before_it_is_asked_for_and_goes_when_it_was_passed() {
    let mut stage = Stage::new(64, None).await;
    stage.put(1, 1..=40).await;
    stage.ask(1, 1).await;
    assert_eq!(stage.held(), of(1, [2, 3]));
    stage.take(1, 2);
    stage.ask(1, 2).await;
    assert_eq!(stage.held(), of(1, [3, 4]), "what was taken makes room");
    // Nobody took it, and it was passed.
    stage.ask(1, 3).await;
    stage.ask(1, 4).await;
    assert_eq!(stage.held(), of(1, [4, 5, 6]));
    stage.assert_files();
    // Nobody could foresee that; but what follows and was not there yet doubles the depth.
    stage.ask(1, 20).await;
    assert_eq!(stage.held(), of(1, [21, 22]));
    stage.miss(1, 21).await;
    assert_eq!(stage.held(), of(1, 22..=25));
    stage.miss(1, 22).await;
    assert_eq!(stage.held(), of(1, 23..=30));
    stage.assert_files();
    let directory = stage.prefetch.tended.spool().directory().to_owned();
    stage.prefetch.end().await;
    assert!(!directory.exists() && stage.scratch.path().exists());
}

#[tokio::test]
async fn a_file_tells_when_the_archive_was_seen_to_have_it_and_that_is_seen_again_before_it_is_old() {
    let mut stage = Stage::new(64, None).await;
    stage.put(1, 1..=40).await;
    let before = clock();
    stage.ask(1, 1).await;
    assert!((before..=clock()).contains(&stage.listed_at(1, 2)));
    let listings = stage.faulty.calls(Verb::List);
    // It is the listing's time, and not that of the fetching.
    stage.prefetch.known.at = SystemTime::UNIX_EPOCH;
    stage.ask(1, 2).await;
    assert_eq!(stage.faulty.calls(Verb::List), listings, "it was seen a moment ago");
    assert_eq!(stage.listed_at(1, 4), SystemTime::UNIX_EPOCH);
    (stage.prefetch.known.began, stage.prefetch.listed_at) = (Instant::now() - KNOWN_FOR, None);
    stage.ask(1, 3).await;
    assert_eq!(stage.faulty.calls(Verb::List), listings + 1);
    assert!((before..=clock()).contains(&stage.listed_at(1, 5)));
}

#[tokio::test]
async fn the_spool_never_holds_more_than_it_may() {
    let mut stage = Stage::new(3, None).await;
    stage.put(1, 1..=40).await;
    stage.ask(1, 30).await;
    for number in 31..34 {
        stage.miss(1, number).await;
        assert!(stage.held().len() <= 3, "{:?}", stage.held());
    }
    assert_eq!(stage.held(), of(1, [34, 35, 36]));
    stage.assert_files();
    let mut none = Stage::new(0, None).await;
    none.put(1, 1..=4).await;
    none.ask(1, 1).await;
    assert!(none.held().is_empty());
}

#[tokio::test]
async fn a_hole_and_a_name_with_rivals_are_left_alone() {
    let mut stage = Stage::new(64, None).await;
    stage.put(1, [1, 2, 4, 5]).await;
    stage.ask(1, 1).await;
    assert_eq!(stage.held(), of(1, [2]), "nothing behind a hole");
    stage.put(1, [3]).await;
    stage.ask(1, 2).await;
    stage.ask(1, 3).await;
    stage.ask(1, 4).await;
    assert_eq!(stage.held().last(), Some(&segment(1, 5)), "it came later");
    let listings = stage.faulty.calls(Verb::List);
    for _ in 0..10 {
        stage.settle().await;
    }
    assert_eq!(stage.faulty.calls(Verb::List), listings, "nobody asked for anything");
}

#[tokio::test]
async fn another_timeline_is_followed_and_what_was_fetched_of_the_first_goes() {
    let mut stage = Stage::new(64, None).await;
    stage.put(1, 1..=10).await;
    stage.put(2, 5..=10).await;
    stage.ask(1, 4).await;
    assert_eq!(stage.held(), of(1, [5, 6]));
    stage.ask(2, 5).await;
    assert_eq!(stage.held(), of(2, [6, 7]));
    stage.assert_files();
    // A server that starts again goes back, and on from there.
    stage.ask(1, 4).await;
    assert!(stage.held().is_empty());
    stage.ask(1, 5).await;
    assert_eq!(stage.held().first(), Some(&segment(1, 6)));
}

#[tokio::test]
async fn one_who_goes_backwards_has_nothing_fetched_ahead() {
    let mut stage = Stage::new(64, None).await;
    stage.put(1, 1..=10).await;
    stage.ask(1, 5).await;
    let gets = stage.faulty.calls(Verb::Get);
    for number in [4, 3, 2] {
        stage.ask(1, number).await;
    }
    assert_eq!(stage.faulty.calls(Verb::Get), gets);
}

#[tokio::test]
async fn a_damaged_object_is_fetched_once_and_what_follows_it_all_the_same() {
    let mut stage = Stage::new(64, None).await;
    stage.put(1, 1..=10).await;
    let damaged = stage.archive.segments_after(&segment(1, 2), 1000).await.unwrap();
    let key = &damaged.get(&segment(1, 3)).unwrap().key();
    std::fs::write(stage.scratch.path().join("archive").join(key.as_str()), b"rubbish").unwrap();
    stage.ask(1, 1).await;
    assert_eq!(stage.held(), of(1, [2]));
    let gets = stage.faulty.calls(Verb::Get);
    stage.ask(1, 2).await;
    assert_eq!(stage.held(), of(1, [2, 4]));
    assert_eq!(stage.faulty.calls(Verb::Get), gets + 1);
}

#[tokio::test]
async fn nothing_is_fetched_that_the_contract_does_not_need() {
    let mut stage = Stage::new(64, Some(forked(CLUSTER))).await;
    stage.put(1, 1..=20).await;
    stage.put(2, 8..=20).await;
    stage.ask(1, 5).await;
    assert_eq!(stage.held(), of(1, [6, 7]));
    stage.ask(1, 7).await;
    assert_eq!(stage.held(), of(1, [7]), "the fork's segment is the child's");
    stage.ask(2, 8).await;
    assert_eq!(stage.held(), of(2, [9, 10]));
    stage.ask(2, 10).await;
    assert_eq!(stage.held(), of(2, [10]));
}

#[tokio::test]
async fn what_fails_leaves_nothing_and_is_left_alone_for_a_while() {
    for (verb, fault) in [
        (Verb::List, Fault::Before(StoreErrorKind::Transient)),
        (Verb::Get, Fault::Before(StoreErrorKind::NotFound)),
        (Verb::Get, Fault::Before(StoreErrorKind::Transient)),
    ] {
        let mut stage = Stage::new(64, None).await;
        stage.put(1, 1..=10).await;
        stage.faulty.fail_every(verb, Some(fault));
        stage.ask(1, 1).await;
        assert!(stage.held().is_empty());
        stage.assert_files();
        stage.faulty.fail_every(verb, None);
        let calls = |stage: &Stage| stage.faulty.calls(Verb::List) + stage.faulty.calls(Verb::Get);
        let before = calls(&stage);
        stage.ask(1, 2).await;
        assert_eq!(calls(&stage), before, "it does not rest");
        stage.prefetch.rests_until = Some(Instant::now());
        stage.settle().await;
        assert!(!stage.held().is_empty(), "it rests for ever");
    }
}

#[tokio::test]
async fn a_spool_that_cannot_be_written_to_is_left_alone() {
    let mut stage = Stage::new(64, None).await;
    stage.put(1, 1..=10).await;
    let directory = stage.prefetch.tended.spool().directory().to_owned();
    std::fs::remove_file(directory.join("lock")).unwrap();
    std::fs::remove_dir(&directory).unwrap();
    stage.ask(1, 1).await;
    assert!(stage.held().is_empty() && !directory.exists());
}
