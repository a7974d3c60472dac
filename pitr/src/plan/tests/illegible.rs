//! Segments whose metadata were changed where they lie.

use walpoint_archive::store::{Metadata, PutMode};
use walpoint_wal::WalFileName;

use super::*;
use crate::plan::Nearest;
use crate::window::window;

/// Changes one value of a segment's metadata, as a disk or a hand does.
async fn alter(test: &TestArchive, number: u64, name: &str, value: &str) -> String {
    let store = test.archive.store();
    let stored = test.archive.wal_variants(&WalFileName::Segment(segment(1, number))).await.unwrap();
    let key = stored.variants[0].key();
    let mut bytes = Vec::new();
    test.archive.fetch_wal(&stored.variants[0], &mut bytes, MIB).await.unwrap();
    let body = test.archive.sealer().seal_bytes(&bytes).unwrap().bytes;
    let mut metadata: Metadata = store.head(&key).await.unwrap().metadata;
    assert!(metadata.get(name).is_some_and(|now| now != value), "{metadata:?}");
    metadata.insert(name, value).unwrap();
    let _ = store.put(&key, body, &metadata, PutMode::Overwrite).await.unwrap();
    key.to_string()
}

/// Six segments, of one run, with a commit in each at 100, 200, … and a backup before.
async fn six_commits() -> (TestArchive, Vec<Placed>) {
    let (mut wal, backup) = with_backup(3);
    let mut test = TestArchive::new().await;
    let commits = (1..=6).map(|count| {
        let commit = wal.commit(1000 + count, at_second(100 * i64::from(count)), &[]);
        wal.filler(3000);
        wal.switch();
        commit
    });
    let commits = commits.collect();
    test.push_all(&wal, |_| Some(Knows::All)).await;
    test.backup(&backup).await;
    (test, commits)
}

#[tokio::test]
async fn a_changed_highest_time_leads_to_no_later_record() {
    let (test, commits) = six_commits().await;
    assert_eq!(reach(&test, &request(time(250))).await.last_included.unwrap().lsn, commits[1].lsn);
    // The third segment's: halving would now go on behind it.
    let high = test.archive.wal_variants(&WalFileName::Segment(segment(1, 5))).await.unwrap();
    let sound = test.archive.wal_facts(&high.variants[0]).await.unwrap().run.unwrap().run_high.unwrap();
    let lowered = walpoint_wal::Timestamp(sound.0 - 100_000_000).rfc3339();
    alter(&test, 5, "run-high", &lowered).await;
    let why = refused(&test, &request(time(250))).await;
    assert!(why.reason.contains("000000010000000000000005"), "{}", why.reason);
    assert!(why.reason.contains("not what was stored"), "{}", why.reason);
    assert_eq!(why.nearest.before.unwrap().lsn, Lsn(5 * MIB));
}

#[tokio::test]
async fn what_lies_before_a_segment_that_cannot_be_read_is_reached_and_what_lies_behind_is_not() {
    for altered in [5, 6, 8] {
        let (test, commits) = six_commits().await;
        alter(&test, altered, "run-commits", "77").await;
        let plan = reach(&test, &request(time(150))).await;
        assert_eq!(plan.last_included.unwrap().lsn, commits[0].lsn, "segment {altered}");
    }
    // The last one, behind which nothing is.
    let (test, _) = six_commits().await;
    alter(&test, 8, "commits", "0").await;
    let why = refused(&test, &request(Target::Latest)).await;
    assert!(why.reason.contains(&segment(1, 8).to_string()), "{}", why.reason);
    assert_eq!(why.nearest.before.unwrap().lsn, Lsn(8 * MIB));
    assert_ne!(why.nearest, Nearest::default());
}

#[tokio::test]
async fn a_window_ends_at_a_segment_that_cannot_be_read() {
    let (test, _) = six_commits().await;
    alter(&test, 8, "end", "0/1").await;
    let shown = window(&test.archive, &test.catalog().await).await.unwrap();
    assert_eq!(shown.ranges.iter().map(|range| range.to.lsn).collect::<Vec<_>>(), [Lsn(8 * MIB)]);
    let [gap] = shown.gaps.as_slice() else { panic!("{:?}", shown.gaps) };
    assert_eq!((gap.first, gap.last), (segment(1, 8), segment(1, 8)));
    assert!(gap.reason.contains("not what was stored"), "{}", gap.reason);
}

#[tokio::test]
async fn an_archive_without_metadata_is_an_error_and_no_plan_without_end() {
    let (mut wal, backup) = with_backup(3);
    let mut test = TestArchive::new().await;
    for _ in 0..70 {
        wal.switch();
    }
    // Each begins a run of its own, so that each is looked at.
    test.push_all(&wal, |_| Some(Knows::Nothing)).await;
    test.backup(&backup).await;
    for number in 3..=72 {
        alter(&test, number, "aborts", "9").await;
    }
    let planned = plan(&test.archive, &test.catalog().await, &request(Target::Latest)).await;
    assert!(
        matches!(&planned, Err(PlanError::Archive(walpoint_archive::ArchiveError::Damaged { .. }))),
        "{planned:?}"
    );
}
