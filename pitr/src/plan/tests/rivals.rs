//! Segments for which two contents came, and the operator decided: what was archived behind
//! them may continue the content that was refused.

use walpoint_archive::ContentId;
use walpoint_wal::SegmentName;

use super::*;
use crate::decided::apart_beside;
use crate::window::window;

/// A cluster's WAL and a clone's, which part at the end of segment 4.
struct Twins {
    own: WalWriter,
    clone: WalWriter,
    backup: BackupSummary,
}

fn twins() -> Twins {
    let (mut own, backup) = with_backup(3);
    own.switch();
    own.commit(1004, at_second(40), &[]);
    own.switch();
    Twins { clone: own.clone(), own, backup }
}

fn bytes_of(wal: &WalWriter, number: u64) -> (SegmentName, Vec<u8>) {
    let found = wal.segments().find(|(name, _)| *name == segment(1, number));
    found.map(|(name, bytes)| (name, bytes.to_vec())).unwrap()
}

/// An archive that the clone was faster to, and where the operator decided for the cluster's
/// own segment 5 when all was there.
async fn decided_for_own(twins: &Twins) -> TestArchive {
    let mut test = TestArchive::new().await;
    test.push_all(&twins.clone, |_| Some(Knows::All)).await;
    test.backup(&twins.backup).await;
    let kept = refused_push(&mut test, &twins.own, 5).await;
    test.archive.resolve(&walpoint_wal::WalFileName::Segment(segment(1, 5)), kept).await.unwrap();
    test
}

async fn refused_push(test: &mut TestArchive, wal: &WalWriter, number: u64) -> ContentId {
    let (name, bytes) = bytes_of(wal, number);
    test.push_refused(name, bytes).await
}

#[tokio::test]
async fn wal_of_the_content_that_was_refused_is_not_planned_across() {
    let mut twins = twins();
    for number in 5..=7 {
        twins.clone.commit(2000 + number, at_second(10 * i64::from(number)), &[]);
        twins.clone.switch();
    }
    twins.own.filler(5000);
    let last = twins.own.commit(3005, at_second(51), &[]);
    twins.own.switch();
    let test = decided_for_own(&twins).await;
    assert_eq!(reach(&test, &request(Target::Xid(3005))).await.last_record, last.lsn);
    for target in [Target::Latest, Target::Xid(2006), Target::Lsn(Lsn(6 * MIB + 50)), time(65)] {
        let why = refused(&test, &request(target.clone())).await;
        assert!(
            why.reason.contains(&format!("segment {} does not continue the one before it", segment(1, 6))),
            "{target}: {}",
            why.reason
        );
        assert!(why.hint.is_some_and(|hint| hint.contains("walpoint list --wal")), "{target}");
        assert_eq!(why.nearest.before.map(|it| it.lsn), Some(Lsn(6 * MIB)), "{target}");
    }
    let window = window(&test.archive, &test.catalog().await).await.unwrap();
    assert_eq!(window.ranges.iter().map(|range| range.to.lsn).collect::<Vec<_>>(), [Lsn(6 * MIB)]);
    assert_eq!(window.gaps.iter().map(|gap| gap.first).collect::<Vec<_>>(), [segment(1, 6)]);
    // Whoever decides is told.
    let apart = apart_beside(&test.archive, &test.catalog().await, segment(1, 5)).await.unwrap();
    assert_eq!(apart.iter().map(|it| it.segment).collect::<Vec<_>>(), [segment(1, 6)]);
    assert!(apart[0].reason.contains("does not continue the one before it"), "{apart:?}");
}

#[tokio::test]
async fn a_record_that_begins_in_one_content_and_ends_in_the_others_follower_is_no_record() {
    let mut twins = twins();
    // They differ in what comes last, behind the border.
    for (wal, second, last) in [(&mut twins.clone, 50, 6001), (&mut twins.own, 51, 6002)] {
        let subxids: Vec<u32> = (3001..5000).chain([last]).collect();
        wal.fill_until(6 * MIB);
        let spanning = wal.commit(3000, at_second(second), &subxids);
        assert!(spanning.lsn.0 < 6 * MIB && spanning.end.0 > 6 * MIB);
        wal.commit(5001, at_second(60), &[]);
    }
    // By their addresses alone the two cannot be told apart.
    assert_eq!(twins.own.end(), twins.clone.end());
    let test = decided_for_own(&twins).await;
    let why = refused(&test, &request(Target::Latest)).await;
    assert!(why.reason.contains("does not continue the one before it"), "{}", why.reason);
    refused(&test, &request(Target::Xid(5001))).await;
    let catalog = test.catalog().await;
    let sealed = plan_to_segment(&test.archive, &catalog, &request(Target::Latest)).await;
    assert!(matches!(sealed, Err(PlanError::NeedsKey { .. })), "{sealed:?}");
}

#[tokio::test]
async fn what_metadata_count_of_the_refused_content_is_not_counted() {
    let mut twins = twins();
    for (wal, xid, second) in [(&mut twins.clone, 2005, 900), (&mut twins.own, 3005, 50)] {
        wal.commit(xid, at_second(second), &[]);
        wal.switch();
        wal.filler(100);
        wal.switch();
        wal.commit(xid + 2, at_second(100), &[]);
        wal.switch();
        wal.commit(xid + 3, at_second(200), &[]);
    }
    let test = decided_for_own(&twins).await;
    // The clone's segments fit by their addresses, so PostgreSQL replays them.
    for (second, included, excluded) in
        [(45, 1004, Some(3005)), (70, 3005, Some(2007)), (150, 2007, Some(2008)), (200, 2008, None)]
    {
        let plan = reach(&test, &request(time(second))).await;
        assert_eq!(
            (plan.last_included.map(|it| it.xid), plan.first_excluded.map(|it| it.xid)),
            (Some(included), excluded),
            "{second}"
        );
    }
    let why = refused(&test, &request(time(201))).await;
    assert_eq!(why.nearest.before.and_then(|it| it.time), Some(at_second(200)));
    refused(&test, &request(Target::Xid(2005))).await;
}

#[tokio::test]
async fn a_clock_set_back_behind_a_decided_segment_is_noticed() {
    let mut twins = twins();
    for (wal, second) in [(&mut twins.clone, 50), (&mut twins.own, 300)] {
        wal.commit(3005, at_second(second), &[]);
        wal.switch();
        wal.filler(100);
        wal.switch();
        wal.commit(3007, at_second(100), &[]);
    }
    let test = decided_for_own(&twins).await;
    let why = refused(&test, &request(time(200))).await;
    assert!(why.reason.contains("came twice"), "{}", why.reason);
}

#[tokio::test]
async fn a_refused_rival_alone_changes_no_plan() {
    for knows in [Knows::All, Knows::Metadata, Knows::Nothing] {
        let mut twins = twins();
        let subxids: Vec<u32> = (3001..5001).collect();
        twins.clone.commit(2005, at_second(44), &[]);
        twins.clone.switch();
        twins.own.fill_until(6 * MIB);
        let spanning = twins.own.commit(3000, at_second(50), &subxids);
        let last = twins.own.commit(5001, at_second(60), &[]);
        let mut test = TestArchive::new().await;
        test.push_all(&twins.own, |_| Some(knows)).await;
        test.backup(&twins.backup).await;
        refused_push(&mut test, &twins.clone, 5).await;
        let plan = reach(&test, &request(Target::Latest)).await;
        assert_eq!((plan.last_record, plan.segments.count), (last.lsn, 4), "{knows:?}");
        assert_eq!(reach(&test, &request(time(55))).await.last_record, spanning.lsn);
        let apart = apart_beside(&test.archive, &test.catalog().await, segment(1, 5)).await.unwrap();
        assert_eq!(apart, []);
    }
}
