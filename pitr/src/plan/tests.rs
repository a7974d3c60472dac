#![allow(clippy::unwrap_used, clippy::panic)]
//! Plans on archives of real WAL: one promise a test.

use walpoint_archive::BackupSummary;
use walpoint_wal::{Lsn, Timestamp};

mod clocks;
mod copies;
mod edges;
mod failover;
mod illegible;
mod minimal;
mod oracle;
mod replay;
mod requests;
mod rivals;
mod tails;
mod to_segment;
mod unreadable;

use super::*;
use crate::target::{Target, TargetRequest, TargetTimeline};
use crate::testing::archive::{Knows, TestArchive};
use crate::testing::wal::{Placed, WalWriter};
use crate::testing::{MIB, SYSTEM, at_second, backup, segment, size, tli};

fn request(target: Target) -> TargetRequest {
    TargetRequest { target, exclusive: false, timeline: TargetTimeline::Latest, backup: None }
}

async fn ask(test: &TestArchive, request: &TargetRequest) -> PlanOutcome {
    plan(&test.archive, &test.catalog().await, request).await.unwrap()
}

async fn reach(test: &TestArchive, request: &TargetRequest) -> RecoveryPlan {
    match ask(test, request).await {
        PlanOutcome::Reachable(plan) => *plan,
        PlanOutcome::Unreachable(why) => panic!("{why:?}"),
    }
}

async fn refused(test: &TestArchive, request: &TargetRequest) -> Unreachable {
    match ask(test, request).await {
        PlanOutcome::Reachable(plan) => panic!("{plan:?}"),
        PlanOutcome::Unreachable(why) => why,
    }
}

fn time(second: i64) -> Target {
    Target::Time(at_second(second))
}

/// WAL that begins with a backup which ends at second 10.
fn with_backup(first: u64) -> (WalWriter, BackupSummary) {
    let mut wal = WalWriter::new(size(), SYSTEM, first);
    let start = wal.filler(100).lsn;
    wal.checkpoint(start, at_second(5), 1000);
    wal.commit(1000, at_second(6), &[]);
    let stop = wal.backup_end(start).end;
    (wal, backup(1, 1, start, stop, at_second(10)))
}

/// A cluster with three commits, at seconds 100, 200 and 300, and a record behind each.
async fn three_commits() -> (TestArchive, [Placed; 3], Placed) {
    let (mut wal, backup) = with_backup(3);
    let mut test = TestArchive::new().await;
    let commits = [100, 200, 300].map(|second| {
        let commit = wal.commit(1000 + second, at_second(i64::from(second)), &[]);
        wal.filler(3000);
        wal.switch();
        commit
    });
    let last = wal.checkpoint(commits[2].lsn, at_second(400), 1400);
    test.push_all(&wal, |_| Some(Knows::All)).await;
    test.backup(&backup).await;
    (test, commits, last)
}

#[tokio::test]
async fn a_time_stops_before_the_first_later_commit() {
    let (test, commits, _) = three_commits().await;
    let plan = reach(&test, &request(time(250))).await;
    assert_eq!(plan.last_included.map(|it| (it.xid, it.lsn)), Some((1200, commits[1].lsn)));
    assert_eq!(plan.first_excluded.map(|it| (it.xid, it.lsn)), Some((1300, commits[2].lsn)));
    // The switch that closes the segment is the last record before the third commit.
    assert_eq!(plan.last_record_end, Lsn(5 * MIB));
    assert!(plan.last_record > commits[1].lsn);
    assert_eq!(
        (plan.segments.first, plan.segments.last, plan.segments.count),
        (segment(1, 3), segment(1, 4), 2)
    );
    assert_eq!((plan.timeline, plan.record_timeline), (tli(1), tli(1)));
    assert!(plan.segments.bytes > 0 && plan.bytes_to_fetch > plan.segments.bytes);
}

#[tokio::test]
async fn at_the_very_time_of_a_commit_exclusive_leaves_it_out() {
    let (test, commits, _) = three_commits().await;
    let plan = reach(&test, &request(time(200))).await;
    assert_eq!(plan.last_included.map(|it| it.lsn), Some(commits[1].lsn));
    let plan = reach(&test, &TargetRequest { exclusive: true, ..request(time(200)) }).await;
    assert_eq!(plan.last_included.map(|it| it.lsn), Some(commits[0].lsn));
    assert_eq!(plan.first_excluded.map(|it| it.lsn), Some(commits[1].lsn));
}

#[tokio::test]
async fn a_time_that_only_a_checkpoint_proves_to_have_come_leaves_nothing_out() {
    let (test, commits, last) = three_commits().await;
    let plan = reach(&test, &request(time(400))).await;
    assert_eq!((plan.last_record, plan.last_record_end), (last.lsn, last.end));
    assert_eq!(plan.last_included.map(|it| it.lsn), Some(commits[2].lsn));
    assert_eq!(plan.first_excluded, None);
}

#[tokio::test]
async fn a_time_after_all_that_is_known_is_not_reachable_and_latest_is_the_hint() {
    let (test, _, last) = three_commits().await;
    let why = refused(&test, &request(time(401))).await;
    assert!(why.reason.contains("cannot tell whether anything was committed after it"), "{}", why.reason);
    assert!(why.hint.unwrap().contains("--latest"));
    let before = why.nearest.before.unwrap();
    assert_eq!((before.lsn, before.time, why.nearest.after), (last.end, Some(at_second(400)), None));
    // What it offers can be had, both ways.
    let plan = reach(&test, &request(Target::Lsn(before.lsn))).await;
    assert_eq!(plan.last_record, last.lsn);
    assert_eq!(reach(&test, &request(Target::Time(before.time.unwrap()))).await.last_record, last.lsn);
}

#[tokio::test]
async fn a_time_before_the_first_backups_end_is_not_reachable_and_that_end_is() {
    let (test, _, _) = three_commits().await;
    let stop = test.catalog().await.backups[0].stop;
    for second in [-1000, 0, 6, 9] {
        let why = refused(&test, &request(time(second))).await;
        let nearest = why.nearest;
        assert_eq!(
            (nearest.before, nearest.after),
            (None, Some(Moment { lsn: stop.lsn, time: Some(stop.time) })),
            "{second}"
        );
    }
    let plan = reach(&test, &request(Target::Time(stop.time))).await;
    assert_eq!(plan.last_record_end, stop.lsn);
    let plan = reach(&test, &request(Target::Lsn(stop.lsn))).await;
    assert_eq!(plan.first_excluded.map(|it| it.xid), Some(1200));
}

#[tokio::test]
async fn right_after_the_backup_with_no_commit_since_is_reachable() {
    let (test, _, _) = three_commits().await;
    let plan = reach(&test, &request(time(50))).await;
    assert_eq!(plan.last_included.map(|it| it.xid), Some(1000));
    assert_eq!(plan.first_excluded.map(|it| it.xid), Some(1100));
    assert_eq!(plan.last_record_end, plan.backup.stop.lsn);
}

#[tokio::test]
async fn a_prepared_transaction_between_the_last_commit_and_the_target_survives() {
    let (mut wal, mut backup) = with_backup(3);
    backup.settings.max_prepared_xacts = 5;
    wal.prepare(2000, "gone", at_second(90));
    wal.commit(2001, at_second(100), &[]);
    wal.commit_prepared(2000, at_second(110));
    let prepare = wal.prepare(2002, "stays", at_second(120));
    let later = wal.commit(2003, at_second(300), &[]);
    let mut test = TestArchive::new().await;
    test.push_all(&wal, |_| Some(Knows::All)).await;
    test.backup(&backup).await;
    let plan = reach(&test, &request(time(200))).await;
    assert_eq!((plan.last_record, plan.last_record_end), (prepare.lsn, later.lsn));
    let open: Vec<_> = plan.prepared_open.iter().map(|it| (it.xid, it.gid.as_deref(), it.lsn)).collect();
    assert_eq!(open, [(2002, Some("stays"), prepare.lsn)]);
    assert_eq!(plan.last_included.map(|it| it.xid), Some(2000));
    assert!(plan.notes.iter().any(|note| note.contains("prepared before")), "{:?}", plan.notes);
}

#[tokio::test]
async fn a_rollback_stops_a_time_target_too_and_is_no_commit() {
    let (mut wal, backup) = with_backup(3);
    let commit = wal.commit(2001, at_second(100), &[]);
    let abort = wal.abort(2002, at_second(200), &[]);
    let next = wal.commit(2003, at_second(300), &[]);
    let mut test = TestArchive::new().await;
    test.push_all(&wal, |_| Some(Knows::All)).await;
    test.backup(&backup).await;
    let plan = reach(&test, &request(time(150))).await;
    assert_eq!((plan.last_record, plan.last_record_end), (commit.lsn, abort.lsn));
    assert_eq!(plan.first_excluded.map(|it| it.lsn), Some(next.lsn));
    let plan = reach(&test, &request(time(250))).await;
    assert_eq!(plan.last_record, abort.lsn);
    assert_eq!(plan.last_included.map(|it| it.lsn), Some(commit.lsn));
}

#[tokio::test]
async fn lsn_targets_follow_postgresql_to_the_byte() {
    let (mut wal, backup) = with_backup(3);
    let first = wal.filler(500);
    let second = wal.filler(MIB as usize + 40_000);
    let third = wal.filler(8);
    let mut test = TestArchive::new().await;
    test.push_all(&wal, |_| Some(Knows::All)).await;
    test.backup(&backup).await;
    let at = |lsn: u64, exclusive| TargetRequest { exclusive, ..request(Target::Lsn(Lsn(lsn))) };
    for (lsn, inclusive, exclusive) in [
        (first.lsn.0, first, None),
        (first.lsn.0 + 1, second, Some(first)),
        (second.lsn.0, second, Some(first)),
        (second.lsn.0 + 1, third, Some(second)),
        (second.lsn.0 + MIB, third, Some(second)),
        (third.lsn.0, third, Some(second)),
        (third.end.0, third, Some(third)),
    ] {
        let plan = reach(&test, &at(lsn, false)).await;
        assert_eq!((plan.last_record, plan.last_record_end), (inclusive.lsn, inclusive.end), "{}", Lsn(lsn));
        let plan = reach(&test, &at(lsn, true)).await;
        let expected = exclusive.map_or(backup.stop.lsn, |it: Placed| it.end);
        assert_eq!(plan.last_record_end, expected, "{} exclusive", Lsn(lsn));
    }
    for lsn in [third.end.0 + 1, third.end.0 + 100 * MIB, u64::MAX] {
        let why = refused(&test, &at(lsn, false)).await;
        assert_eq!(why.nearest.before.map(|it| it.lsn), Some(third.end));
        refused(&test, &at(lsn, true)).await;
    }
    let why = refused(&test, &at(0, false)).await;
    assert_eq!(why.nearest.after.map(|it| it.lsn), Some(backup.stop.lsn));
}

#[tokio::test]
async fn transactions_are_found_by_either_number_and_by_a_subtransactions() {
    let (mut wal, mut backup) = with_backup(3);
    let epoch = 5_u64 << 32;
    backup.next_xid = epoch + 1000;
    let commit = wal.commit(1500, at_second(100), &[1501, 1502]);
    wal.switch();
    let abort = wal.abort(1503, at_second(110), &[]);
    let mut test = TestArchive::new().await;
    test.push_all(&wal, |_| Some(Knows::All)).await;
    test.backup(&backup).await;
    for xid in [1500, 1502, epoch + 1500, epoch + 1501] {
        let plan = reach(&test, &request(Target::Xid(xid))).await;
        assert_eq!(plan.last_record, commit.lsn, "{xid}");
        assert_eq!(plan.last_included.map(|it| it.xid), Some(1500));
    }
    assert_eq!(reach(&test, &request(Target::Xid(1503))).await.last_record, abort.lsn);
    let exclusive = TargetRequest { exclusive: true, ..request(Target::Xid(1500)) };
    let plan = reach(&test, &exclusive).await;
    assert_eq!((plan.last_record_end, plan.first_excluded.map(|it| it.xid)), (commit.lsn, Some(1500)));
    for missing in [1504, epoch + 1504, 1500 + (4 << 32), 1500 + (6 << 32)] {
        let why = refused(&test, &request(Target::Xid(missing))).await;
        assert!(why.reason.contains("no commit or rollback"), "{}", why.reason);
    }
}

#[tokio::test]
async fn a_number_or_a_name_that_came_twice_is_not_chosen() {
    let (mut wal, backup) = with_backup(3);
    let points = [1, 2].map(|turn| {
        let point = wal.restore_point("before the migration", at_second(100 * turn));
        wal.commit(1500, at_second(100 * turn + 1), &[]);
        wal.switch();
        point
    });
    wal.restore_point("only once", at_second(500));
    let mut test = TestArchive::new().await;
    test.push_all(&wal, |_| Some(Knows::All)).await;
    test.backup(&backup).await;
    let why = refused(&test, &request(Target::Name("before the migration".to_owned()))).await;
    assert_eq!(why.candidates.iter().map(|it| it.lsn).collect::<Vec<_>>(), points.map(|it| it.lsn));
    let why = refused(&test, &request(Target::Xid(1500))).await;
    assert_eq!(why.candidates.iter().map(|it| it.xid).collect::<Vec<_>>(), [Some(1500), Some(1500)]);
    reach(&test, &request(Target::Name("only once".to_owned()))).await;
    refused(&test, &request(Target::Name("only".to_owned()))).await;
}

#[tokio::test]
async fn more_restore_points_than_metadata_can_list_are_all_found() {
    let (mut wal, backup) = with_backup(3);
    let points: Vec<_> =
        (0..40).map(|n| wal.restore_point(&format!("Stufe é {n}"), at_second(100 + n))).collect();
    wal.commit(1500, at_second(300), &[]);
    let mut test = TestArchive::new().await;
    test.push_all(&wal, |_| Some(Knows::All)).await;
    test.backup(&backup).await;
    for n in [0, 7, 8, 39] {
        let plan = reach(&test, &request(Target::Name(format!("Stufe é {n}")))).await;
        assert_eq!(plan.last_record, points[n].lsn);
    }
}

#[tokio::test]
async fn immediate_ends_with_the_backup_and_latest_with_the_wal() {
    let (test, _, last) = three_commits().await;
    let plan = reach(&test, &request(Target::Immediate)).await;
    assert_eq!(plan.last_record_end, plan.backup.stop.lsn);
    let plan = reach(&test, &request(Target::Latest)).await;
    assert_eq!(plan.last_record, last.lsn);
    assert!(plan.notes.is_empty() && plan.warnings.is_empty());
}

#[tokio::test]
async fn the_newest_backup_that_ended_in_time_serves_unless_one_is_asked_for() {
    let (mut wal, first) = with_backup(3);
    wal.switch();
    let early = wal.commit(1500, at_second(100), &[]);
    wal.switch();
    let start = wal.checkpoint(wal.end(), at_second(200), 1600).lsn;
    let stop = wal.backup_end(start).end;
    let second = backup(2, 1, start, stop, at_second(210));
    let late = wal.commit(1600, at_second(300), &[]);
    let mut test = TestArchive::new().await;
    test.push_all(&wal, |_| Some(Knows::All)).await;
    test.backup(&first).await;
    test.backup(&second).await;
    let plan = reach(&test, &request(Target::Xid(1600))).await;
    assert_eq!((&plan.backup.id, plan.last_record, plan.segments.count), (&second.id, late.lsn, 1));
    let asked = TargetRequest { backup: Some(first.id.clone()), ..request(Target::Xid(1600)) };
    let plan = reach(&test, &asked).await;
    assert_eq!((&plan.backup.id, plan.segments.count), (&first.id, 3));
    let plan = reach(&test, &request(Target::Xid(1500))).await;
    assert_eq!((&plan.backup.id, plan.last_record), (&first.id, early.lsn));
    let asked = TargetRequest { backup: Some(second.id.clone()), ..request(Target::Xid(1500)) };
    let why = refused(&test, &asked).await;
    assert_eq!(why.nearest.after.map(|it| it.lsn), Some(stop));
    let unknown = TargetRequest { backup: Some("20200101T000000Z-full-000000".parse().unwrap()), ..asked };
    let error = plan_error(&test, &unknown).await;
    assert!(matches!(error, PlanError::UnknownBackup { .. }), "{error}");
}

async fn plan_error(test: &TestArchive, request: &TargetRequest) -> PlanError {
    plan(&test.archive, &test.catalog().await, request).await.unwrap_err()
}

#[tokio::test]
async fn timelines_that_nothing_names_are_wrong_usage() {
    let (test, _, _) = three_commits().await;
    let request = TargetRequest { timeline: TargetTimeline::Number(tli(2)), ..request(Target::Latest) };
    let error = plan_error(&test, &request).await;
    assert!(error.to_string().contains("it knows 1"), "{error}");
}
