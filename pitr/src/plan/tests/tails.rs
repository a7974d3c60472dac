//! The segment that was being written, and times after which nothing came.

use super::*;
use crate::window::window;
use walpoint_archive::{IdleProof, WriterId};

/// Two whole segments, and of the third the beginning: as far as its last commit.
async fn with_tail() -> (TestArchive, WalWriter, [Placed; 3]) {
    let (mut wal, backup) = with_backup(3);
    wal.commit(1500, at_second(100), &[]);
    wal.switch();
    wal.filler(1000);
    wal.switch();
    let commits = [200, 300, 400].map(|second| wal.commit(1600, at_second(second), &[]));
    let mut test = TestArchive::new().await;
    test.push_all(&wal, |number| (number < 5).then_some(Knows::All)).await;
    let (name, bytes) = wal.segments().last().unwrap();
    let end = (commits[1].end.0 % MIB) as usize;
    let bytes = bytes.to_vec();
    test.ship(name, &bytes, Knows::All, &[60, end]).await;
    test.backup(&backup).await;
    (test, wal, commits)
}

fn proof(timeline: u32, flush_lsn: Lsn, second: i64) -> IdleProof {
    IdleProof { timeline: tli(timeline), flush_lsn, time: at_second(second), writer: WriterId::random() }
}

#[tokio::test]
async fn latest_is_the_last_record_of_the_tail() {
    let (test, _, commits) = with_tail().await;
    let plan = reach(&test, &request(Target::Latest)).await;
    assert_eq!((plan.last_record, plan.last_record_end), (commits[1].lsn, commits[1].end));
    assert_eq!((plan.segments.last, plan.segments.count), (segment(1, 5), 3));
    assert!(plan.notes.iter().any(|note| note.contains("while it was being written")), "{:?}", plan.notes);
    // What was not shipped is not there; what was can be reached to the record.
    refused(&test, &request(Target::Lsn(commits[2].end))).await;
    assert_eq!(reach(&test, &request(time(250))).await.last_record, commits[0].lsn);
    let window = window(&test.archive, &test.catalog().await).await.unwrap();
    let to = window.ranges.last().unwrap().to;
    assert_eq!((to.lsn, to.time), (commits[1].end, Some(at_second(300))));
    assert_eq!(window.gaps, []);
}

#[tokio::test]
async fn a_time_after_the_last_record_is_reached_only_as_far_as_idleness_is_proven() {
    let (test, _, commits) = with_tail().await;
    let why = refused(&test, &request(time(350))).await;
    assert!(why.hint.unwrap().contains("--latest"));
    test.archive.put_idle(&proof(1, commits[1].end, 380)).await.unwrap();
    for second in [301, 350, 380] {
        assert_eq!(reach(&test, &request(time(second))).await.last_record, commits[1].lsn, "{second}");
    }
    refused(&test, &request(time(381))).await;
    let window = window(&test.archive, &test.catalog().await).await.unwrap();
    assert_eq!(window.ranges.last().unwrap().to.time, Some(at_second(380)));
}

#[tokio::test]
async fn a_proof_that_speaks_of_wal_the_archive_lacks_proves_nothing() {
    let (test, _, commits) = with_tail().await;
    test.archive.put_idle(&proof(1, commits[2].end, 450)).await.unwrap();
    refused(&test, &request(time(420))).await;
}

#[tokio::test]
async fn a_parents_proof_says_nothing_of_its_child() {
    let (test, _, commits) = with_tail().await;
    let mut test = test;
    test.history(2, &[(1, commits[1].end.0)]).await;
    test.archive.put_idle(&proof(1, commits[1].end, 380)).await.unwrap();
    let on =
        |timeline| TargetRequest { timeline: TargetTimeline::Number(tli(timeline)), ..request(time(350)) };
    assert_eq!(reach(&test, &on(1)).await.last_record, commits[1].lsn);
    refused(&test, &on(2)).await;
}

#[tokio::test]
async fn two_tails_with_different_bytes_are_a_gap_and_what_lies_before_is_reached() {
    let (mut test, wal, commits) = with_tail().await;
    let (name, bytes) = wal.segments().last().unwrap();
    let mut other = bytes.to_vec();
    other[(commits[0].lsn.0 % MIB) as usize + 30] ^= 1;
    test.ship(name, &other, Knows::All, &[(commits[0].end.0 % MIB) as usize]).await;
    let why = refused(&test, &request(Target::Latest)).await;
    assert!(why.reason.contains(&name.to_string()), "{}", why.reason);
    assert_eq!(why.nearest.before.unwrap().lsn, Lsn(5 * MIB));
    assert_eq!(reach(&test, &request(time(100))).await.last_included.map(|it| it.xid), Some(1500));
}

/// Whoever shipped it knew only the metadata of what came before, not the record that goes on in it.
#[tokio::test]
async fn a_tail_that_ends_in_a_record_from_before_leaves_what_lies_before_that_record() {
    for knows in [Knows::All, Knows::Metadata] {
        let (mut wal, backup) = with_backup(3);
        let commit = wal.commit(1500, at_second(100), &[]);
        wal.filler(2_300_000);
        let mut test = TestArchive::new().await;
        test.push_all(&wal, |number| (number < 5).then_some(knows)).await;
        let (name, bytes) = wal.segments().last().unwrap();
        let bytes = bytes.to_vec();
        test.ship(name, &bytes, knows, &[8192, 32768]).await;
        test.backup(&backup).await;
        let plan = reach(&test, &request(Target::Latest)).await;
        assert_eq!((plan.last_record, plan.last_record_end), (commit.lsn, commit.end), "{knows:?}");
    }
}

/// What was archived behind the tail knows the times of all that was in the tail's segment.
#[tokio::test]
async fn a_time_in_a_tail_is_reached_also_when_later_wal_knows_that_it_came() {
    for ends in [None, Some(500)] {
        let (mut wal, backup) = with_backup(3);
        let commit = wal.commit(1500, at_second(100), &[]);
        wal.filler(2_300_000);
        if let Some(second) = ends {
            wal.commit(1501, at_second(second), &[]);
        }
        let mut test = TestArchive::new().await;
        let first = wal.segments().next().map(|(name, bytes)| (name, bytes.to_vec())).unwrap();
        test.ship(first.0, &first.1, Knows::All, &[(commit.end.0 % MIB) as usize]).await;
        test.push_all(&wal, |number| (number > 3).then_some(Knows::All)).await;
        test.backup(&backup).await;
        assert_eq!(reach(&test, &request(time(100))).await.last_record, commit.lsn, "{ends:?}");
    }
}
